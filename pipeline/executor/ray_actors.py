"""Actors of a Ray cluster that make the parts of one run. Each holds model, engine and decoder; no image travels.

The actors write part files into the run folder, which all machines see under the same path; this process hands out the
parts and counts. An actor that is lost with its machine is replaced where the cluster has room, and its part is made
again. Machines that join later get actors, too.
"""

import contextlib
import signal
import socket
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Self

from mribatch.core.errors import MribatchError
from mribatch.core.install import install_command
from mribatch.pipeline.executor.events import DEATHS_BEFORE_CARE, MOST_DEATHS, Event, Lost, Remark, differing, hopeless
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
from mribatch.pipeline.records import RunsWith

_PATIENCE_S = 10.0  # for the first answer of a cluster


class PartActor:
    """What lives in an actor: a PartService whose messages are the results of its methods."""

    def __init__(self, order: bytes) -> None:
        message = read_message(order)
        assert isinstance(message, PartsOrder), "an order"
        self._order = message
        self._stack = contextlib.ExitStack()
        self._sent: list[Message] = []

    def open(self) -> list[bytes]:
        """Load everything; Ready or Failed is the last message."""
        from mribatch.pipeline.executor.__main__ import telling_why
        from mribatch.pipeline.executor.service import PartService

        with telling_why(self._sent.append):
            self._service = self._stack.enter_context(PartService(self._order, self._sent.append))
        return self._take()

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

    number: int
    handle: Any
    part: int | None = None


@dataclass
class _Parts:
    waiting: deque[int]
    deaths: Counter[int] = field(default_factory=Counter)


