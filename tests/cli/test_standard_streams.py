"""Terminals with few letters, a full disk behind stdout, and no stdout at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mribatch.cli.main import COMMANDS
from tests.finished_run import Row, scores_for, write_run
from tests.folders import draw_images, mribatch

FULL = "Error: cannot write to standard output: No space left on device. Fix: free some space there, or send"
LATIN_1 = {"PYTHONIOENCODING": "latin-1"}
C_LOCALE = {"LC_ALL": "C"}
ASCII_FILES = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
needs_dev_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


def start(arguments: list[object], **options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mribatch.cli", *map(str, arguments)]
    return subprocess.run(command, text=True, timeout=300, check=False, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("environment", [LATIN_1, C_LOCALE, ASCII_FILES, {"PYTHONIOENCODING": "ascii"}], ids=str)
def test_every_help_page_can_be_shown_anywhere(environment: dict[str, str]) -> None:
    for name in COMMANDS:
        result = mribatch(name, "--help", env=os.environ | environment)
        assert (result.returncode, result.stderr) == (0, ""), name


@pytest.mark.parametrize("environment", [LATIN_1, ASCII_FILES], ids=str)
def test_a_folder_whose_name_the_terminal_lacks_is_classified_and_measured(
    tmp_path: Path, tiny_model: Path, environment: dict[str, str]
) -> None:
    folder = tmp_path / "Ωμέγα 脑"
    draw_images(folder / "data", 8)
    options = {"env": os.environ | environment, "encoding": "latin-1"}
    result = mribatch("classify", folder / "data", "--out", folder / "out", "--model", tiny_model, **options)
    assert result.returncode == 0, result.stderr
    assert "8 files: 8 ok" in result.stdout
    result = mribatch("report", folder / "out", "--json", **options)
    assert json.loads(result.stdout)["research_notice"]
    gone = mribatch("classify", folder / "gone", "--out", folder / "other", "--model", tiny_model, **options)
    assert gone.returncode == 1 and len(gone.stderr.splitlines()) == 1


@needs_dev_full
@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["doctor"], ["doctor", "--json"], ["train", "--list"]]
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_stdout_is_one_line(arguments: list[object], unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        result = start(arguments, stdout=full, stderr=subprocess.PIPE, env=environment)
    assert result.returncode == 1 and result.stderr.startswith(FULL) and result.stderr.count("\n") == 1


@needs_dev_full
def test_results_are_written_also_where_stdout_is_full(tmp_path: Path, tiny_model: Path) -> None:
    draw_images(tmp_path / "data", 4)
    with open("/dev/full", "w") as full:
        arguments = ["classify", tmp_path / "data", "--out", tmp_path / "out", "--model", tiny_model]
        result = start(arguments, stdout=full, stderr=subprocess.PIPE)
    # A slow machine shows progress on stderr before the error.
    assert result.returncode == 1 and result.stderr.splitlines()[-1].startswith(FULL.rstrip())
    assert json.loads((tmp_path / "out" / "run.json").read_text())["state"] == "complete"


@needs_dev_full
@pytest.mark.parametrize(("arguments", "code"), [(["clasify"], 2), ([], 2), (["table", "gone"], 1)])
def test_a_full_stderr_changes_no_exit_code(arguments: list[object], code: int) -> None:
    with open("/dev/full", "w") as full:
        assert start(arguments, stdout=subprocess.PIPE, stderr=full).returncode == code
        assert start(arguments, stdout=full, stderr=full).returncode == code


@needs_dev_full
def test_a_full_stderr_ends_no_work(tmp_path: Path, tiny_model: Path) -> None:
    draw_images(tmp_path / "data", 4)
    with open("/dev/full", "w") as full:
        arguments = ["classify", tmp_path / "data", "--out", tmp_path / "out", "--model", tiny_model, "-v"]
        result = start(arguments, stdout=subprocess.PIPE, stderr=full)
    assert result.returncode == 0 and "4 files: 4 ok" in result.stdout


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_like_dev_null(tmp_path: Path, tiny_model: Path, closed: str) -> None:
    run = write_run(tmp_path / "run", [Row(f"{i}.jpg", "no_tumor", scores_for(i % 4, 0.9)) for i in range(8)])
    script = f'exec "$0" -m mribatch.cli report "$1" {closed}'
    result = subprocess.run(["sh", "-c", script, sys.executable, str(run)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads((run / "metrics.json").read_text())["research_notice"]


def test_a_reader_that_goes_away_is_not_an_error_message() -> None:
    script = '"$0" -m mribatch.cli --help | true'
    result = subprocess.run(["sh", "-c", script, sys.executable], capture_output=True, text=True, check=False)
    assert result.stderr == ""
