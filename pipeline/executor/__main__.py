"""A process that makes parts of a run; started by `mribatch.pipeline.executor.processes`.

    python -P -m mribatch.pipeline.executor REQUESTS REPLIES

Both are descriptors of pipes. The process ends when its parent closes the requests or dies. It ignores SIGINT and
SIGTERM, which may reach the whole group: what they mean is for the parent to decide.
"""

import contextlib
import os
import queue
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection

from mribatch.core.bundle import Bundle, load_bundle
from mribatch.core.errors import MribatchError, WriteError
from mribatch.core.system_errors import naming_system_errors
from mribatch.pipeline.executor.messages import (
    Failed,
    Halt,
    Halted,
    MakePart,
    Message,
    Note,
    PartMade,
    PartsOrder,
    Ready,
    Rows,
    message_bytes,
    read_message,
)
from mribatch.pipeline.executor.part_maker import PartMaker
from mribatch.pipeline.file_classifier import open_file_classifier
from mribatch.pipeline.listing.table import Listing
from mribatch.pipeline.output.folder import WORKER_LOG
from mribatch.pipeline.output.partial import read_partial
from mribatch.pipeline.records import FileClassifier
from mribatch.pipeline.stopwatch import Stopwatch
from mribatch.pipeline.worker.supervisor import SupervisedClassifier


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


class _PartProcess:
    """Makes the parts that the parent asks for."""

    def __init__(self, order: PartsOrder, bundle: Bundle, parent: _Parent) -> None:
        self._order = order
        self._bundle = bundle
        self._parent = parent
        listing = Listing(order.folder, order.inputs)
        self._maker = PartMaker(order.folder, listing, order.layout, order.part_facts)

    def serve(self) -> None:
        """Make parts until a Halt comes."""
        with contextlib.ExitStack() as stack:
            classifier = stack.enter_context(
                open_file_classifier(self._bundle, self._order.work, self._order.folder / WORKER_LOG, self._note)
            )
            self._parent.send(Ready(classifier.runs_with, classifier.gate()))
            careful: FileClassifier | None = None
            while True:
                request = self._parent.next()
                if not isinstance(request, MakePart):
                    self._parent.send(Halted(0))
                    return
                if request.careful and careful is None:
                    careful = stack.enter_context(self._open_careful())
                if not self._make(request.part, careful if request.careful and careful else classifier):
                    return

    def _make(self, part: int, classifier: FileClassifier) -> bool:
        """Make one part; return False where a Halt came before its end."""
        watch, order = Stopwatch(), self._order
        head = read_partial(order.folder, order.layout, order.part_facts, part)
        for rows in self._maker.make([part], classifier, watch, {} if head is None else {part: head}):
            by_status = dict(Counter(row.status.value for row in rows))
            self._parent.send(Rows(part, by_status, rows[-1].error))
            if self._parent.halts.is_set() and self._maker.unpublished:
                self._parent.send(Halted(self._maker.keep()))
                return False
        self._parent.send(PartMade(part, watch.seconds))
        return True

    def _open_careful(self) -> FileClassifier:
        return SupervisedClassifier(self._order.work, self._order.folder / WORKER_LOG, self._note)

    def _note(self, text: str) -> None:
        self._parent.send(Note(text))


@contextlib.contextmanager
def _telling(parent: _Parent) -> Iterator[None]:
    """Tell the parent why this process ends."""
    try:
        yield
    except MribatchError as error:
        parent.send(Failed(error.problem, error.fix, ends_run=isinstance(error, WriteError)))
    except BrokenPipeError:
        pass  # the parent is gone, and so is the reader of any reason
    except Exception:
        parent.send(Failed("", "", bug=traceback.format_exc()))


def main(arguments: Sequence[str]) -> None:
    """Serve until the parent closes the requests or sends a Halt."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    requests, replies = Connection(int(arguments[0]), writable=False), Connection(int(arguments[1]), readable=False)
    parent = _Parent(requests, replies)
    order = parent.next()
    assert isinstance(order, PartsOrder), "the order comes first"
    with _telling(parent), naming_system_errors():
        bundle = load_bundle(order.work.model)
        if bundle.sha256 != order.work.bundle_sha256:
            raise MribatchError(f"{order.work.model} has changed since the run began", "type the same command again")
        _PartProcess(order, bundle, parent).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
