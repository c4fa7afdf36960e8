"""Several processes that make the parts of one run, each one part after the other; any of them may die.

Parts are handed out in their order. The part of a process that died is handed out again first. A part over which
processes die time after time is made carefully: images are decoded in a further process, which may die, and the image
that kills it gets a row that says so. A process that never starts is given up with its GPU, and the others go on.
"""

import contextlib
import platform
import queue
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from mribatch.core.errors import MribatchError
from mribatch.pipeline.executor.events import (
    DEATHS_BEFORE_CARE,
    MOST_DEATHS,
    Event,
    Lost,
    Maker,
    Remark,
    Told,
    differing,
    hopeless,
)
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
from mribatch.pipeline.records import RunsWith
from mribatch.pipeline.worker.process import ChildProcess, Death, WorkerDied, interpreter_options

COMMAND: Sequence[str] = (sys.executable, *interpreter_options(sys.flags), "-m", "mribatch.pipeline.executor")
_FAILED_STARTS = 3  # in a row, after which a process is given up
_PATIENCE_S = 3600.0  # building an engine takes minutes, and a batch of slow files too


@dataclass(frozen=True, kw_only=True)
class Seat:
    """A place for one process after the other. environment: What its processes have beside our variables."""

    number: int  # from 1
    environment: Mapping[str, str]
    log: Path


