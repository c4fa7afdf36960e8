"""Actors of a Ray cluster that make the parts of one run. Each holds model, engine and decoder; no image travels.

The actors write part files into the run folder, which all machines see under the same path; this process hands out the
parts and counts. An actor that is lost with its machine is replaced where the cluster has room, and its part is made
again. Machines that join later get actors, too.
"""

import contextlib
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

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
from mribatch.pipeline.executor.hosts import describe_difference, mixed_error
from mribatch.pipeline.executor.messages import (
    Failed,
    Message,
    Note,
    PartMade,
    PartsOrder,
    Ready,
    Rows,
    message_bytes,
    read_message,
)
from mribatch.pipeline.executor.ray_cluster import RayCluster, is_out_of_memory
from mribatch.pipeline.output.run_file import HostKind
from mribatch.pipeline.records import RunsWith

_LATE_S = 60.0  # without an actor that is ready
_WORTH_A_CORE = 1.1  # more cores for each actor must make the run so many times as fast


class PartActor:
    """What lives in an actor: a PartService whose messages are the results of its methods."""

    def __init__(self, order: bytes) -> None:
        message = read_message(order)
        assert isinstance(message, PartsOrder), "an order"
        self._order = message
        self._stack = contextlib.ExitStack()
        self._sent: list[Message] = []

    def open(self) -> tuple[str, list[bytes]]:
        """Load everything; return the id of the machine and the messages: Ready or Failed is the last one."""
        import ray

        from mribatch.pipeline.executor.__main__ import telling_why
        from mribatch.pipeline.executor.service import PartService

        with telling_why(self._sent.append):
            self._service = self._stack.enter_context(PartService(self._order, self._sent.append))
        return ray.get_runtime_context().get_node_id(), self._take()

    def make(self, part: int, careful: bool) -> list[bytes]:
        """Make a part; PartMade or Failed is the last message."""
        from mribatch.pipeline.executor.__main__ import telling_why

        with telling_why(self._sent.append):
            self._service.make(part, careful=careful)
        return self._take()

    def _take(self) -> list[bytes]:
        messages, self._sent[:] = [message_bytes(message) for message in self._sent], []
        return messages


@dataclass
class _Actor:
    """One actor, as this process knows it. part: that it makes; None while it opens or waits."""

    maker: Maker
    handle: Any
    part: int | None = None


@dataclass
class _Parts:
    waiting: deque[int]
    deaths: Counter[int] = field(default_factory=Counter)


