"""The benchmark of broken folders runs, on a handful of images, and its checks can fail. No figure is asserted."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.broken_folder import BATCH, check, kinds, write_folder

ROOT = Path(__file__).parents[2]


def test_broken_files_stand_first_in_their_batches(tmp_path: Path) -> None:
    expected = write_folder(tmp_path / "broken", [b"one", b"two"], 1000, 50)
    assert not write_folder(tmp_path / "clean", [b"one", b"two"], 1000, 0)
    broken, clean = (sorted((tmp_path / name).iterdir()) for name in ("broken", "clean"))
    assert len(broken) == len(clean) == 1000 and len(expected) == 50
    assert {path.split("_", 1)[1] for path in expected} == {name for name, _, _ in kinds()} and len(kinds()) == 15
    good = {path.name: path.read_bytes() for path in broken if path.name not in expected}
    assert good == {path.name: path.read_bytes() for path in clean if path.name in good} and len(good) == 950
    places = [[path.name in expected for path in broken[start : start + BATCH]] for start in range(0, 1000, BATCH)]
    assert all(batch == sorted(batch, reverse=True) and 3 <= sum(batch) <= 4 for batch in places)


def row(path: str, status: str, score: float | None) -> dict[str, Any]:
    return {"path": path, "status": status, "error": None if status == "ok" else "why", "p_a": score}


def test_a_wrong_row_ends_the_measurement() -> None:
    clean = {"0.jpg": row("0.jpg", "ok", 0.5), "1.jpg": row("1.jpg", "ok", 0.25)}
    rows = {"0_x.jpg": row("0_x.jpg", "empty", None), "1.jpg": clean["1.jpg"]}
    expected = {"0_x.jpg": "empty"}
    check(rows, clean, rows, expected, 2)
    with pytest.raises(RuntimeError, match="rows for 3 files"):
        check(rows, clean, rows, expected, 3)
    with pytest.raises(RuntimeError, match="with OpenCV"):
        check(rows, clean, rows | {"0_x.jpg": row("0_x.jpg", "truncated", None)}, expected, 2)
    with pytest.raises(RuntimeError, match="should be truncated"):
        check(rows, clean, rows, {"0_x.jpg": "truncated"}, 2)
    moved = rows | {"1.jpg": row("1.jpg", "ok", 0.2500001)}
    with pytest.raises(RuntimeError, match="in the clean folder"):
        check(moved, clean, rows, expected, 2)


@pytest.mark.slow
def test_it_is_measured(tmp_path: Path, tiny_model: Path) -> None:
    pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed: pip install '.[dali]'")
    command = [
        sys.executable,
        "-m",
        "benchmarks.broken_folder",
        "--model",
        tiny_model,
        "--count",
        "100",
        "--repeats",
        "1",
        "--results",
        tmp_path / "results",
    ]
    result = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (path,) = (tmp_path / "results").iterdir()
    assert path.name.startswith("broken_folder-tiny-synthetic512px-") and path.name.endswith("-batch64-100files.json")
    content = json.loads(path.read_text())
    assert (content["files"], content["broken"], len(content["ways_to_be_broken"])) == (100, 5, 5)
    assert content["whole_call_broken_to_clean"]["median"] > 0 and content["rows_broken_to_clean"]["median"] > 0
    assert len(content["worker_deaths"]["broken"]) == len(content["worker_deaths"]["clean"]) == 1
