"""The race runs, over eight drawn images, with the peers that the tests' own environment has. No figure is asserted."""

import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from benchmarks.race.entrants import ENTRANTS, ON_REQUEST, choose
from benchmarks.race.environments import REQUIREMENTS
from benchmarks.race.job import Stage
from benchmarks.race.process import RunError, run_measured

ROOT = Path(__file__).parents[2]
NOT_HERE = ("timm", "ray", "ultralytics")  # no extra of ours installs them


def race(tmp_path: Path, peers: str, *more: str) -> tuple[dict[str, Any], Path]:
    """The result of a race in this environment, and its file."""
    command = [sys.executable, "-m", "benchmarks.race", "--here", "--count", "8", "--repeats", "1", "--peers", peers]
    folders = ["--build", str(tmp_path / "build"), "--results", str(tmp_path / "results")]
    done = subprocess.run([*command, *folders, *more], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "results").glob("*.json")
    return json.loads(path.read_text()), path


@pytest.mark.slow
def test_ours_and_the_tutorial_race_and_who_is_not_installed_is_left_out(tmp_path: Path) -> None:
    ours = ("--ours", "two-rows=--model cnn --batch-size 2 --backend onnxruntime")
    result, path = race(tmp_path, "tutorial,ray,timm,ultralytics", *ours)
    assert set(result["entrants"]) == {"tutorial", "two-rows"}, result["left_out"]
    assert set(result["left_out"]) == set(NOT_HERE)
    assert result["left_out"]["ray"] == "not installed here: ray"
    assert path.name == f"race-synthetic-8images-{result['threads']}cores.json"
    assert result["images"] == 8  # the broken files of the demo do not race
    for one in result["entrants"].values():
        assert one["whole_images_per_second"]["median"] > 0 and one["start_seconds"]["median"] > 0
        assert one["versions"]["onnxruntime"]
    table = path.with_suffix(".md").read_text()
    assert path.with_suffix(".svg").name in table
    assert ET.fromstring(path.with_suffix(".svg").read_text()).tag.endswith("svg")


def test_the_table_is_made_from_the_result_alone(tmp_path: Path) -> None:
    figure = {"median": 10.0, "low": 9.0, "high": 12.0, "repeats": [9.0, 10.0, 12.0]}
    one = {
        "label": "OpenCV & Keras",
        "network": "B3",
        "runs": "python -m x",
        "versions": {"python": "3"},
        "whole_images_per_second": figure,
        "steady_images_per_second": None,
        "start_seconds": figure,
        "peak_memory_bytes": figure,
        "whole_to_reference": {"median": 1.0, "low": 1.0, "high": 1.0},
    }
    fast = one | {"label": "mribatch", "runs": "mribatch classify", "whole_to_reference": figure | {"median": 4.04}}
    content = {
        "conditions": {"processor": "p", "date": "2026-01-01", "mribatch": "0"},
        "data": "real",
        "images": 3,
        "image_bytes": 3000,
        "threads": 2,
        "repeats": 3,
        "entrants": {"reference": one, "mribatch": fast},
        "left_out": {"ray": "not installed here: ray"},
    }
    result = tmp_path / "race.json"
    result.write_text(json.dumps(content))
    command = [sys.executable, "-m", "benchmarks.race", "--table", str(result)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.strip() == (tmp_path / "race.md").read_text().strip()
    assert "| **mribatch** | B3 | 10 (9 to 12) | 4.0 |" in shown and "- ray: not installed here: ray" in shown
    ET.fromstring((tmp_path / "race.svg").read_text())


@pytest.mark.slow
def test_the_reference_dali_and_the_reference_s_network_as_a_bundle_race(tmp_path: Path) -> None:
    result, path = race(tmp_path, "reference,mribatch,mribatch-cnn,mribatch-dali,mribatch-b3")
    names = {"reference", "mribatch", "mribatch-cnn", "mribatch-dali", "mribatch-b3"}
    assert set(result["entrants"]) == names, result["left_out"]
    assert result["entrants"]["mribatch"]["network"].endswith("160 px")
    assert "**mribatch --model cnn**" in path.with_suffix(".md").read_text()
    assert result["entrants"]["reference"]["whole_to_reference"]["median"] == 1


def test_a_runner_that_gives_fewer_classes_than_images_is_left_out(tmp_path: Path) -> None:
    from benchmarks.race.heat import check_rows

    with pytest.raises(RunError, match="2 rows and 2 classes for 3 images"):
        check_rows([("a", "0"), ("b", "1")], {"a", "b", "c"})
    with pytest.raises(RunError, match="3 rows and 2 classes for 3 images"):
        check_rows([("a", "0"), ("b", "1"), ("b", "1")], {"a", "b", "c"})
    with pytest.raises(RunError, match="2 rows and 1 classes for 2 images"):
        check_rows([("a", "0"), ("b", None)], {"a", "b"})


def test_a_process_is_measured_with_all_that_it_starts_and_nothing_of_it_stays(tmp_path: Path) -> None:
    """A daemon in a session of its own, as Ray's are, counts and is ended."""
    code = (
        "import os, subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; x = bytearray(80_000_000); time.sleep(60)'],"
        " start_new_session=True, stdout=subprocess.DEVNULL)\n"
        "time.sleep(2)\n"
        "print('{}')\n"
    )
    begin = time.monotonic()
    finished = run_measured([sys.executable, "-c", code], os.environ, tmp_path, tmp_path / "log", 30, gone_s=1)
    assert finished.last_line == "{}" and finished.seconds >= 2
    assert finished.peak_bytes > 80_000_000
    assert time.monotonic() - begin < 45


def test_a_process_that_fails_or_takes_too_long_says_so(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(RunError, match="exit code 3: no such thing"):
        run_measured(
            [sys.executable, "-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)"],
            {},
            tmp_path,
            log,
            30,
        )
    with pytest.raises(RunError, match="not finished after 1 s"):
        run_measured([sys.executable, "-c", "import time; time.sleep(30)"], {}, tmp_path, log, 1)


def test_the_steady_rate_begins_at_a_quarter() -> None:
    stage = Stage(100)
    for done in range(10, 101, 10):
        stage.reach(done, done / 10)
    assert stage.to_json() == {"first": 30, "first_s": 3.0, "last": 100, "last_s": 10.0}
    few = Stage(1)
    few.reach(1)
    assert few.to_json() is None


def test_every_peer_has_its_script_its_requirements_and_its_documentation() -> None:
    for entrant in ENTRANTS:
        if entrant.module is not None:
            script = ROOT.joinpath(*entrant.module.split(".")).with_suffix(".py").read_text()
            assert "Documentation followed:\n    https://" in script, entrant.name
            assert (REQUIREMENTS / f"{entrant.environment}.txt").read_text().strip(), entrant.name
    assert [one.name for one in choose(None, [])] == [one.name for one in ENTRANTS if one.name not in ON_REQUEST]
    with pytest.raises(ValueError, match="no peer is called nobody"):
        choose("nobody", [])
    with pytest.raises(ValueError, match="NAME=OPTIONS"):
        choose(None, ["--precision int8"])
