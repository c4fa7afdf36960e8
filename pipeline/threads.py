"""Work done ahead on daemon threads, collected in order, with a limit on how long one item may take.

A thread that is stuck in the operating system (a network folder that stopped answering) cannot be ended. It is left
behind and replaced, so that the run goes on; being a daemon, it does not keep the process from ending.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Ticket(Generic[Item, Result]):
    """One item under way. Only `WorkerThreads` looks inside."""

    __slots__ = ("abandoned", "done", "error", "item", "result", "started")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.done = threading.Lock()  # held until it is done; an Event costs ten times as much, for every image
        self.done.acquire()
        self.started: float | None = None  # time.monotonic
        self.result: Result | None = None
        self.error: BaseException | None = None
        self.abandoned = False


class WorkerThreads(Generic[Item, Result]):
    """A pool of daemon threads for `work`.

    Args:
        work: Called on a thread of the pool; an exception is raised again by `result`.
        threads: How many items are worked on at once.
        timeout_s: Seconds that one item may take from its start.
        late: Makes the result of an item that took longer.
    """

    def __init__(
        self, work: Callable[[Item], Result], threads: int, timeout_s: float, late: Callable[[Item], Result]
    ) -> None:
        self._work = work
        self._threads = threads
        self._timeout_s = timeout_s
        self._late = late
        self._waiting: queue.SimpleQueue[Ticket[Item, Result] | None] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        for _ in range(self._threads):
            self._start_thread()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while not self._waiting.empty():  # what nobody will collect is not begun
            self._waiting.get()
        for _ in range(self._threads):
            self._waiting.put(None)

    def submit(self, item: Item) -> Ticket[Item, Result]:
        """Queue an item; returns at once."""
        ticket: Ticket[Item, Result] = Ticket(item)
        self._waiting.put(ticket)
        return ticket

    def result(self, ticket: Ticket[Item, Result]) -> Result:
        """Wait for an item, once. Items are begun in the order of `submit`: waiting in that order never takes long."""
        while not ticket.done.acquire(timeout=self._patience(ticket)):
            if ticket.started is not None and time.monotonic() - ticket.started >= self._timeout_s:
                ticket.abandoned = True
                self._start_thread()
                return self._late(ticket.item)
        if ticket.error is not None:
            raise ticket.error
        return ticket.result  # type: ignore[return-value]  # set before done

    def in_groups(self, groups: Iterable[Sequence[Item]], ahead: int) -> Iterator[list[Result]]:
        """The results of each group, in order; up to `ahead` more groups are under way while the caller has one."""
        waiting: deque[list[Ticket[Item, Result]]] = deque()
        for group in groups:
            waiting.append([self.submit(item) for item in group])
            if len(waiting) > ahead:
                yield [self.result(ticket) for ticket in waiting.popleft()]
        while waiting:
            yield [self.result(ticket) for ticket in waiting.popleft()]

    def _patience(self, ticket: Ticket[Item, Result]) -> float:
        if ticket.started is None:
            return min(0.5, self._timeout_s)
        return max(0.0, ticket.started + self._timeout_s - time.monotonic())

    def _start_thread(self) -> None:
        threading.Thread(target=self._serve, name="mribatch-decode", daemon=True).start()

    def _serve(self) -> None:
        while (ticket := self._waiting.get()) is not None:
            ticket.started = time.monotonic()
            try:
                ticket.result = self._work(ticket.item)
            except BaseException as error:  # handed to whoever waits, KeyboardInterrupt included
                ticket.error = error
            ticket.done.release()
            if ticket.abandoned:  # replaced meanwhile
                return
