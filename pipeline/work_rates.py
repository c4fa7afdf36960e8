"""How fast the processes and machines of a run are, and which stage they spend their time in."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mribatch.pipeline.executor.events import Lost, Told
from mribatch.pipeline.executor.messages import Rows
from mribatch.pipeline.stopwatch import DECODING, Stopwatch

_MOST_NAMED = 4  # processes or machines in one line


@dataclass(frozen=True)
class MakerRate:
    """A process or actor. images_per_second: Of its last part. made: When that appeared, seconds since 1970."""

    number: int
    host: str
    images_per_second: float
    made: float


@dataclass(frozen=True)
class WorkRates:
    """All that are at work. bottleneck: The stage in which they spend most of their time, by Stopwatch's names."""

    makers: tuple[MakerRate, ...]
    bottleneck: str

    def __str__(self) -> str:
        """Write it in one line: the rate of each of a few, and how they differ where there are many."""
        return f"{self._format_rates()}; slowest stage: {self.bottleneck}"

    def _format_rates(self) -> str:
        hosts = self.by_host
        if len(hosts) > 1:
            if len(hosts) > _MOST_NAMED:
                return f"{len(hosts)} machines, {_span([sum(rates) for rates in hosts.values()])} images/s each"
            shown = [f"{host} {_several(rates)}" for host, rates in hosts.items()]
            return f"{', '.join(shown)} images/s"
        if len(self.makers) > _MOST_NAMED:
            return f"{len(self.makers)} workers, {_span([one.images_per_second for one in self.makers])} images/s each"
        return f"{', '.join(f'worker {one.number} {one.images_per_second:,.0f}' for one in self.makers)} images/s"

    @property
    def by_host(self) -> Mapping[str, list[float]]:
        """Machine -> rate of each of its processes."""
        found: dict[str, list[float]] = {}
        for one in self.makers:
            found.setdefault(one.host, []).append(one.images_per_second)
        return found


class WorkWatch:
    """Keeps the rates while parts are made.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._told = Counter[int]()  # new rows of parts that are under way
        self._makers: dict[int, MakerRate] = {}
        self._seconds = Counter[str]()

    def take(self, event: Told) -> WorkRates | None:
        """Return the rates after a part, None after rows of one."""
        message, maker = event.message, event.maker
        if isinstance(message, Rows):
            self._told[message.part] += message.count
            return None
        rows, seconds = self._told.pop(message.part, 0), _in_rows(message.seconds)
        self._seconds.update(message.seconds)
        rate = rows / seconds if seconds else 0.0
        self._makers[maker.number] = MakerRate(maker.number, maker.host, rate, self._clock())
        return self.rates()

    def lose(self, event: Lost) -> None:
        """Forget who died, and the rows that are made again."""
        self._told.pop(event.part, None)
        self._makers.pop(event.number, None)

    def rates(self) -> WorkRates:
        """Return the rates as they are."""
        watch = Stopwatch()
        watch.seconds.update(self._seconds)
        return WorkRates(tuple(one for _, one in sorted(self._makers.items())), watch.bottleneck)

    def settle(self, watch: Stopwatch, wall_s: float) -> None:
        """Add the seconds of all to a stopwatch: side by side they took `wall_s`; core-seconds add up."""
        total = _in_rows(self._seconds)
        for stage, seconds in self._seconds.items():
            watch.seconds[stage] += seconds if stage == DECODING else seconds * wall_s / total if total else 0.0


def _in_rows(seconds: Mapping[str, float]) -> float:
    watch = Stopwatch()
    watch.seconds.update(seconds)
    return watch.in_rows


def _several(rates: list[float]) -> str:
    return f"{len(rates)} × {sum(rates) / len(rates):,.0f}" if len(rates) > 1 else f"{rates[0]:,.0f}"


def _span(rates: list[float]) -> str:
    low, high = f"{min(rates):,.0f}", f"{max(rates):,.0f}"
    return low if low == high else f"{low} to {high}"
