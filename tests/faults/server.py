"""Runs commands of mribatch in forked processes, so that each costs no start of Python: python -m tests.faults.server

A line of JSON comes in, [arguments, stdout, stderr]; the exit code goes out, or minus the signal that ended it. The
process that serves has imported everything and has no other thread, so that its children may start theirs.
"""

import contextlib
import gc
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

_LONGEST_S = 60
_MODULES = (
    *("mribatch.cli.main", "mribatch.cli.classify", "mribatch.cli.report", "mribatch.cli.verify", "mribatch.cli.table"),
    *("mribatch.cli.export", "mribatch.cli.engine", "mribatch.pipeline.run", "mribatch.pipeline.inference.assembly"),
    *("mribatch.report.measure", "mribatch.report.verify", "mribatch.report.html.page", "mribatch.trt.engine.cache"),
    *("mribatch.training.export.user_model", "onnxruntime", "cv2", "simplejpeg", "pydicom", "nibabel"),
    *("pyarrow.parquet", "pyarrow.compute", "pyarrow.csv", "openpyxl", "matplotlib", "tests.faults.engine_steps"),
)


@dataclass(frozen=True)
class Ended:
    """How a command ended. code: its exit code, or minus a signal's number."""

    code: int
    stdout: str
    stderr: str


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

    def run(self, arguments: Sequence[object]) -> Ended:
        """Run one command to its end."""
        ask, answer = self._process.stdin, self._process.stdout
        assert ask is not None and answer is not None
        ask.write(json.dumps([list(map(str, arguments)), str(self._out), str(self._err)]) + "\n")
        ask.flush()
        code = int(answer.readline())
        return Ended(code, self._out.read_text(errors="replace"), self._err.read_text(errors="replace"))


def serve(requests: IO[str], replies: IO[str]) -> None:
    """Answer until the requests end."""
    from importlib import import_module

    for module in _MODULES:
        import_module(module)
    gc.collect()
    gc.freeze()  # what is imported stays where it is, and its memory is shared
    for line in requests:
        arguments, out, err = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _become_command(arguments, out, err, writing)
        os.close(writing)
        with open(reading, encoding="utf-8") as names:
            imported = names.read().split()
        _, status = os.waitpid(child, 0)
        replies.write(f"{os.waitstatus_to_exitcode(status)}\n")
        replies.flush()
        for name in imported:  # so that the next child has them
            with contextlib.suppress(Exception):
                import_module(name)


def _become_command(arguments: Sequence[str], out: str, err: str, modules: int) -> None:
    """In the child: run the command and end the process as its own would have ended; `modules` gets what it imported."""
    import signal

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
