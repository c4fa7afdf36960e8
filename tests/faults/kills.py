"""SIGKILL at random moments, then the same command: what is left must be the table of an undisturbed run, and no more."""

import os
import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from mribatch.core.errors import ExitCode
from tests.faults.server import Server
from tests.folders import draw_images, table

FILES = 2200  # three parts
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class KillMode:
    """What is killed. target: "all", "parent" or "worker", of which only --decoder dali has one."""

    name: str
    options: tuple[str, ...]
    target: str


MODES = (
    KillMode("plain", (), "all"),
    KillMode("dali", ("--decoder", "dali"), "all"),
    KillMode("dali, the worker alone", ("--decoder", "dali"), "worker"),
    KillMode("dali, the parent alone", ("--decoder", "dali"), "parent"),
)


@dataclass
class KillCounts:
    """What was tried, and what came of it."""

    kills: int = 0  # processes that were killed before they had ended
    ended_first: int = 0  # processes that had ended before
    runs: int = 0  # that were complete in the end
    problems: list[str] = field(default_factory=list)


def draw_many(folder: Path) -> Path:
    """2,200 small files in two classes, some of them broken."""
    images = [path.read_bytes() for path in draw_images(folder / "few", 16, size=16)]
    for number in range(FILES):
        path = folder / "many" / ("no" if number % 2 else "glioma") / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images[number % 16] if number % 97 else b"broken")
    return folder / "many"


class Killer:
    """Kills the classification of one folder.

    Args:
        folder: For its files.
        data: What is classified.
        model: The bundle.
        server: Runs the commands.
        seed: Of the moments.
    """

    def __init__(self, folder: Path, data: Path, model: Path, server: Server, seed: int = 7) -> None:
        self._folder = folder
        self._data = data
        self._model = model
        self._server = server
        self._random = random.Random(seed)

    def kill(self, mode: KillMode, kills: int) -> KillCounts:
        """Kill so many processes; begin another run whenever one is complete."""
        counts, out = KillCounts(), self._folder / "out"
        whole, longest = self._undisturbed(mode)
        while counts.kills < kills and len(counts.problems) < 5:
            moment = self._random.uniform(0.0, longest)
            ended = self._server.run(self._command(mode, out), kill_after_s=moment, target=mode.target)
            if mode.target == "worker":
                counts.kills += ended.killed
                counts.ended_first += not ended.killed
            elif ended.killed:
                counts.kills += 1
                self._await_orphans(ended.descendants, counts)
                continue
            else:
                counts.ended_first += 1
            self._check(out, ended.code, ended.stderr, whole, counts)
        ended = self._server.run(self._command(mode, out))
        self._check(out, ended.code, ended.stderr, whole, counts)
        return counts

    def _command(self, mode: KillMode, out: Path) -> list[object]:
        options = ("--model", self._model, "--batch-size", 8, "--threads", 2, "--quiet", *mode.options)
        return ["classify", self._data, "--out", out, *options]

    def _undisturbed(self, mode: KillMode) -> tuple[object, float]:
        out = self._folder / "whole"
        for _ in range(2):  # the first one also imports
            shutil.rmtree(out, ignore_errors=True)
            begin = time.monotonic()
            ended = self._server.run(self._command(mode, out))
            assert ended.code == ExitCode.ROWS_NOT_OK, ended
        longest = time.monotonic() - begin
        found = table(out)
        shutil.rmtree(out)
        return found, longest

    def _check(self, out: Path, code: int, stderr: str, whole: object, counts: KillCounts) -> None:
        """What a run that has ended by itself must be."""
        counts.runs += 1
        if code != ExitCode.ROWS_NOT_OK:
            counts.problems.append(f"ended with {code}: {stderr.strip()}")
        elif not table(out).equals(whole):
            counts.problems.append("other rows than those of an undisturbed run")
        left = [path.name for path in out.rglob(".*") if path.name != ".lock"]
        if left:
            counts.problems.append(f"left {left}")
        shutil.rmtree(out, ignore_errors=True)

    def _await_orphans(self, descendants: tuple[int, ...], counts: KillCounts) -> None:
        """Processes that a killed one has started end by themselves."""
        end = time.monotonic() + _PATIENCE_S
        while alive := [one for one in descendants if _is_alive(one)]:
            if time.monotonic() > end:
                counts.problems.append(f"{len(alive)} orphans are alive")
                return
            time.sleep(0.01)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        return b") Z " not in Path(f"/proc/{process}/stat").read_bytes()
    except (ProcessLookupError, FileNotFoundError):
        return False
