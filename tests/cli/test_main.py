"""Help, misspelt commands, addresses, and shell completion."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mribatch.cli.main import cli
from tests.folders import draw_images, mribatch, rows


@pytest.mark.parametrize("command", [(), ("engine",)])
def test_a_group_alone_prints_its_help(command: tuple[str, ...]) -> None:
    result = mribatch(*command)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: ") and "Error" not in result.stderr


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("clasify x", "Error: No such command 'clasify'. Did you mean 'classify'? Fix: see mribatch --help"),
        ("engine buld", "Error: No such command 'buld'. Did you mean 'build'? Fix: see mribatch engine --help"),
        ("xyz", "Error: No such command 'xyz'. Fix: see mribatch --help"),
    ],
)
def test_a_misspelt_command_is_answered_with_the_close_ones(command: str, hint: str) -> None:
    result = mribatch(*command.split())
    assert (result.returncode, result.stderr) == (2, hint + "\n")


def test_a_misspelt_option_is_answered_with_the_close_ones() -> None:
    result = mribatch("report", "run", "--grups", "x")
    assert result.returncode == 2 and "--groups" in result.stderr
    assert "?." not in result.stderr and ".." not in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("audit", "data", "--out", "s3://bucket/x"),
        ("audit", "s3://bucket/x", "--out", "out"),
        ("demo", "gs://bucket/x"),
        ("train", "cnn", "data", "--out", "s3://bucket/x"),
    ],
)
def test_an_address_is_refused_and_leaves_nothing(command: tuple[str, ...], tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 1)
    result = mribatch(*command, cwd=tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "is an address, and this command takes local paths only. Fix: " in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_with_a_colon_is_a_folder(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw_images(tmp_path / "data", 2)
    command = ["classify", "data", "--out", "run:1", "--model", str(tiny_model), "--csv"]
    for arguments in (command, command, ["report", "run:1"], ["table", "run:1"]):
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert len(rows(tmp_path / "run:1")) == 2


def test_python_m_mribatch() -> None:
    result = subprocess.run([sys.executable, "-m", "mribatch", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("mribatch")


@pytest.mark.parametrize(
    ("words", "position", "expected"),
    [
        ("mribatch cla", 1, {"classify"}),
        ("mribatch engine ", 2, {"build", "clean", "inspect", "list", "tune", "verify"}),
        ("mribatch classify --back", 2, {"--backend"}),
        ("mribatch classify --backend ", 3, {"auto", "onnxruntime", "onnxruntime-cuda", "tensorrt"}),
        ("mribatch table run --sort m", 4, {"margin"}),
    ],
)
def test_shells_complete_commands_options_and_values(words: str, position: int, expected: set[str]) -> None:
    environment = os.environ | {
        "_MRIBATCH_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(position),
    }
    result = mribatch(env=environment)
    assert {line.partition(",")[2] for line in result.stdout.splitlines()} == expected, result.stderr


def test_letters_that_the_terminal_lacks_are_escaped() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    result = mribatch("classify", "--help", env=environment)
    assert (result.returncode, r"INPUT\u2026" in result.stdout) == (0, True)
