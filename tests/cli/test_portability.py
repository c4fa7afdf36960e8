"""Without fcntl and os.sched_getaffinity, as on Windows and macOS, the CPU path works. Only a simulation: the system
under it is still Linux.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.folders import draw_images, rows

# Windows locks with msvcrt; here its locking() is done by the real flock, which nothing else may import.
WITHOUT = """
import fcntl, os, subprocess, sys, types  # subprocess takes a module msvcrt for Windows
real = fcntl.flock
msvcrt = types.ModuleType("msvcrt")
msvcrt.LK_NBLCK = 2
msvcrt.locking = lambda descriptor, mode, size: real(descriptor, fcntl_flags)
fcntl_flags = fcntl.LOCK_EX | fcntl.LOCK_NB
if "msvcrt" in sys.argv[1]:
    sys.modules["msvcrt"] = msvcrt
if "fcntl" in sys.argv[1]:
    sys.modules["fcntl"] = None
if "affinity" in sys.argv[1]:
    del os.sched_getaffinity
from mribatch.cli.main import main
main(sys.argv[2:])
"""
SYSTEMS = ("fcntl,msvcrt,affinity", "affinity")


def run(system: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", WITHOUT, system, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("command", ["--help", "doctor", "classify --help", "engine --help"])
def test_commands_that_write_nothing(system: str, command: str) -> None:
    result = run(system, *command.split())
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("system", SYSTEMS)
def test_images_are_classified_and_measured(system: str, tiny_model: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 4)
    out = tmp_path / "out"
    result = run(system, "classify", tmp_path / "data", "--out", out, "--model", tiny_model, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["ok"] == len(rows(out)) == 4
    assert run(system, "report", out).returncode == 0


def test_a_system_without_any_lock_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 1)
    result = run("fcntl", "classify", tmp_path / "data", "--out", tmp_path / "out", "--model", tiny_model)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "has no file locks" in result.stderr
