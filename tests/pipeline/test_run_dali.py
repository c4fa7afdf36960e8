"""`classify --decoder dali` on the CPU backend: broken files first in their batches, a killed worker, no probe at all."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from benchmarks.broken_folder import BATCH, worker_deaths, write_folder
from mribatch.core.errors import ExitCode
from mribatch.core.synthetic import draw_slice
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.progress import SilentProgress
from mribatch.pipeline.run import classify
from mribatch.pipeline.worker import process as worker_process
from tests.damaged_files import damaged_jpegs
from tests.folders import mribatch, rows
from tests.pipeline.worker.test_supervisor import CRASHING

pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed: pip install '.[dali]'")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Different slices; files are copies of these."""
    found = []
    for seed in range(61):
        encoded = cv2.imencode(".jpg", draw_slice(seed, 96 + seed, 96))[1]
        found.append(encoded.tobytes())
    return found


def write(folder: Path, pictures: list[bytes], batches: int, broken_per_batch: int) -> dict[str, str]:
    """Batches of 64 files of which the first are broken; returns the broken ones' statuses by path."""
    return write_folder(folder, pictures, batches * BATCH, batches * broken_per_batch)


def options(model: Path, decoder: str = "dali") -> ClassifyOptions:
    return ClassifyOptions(model=str(model), batch_size=BATCH, decoder=decoder, keep_going=True)


def facts(run: Path) -> dict[str, dict[str, Any]]:
    return {row["path"]: row | {"index": None} for row in rows(run)}


def check(data: Path, model: Path, tmp_path: Path, expected: dict[str, str]) -> None:
    """Every file has a row, every status is the OpenCV run's, every good row is that of a run without broken files."""
    summary = classify([data], tmp_path / "dali", options(model))
    classify([data], tmp_path / "opencv", options(model, "opencv"))
    got, opencv = facts(tmp_path / "dali"), facts(tmp_path / "opencv")
    assert summary.files == len(got) == len(list(data.iterdir())) and summary.exit_code is ExitCode.ROWS_NOT_OK
    assert {path: row["status"] for path, row in got.items() if row["status"] != "ok"} == expected
    assert {path: (row["status"], row["error"]) for path, row in got.items()} == {
        path: (row["status"], row["error"]) for path, row in opencv.items()
    }
    for path in expected:
        (data / path).unlink()
    classify([data], tmp_path / "clean", options(model))
    clean = facts(tmp_path / "clean")
    assert {path: got[path] for path in clean} == clean
    assert worker_deaths(tmp_path / "dali") == 0


def test_broken_files_first_in_their_batches(pictures: list[bytes], tiny_model: Path, tmp_path: Path) -> None:
    expected = write(tmp_path / "data", pictures, batches=10, broken_per_batch=4)
    check(tmp_path / "data", tiny_model, tmp_path, expected)


@pytest.mark.slow
def test_5000_files_of_which_250_are_broken(pictures: list[bytes], tiny_model: Path, tmp_path: Path) -> None:
    expected = write(tmp_path / "data", pictures, batches=79, broken_per_batch=4)
    assert len({path.split("_", 1)[1] for path in expected}) == 15 and len(expected) > 250
    check(tmp_path / "data", tiny_model, tmp_path, expected)


