"""Runs commands of mribatch in forked processes, so that each costs no start of Python: python -m tests.faults.server

A line of JSON comes in, [arguments, stdout, stderr]; the exit code goes out, or minus the signal that ended it. The
process that serves has imported everything and has no other thread, so that its children may start theirs.
"""

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

_LONGEST_S = 300
_MODULES = (
    *("mribatch.cli.main", "mribatch.cli.classify", "mribatch.cli.report", "mribatch.cli.verify", "mribatch.cli.table"),
    *("mribatch.cli.export", "mribatch.cli.engine", "mribatch.pipeline.run", "mribatch.pipeline.inference.assembly"),
    *("mribatch.report.measure", "mribatch.report.verify", "mribatch.report.html.page", "mribatch.trt.engine.cache"),
    *("mribatch.training.export.user_model", "onnxruntime", "cv2", "simplejpeg", "pydicom", "nibabel"),
    *("pyarrow.parquet", "pyarrow.compute", "pyarrow.csv", "openpyxl", "matplotlib", "tests.faults.engine_steps"),
    *("sklearn.metrics", "scipy.optimize", "scipy.stats"),  # OpenBLAS starts threads when it is imported
)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    code: its exit code, or minus a signal's number. killed: Whether it, or its child, was killed at the moment asked
    for. descendants: The processes that it had started by then.
    """

    code: int
    stdout: str
    stderr: str
    killed: bool = False
    descendants: tuple[int, ...] = ()


class Server:
    """The forking process, while this context is open.

    Args:
        folder: For its files.
        environment: Of it and its children.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._out, self._err = folder / "stdout", folder / "stderr"
        self._environment = environment

    def __enter__(self) -> Self:
        self._process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=_LONGEST_S)

    def run(self, arguments: Sequence[object], *, kill_after_s: float | None = None, target: str = "all") -> Ended:
        """Run one command to its end.

        Args:
            arguments: Of mribatch.
            kill_after_s: When SIGKILL comes; None: never.
            target: Whom it hits: "all" processes, the "parent" alone, or the "worker" alone.
        """
        ask, answer = self._process.stdin, self._process.stdout
        assert ask is not None and answer is not None
        files = (str(self._out), str(self._err))
        ask.write(json.dumps([list(map(str, arguments)), *files, kill_after_s, target]) + "\n")
        ask.flush()
        code, killed, descendants = json.loads(answer.readline())
        texts = (self._out.read_text(errors="replace"), self._err.read_text(errors="replace"))
        return Ended(code, *texts, killed, tuple(descendants))


def serve(requests: IO[str], replies: IO[str]) -> None:
    """Answer until the requests end."""
    from importlib import import_module

    for module in _MODULES:
        import_module(module)
    gc.collect()
    gc.freeze()  # what is imported stays where it is, and its memory is shared
    for line in requests:
        arguments, out, err, kill_after_s, target = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _become_command(arguments, out, err, writing)
        os.close(writing)
        killed, descendants = (False, []) if kill_after_s is None else _kill(child, kill_after_s, target)
        with open(reading, encoding="utf-8") as names:
            imported = names.read().split()
        _, status = os.waitpid(child, 0)
        replies.write(json.dumps([os.waitstatus_to_exitcode(status), killed, descendants]) + "\n")
        replies.flush()
        for name in imported:  # so that the next child has them
            with contextlib.suppress(Exception):
                import_module(name)


def _kill(child: int, after_s: float, target: str) -> tuple[bool, list[int]]:
    """Kill when the moment has come. Returns whether there was somebody to kill, and who had been started."""
    time.sleep(after_s)
    descendants = _children(child)
    victims = {"all": [child, *descendants], "parent": [child], "worker": descendants}[target]
    if _has_ended(child):
        return False, descendants
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    return bool(victims), descendants


def _children(process: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def _has_ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _become_command(arguments: Sequence[str], out: str, err: str, modules: int) -> None:
    """In the child: run the command and end the process as its own would have ended; `modules` gets what it imported."""
    before = set(sys.modules)
    for descriptor, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, descriptor)
        os.close(file)
    signal.alarm(_LONGEST_S)
    code = 1
    try:
        _call(arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        with open(modules, "w", encoding="utf-8") as names:
            names.write("\n".join(sys.modules.keys() - before))
        os._exit(code)


def _call(arguments: Sequence[str]) -> None:
    if arguments[0] == "engine-steps":
        from tests.faults.engine_steps import main as take_steps

        take_steps(Path(arguments[1]), Path(arguments[2]))
    from mribatch.cli.main import main

    main(list(arguments))


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