class RayActors:
    """A pool of actors. Leaving the context ends them all.

    Args:
        cluster: Entered.
        order: What they make.
        runs_with: What all of them must run with.
        threads: Cores of each; None: as many as let all cores work to the end.
        most: Actors at most; None: as many as the cluster has room for.
        needs_gpu: Whether each takes a GPU of the cluster.
        mixed: Whether they may be on machines of several kinds.
        known: Of the machines that have made parts before.
        actor: What lives in them.
    """

    def __init__(
        self,
        cluster: RayCluster,
        order: PartsOrder,
        runs_with: RunsWith,
        *,
        threads: int | None,
        most: int | None,
        needs_gpu: bool,
        mixed: bool,
        known: Sequence[HostKind] = (),
        actor: type[Any] | None = None,
    ) -> None:
        self._cluster = cluster
        self._ray = cluster.ray
        self._order = order
        self._runs_with = runs_with
        self._threads = threads
        self._most = most
        self._needs_gpu = needs_gpu
        self._mixed = mixed
        self._actor = actor or PartActor
        self._kind = next(iter(known), None)  # that all machines must be of
        self._busy: dict[Any, _Actor] = {}  # by the reference of what it does
        self._idle: list[_Actor] = []
        self._started = self._died_opening = 0
        self._given_up: list[MribatchError] = []
        self._halting = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in [*self._busy.values(), *self._idle]:
            self._kill(actor)

    def halt(self) -> None:
        """Leave the parts under way; they are made again when the run is resumed."""
        self._halting = True

    def make(self, parts: Iterable[int], idle_s: float = 0.2) -> Iterator[Event | None]:
        """Make parts, and tell what happens; None whenever nothing has happened for `idle_s`.

        Raises:
            MribatchError: No actor can be started, or one met an error that the user can fix.
            RuntimeError: An actor met a bug of ours.
        """
        work = _Parts(deque(parts))
        cores = [node.cores for node in self._cluster.nodes()]
        threads = self._threads or (1 if self._needs_gpu else choose_threads(cores, len(work.waiting)))
        self._order = replace(self._order, work=replace(self._order.work, threads=threads))
        late = time.monotonic() + _LATE_S
        while not self._halting and (work.waiting or self._has_part_under_way()):
            self._grow(len(work.waiting))
            if self._idle or self._has_part_under_way():
                late = float("inf")
            elif time.monotonic() > late:
                late = float("inf")
                yield Remark(f"no actor is ready after {_LATE_S:.0f} s; whether the cluster has room says: ray status")
            while self._idle and work.waiting:
                self._hand_out(self._idle.pop(), work)
            done, _ = self._ray.wait(list(self._busy), timeout=idle_s)
            if not done:
                yield None
            for reference in done:
                yield from self._take(reference, self._busy.pop(reference), work)

    def _has_part_under_way(self) -> bool:
        return any(one.part is not None for one in self._busy.values())

    def _grow(self, wanted: int) -> None:
        """Start actors while the cluster has room for them and there are parts without one."""
        threads = self._order.work.threads
        room = sum(node.room(threads, needs_gpu=self._needs_gpu) for node in self._cluster.nodes())
        room -= len(self._given_up)
        room = room if self._most is None else min(room, self._most)
        living = len(self._busy) + len(self._idle)
        opening = sum(one.part is None for one in self._busy.values())
        if room <= 0 and not living:
            raise self._given_up[-1] if self._given_up else no_room(threads, needs_gpu=self._needs_gpu)
        for _ in range(max(0, min(room - living, wanted - opening))):
            self._started += 1
            remote = self._ray.remote(
                num_cpus=threads, num_gpus=int(self._needs_gpu), max_restarts=0, max_task_retries=0
            )(self._actor)
            handle = remote.remote(message_bytes(self._order))
            self._busy[handle.open.remote()] = _Actor(Maker(self._started, ""), handle)

    def _hand_out(self, actor: _Actor, work: _Parts) -> None:
        actor.part = work.waiting.popleft()
        careful = work.deaths[actor.part] >= DEATHS_BEFORE_CARE
        self._busy[actor.handle.make.remote(actor.part, careful)] = actor

    def _take(self, reference: Any, actor: _Actor, work: _Parts) -> Iterator[Event]:
        """What an actor has done, or that it is gone."""
        exceptions = self._ray.exceptions
        try:
            found = self._ray.get(reference)
        except (exceptions.RayActorError, exceptions.OutOfMemoryError, exceptions.NodeDiedError) as error:
            self._kill(actor)
            yield from self._lose(actor, work, error)
            return
        if actor.part is None:
            node, found = found
            names = {one.id: one.name for one in self._cluster.nodes()}
            actor.maker = replace(actor.maker, host=names.get(node, node))
        messages = [read_message(content) for content in found]
        last = messages[-1]
        yield from (Remark(message.text) for message in messages if isinstance(message, Note))
        if isinstance(last, Ready):
            actor.maker = replace(actor.maker, kind=last.kind)
            last = self._find_difference(last) or last
        if isinstance(last, Failed):  # rows of a part without its end are made again, and count then
            yield from self._give_up(actor, last, work)
            return
        yield from (Told(actor.maker, message) for message in messages if isinstance(message, Rows | PartMade))
        actor.part, self._died_opening = None, 0
        self._idle.append(actor)

    def _find_difference(self, ready: Ready) -> Failed | None:
        """Why an actor that has opened may not make parts of this run."""
        if other := differing(ready.runs_with, self._runs_with, mixed=self._mixed):
            return other
        self._kind = self._kind or ready.kind
        difference = None if self._mixed else describe_difference(self._kind, ready.kind)
        if difference is None:
            return None
        error = mixed_error(f"the first has {difference[0]}, another {difference[1]}")
        return Failed(error.problem, error.fix)

    def _lose(self, actor: _Actor, work: _Parts, error: Exception) -> Iterator[Event]:
        """An actor is gone, with its machine or without it.

        Raises:
            MribatchError: That happens again and again.
        """
        how = "it ran out of memory" if is_out_of_memory(self._ray, error) else "its process or its machine ended"
        part, number = actor.part, actor.maker.number
        if part is None:
            self._died_opening += 1
            if self._died_opening >= MOST_DEATHS:
                problem = f"{MOST_DEATHS} actors in a row died before they were ready; of the last one, {how}"
                raise MribatchError(problem, "see Ray's logs; give more memory, or fewer --workers") from error
            return
        work.waiting.appendleft(part)
        work.deaths[part] += 1
        yield Lost(number, part, {})
        yield Remark(f"WARNING: actor {number} on {actor.maker.host} is lost, {how}; part {part} is made again")
        if work.deaths[part] >= MOST_DEATHS:
            raise hopeless(part, MOST_DEATHS, f"lost: {how}") from error

    def _give_up(self, actor: _Actor, failed: Failed, work: _Parts) -> Iterator[Event]:
        if failed.bug is not None:
            raise RuntimeError(f"an actor of the run failed:\n{failed.bug}")
        error = MribatchError(failed.problem, failed.fix)
        if failed.ends_run:
            raise error
        if actor.part is not None:
            work.waiting.appendleft(actor.part)
        self._given_up.append(error)
        self._kill(actor)
        where = f" on {actor.maker.host}" if actor.maker.host else ""
        yield Remark(f"WARNING: actor {actor.maker.number}{where} is given up, the others go on: {error.problem}")

    def _kill(self, actor: _Actor) -> None:
        with contextlib.suppress(Exception):  # it is gone already
            self._ray.kill(actor.handle)


def choose_threads(cores: Sequence[int], parts: int) -> int:
    """Return the cores of each actor, so that few parts keep many cores busy.

    With one core each, 20 parts would leave 44 of 64 cores idle, and 70 parts would take two rounds, the second one on
    6 cores. More cores for each cost rounding, and memory is saved.

    Args:
        cores: Of each machine.
        parts: To be made.
    """

    def duration(threads: int) -> float:
        actors = sum(one // threads for one in cores)
        return -(-parts // actors) / threads if actors else float("inf")

    if not parts or not any(cores):
        return 1
    choices = range(1, max(cores) + 1)
    shortest = min(map(duration, choices))
    return next(threads for threads in choices if duration(threads) <= shortest * _WORTH_A_CORE)


def no_room(threads: int, *, needs_gpu: bool) -> MribatchError:
    """Return the error of a cluster in which no actor fits."""
    gpu = " and a GPU" if needs_gpu else ""
    return MribatchError(
        f"no machine of the cluster has {threads} free cores{gpu}", "give fewer --threads, or add machines"
    )
