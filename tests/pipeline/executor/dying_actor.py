"""Actors that die while they open or make a part, for tests; what they do is counted in files, for all of them."""

import os
import signal
import time
from pathlib import Path

from mribatch.pipeline.executor.messages import PartsOrder, read_message
from mribatch.pipeline.executor.ray_actors import PartActor


def _count(order: PartsOrder, what: str) -> int:
    """How often something has happened, this time included."""
    with Path(order.run).with_name(what).open("ab") as file:
        file.write(b"x")
        return file.tell()


class DiesOpening(PartActor):
    """No actor is ever ready."""

    def open(self) -> tuple[str, list[bytes]]:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().open()


class DiesOpeningTwice(PartActor):
    """The first two die before they are ready."""

    def open(self) -> tuple[str, list[bytes]]:
        if _count(self._order, "openings") <= 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().open()


class DiesMakingOnce(PartActor):
    """The kernel ends the first actor over its second part, as it does where memory is short."""

    def make(self, part: int, careful: bool) -> list[bytes]:
        if _count(self._order, "parts") == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().make(part, careful)


class WaitsForAnother(PartActor):
    """The first actor makes one part, and more once another one is ready."""

    def open(self) -> tuple[str, list[bytes]]:
        opened = super().open()
        _count(self._order, "ready")
        return opened

    def make(self, part: int, careful: bool) -> list[bytes]:
        if _count(self._order, "parts") > 1:
            deadline = time.monotonic() + 120
            while Path(self._order.run).with_name("ready").stat().st_size < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
        return super().make(part, careful)


class HasAnotherProcessor(PartActor):
    """Every second actor is on a machine of another kind."""

    def __init__(self, order: bytes) -> None:
        message = read_message(order)
        assert isinstance(message, PartsOrder)
        if _count(message, "others") % 2 == 0:
            from mribatch.core.processor import Processor
            from mribatch.pipeline.executor import hosts

            vars(hosts)["find_processor"] = lambda: Processor("another", saturates=False)
        super().__init__(order)
