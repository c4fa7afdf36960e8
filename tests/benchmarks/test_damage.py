"""The benchmark of damage runs, on a handful of images, and the docs have its committed figures. No cost is asserted."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.conditions import RESULTS
from benchmarks.damage import count_found, drawn, of_real
from tests.damaged_files import DAMAGES, KINDS, in_colour
from tests.folders import draw_images

ROOT = Path(__file__).parents[2]


def committed(pattern: str) -> dict[str, Any]:
    (path,) = RESULTS.glob(pattern)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_what_is_found_and_what_is_missed_add_up() -> None:
    found = count_found("tiff-lzw", drawn(1))
    assert (found["whole"], found["made"]) == (2, 2 * len(DAMAGES))
    assert sum(found["statuses"].values()) == found["made"] == found["found"] + sum(found["missed_by_damage"].values())


def test_a_missed_file_is_counted_as_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DAMAGES, "zeros", lambda data, dice: data)
    found = count_found("tiff-deflate", drawn(1))
    assert found["missed_by_damage"] == {"zeros": 2} and found["found"] == found["made"] - 2


def test_a_whole_file_that_is_refused_is_a_false_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = KINDS["png"]
    monkeypatch.setitem(KINDS, "png", lambda pixels: whole(pixels)[:-9] + b"IEN!" + whole(pixels)[-5:])
    assert count_found("png", drawn(1))["false_alarms"] == 2


def test_real_slices_are_counted_as_they_are(tmp_path: Path) -> None:
    for path in draw_images(tmp_path / "brain-mri", 4, size=90):
        assert path.exists()
    found = of_real(tmp_path, 2, 1)
    assert found["files_as_they_are"] == {"ok": 4}
    assert {kind: one["made"] for kind, one in found["kinds"].items()} == dict.fromkeys(KINDS, 4)
    assert in_colour(next(drawn(1))[1]).shape[2] == 3


def test_the_docs_have_the_committed_figures() -> None:
    page = (ROOT / "docs/reference/statuses.md").read_text()
    drawn_ones, real_ones = committed("damage-synthetic-*.json"), committed("damage-real-*.json")
    table = {
        line.split(" | ")[0][2:]: line for line in page.splitlines() if re.match(r"\| [\w-]+ \| \d+ of \d+ \|", line)
    }
    assert table.keys() == drawn_ones["kinds"].keys() == KINDS.keys()
    for kind, line in table.items():
        one, other = drawn_ones["kinds"][kind], real_ones["kinds"][kind]
        alarms, whole = (one[key] + other[key] for key in ("false_alarms", "whole"))
        cost = drawn_ones["speed"][kind]["checked_to_unchecked"]["median"]
        assert line == (
            f"| {kind} | {one['found']} of {one['made']} | {other['found']} of {other['made']} "
            f"| {alarms} of {whole} | {cost:.2f} |"
        )
    assert set(real_ones["files_as_they_are"]) == {"ok"}


@pytest.mark.slow
def test_it_is_measured(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.damage", "--count", "1", "--repeats", "1", "--results", str(tmp_path)]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    (path,) = tmp_path.glob("damage-synthetic-*.json")
    assert str(path) in done.stdout and set(json.loads(path.read_text())["speed"]) == KINDS.keys()
