"""A run on more machines than there are: a discrete-event simulation from measured figures.

Three things limit a run, and each is modelled as what it is. The driver lists all files before and counts all rows
after, alone; in between it is a queue that serves one actor after the other with its next part. Each actor makes its
parts at the measured rate of a core, with the measured spread between parts. Storage gives all actors together its
bandwidth; where they ask for more, all are slowed down alike.
"""

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mribatch.pipeline.output.layout import PartLayout, choose_part_rows

_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the simulation rests on, all of one machine.

    Attributes:
        core_rate: Images per second of one core of an actor.
        part_spread: Durations of parts, each divided by their mean.
        driver_part_s: Seconds in which the driver takes one part and hands out the next.
        start_s: Seconds until an actor is ready.
        listed_per_s: Files that the driver lists.
        counted_per_s: Rows that it counts at the end.
        image_bytes: Mean size of a file.
    """

    core_rate: float
    part_spread: tuple[float, ...]
    driver_part_s: float
    start_s: float
    listed_per_s: float
    counted_per_s: float
    image_bytes: float


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is assumed. storage_bytes_s: Bandwidth to all machines together."""

    nodes: int
    cores: int  # of each node; an actor has one
    images: int
    storage_bytes_s: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the simulation gives.

    Attributes:
        seconds: Of the whole run.
        making_s: Of these, with the actors at work.
        efficiency: Images per second of the whole run, of those that the cores could make.
        driver_busy: Share of `making_s` in which the driver works.
        read_bytes_s: By the actors while they are at work.
        parts: Number of part files.
        limit: What takes most: "cores", "driver" or "storage".
    """

    seconds: float
    making_s: float
    efficiency: float
    driver_busy: float
    read_bytes_s: float
    parts: int
    limit: str


def simulate(measured: Measured, setting: Setting) -> Outcome:
    """Run the events of a run in order of time."""
    actors = setting.nodes * setting.cores
    layout = PartLayout((setting.images,), choose_part_rows(setting.images))
    wanted = actors * measured.core_rate * measured.image_bytes
    slowed = max(1.0, wanted / setting.storage_bytes_s)
    seconds_an_image = slowed / measured.core_rate
    making = measured.start_s + _make(measured, layout, actors, seconds_an_image)
    alone = setting.images / measured.listed_per_s + setting.images / measured.counted_per_s
    ideal = setting.images / (actors * measured.core_rate)
    busy = layout.parts * measured.driver_part_s / making
    return Outcome(
        seconds=alone + making,
        making_s=making,
        efficiency=ideal / (alone + making),
        driver_busy=busy,
        read_bytes_s=setting.images * measured.image_bytes / making,
        parts=layout.parts,
        limit="driver" if alone > making or busy > 0.5 else "storage" if slowed > 1 else "cores",
    )


def _make(measured: Measured, layout: PartLayout, actors: int, seconds_an_image: float) -> float:
    """Seconds from the first part to the last."""
    chance, driver_free, last = random.Random(_SEED), 0.0, 0.0
    free = [0.0] * min(actors, layout.parts)  # when each actor asks for its next part; a heap
    for part in range(layout.parts):
        asked = heapq.heappop(free)
        driver_free = max(driver_free, asked) + measured.driver_part_s
        rows = min(layout.part_rows, layout.files - part * layout.part_rows)
        last_of_part = driver_free + rows * seconds_an_image * chance.choice(measured.part_spread)
        last = max(last, last_of_part)
        heapq.heappush(free, last_of_part)
    return last


def driver_limit(measured: Measured, images: int) -> float:
    """Images per second that the driver can hand out, whatever the machines make."""
    return choose_part_rows(images) / measured.driver_part_s


def storage_limit(measured: Measured, storage_bytes_s: float) -> float:
    """Images per second that storage can give."""
    return storage_bytes_s / measured.image_bytes


def spread_of(marks: Sequence[float]) -> tuple[float, ...]:
    """Times at which parts appeared, one after the other -> their durations, each divided by the mean."""
    durations = [later - earlier for earlier, later in pairwise(marks)]
    mean = sum(durations) / len(durations)
    return tuple(one / mean for one in durations)