@dataclass
class _Work:
    """The parts that the seats share."""

    waiting: deque[int]
    deaths: Counter[int] = field(default_factory=Counter)
    taken: int = 0  # by seats that may give them back
    ended: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self) -> tuple[int, bool] | None:
        """Wait for a part; return it, and whether it needs care. None: all are made, or it is over."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting or not self.taken or self.ended)
            if not self.waiting or self.ended:
                return None
            self.taken += 1
            part = self.waiting.popleft()
            return part, self.deaths[part] >= DEATHS_BEFORE_CARE

    def finish(self) -> None:
        """A part that was taken is made."""
        with self.changed:
            self.taken -= 1
            self.changed.notify_all()

    def give_back(self, part: int, *, died: bool) -> int:
        """Hand a part out again, before all others; return how many processes have died over it."""
        with self.changed:
            self.taken -= 1
            self.waiting.appendleft(part)
            self.deaths[part] += died
            self.changed.notify_all()
            return self.deaths[part]

    def end(self) -> None:
        """Hand out nothing any more."""
        with self.changed:
            self.ended = True
            self.changed.notify_all()


class PartProcesses:
    """A pool of processes. Leaving the context ends them all.

    Args:
        order: What they make.
        seats: One for each process.
        runs_with: What all of them must run with.
        command: That runs a process.
    """

    def __init__(
        self, order: PartsOrder, seats: Sequence[Seat], runs_with: RunsWith, command: Sequence[str] | None = None
    ) -> None:
        self._order = order
        self._seats = seats
        self._runs_with = runs_with
        self._command = command or COMMAND
        self._events: queue.Queue[Event | BaseException | None] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._living: dict[int, ChildProcess] = {}  # by seat
        self._lock = threading.Lock()
        self._work = _Work(deque())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.halt()
        for thread in self._threads:
            thread.join()

    def make(self, parts: Iterable[int], idle_s: float = 0.2) -> Iterator[Event | None]:
        """Make parts, and tell what happens; None whenever nothing has happened for `idle_s`.

        Raises:
            MribatchError: No process can be started, or one met an error that the user can fix.
            RuntimeError: A process met a bug of ours.
        """
        work = self._work = _Work(deque(parts))
        for seat in self._seats[: max(1, len(work.waiting))]:
            thread = threading.Thread(target=self._serve, args=(seat, work), name=f"mribatch-seat-{seat.number}")
            self._threads.append(thread)
            thread.start()
        running = len(self._threads)
        given_up: list[BaseException] = []
        while running:
            try:
                event = self._events.get(timeout=idle_s)
            except queue.Empty:
                yield None
                continue
            if event is None:
                running -= 1
            elif isinstance(event, _GivenUp):
                given_up.append(event)
                if len(given_up) == len(self._threads):
                    raise event.reason
                yield Remark(f"WARNING: process {event.seat} is given up, the others go on: {event.reason.problem}")
            elif isinstance(event, BaseException):
                raise event
            else:
                yield event

    def halt(self) -> None:
        """Have every process keep its rows and end; each tells so."""
        self._work.end()
        with self._lock:
            for process in self._living.values():
                process.send_bytes(message_bytes(Halt()))

    def _serve(self, seat: Seat, work: _Work) -> None:
        """On a thread: parts to processes of one seat, until there is none left."""
        process: ChildProcess | None = None
        failed_starts = 0
        try:
            while (taken := work.take()) is not None:
                part, careful = taken
                try:
                    process = process or self._start(seat)
                    failed_starts = 0
                    halted = self._make_part(seat, process, part, careful)
                except _Died as died:
                    self._end(seat, process or died.process)
                    started, process = process is not None, None
                    failed_starts += not started
                    self._events.put(Lost(seat.number, part, died.by_status))
                    deaths = work.give_back(part, died=started)
                    if failed_starts >= _FAILED_STARTS or died.death.error is not None:
                        raise _GivenUp(seat.number, _describe(died.death)) from died
                    if deaths >= MOST_DEATHS:
                        raise hopeless(part, deaths, died.death.how) from died
                    continue
                work.finish()
                if halted:
                    return
        except BaseException as error:  # told on the thread of `make`
            self._events.put(error)
        finally:
            self._end(seat, process)
            self._events.put(None)

    def _start(self, seat: Seat) -> ChildProcess:
        process = ChildProcess(self._command, seat.log, seat.environment)
        process.send_bytes(message_bytes(self._order))
        with self._lock:
            self._living[seat.number] = process
            if self._work.ended:  # the others were halted before this one was known
                process.send_bytes(message_bytes(Halt()))
        try:
            while not isinstance(message := self._receive(process), Ready):
                if isinstance(message, Note):
                    self._events.put(Remark(message.text))
        except WorkerDied as died:
            raise _Died(process, died.death, {}) from died
        if other := differing(message.runs_with, self._runs_with):
            error = MribatchError(other.problem, other.fix)
            raise _Died(process, Death(other.problem, error=error), {})
        return process

    def _make_part(self, seat: Seat, process: ChildProcess, part: int, careful: bool) -> bool:
        """Have one part made; return whether the process was halted before its end."""
        told, maker = Counter[str](), Maker(seat.number, platform.node())
        process.send_bytes(message_bytes(MakePart(part, careful)))
        try:
            while True:
                message = self._receive(process)
                if isinstance(message, Rows):
                    told.update(message.by_status)
                    self._events.put(Told(maker, message))
                elif isinstance(message, PartMade):
                    self._events.put(Told(maker, message))
                    return False
                elif isinstance(message, Halted):
                    self._events.put(message)
                    return True
        except WorkerDied as died:
            raise _Died(process, died.death, told) from died

    def _receive(self, process: ChildProcess) -> Message:
        message = read_message(process.receive_bytes(_PATIENCE_S))
        if isinstance(message, Failed):
            if message.bug is not None:
                raise RuntimeError(f"a process of the run failed:\n{message.bug}")
            error = MribatchError(message.problem, message.fix)
            if message.ends_run:
                raise error
            raise WorkerDied(Death(f"ended by an error: {message.problem}", error=error))
        return message

    def _end(self, seat: Seat, process: ChildProcess | None) -> None:
        with self._lock:
            self._living.pop(seat.number, None)
        if process is not None:
            with contextlib.suppress(OSError):
                process.end()


class _Died(Exception):
    """A process is gone, with the rows that it had told of since its part began."""

    def __init__(self, process: ChildProcess, death: Death, by_status: Mapping[str, int]) -> None:
        super().__init__(death.how)
        self.process = process
        self.death = death
        self.by_status = dict(by_status)


class _GivenUp(Exception):
    """A seat has no process any more."""

    def __init__(self, seat: int, reason: MribatchError) -> None:
        super().__init__(reason.problem)
        self.seat = seat
        self.reason = reason


def _describe(death: Death) -> MribatchError:
    return death.error or MribatchError(
        f"a process of the run could not start: it was {death.how}", "see worker.log in the output folder"
    )
