"""Real processes of mribatch that tests disturb: started, waited for at a moment, and looked at when they have ended."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LONGEST_S = 600


def command(*arguments: object) -> list[str]:
    """A command line of mribatch."""
    return [sys.executable, "-m", "mribatch.cli", *map(str, arguments)]


def start(*arguments: object, env: Mapping[str, str] | None = None, **options: Any) -> "subprocess.Popen[str]":
    """Start a command; what it prints is kept for `finish`."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command(*arguments), text=True, env=env, **pipes)


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for the end; return the exit code and stderr."""
    _, stderr = process.communicate(timeout=LONGEST_S)
    return process.returncode, stderr or ""


def run(*arguments: object, env: Mapping[str, str] | None = None, **options: Any) -> tuple[int, str]:
    """Start and finish."""
    return finish(start(*arguments, env=env, **options))


def wait_for(moment: Callable[[], bool], process: "subprocess.Popen[str]") -> bool:
    """Wait until the moment has come; False where the process ended before."""
    end = time.monotonic() + LONGEST_S
    while process.poll() is None:
        if moment():
            return True
        if time.monotonic() > end:
            process.kill()
            raise AssertionError("the moment never came")
        time.sleep(0.001)
    return False


def rows_are_under_way(out: Path) -> bool:
    """Whether the listing is finished and the first attempt has begun."""
    try:
        return bool(json.loads((out / "run.json").read_text())["attempts"])
    except (OSError, ValueError):
        return False


def is_one_line_with_a_fix(stderr: str) -> bool:
    """Whether that is all that was said."""
    return stderr.startswith("Error: ") and stderr.count("\n") == 1 and " Fix: " in stderr
