"""One life of the worker process: started, spoken to, found dead."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

from mribatch.errors import MribatchError
from mribatch.pipeline.worker_messages import Failed, Reply, Request, WorkOrder, read_reply, request_bytes

# -P: the current folder may be a stranger's, and nothing is imported from there.
COMMAND: Sequence[str] = (sys.executable, "-P", "-m", "mribatch.pipeline.worker")
_PIPE_BYTES = 1 << 20  # the most that Linux gives to everybody
_EXIT_S = 10  # for a process whose pipe is closed already


@dataclass(frozen=True)
class Death:
    """How a worker ended.

    Attributes:
        how: The end of the sentence "it was …".
        hung: We killed it, since it said nothing for long.
        error: Its own last words, where it had any: a GPU that no longer answers, a file that is missing.
    """

    how: str
    hung: bool = False
    error: MribatchError | None = None


class WorkerDied(Exception):
    """The worker is gone; another may be started."""

    def __init__(self, death: Death) -> None:
        super().__init__(death.how)
        self.death = death


class WorkerProcess:
    """A started worker. `send` and `receive` raise WorkerDied once it is gone.

    Args:
        order: What it is to do.
        log: Where its stdout and stderr are appended; None: nowhere.
        command: That runs it; it gets the order and two descriptors as further arguments.
    """

    def __init__(self, order: WorkOrder, log: Path | None, command: Sequence[str] | None = None) -> None:
        request_end, own_requests = os.pipe()
        own_replies, reply_end = os.pipe()
        with contextlib.suppress(OSError):  # room for all that is sent ahead, also if the worker reads nothing any more
            fcntl.fcntl(own_requests, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._log = log
        arguments = [*(command or COMMAND), order.to_json(), str(request_end), str(reply_end)]
        with _appended(log) as output:
            # spawned anew, never forked: no lock, thread or CUDA context of this process is copied
            self._process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=(request_end, reply_end)
            )
        os.close(request_end)
        os.close(reply_end)
        self._requests = Connection(own_requests, readable=False)
        self._replies = Connection(own_replies, writable=False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, request: Request) -> None:
        """Never waits for long: the worker keeps the pipe empty."""
        try:
            self._requests.send_bytes(request_bytes(request))
        except OSError as error:
            raise self._found_dead() from error

    def receive(self, patience_s: float) -> Reply:
        """The next reply.

        Raises:
            WorkerDied: It ended, or said nothing for so long and was killed.
            RuntimeError: It ended over a bug of ours; holds its traceback.
        """
        try:
            if not self._replies.poll(patience_s):
                self._process.kill()
                raise WorkerDied(Death(f"killed after it had said nothing for {patience_s:,.0f} s", hung=True))
            reply = read_reply(self._replies.recv_bytes())
        except (EOFError, OSError) as found:
            raise self._found_dead() from found
        if isinstance(reply, Failed):
            if reply.bug is not None:
                raise RuntimeError(f"the worker process failed:\n{reply.bug}")
            raise WorkerDied(
                Death(f"ended by an error: {reply.problem}", error=MribatchError(reply.problem, reply.fix))
            )
        return reply

    def end(self) -> None:
        """Make sure that it is gone. It holds nothing that could be lost."""
        self._requests.close()  # at which it ends by itself
        try:
            self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._replies.close()

    def note(self, text: str) -> None:
        """A line of ours in the log."""
        with _appended(self._log) as output:
            if not isinstance(output, int):
                output.write(f"[mribatch {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC] {text}\n".encode())

    def _found_dead(self) -> WorkerDied:
        """It has closed its pipe, so it is ending or has ended."""
        try:
            code = self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return WorkerDied(Death("killed after it had closed its pipe and not ended"))
        return WorkerDied(Death(f"ended by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class _Appended:
    """A file opened for appending, or nowhere, for a `with`."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> IO[bytes] | int:
        if self._path is None:
            return subprocess.DEVNULL
        try:
            self._file = self._path.open("ab")
        except OSError as error:
            raise MribatchError(f"cannot write {self._path}: {error.strerror}", "check the output folder") from error
        return self._file

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _appended(path: Path | None) -> _Appended:
    return _Appended(path)
