"""The lock is seen from outside, rates are those of the part files, and what is projected follows. No figure is asserted."""

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.host_rate import __main__ as host_rate
from benchmarks.host_rate import gil
from benchmarks.host_rate.drawn_files import draw_files
from benchmarks.host_rate.gil import GilNotFound, GilPlace, GilWatch
from benchmarks.host_rate.parts import measure as measure_parts
from benchmarks.host_rate.watching import Process, RunFailed, evaluate, watch_run
from mribatch.pipeline.output.layout import PART_ROWS

READY = "print('ready', flush=True)\n"


@pytest.mark.parametrize(
    ("script", "least", "most"),
    [
        ("while True: pass", 0.95, 1.0),
        ("import time\nwhile True: time.sleep(0.01)", 0.0, 0.2),
        ("import hashlib\nblock = bytes(1 << 24)\nwhile True: hashlib.sha256(block)", 0.0, 0.2),
    ],
    ids=["computes", "sleeps", "hashes without the lock"],
)
def test_the_lock_of_another_process_is_seen(script: str, least: float, most: float) -> None:
    child = subprocess.Popen([sys.executable, "-c", READY + script], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        with GilWatch(GilPlace.find(), child.pid) as watch:
            while watch.counts()[0] < 100:
                time.sleep(0.01)
            readings, held = watch.counts()
    finally:
        child.kill()
        child.communicate()
    assert least <= held / readings <= most


def test_the_lock_is_found_where_its_mark_also_stands_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process whose heap begins behind the interpreter's state and keeps the number of an earlier search."""
    read = gil._read_own
    stale = struct.pack("=QQi4xQ", gil._MARKS_US[0], 1, 1, 1) + bytes(64)
    expected = GilPlace.find()
    monkeypatch.setattr(gil, "_read_own", lambda start, size: read(start, size) + stale)
    assert GilPlace.find() == expected


def test_no_run_begins_that_cannot_be_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gil, "_read_own", lambda start, size: b"")
    with pytest.raises(GilNotFound, match="0 records"):
        watch_run([sys.executable, "-c", "open('begun', 'w')"], tmp_path / "run", os.environ, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_rate_is_of_the_part_files_between_the_first_and_the_last(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    # Only the middle ones are a second apart.
    for number, moment in enumerate([970.0, 990.0, 1002.0, 1003.0, 1004.0, 1005.0, 1006.0, 1080.0, 1095.0]):
        path = tmp_path / "predictions" / f"part-{number:05d}.parquet"
        path.touch()
        os.utime(path, (moment, moment))
    worker = Process("worker")
    worker.seconds = [(990.0, 1.0), (1002.0, 5.0), (1006.0, 7.0), (1100.0, 100.0)]
    worker.readings = [(1002.0, 100, 10), (1004.0, 200, 40), (1006.0, 300, 60), (1050.0, 900, 600)]
    figures = evaluate(tmp_path, {1: worker, 2: Process("parent", seconds=[(990.0, 0.0), (1100.0, 0.0)])})
    assert figures["images_per_second"] == PART_ROWS
    assert figures["cpu_us_per_image"] == pytest.approx(2.0 / (4 * PART_ROWS) * 1e6)
    assert figures["worker_gil_us_per_image"] == pytest.approx(0.25 * 4 / (4 * PART_ROWS) * 1e6)
    assert figures["parent_cpu_us_per_image"] == figures["seat_gil_us_per_image"] == 0


def test_few_part_files_are_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="has 0 part files"):
        evaluate(tmp_path, {})


def test_a_run_that_fails_is_no_measurement(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('it broke')"]
    with pytest.raises(RunFailed, match=r"ended with 1: it broke"):
        watch_run(command, tmp_path / "run", os.environ, tmp_path)


def test_what_is_projected_is_cores_over_the_time_of_an_image() -> None:
    figures = {
        "cpu_us_per_image": {"median": 500.0},
        "worker_gil_us_per_image": {"median": 40.0},
        "seat_gil_us_per_image": {"median": 20.0},
    }
    found = host_rate.project(figures, 16)
    assert found == {"cores": 16, "images_per_second": 32_000, "workers_whose_lock_is_held_half_the_time": 3}


def test_files_are_of_the_size_that_was_asked_for(tmp_path: Path) -> None:
    mean = draw_files(tmp_path / "data", 70, 40_000)
    paths = sorted((tmp_path / "data").iterdir())
    assert len(paths) == 70 and 30_000 < mean < 50_000
    assert paths[0].stat().st_ino == paths[64].stat().st_ino, "linked, not copied"
    parts = measure_parts(paths[:2], "cnn")
    assert set(parts) >= {"read", "probe", "check_for_damage", "sha256"} and min(parts.values()) > 0
