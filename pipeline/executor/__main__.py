"""A process that makes parts of a run; started by `mribatch.pipeline.executor.processes`.

    python -P -m mribatch.pipeline.executor REQUESTS REPLIES

Both are descriptors of pipes. The process ends when its parent closes the requests or dies. It ignores SIGINT,
SIGTERM and SIGHUP, which may reach the whole group: what they mean is for the parent to decide.
"""

import contextlib
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection

from mribatch.core.errors import MribatchError, WriteError
from mribatch.core.system_errors import naming_system_errors
from mribatch.pipeline.executor.messages import (
    Failed,
    Halt,
    Halted,
    MakePart,
    Message,
    PartsOrder,
    message_bytes,
    read_message,
)
from mribatch.pipeline.executor.service import PartService


class _Parent:
    """The other end of the pipes."""

    def __init__(self, requests: Connection, replies: Connection) -> None:
        self._requests = requests
        self._replies = replies
        self._incoming: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.halts = threading.Event()
        threading.Thread(target=self._receive, name="mribatch-requests", daemon=True).start()

    def _receive(self) -> None:
        """Keep the pipe empty, so that a Halt is seen at once; end the process when the parent is done."""
        try:
            while True:
                message = read_message(self._requests.recv_bytes())
                if isinstance(message, Halt):
                    self.halts.set()
                self._incoming.put(message)
        except (EOFError, OSError):
            os._exit(0)  # at once: rows that are not published are made again

    def next(self) -> Message:
        return self._incoming.get()

    def send(self, message: Message) -> None:
        self._replies.send_bytes(message_bytes(message))


def main(arguments: Sequence[str]) -> None:
    """Serve until the parent closes the requests or sends a Halt."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    requests, replies = Connection(int(arguments[0]), writable=False), Connection(int(arguments[1]), readable=False)
    parent = _Parent(requests, replies)
    order = parent.next()
    assert isinstance(order, PartsOrder), "the order comes first"
    with telling_why(parent.send), PartService(order, parent.send, parent.halts.is_set) as service:
        while isinstance(request := parent.next(), MakePart):
            if not service.make(request.part, careful=request.careful):
                return
        parent.send(Halted(0))


@contextlib.contextmanager
def telling_why(send: Callable[[Message], None]) -> Iterator[None]:
    """Turn an error into a message that says why the process ends."""
    try:
        with naming_system_errors():
            yield
    except MribatchError as error:
        send(Failed(error.problem, error.fix, ends_run=isinstance(error, WriteError)))
    except BrokenPipeError:
        pass  # the parent is gone, and so is the reader of any reason
    except Exception:
        send(Failed("", "", bug=traceback.format_exc()))


if __name__ == "__main__":
    main(sys.argv[1:])
