"""--log and -v: lines with timestamps; --json carries the version of its schema."""

import json
import re
from pathlib import Path

from mribatch.core.errors import ExitCode
from tests.folders import draw_images, mribatch

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (INFO|ERROR) .+")


def test_log_lines_have_timestamps_and_end_with_the_result(tiny_model: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 6)
    log = tmp_path / "run.log"
    arguments = ("classify", tmp_path / "data", "--model", tiny_model, "--out", tmp_path / "out", "--log", log)
    first = mribatch(*arguments, "--json")
    assert first.returncode == ExitCode.OK, first.stderr
    assert json.loads(first.stdout)["schema_version"] == 1
    lines = log.read_text().splitlines()
    assert all(LINE.fullmatch(line) for line in lines)
    assert any(line.endswith("6 files are listed, 0 are not; model tiny, attempt 1") for line in lines)
    assert lines[-1].endswith("complete: 6 rows, of which 6 are ok")
    assert "complete" not in first.stderr
    draw_images(tmp_path / "data", 7)
    failed = mribatch(*arguments, "-v")
    assert failed.returncode == ExitCode.USER_ERROR
    assert " ERROR --out " in log.read_text().splitlines()[-1] and len(log.read_text().splitlines()) > len(lines)
    assert LINE.fullmatch(failed.stderr.splitlines()[0])


def test_a_log_file_that_cannot_be_written_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 1)
    result = mribatch("classify", tmp_path / "data", "--out", tmp_path / "out", "--log", tmp_path / "no" / "x.log")
    assert result.returncode == ExitCode.USER_ERROR and "cannot write --log" in result.stderr
