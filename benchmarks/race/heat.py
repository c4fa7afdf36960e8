"""One entrant classifies one folder: measured, and checked that every image got a class."""

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.race.data import MRIBATCH, RaceData
from benchmarks.race.entrants import PIXELS, REFERENCE, Entrant
from benchmarks.race.environments import PeerError
from benchmarks.race.job import STEADY_FROM, image_paths
from benchmarks.race.process import RunError, run_measured

Rows = list[tuple[str, str | None]]  # path relative to the folder, class

_SINGLE_S = 180.0  # seconds after which a run over one image hangs
# No peer may ask the network, use a GPU or install anything while it is measured.
_CALM = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "RAY_ADDRESS": "local",  # not a cluster that happens to run on this machine
    "RAY_USAGE_STATS_ENABLED": "0",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_OFFLINE": "true",
}


@dataclass(frozen=True)
class Ready:
    """An entrant with what it runs with."""

    entrant: Entrant
    python: Path
    options: tuple[str, ...]


@dataclass(frozen=True)
class Heat:
    """One run.

    Attributes:
        seconds: From the start of the process to its end.
        peak_bytes: Largest memory of the process tree.
        steady_rate: Images per second from a quarter of the images to the last; None with too few batches.
    """

    seconds: float
    peak_bytes: int
    steady_rate: float | None


class Track:
    """Where the race is run: scratch folders, threads, networks that are made before it starts."""

    def __init__(self, data: RaceData, root: Path, threads: int, timeout_s: float) -> None:
        self._data, self._root, self._threads, self._timeout_s = data, root.resolve(), threads, timeout_s
        self._packages, self._logs = self._root / "path", self._root / "logs"
        for folder in (self._packages, self._logs, self._root / "work"):
            folder.mkdir(parents=True, exist_ok=True)
        link = self._packages / "benchmarks"  # the only package of ours that the peers' environments see
        link.unlink(missing_ok=True)
        link.symlink_to(Path(__file__).resolve().parents[1])

    def ready(self, entrant: Entrant, python: Path, reference: Path | None) -> Ready:
        """Make the networks that the entrant needs.

        Args:
            entrant: Who.
            python: Its interpreter.
            reference: The interpreter with Keras, where there is one.

        Raises:
            PeerError: One could not be made.
        """
        made = {"graph": str(self._data.graph), "b3": "", "b3_bundle": ""}
        wanted = " ".join(entrant.options)
        if "{b3" in wanted:
            made["b3"] = str(self._b3(reference))
        if "{b3_bundle}" in wanted:
            made["b3_bundle"] = str(self._b3_bundle(Path(made["b3"])))
        return Ready(entrant, python, tuple(option.format(**made) for option in entrant.options))

    def run(self, ready: Ready, single: bool = False) -> Heat:
        """Classify the race's folder, or the one with a single image.

        Raises:
            RunError: The process failed, or an image has no class.
        """
        data, out = self._data.single if single else self._data.folder, self._root / "work" / ready.entrant.name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        log = self._logs / f"{ready.entrant.name}.log"
        limit = min(self._timeout_s, _SINGLE_S) if single else self._timeout_s
        finished = run_measured(self._command(ready, data, out), self._environment(ready.entrant), out, log, limit)
        rows = _rows_of_ours(out / "run") if ready.entrant.ours else _rows_of_peer(out / "classes.csv", data)
        check_rows(rows, {str(path.relative_to(data)) for path in image_paths(data)})
        rate = _steady_of_ours(out / "run") if ready.entrant.ours else _steady_of_peer(finished.last_line)
        shutil.rmtree(out)
        return Heat(finished.seconds, finished.peak_bytes, rate)

    def _command(self, ready: Ready, data: Path, out: Path) -> list[str | Path]:
        threads = ("--threads", str(self._threads))
        if ready.entrant.module is None:
            run = ("--out", out / "run", "--labels", "none", "--quiet")
            return [*MRIBATCH, "classify", data, *run, *threads, *ready.options]
        pixels = self._data.pixels if ready.entrant.uses_default_graph else PIXELS
        job = ("--data", data, "--out", out / "classes.csv", "--pixels", str(pixels))
        return [ready.python, "-P", "-m", ready.entrant.module, *job, *threads, *ready.options]

    def _environment(self, entrant: Entrant) -> Mapping[str, str]:
        calm = _CALM | {"OMP_NUM_THREADS": str(self._threads), "YOLO_CONFIG_DIR": str(self._root / "yolo")}
        if not entrant.ours:
            calm["PYTHONPATH"] = str(self._packages)
        return os.environ | calm

    def _b3(self, reference: Path | None) -> Path:
        path = self._root / "b3.keras"
        if not path.exists():
            if reference is None:
                raise PeerError(f"its network is made by the peer {REFERENCE}, which is left out")
            _make([reference, "-P", "-m", "benchmarks.race.peers.reference", "--build", path], self._packages)
        return path

    def _b3_bundle(self, keras: Path) -> Path:
        path = self._root / "b3-bundle"
        if not path.exists():
            classes = "glioma_tumor,meningioma_tumor,no_tumor,pituitary_tumor"
            _make([*MRIBATCH, "export", keras, "--out", path, "--classes", classes, "--untrained"], None)
        return path


def _make(command: list[str | Path], packages: Path | None) -> None:
    environment = os.environ | _CALM | ({} if packages is None else {"PYTHONPATH": str(packages)})
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise PeerError(f"its network could not be made: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")


def _rows_of_peer(result: Path, data: Path) -> Rows:
    """Path, relative to the folder, and class of each row of a peer's CSV."""
    with result.open(newline="", encoding="utf-8") as file:
        rows = [(row["path"], row["class"]) for row in csv.DictReader(file)]
    return [(str(Path(path).relative_to(data)) if Path(path).is_absolute() else path, answer) for path, answer in rows]


def _rows_of_ours(run: Path) -> Rows:
    """Path and class of each row of a run folder."""
    table = pq.read_table(run / "predictions", columns=["path", "predicted"])
    return list(zip(table["path"].to_pylist(), table["predicted"].to_pylist(), strict=True))


def check_rows(rows: Rows, expected: set[str]) -> None:
    """Raises RunError unless each image has exactly one row with a class."""
    classified = {path for path, answer in rows if answer}
    if len(rows) != len(expected) or classified != expected:
        raise RunError(f"{len(rows):,} rows and {len(classified & expected):,} classes for {len(expected):,} images")


def _steady_of_peer(last_line: str) -> float | None:
    """The rate from the marks that a peer's script printed; stages that follow each other add up."""
    stages = json.loads(last_line)["stages"]
    if stages is None:
        return None
    seconds = sum((one["last_s"] - one["first_s"]) / (one["last"] - one["first"]) for one in stages)
    return 1 / float(seconds) if seconds else None


def _steady_of_ours(run: Path) -> float | None:
    """The rate from the times at which the parts of a run were complete."""
    done, marks = 0, list[tuple[int, float]]()
    for part in sorted((run / "predictions").glob("*.parquet")):
        done += pq.read_metadata(part).num_rows
        marks.append((done, part.stat().st_mtime))
    steady = [mark for mark in marks if mark[0] >= STEADY_FROM * done]
    (first, first_s), (last, last_s) = steady[0], steady[-1]
    return (last - first) / (last_s - first_s) if last_s > first_s else None