@pytest.mark.parametrize("batches", [4, pytest.param(79, marks=pytest.mark.slow)])
def test_without_a_probe_processes_die_and_every_file_is_answered(
    batches: int, pictures: list[bytes], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = write(tmp_path / "data", pictures, batches, broken_per_batch=4)
    clean = tmp_path / "clean"
    classify([tmp_path / "data"], clean, options(tiny_model))
    monkeypatch.setattr(worker_process, "COMMAND", (sys.executable, str(CRASHING), "no_probe"))
    summary = classify([tmp_path / "data"], tmp_path / "out", options(tiny_model))
    got = facts(tmp_path / "out")
    assert summary.files == len(got) == batches * BATCH
    assert worker_deaths(tmp_path / "out") >= 1, "DALI is expected to die over a text file; does this version not?"
    good = {path: row for path, row in facts(clean).items() if path not in expected}
    assert {path: got[path] for path in good} == good
    for path in expected:  # without the probe OpenCV has the last word, and it reads a few of them half
        assert got[path]["status"] in ("empty", "truncated", "decode_failed", "decoder_crash", "too_large", "ok")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["state"] == "complete"


def test_a_run_that_does_not_look_at_data_says_so_in_each_row_and_is_not_mixed(
    pictures: list[bytes], tiny_model: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number, content in enumerate(pictures[:6]):
        (data / f"{number}.jpg").write_bytes(content)
    damaged = next(file.damaged for file in damaged_jpegs(1) if file.name.startswith("hole"))
    (data / "damaged.jpg").write_bytes(damaged)
    (data / "cut.jpg").write_bytes(pictures[0][:900])
    command = ("classify", data, "--out", tmp_path / "run", "--model", tiny_model, "--decoder", "dali", "--quiet")
    assert mribatch(*command, "--check-data", "never").returncode == ExitCode.ROWS_NOT_OK
    found = {row["path"]: (row["status"], row["flags"]) for row in rows(tmp_path / "run")}
    assert found.pop("cut.jpg") == ("truncated", [])
    assert set(map(str, found.values())) == {str(("ok", ["unchecked_data"]))} and "damaged.jpg" in found
    refused = mribatch(*command)
    assert refused.returncode == 1 and "--check-data was never" in refused.stderr
    checked = [str(word).replace(str(tmp_path / "run"), str(tmp_path / "checked")) for word in command]
    assert mribatch(*checked).returncode == ExitCode.ROWS_NOT_OK
    assert {row["status"] for row in rows(tmp_path / "checked") if row["path"] == "damaged.jpg"} == {"decode_failed"}


def test_a_decoder_that_hides_no_damage_looks_always_and_that_is_said(
    pictures: list[bytes], tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "whole.jpg").write_bytes(pictures[0])
    command = ("classify", tmp_path / "whole.jpg", "--out", tmp_path / "run", "--model", tiny_model)
    done = mribatch(*command, "--decoder", "opencv", "--check-data", "never")
    assert "--check-data never changes nothing: the decoder is opencv, which hides no damage" in done.stderr
    assert [row["flags"] for row in rows(tmp_path / "run")] == [[]]


class KilledOnce(SilentProgress):
    """Kills the worker once, after the second batch."""

    def __init__(self) -> None:
        self._batches = 0

    def advance(self, files: int, failed: int) -> None:
        self._batches += 1
        if self._batches == 2:
            (pid,) = worker_pids()
            os.kill(pid, signal.SIGKILL)


class Killer(SilentProgress):
    """Kills the worker again and again while rows come."""

    def __init__(self, every_s: float) -> None:
        self.kills = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._kill, args=(every_s,))

    def start(self, files: int, done: int) -> None:
        self._thread.start()

    def close(self) -> None:
        self._done.set()
        self._thread.join()

    def _kill(self, every_s: float) -> None:
        while not self._done.wait(every_s):
            for pid in worker_pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.kills += 1


def worker_pids() -> Iterator[int]:
    """Children of this process that run the worker."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rsplit(")", 1)[1].split()[1])
            command = status.with_name("cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == os.getpid() and b"mribatch.pipeline.worker" in command:
            yield int(status.parent.name)


def test_kill_9_of_the_worker_changes_no_row(pictures: list[bytes], tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path / "data", pictures, batches=12, broken_per_batch=3)
    classify([tmp_path / "data"], tmp_path / "clean", options(tiny_model))
    classify([tmp_path / "data"], tmp_path / "out", options(tiny_model), KilledOnce())
    assert facts(tmp_path / "out") == facts(tmp_path / "clean")
    assert worker_deaths(tmp_path / "out") == 1


@pytest.mark.slow
def test_kill_9_every_two_seconds_changes_no_row(pictures: list[bytes], tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path / "data", pictures, batches=1000, broken_per_batch=3)
    classify([tmp_path / "data"], tmp_path / "clean", options(tiny_model))
    killer = Killer(every_s=2.0)
    classify([tmp_path / "data"], tmp_path / "out", options(tiny_model), killer)
    assert facts(tmp_path / "out") == facts(tmp_path / "clean")
    # The last kill may come when all is answered: nobody needs to know.
    assert killer.kills >= 3 and killer.kills - 1 <= worker_deaths(tmp_path / "out") <= killer.kills


def test_on_the_command_line(pictures: list[bytes], tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path / "data", pictures, batches=2, broken_per_batch=0)
    common = ("classify", tmp_path / "data", "--model", tiny_model, "--decoder", "dali")
    dry = mribatch(*common, "--dry-run")
    assert dry.returncode == 0 and "(onnxruntime + dali, measured on" in dry.stdout, dry.stderr
    run = mribatch(*common, "--out", tmp_path / "out")
    assert run.returncode == 0 and "Model tiny, onnxruntime (fp32) + dali." in run.stdout, run.stderr
    assert run.stderr.count("\n") <= 1, "what DALI prints goes to the log"
    content = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (content["decoder"], content["batch_size"]) == ("dali", 64)
    assert content["reasons"]["decoder"].startswith("requested; on the CPU (no GPU: ")
    assert content["versions"]["dali"].startswith("2.")
    again = mribatch(*common, "--out", tmp_path / "out")
    assert "The run was complete already." in again.stdout
    other = mribatch(
        "classify", tmp_path / "data", "--model", tiny_model, "--decoder", "opencv", "--out", tmp_path / "out"
    )
    assert other.returncode == 1 and "decoder was dali, now it is opencv" in other.stderr


@pytest.mark.slow
def test_a_run_that_is_stopped_or_killed_goes_on(pictures: list[bytes], tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path / "data", pictures, batches=96, broken_per_batch=1)
    command = [
        sys.executable,
        "-m",
        "mribatch.cli",
        "classify",
        str(tmp_path / "data"),
        "--model",
        str(tiny_model),
        "--decoder",
        "dali",
        "--out",
        str(tmp_path / "out"),
    ]
    stops = ((signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED), (signal.SIGKILL, -9))
    for number, code in stops:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        parts = len(list(tmp_path.glob("out/predictions/part-*")))
        while len(list(tmp_path.glob("out/predictions/part-*"))) == parts and process.poll() is None:
            time.sleep(0.002)
        send = os.kill if number == signal.SIGKILL else os.killpg  # a terminal sends Ctrl-C to the worker, too
        send(process.pid, number)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == code, stderr
        assert code == -9 or stderr.splitlines()[-1].startswith("Error: stopped by a signal; ")
    assert worker_deaths(tmp_path / "out") == 0
    whole = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/predictions/part-*")}
    assert classify([tmp_path / "data"], tmp_path / "out", options(tiny_model)).files == 96 * BATCH
    assert 3 <= len(whole) < 6 and {path: path.stat().st_mtime_ns for path in whole} == whole
    classify([tmp_path / "data"], tmp_path / "at_once", options(tiny_model))
    assert rows(tmp_path / "out") == rows(tmp_path / "at_once")
