"""The worker process: slices of the listing in, rows out; started by `mribatch.pipeline.worker.supervisor`.

    python -P -m mribatch.pipeline.worker ORDER REQUESTS REPLIES

ORDER is a WorkOrder as JSON, the others are descriptors of two pipes. The process ends when its parent closes the
requests or dies. It ignores SIGINT, SIGTERM and SIGHUP, which may reach the whole group: what they mean is for the
parent to decide.
"""

import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection

from mribatch.core.bundle import load_bundle
from mribatch.core.errors import MemoryLimitError, MribatchError
from mribatch.core.system_errors import naming_system_errors
from mribatch.pipeline.inference.assembly import assemble
from mribatch.pipeline.inference.in_process import InProcessClassifier
from mribatch.pipeline.inference.order import WorkOrder
from mribatch.pipeline.records import ImageFile
from mribatch.pipeline.stopwatch import INFERENCE, WAITING, Stopwatch
from mribatch.pipeline.worker.messages import (
    Answer,
    Batch,
    FileBegun,
    NoMore,
    OneByOne,
    Reply,
    Request,
    Started,
    StartupNote,
    WorkerFailed,
    read_request,
    reply_bytes,
)
from mribatch.pipeline.worker.packed_batch import PackedBatch
from mribatch.trt.runtime.device import OutOfGpuMemory


def main(arguments: Sequence[str]) -> None:
    """Serve until the parent closes the requests."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    order = WorkOrder.from_json(arguments[0])
    requests = Connection(int(arguments[1]), writable=False)
    replies = Connection(int(arguments[2]), readable=False)
    try:
        with naming_system_errors():
            _serve(order, requests, replies)
    except MemoryLimitError:
        _send(
            replies,
            WorkerFailed("the worker process ran out of memory", "choose a smaller --batch-size or --max-pixels"),
        )
    except MribatchError as error:
        lacks_memory = isinstance(error, OutOfGpuMemory)
        _send(replies, WorkerFailed(error.problem, error.fix, out_of_memory=lacks_memory))
    except BrokenPipeError:
        pass  # the parent is gone, and so is the reader of any reason
    except Exception:
        _send(replies, WorkerFailed("", "", bug=traceback.format_exc()))


def _serve(order: WorkOrder, requests: Connection, replies: Connection) -> None:
    bundle = load_bundle(order.model)
    if bundle.sha256 != order.bundle_sha256:
        raise MribatchError(f"{order.model} has changed since the run began", "type the same command again")
    incoming: queue.SimpleQueue[Request] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests, incoming), name="mribatch-requests", daemon=True).start()

    def note(text: str) -> None:
        _send(replies, StartupNote(text))

    with assemble(bundle, order, note) as classify_files:
        _send(replies, Started(classify_files.runs_with, classify_files.gate(), classify_files.groups_ahead))
        while True:
            request = incoming.get()
            if isinstance(request, OneByOne):
                _answer_one_by_one(classify_files, request, replies)
            elif isinstance(request, Batch):
                _answer_batches(classify_files, request, incoming, replies)


def _receive(requests: Connection, incoming: "queue.SimpleQueue[Request]") -> None:
    """Keep the pipe empty, so that the parent never waits to write; end the process when the parent is done."""
    try:
        while True:
            incoming.put(read_request(requests.recv_bytes()))
    except (EOFError, OSError):
        os._exit(0)  # at once, whatever the other threads are in the middle of: there is nothing left to save


def _answer_one_by_one(classify_files: InProcessClassifier, request: OneByOne, replies: Connection) -> None:
    def begin(position: int | None) -> None:
        _send(replies, FileBegun(position))

    _send(replies, Answer(PackedBatch.of(classify_files.one_by_one(request.files, begin)), {}))


def _answer_batches(
    classify_files: InProcessClassifier, first: Batch, incoming: "queue.SimpleQueue[Request]", replies: Connection
) -> None:
    """Answer batch after batch until the parent says that there are no more."""
    watch, reported = Stopwatch(), {WAITING: 0.0, INFERENCE: 0.0}
    for batch in classify_files.batches(_read_groups(first, incoming), watch):
        now = {stage: watch.seconds[stage] for stage in reported}
        _send(replies, Answer(PackedBatch.of(batch), {stage: now[stage] - reported[stage] for stage in reported}))
        reported = now


def _read_groups(first: Batch, incoming: "queue.SimpleQueue[Request]") -> Iterator[Sequence[ImageFile]]:
    request: Request = first
    while not isinstance(request, NoMore):
        assert isinstance(request, Batch), "batches and single files do not mix"
        yield request.files
        request = incoming.get()


def _send(replies: Connection, reply: Reply) -> None:
    replies.send_bytes(reply_bytes(reply))


if __name__ == "__main__":
    main(sys.argv[1:])
