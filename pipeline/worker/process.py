"""One life of the worker process: started, spoken to, found dead."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from mribatch.core.errors import LimitError, MribatchError
from mribatch.pipeline.inference.order import WorkOrder
from mribatch.pipeline.worker.messages import Reply, Request, WorkerFailed, read_reply, request_bytes

_FIRST_FREE = 3  # first descriptor after the standard streams
_EXIT_S = 10  # for a process whose pipe is closed already, or that was killed


def interpreter_options(flags: Any) -> list[str]:
    """Under which another Python imports from the same places as one with these sys.flags (python -I, -E or -s).

    -P: the current folder may be a stranger's, and nothing is imported from there.
    """
    given = {"-E": flags.ignore_environment, "-s": flags.no_user_site}
    return [option for option, on in given.items() if on] + ["-P"]


COMMAND: Sequence[str] = (sys.executable, *interpreter_options(sys.flags), "-m", "mribatch.pipeline.worker")


@dataclass(frozen=True)
class Death:
    """How a worker ended.

    Attributes:
        how: The end of the sentence "it was …".
        hung: We killed it, since it said nothing for long.
        error: Its own last words, where it had any: a GPU that no longer answers, a file that is missing.
        out_of_memory: The GPU had too little.
        killed: From outside, by a person or by the kernel where memory is short: SIGKILL, and not from us.
    """

    how: str
    hung: bool = False
    error: MribatchError | None = None
    out_of_memory: bool = False
    killed: bool = False


class WorkerDied(Exception):
    """The worker is gone; another may be started."""

    def __init__(self, death: Death) -> None:
        super().__init__(death.how)
        self.death = death


class ChildProcess:
    """A started process of ours that is spoken to in messages of bytes.

    Args:
        command: That runs it; it gets two descriptors as further arguments: of what it reads, and of what it writes.
        log: Where its stdout and stderr are appended; None: nowhere.
        environment: Variables that it has beside those of this process.

    Raises:
        MribatchError: The log cannot be written, or the operating system starts no process.
    """

    def __init__(self, command: Sequence[str], log: Path | None, environment: Mapping[str, str] | None = None) -> None:
        self._log = log
        try:
            request_end, requests = _make_pipe()
            self._replies, reply_end = _make_pipe()
            descriptors = (request_end.fileno(), reply_end.fileno())
            arguments = [*command, *map(str, descriptors)]
            with _open_log(log) as output:
                # spawned anew, never forked: no lock, thread or CUDA context of this process is copied
                self._process = subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=descriptors,
                    env=None if environment is None else os.environ | environment,
                )
        except OSError as error:
            raise LimitError(
                f"cannot start the worker process: {error.strerror}",
                "check the limits on processes, open files and memory (ulimit -a)",
            ) from error
        request_end.close()
        reply_end.close()
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._writer = threading.Thread(
            target=_write_requests, args=(self._outbox, requests), name="mribatch-requests", daemon=True
        )
        self._writer.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send_bytes(self, message: bytes) -> None:
        """Returns at once, also where the process reads nothing any more; `receive_bytes` finds that out."""
        self._outbox.put(message)

    def receive_bytes(self, patience_s: float) -> bytes:
        """The next message.

        Raises:
            WorkerDied: It ended, or said nothing for so long and was killed.
        """
        try:
            if not self._replies.poll(patience_s):
                self._process.kill()
                raise WorkerDied(Death(f"killed after it had said nothing for {patience_s:,.0f} s", hung=True))
            return self._replies.recv_bytes()
        except (EOFError, OSError) as found:
            raise self._report_death() from found

    def end(self) -> None:
        """Make sure that it is gone. It holds nothing that could be lost."""
        self._outbox.put(None)  # closes the requests, at which it ends by itself
        try:
            self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel: it ends when that lets it go
                self._process.wait(_EXIT_S)
        self._writer.join(_EXIT_S)
        self._replies.close()

    def note(self, text: str) -> None:
        """A line of ours in the log. A full disk keeps it out, and ends no run here."""
        line = f"[mribatch {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC] {text}\n"
        if self._log is not None:
            with contextlib.suppress(OSError), self._log.open("ab") as output:
                output.write(line.encode())

    def _report_death(self) -> WorkerDied:
        """It has closed its pipe, so it is ending or has ended."""
        try:
            code = self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return WorkerDied(Death("killed after it had closed its pipe and not ended"))
        how = f"ended by {_name_signal(-code)}" if code < 0 else f"ended with exit code {code}"
        return WorkerDied(Death(how, killed=code == -signal.SIGKILL))


class WorkerProcess(ChildProcess):
    """A started worker.

    Args:
        order: What it is to do.
        log: Where its stdout and stderr are appended; None: nowhere.
        command: That runs it; it gets the order as a further argument.

    Raises:
        MribatchError: The log cannot be written, or the operating system starts no process.
    """

    def __init__(self, order: WorkOrder, log: Path | None, command: Sequence[str] | None = None) -> None:
        super().__init__([*(command or COMMAND), order.to_json()], log)

    def send(self, request: Request) -> None:
        """Returns at once, also where the worker reads nothing any more; `receive` finds that out."""
        self.send_bytes(request_bytes(request))

    def receive(self, patience_s: float) -> Reply:
        """The next reply.

        Raises:
            WorkerDied: It ended, or said nothing for so long and was killed.
            RuntimeError: It ended over a bug of ours; holds its traceback.
        """
        reply = read_reply(self.receive_bytes(patience_s))
        if isinstance(reply, WorkerFailed):
            if reply.bug is not None:
                raise RuntimeError(f"the worker process failed:\n{reply.bug}")
            error, how = MribatchError(reply.problem, reply.fix), f"ended by an error: {reply.problem}"
            raise WorkerDied(Death(how, error=error, out_of_memory=reply.out_of_memory))
        return reply


def _name_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _make_pipe() -> tuple[Connection, Connection]:
    """The reading and the writing end. No end has the number of a standard stream that is closed in this process: the
    worker gets standard streams of its own, which would take its place.
    """
    import fcntl  # not on Windows, where there is no DALI either

    ends = os.pipe()
    try:
        reading, writing = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE) for end in ends)
    finally:
        for end in ends:
            os.close(end)
    return Connection(reading, writable=False), Connection(writing, readable=False)


def _write_requests(outbox: "queue.SimpleQueue[bytes | None]", requests: Connection) -> None:
    """On a thread: what is in the outbox, until None; the pipe may be full for as long as it likes."""
    with contextlib.suppress(OSError), requests:  # OSError: the worker is gone, and with it all that it should read
        while (message := outbox.get()) is not None:
            requests.send_bytes(message)


@contextlib.contextmanager
def _open_log(log: Path | None) -> Iterator[IO[bytes] | int]:
    """The log opened for appending, or nowhere."""
    if log is None:
        yield subprocess.DEVNULL
        return
    try:
        file = log.open("ab")
    except OSError as error:
        raise MribatchError(f"cannot write {log}: {error.strerror}", "check the output folder") from error
    with file:
        yield file
