"""--progress json: what a scheduler reads of a run."""

import io
import json
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from mribatch.pipeline.progress_events import ProgressEvents
from tests.folders import draw_images, mribatch

PAGE = Path(__file__).parents[2] / "docs/reference/json-output.md"


def documented() -> dict[str, set[str]]:
    """Event -> its further keys, from the page."""
    section = PAGE.read_text().split("--progress json\n")[1].split("\n## ")[0]
    found = {}
    for name, keys in re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]*`[^|]*) \|$", section, re.MULTILINE):
        found[name] = set(re.findall(r"`(\w+)`", keys))
    return found


def check(events: list[dict[str, Any]]) -> None:
    pages = documented()
    for event in events:
        content = dict(event)
        datetime.fromisoformat(content.pop("time"))
        assert content.pop("schema_version") == 1
        name = content.pop("event")
        assert content.keys() == pages[name]


def test_the_events_of_a_run_in_their_order(tmp_path: Path, tiny_model: Path) -> None:
    draw_images(tmp_path / "data", 1100, size=16)
    (tmp_path / "data/broken.jpg").write_bytes(b"no image")
    command = ["classify", tmp_path / "data", "--out", tmp_path / "out", "--model", tiny_model, "--progress", "json"]
    result = mribatch(*command)
    assert result.returncode == 3
    events = [json.loads(line) for line in result.stderr.splitlines()]
    check(events)
    assert [event["event"] for event in events if event["event"] not in ("progress", "listing")] == [
        "begun",
        "part",
        "part",
        "finished",
    ]
    begun, first, second, finished = (event for event in events if event["event"] not in ("progress", "listing"))
    assert (begun["images"], begun["done"]) == (1101, 0)
    assert [(part["part"], part["rows"]) for part in (first, second)] == [(0, 1024), (1, 77)]
    assert (finished["images"], finished["failed"], finished["new_rows"], finished["exit_code"]) == (1101, 1, 1101, 3)
    again = [json.loads(line) for line in mribatch(*command).stderr.splitlines()]
    again = [event for event in again if event["event"] != "listing"]  # of a busy machine
    check(again)
    assert [(event["event"], event["new_rows"]) for event in again] == [("finished", 0)]


def test_an_error_is_an_event_and_a_line(tmp_path: Path) -> None:
    result = mribatch("classify", tmp_path / "nothing", "--out", tmp_path / "out", "--progress", "json")
    event, line = result.stderr.splitlines()
    stopped = json.loads(event)
    check([stopped])
    assert line == f"Error: {stopped['error']}. Fix: {stopped['fix']}"
    assert (result.returncode, stopped["event"], stopped["exit_code"]) == (1, "stopped", 1)


def test_a_signal_is_an_event(tmp_path: Path, tiny_model: Path) -> None:
    draw_images(tmp_path / "data", 3000, size=16)
    command = ["classify", tmp_path / "data", "--out", tmp_path / "out", "--model", tiny_model]
    lines = []
    with subprocess.Popen(
        [sys.executable, "-m", "mribatch.cli", *map(str, command), "--progress", "json", "--batch-size", "1"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if '"begun"' in line:
                time.sleep(0.2)
                process.terminate()
    assert process.returncode == 143
    stopped = json.loads(lines[-2])
    check([stopped])
    assert stopped["event"] == "stopped" and "images are kept" in stopped["error"] and stopped["exit_code"] == 143


def test_what_excludes_it_is_a_matter_of_usage(tmp_path: Path) -> None:
    for other in ("--quiet", "--verbose", "--dry-run"):
        result = mribatch("classify", tmp_path, "--out", tmp_path / "out", "--progress", "json", other)
        assert (result.returncode, f"--progress json and {other} exclude each other" in result.stderr) == (2, True)


def test_figures_come_once_a_second_and_have_no_infinity() -> None:
    stream, times = io.StringIO(), iter([0.0, 10.0, 10.5, 11.0, 11.0, 11.2, 13.0, 13.0])
    events = ProgressEvents(stream, lambda: next(times))
    events.start(100, 40)
    events.advance(0, 0)  # at 10.5: too soon
    events.advance(0, 0)  # at 11: no image yet, so no rate
    events.advance(10, 1)  # at 11.2: too soon
    events.advance(20, 1)  # at 13
    written = [json.loads(line) for line in stream.getvalue().splitlines()]
    check(written)
    assert [event["event"] for event in written] == ["begun", "progress", "progress"]
    assert (written[1]["images_per_second"], written[1]["seconds_left"], written[1]["done"]) == (0.0, None, 40)
    assert (written[2]["images_per_second"], written[2]["seconds_left"], written[2]["done"]) == (10.0, 3.0, 70)
    assert written[2]["failed"] == 2