class RayActors:
    """A pool of actors. Entering it connects to the cluster; leaving it ends the actors.

    Args:
        order: What they make.
        runs_with: What all of them must run with.
        address: Of the cluster; None: the one that Ray finds, or a new one on this machine.
        most: Actors at most; None: as many as the cluster has room for.
        needs_gpu: Whether each takes a GPU of the cluster.

    Raises:
        MribatchError: On entering: Ray is not installed, or the cluster does not answer.
    """

    def __init__(
        self, order: PartsOrder, runs_with: RunsWith, *, address: str | None, most: int | None, needs_gpu: bool
    ) -> None:
        self._order = order
        self._runs_with = runs_with
        self._address = address
        self._most = most
        self._needs_gpu = needs_gpu
        self._busy: dict[Any, _Actor] = {}  # by the reference of what it does
        self._idle: list[_Actor] = []
        self._started = self._died_opening = 0
        self._given_up: list[MribatchError] = []
        self._halting = False
        self._is_ours = False

    def __enter__(self) -> Self:
        self._ray = load_ray()
        self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        for actor in [*self._busy.values(), *self._idle]:
            with contextlib.suppress(Exception):
                self._ray.kill(actor.handle)
        if self._is_ours:
            self._ray.shutdown()

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
        while not self._halting and (work.waiting or any(one.part is not None for one in self._busy.values())):
            self._grow(len(work.waiting))
            while self._idle and work.waiting:
                self._hand_out(self._idle.pop(), work)
            done, _ = self._ray.wait(list(self._busy), timeout=idle_s)
            if not done:
                yield None
            for reference in done:
                yield from self._take(reference, self._busy.pop(reference), work)

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        if self._address is not None:
            _check_answers(self._address)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._ray.init(
                address=self._address,
                include_dashboard=None if self._address else False,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except Exception as error:  # ConnectionError, RuntimeError, ValueError: by the kind of address
            raise MribatchError(
                f"the Ray cluster {self._address or ''} does not answer: {str(error).splitlines()[0]}".replace(
                    "  ", " "
                ),
                "start the cluster with ray start, or give its address as ray://HOST:PORT",
            ) from error
        finally:
            for number, handler in handlers.items():  # Ray replaces that of SIGTERM
                signal.signal(number, handler)
        self._is_ours = True

    def _grow(self, wanted: int) -> None:
        """Start actors while the cluster has room for them and there are parts without one."""
        room = self._room()
        living = len(self._busy) + len(self._idle)
        opening = sum(one.part is None for one in self._busy.values())
        if not room and not living:
            raise MribatchError(
                f"no machine of the cluster has {self._order.work.threads} free cores"
                f"{' and a GPU' if self._needs_gpu else ''}",
                "give fewer --threads, or add machines",
            )
        for _ in range(max(0, min(room - living, wanted - opening))):
            self._started += 1
            remote = self._ray.remote(
                num_cpus=self._order.work.threads, num_gpus=int(self._needs_gpu), max_restarts=0, max_task_retries=0
            )(PartActor)
            handle = remote.remote(message_bytes(self._order))
            self._busy[handle.open.remote()] = _Actor(self._started, handle)

    def _room(self) -> int:
        """How many actors the machines of the cluster can hold."""
        room = 0
        for node in self._ray.nodes():
            if node["Alive"]:
                resources = node["Resources"]
                fits = int(resources.get("CPU", 0) // self._order.work.threads)
                room += min(fits, int(resources.get("GPU", 0))) if self._needs_gpu else fits
        room -= len(self._given_up)
        return room if self._most is None else min(room, self._most)

    def _hand_out(self, actor: _Actor, work: _Parts) -> None:
        actor.part = work.waiting.popleft()
        careful = work.deaths[actor.part] >= DEATHS_BEFORE_CARE
        self._busy[actor.handle.make.remote(actor.part, careful)] = actor

    def _take(self, reference: Any, actor: _Actor, work: _Parts) -> Iterator[Event]:
        """What an actor has done, or that it is gone."""
        try:
            messages = [read_message(content) for content in self._ray.get(reference)]
        except self._ray.exceptions.RayActorError as error:
            if actor.part is not None:
                work.waiting.appendleft(actor.part)
                work.deaths[actor.part] += 1
                yield Lost(actor.part, {})
                if work.deaths[actor.part] >= MOST_DEATHS:
                    raise hopeless(actor.part, MOST_DEATHS, "lost with its actor") from error
            else:
                self._died_opening += 1
                if self._died_opening >= MOST_DEATHS:
                    problem = f"{MOST_DEATHS} actors in a row died before they were ready"
                    raise MribatchError(problem, "see Ray's logs; give more memory, or fewer --workers") from error
            return
        last = messages[-1]
        yield from (message for message in messages if isinstance(message, Rows | PartMade))
        yield from (Remark(message.text) for message in messages if isinstance(message, Note))
        if isinstance(last, Ready) and last.runs_with != self._runs_with:
            last = differing(last.runs_with, self._runs_with)
        if isinstance(last, Failed):
            yield from self._give_up(actor, last, work)
        else:
            actor.part, self._died_opening = None, 0
            self._idle.append(actor)

    def _give_up(self, actor: _Actor, failed: Failed, work: _Parts) -> Iterator[Event]:
        if failed.bug is not None:
            raise RuntimeError(f"an actor of the run failed:\n{failed.bug}")
        error = MribatchError(failed.problem, failed.fix)
        if failed.ends_run:
            raise error
        if actor.part is not None:
            work.waiting.appendleft(actor.part)
        self._given_up.append(error)
        self._ray.kill(actor.handle)
        if not self._busy and not self._idle and not self._room():
            raise error
        yield Remark(f"WARNING: actor {actor.number} is given up, the others go on: {error.problem}")


def _check_answers(address: str) -> None:
    """Ray itself waits for minutes where nobody listens.

    Raises:
        MribatchError: Nobody does.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_PATIENCE_S):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise MribatchError(
            f"the Ray cluster at {address} does not answer: {error}",
            "start the cluster with ray start, or give its address as ray://HOST:PORT",
        ) from error


def load_ray() -> ModuleType:
    """Import Ray.

    Raises:
        MribatchError: It is not installed.
    """
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise MribatchError("Ray is not installed", install_command("ray")) from error
    module: ModuleType = ray
    return module
