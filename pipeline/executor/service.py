"""Makes parts on demand, in a process that a run has started: what it says goes back as messages."""

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from mribatch.core.about import __version__
from mribatch.core.bundle import load_bundle
from mribatch.core.errors import MribatchError
from mribatch.core.text import decode_name
from mribatch.pipeline.executor.hosts import inspect_host
from mribatch.pipeline.executor.messages import (
    Halted,
    HostFound,
    HostOrder,
    Message,
    Note,
    PartMade,
    PartsOrder,
    Ready,
    Rows,
)
from mribatch.pipeline.executor.part_maker import PartMaker
from mribatch.pipeline.file_classifier import open_file_classifier
from mribatch.pipeline.listing.table import Listing
from mribatch.pipeline.output.folder import WORKER_LOG
from mribatch.pipeline.output.mirror import Mirror, mirroring, part_name
from mribatch.pipeline.output.partial import read_partial
from mribatch.pipeline.output.run_file import read_run_file
from mribatch.pipeline.records import FileClassifier
from mribatch.pipeline.stopwatch import Stopwatch
from mribatch.pipeline.storage.address import Address
from mribatch.pipeline.storage.bundle_copy import fetch_bundle
from mribatch.pipeline.storage.content import can_be_seen
from mribatch.pipeline.worker.supervisor import SupervisedClassifier

_SAME_PATH = "give all machines the same folder under this path"
_LOOKS, _SECONDS_BETWEEN_LOOKS = 5, 1.0


class PartService:
    """Entered, it has loaded everything and says so.

    Args:
        order: What to make.
        send: Takes the messages.
        is_halting: Whether the part under way is to be left.

    Raises:
        MribatchError: On entering: the run folder or the bundle is not there, or is another one; the backend does not
            work here.
    """

    def __init__(
        self, order: PartsOrder, send: Callable[[Message], None], is_halting: Callable[[], bool] = lambda: False
    ) -> None:
        self._order = order
        self._send = send
        self._is_halting = is_halting
        self._careful: FileClassifier | None = None
        self._mirror: Mirror | None = None  # where the run folder is in a store
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            order = self._order = self._localise(stack)
            _check_order(order)
            bundle = load_bundle(order.work.model)
            if bundle.sha256 != order.work.bundle_sha256:
                problem = f"{order.work.model} has changed since the run began"
                raise MribatchError(problem, "type the same command again")
            listing = Listing(order.folder, order.inputs)
            self._maker = PartMaker(order.folder, listing, order.layout, order.part_facts, self._publish)
            log = order.folder / WORKER_LOG
            self._classifier = stack.enter_context(open_file_classifier(bundle, order.work, log, self._note))
            self._send(Ready(self._classifier.runs_with, self._classifier.gate(), inspect_host()))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _localise(self, stack: contextlib.ExitStack) -> PartsOrder:
        """The order with paths of this machine: of the model, and of the run folder where that is in a store."""
        order = self._order
        order = replace(order, work=replace(order.work, model=fetch_bundle(order.work.model)))
        if order.address is None:
            return order
        self._mirror = stack.enter_context(mirroring(Address.parse(order.address)))
        self._mirror.fetch(lambda name: not name.endswith(".parquet") or "/" not in name)  # all but the parts
        return replace(order, run=str(self._mirror.path))

    def _publish(self, part: int, rows: int) -> None:
        if self._mirror is not None:
            self._mirror.push(part_name(part))

    def make(self, part: int, *, careful: bool) -> bool:
        """Make one part; return False where it was left before its end, with its rows kept.

        Args:
            part: Its number.
            careful: Decode and classify in a further process, which may die over a file without taking this one along.
        """
        watch, order = Stopwatch(), self._order
        head = read_partial(order.folder, order.layout, order.part_facts, part)
        heads = {} if head is None else {part: head}
        for rows in self._maker.make([part], self._choose(careful), watch, heads):
            by_status = dict(Counter(row.status.value for row in rows))
            self._send(Rows(part, by_status, rows[-1].error))
            if self._is_halting() and self._maker.unpublished:
                self._send(Halted(self._maker.keep()))
                return False
        self._send(PartMade(part, watch.seconds))
        return True

    def _choose(self, careful: bool) -> FileClassifier:
        if not careful:
            return self._classifier
        if self._careful is None:
            log = self._order.folder / WORKER_LOG
            self._careful = self._stack.enter_context(SupervisedClassifier(self._order.work, log, self._note))
        return self._careful

    def _note(self, text: str) -> None:
        self._send(Note(text))


def inspect(order: HostOrder) -> HostFound:
    """Return of what kind this machine is.

    Raises:
        MribatchError: It does not see the run folder or the inputs, or has another version of mribatch.
    """
    check_version(order.tool_version)
    out = [] if order.run is None else [("--out", order.run)]
    for what, path in [*out, *(("the inputs", path) for path in order.seen)]:
        if not _is_there(path.encode("latin-1")):
            shown = decode_name(path.encode("latin-1"))[0]
            raise MribatchError(f"it does not see {what}: there is no {shown}", _SAME_PATH)
    return HostFound(inspect_host())


def _is_there(path: bytes) -> bool:
    """Whether it exists; a network folder may take some seconds to show what is new."""
    for _ in range(_LOOKS):
        if os.path.lexists(path):
            return True
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return False


def check_version(wanted: str) -> None:
    """Refuse another version of mribatch.

    Raises:
        MribatchError: This is one.
    """
    if wanted != __version__:
        problem = f"it has mribatch {__version__}, the run was begun with {wanted}"
        raise MribatchError(problem, "install the same version everywhere")


def _check_order(order: PartsOrder) -> None:
    """Refuse what would make other rows, or none.

    Raises:
        MribatchError: This machine does not see the run folder or the inputs, or has another version of mribatch.
    """
    check_version(order.tool_version)
    if read_run_file(order.folder).run_id != order.run_id:
        raise MribatchError(f"{order.folder} holds another run", _SAME_PATH)
    for item in order.inputs:
        if not can_be_seen(item.root):
            raise MribatchError(f"it does not see the inputs in {decode_name(item.root)[0]}", _SAME_PATH)
