"""Runs commands over what strangers made, in one process with little memory, and prints what each did as JSON.

    python -m tests.strangers.commands < commands.json      # [[name, [argument, ...]], ...]

One process for all of them: starting Python would take longer than the commands. Each has a limit of processor time, and
a longer one of time, for what waits.
"""

import contextlib
import io
import json
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[2]
MEMORY_BYTES = 3 << 30  # of address space, which the libraries alone need half of
SECONDS = 15  # of processor time
PATIENCE = 120  # seconds, on a machine that does other things, too


@dataclass(frozen=True)
class Answer:
    """What a command did. fault: a traceback, or that it took too long; "" where it ended by itself."""

    name: str
    code: int
    out: str
    error: str
    fault: str
    seconds: float

    @property
    def problem(self) -> str:
        """What is wrong with the answer; "" where it is a result, or one line with a fix."""
        if self.fault:
            return self.fault
        if self.code in (0, 3, 4):
            return ""
        one = self.error.startswith("Error: ") and self.error.count("\n") == 1 and "Fix: " in self.error
        return "" if one and self.code in (1, 2) else f"exit code {self.code}: {self.error[-600:]!r}"

    @property
    def shows_plain_text(self) -> bool:
        """Whether nothing that it printed could steer a terminal."""
        return (self.out + self.error).replace("\n", "").isprintable()


def run_commands(commands: Mapping[str, Sequence[object]], folder: Path) -> dict[str, Answer]:
    """Run commands in one child; their names are the keys."""
    listed = [[name, [str(word) for word in words]] for name, words in commands.items()]
    child = subprocess.run(
        [sys.executable, "-m", "tests.strangers.commands"],
        input=json.dumps(listed),
        capture_output=True,
        text=True,
        timeout=PATIENCE * (len(listed) + 2),
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder), "OPENCV_LOG_LEVEL": "OFF"},
        check=False,
    )
    answers = [Answer(**json.loads(line)) for line in child.stdout.splitlines() if line.startswith('{"name"')]
    assert child.returncode == 0 and len(answers) == len(listed), f"{child.stdout[-500:]}{child.stderr[-2000:]}"
    return {answer.name: answer for answer in answers}


class _TooLong(BaseException):
    """Not an Exception, so that nothing takes it for an error of a file."""


def _run_one(name: str, words: list[str]) -> Answer:
    from mribatch.cli.main import main

    out, error, fault, code = io.StringIO(), io.StringIO(), "", 0
    begin = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(PATIENCE)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            main(words)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    except _TooLong:
        fault = f"took longer than {SECONDS} s of processor time, or {PATIENCE} s: {traceback.format_exc()[-800:]}"
    except BaseException:
        fault = traceback.format_exc()[-1500:]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    return Answer(name, code, out.getvalue()[-4000:], error.getvalue()[-4000:], fault, time.process_time() - begin)


def main() -> None:
    """Run what standard input lists."""

    def interrupt(_: int, frame: FrameType | None) -> None:
        raise _TooLong

    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, interrupt)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for name, words in json.load(sys.stdin):
        print(json.dumps(asdict(_run_one(name, words))), flush=True)


if __name__ == "__main__":
    main()
