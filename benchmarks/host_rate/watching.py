"""One run of `mribatch classify`, watched from outside: how fast it is while it is full, and what its processes cost.

The clock is in the part files: the rate is the rows between the time of one part file and that of a later one, without
the first and the last ones, over the difference of these times. /proc gives the CPU time of every process, and the
interpreter's own flag says for how much of the time its lock is held (gil.py).
"""

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.host_rate.gil import GilNotFound, GilPlace, GilWatch
from mribatch.pipeline.output.layout import PART_ROWS

FEWEST_PARTS = 8  # of a run that is measured; the first and the last two do not count
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_LOOK_S = 0.05
_LIMIT_S = 900
_ROLES = {"mribatch.pipeline.worker": "worker", "mribatch.pipeline.executor": "seat"}


class RunFailed(Exception):
    """The run ended otherwise than it should, or did not end."""


@dataclass
class Process:
    """One process of the run. seconds: (time, CPU seconds so far); readings: (time, readings, held) of its lock."""

    role: str
    watch: GilWatch | None = None
    seconds: list[tuple[float, float]] = field(default_factory=list)
    readings: list[tuple[float, int, int]] = field(default_factory=list)

    def cpu_between(self, begin: float, end: float) -> float:
        return _at(end, self.seconds) - _at(begin, self.seconds)

    def held_between(self, begin: float, end: float) -> float:
        """Share of the time in which its lock was held."""
        inside = [reading for reading in self.readings if begin <= reading[0] <= end]
        if len(inside) < 2 or inside[-1][1] == inside[0][1]:
            return 0.0
        return (inside[-1][2] - inside[0][2]) / (inside[-1][1] - inside[0][1])


def watch_run(command: Sequence[str], out: Path, environment: Mapping[str, str], folder: Path) -> dict[str, float]:
    """One run; figures of the time in which it was full.

    Args:
        command: That runs it.
        out: Its run folder.
        environment: Of the process, all of it.
        folder: In which it starts.

    Raises:
        GilNotFound: The lock of this Python cannot be watched; nothing has begun.
        RunFailed: It failed, or has too few part files.
    """
    place = GilPlace.find()
    log = out.with_suffix(".log")
    with log.open("wb") as output:
        child = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=folder)
        try:
            processes = _watch_until_end(child, place)
        finally:
            child.kill()
            child.wait()
    if child.returncode:
        raise RunFailed(f"{' '.join(command)} ended with {child.returncode}: {log.read_text()[-2000:]}")
    return evaluate(out, processes)


def _watch_until_end(child: "subprocess.Popen[bytes]", place: GilPlace) -> dict[int, Process]:
    processes: dict[int, Process] = {}
    ends = time.monotonic() + _LIMIT_S
    with ExitStack() as stack:
        while child.poll() is None:
            for pid in _family(child.pid):
                process = processes.setdefault(pid, Process(_role_of(pid)))
                if process.watch is None and process.seconds:  # it has begun to run Python by now
                    process.role = _role_of(pid)
                    with suppress(GilNotFound, OSError):
                        process.watch = stack.enter_context(GilWatch(place, pid))
                _read(pid, process)
            if time.monotonic() > ends:
                raise RunFailed(f"the run has not ended after {_LIMIT_S} s")
            time.sleep(_LOOK_S)
    return processes


def _read(pid: int, process: Process) -> None:
    with suppress(OSError, IndexError):
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        process.seconds.append((time.time(), (int(facts[11]) + int(facts[12])) * _TICK_S))
        if process.watch is not None:
            process.readings.append((time.time(), *process.watch.counts()))


def _family(pid: int) -> Iterator[int]:
    """A process and all that came of it."""
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))


def _role_of(pid: int) -> str:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        return next((role for module, role in _ROLES.items() if module in words), "parent")
    return "parent"


def _at(moment: float, known: Sequence[tuple[float, float]]) -> float:
    """A growing number at a time, linear between the times at which it is known; before and after as at the ends."""
    earlier = [one for one in known if one[0] <= moment]
    later = [one for one in known if one[0] > moment]
    if not earlier or not later:
        return (earlier[-1] if earlier else later[0])[1]
    (begin, low), (end, high) = earlier[-1], later[0]
    return low + (high - low) * (moment - begin) / (end - begin)


def evaluate(out: Path, processes: Mapping[int, Process]) -> dict[str, float]:
    """What the part files and the processes of a run say.

    Raises:
        RunFailed: There are too few part files.
    """
    times = sorted(path.stat().st_mtime for path in (out / "predictions").glob("part-*.parquet"))
    if len(times) < FEWEST_PARTS:
        raise RunFailed(f"{out} has {len(times)} part files; {FEWEST_PARTS} are the fewest that can be measured")
    left_out = max(2, len(times) // 8)
    begin, end = times[left_out], times[-1 - left_out]
    rows = (len(times) - 1 - 2 * left_out) * PART_ROWS
    figures = {"images_per_second": rows / (end - begin)}
    busy = {pid: one.cpu_between(begin, end) for pid, one in processes.items()}
    figures["cpu_us_per_image"] = sum(busy.values()) / rows * 1e6
    for role in ("worker", "seat", "parent"):
        figures[f"{role}_cpu_us_per_image"] = sum(busy[pid] for pid in busy if processes[pid].role == role) / rows * 1e6
        held = sum(one.held_between(begin, end) for one in processes.values() if one.role == role)
        figures[f"{role}_gil_us_per_image"] = held * (end - begin) / rows * 1e6
    return figures
