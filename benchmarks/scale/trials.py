"""The measured trials: each `mribatch classify` is a process of its own, timed from its start to its end."""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.conditions import spread
from benchmarks.cpu_ceiling import core_seconds, drawn_jpegs, image_paths, sample_files
from benchmarks.race.data import MRIBATCH, RaceData
from benchmarks.race.entrants import ENTRANTS, Entrant
from benchmarks.race.environments import REQUIREMENTS, python_of, versions_of
from benchmarks.race.heat import Ready, Track
from benchmarks.race.process import Finished, run_measured
from benchmarks.scale.local_cluster import local_cluster
from mribatch.core.bundle import MODEL_FILE, load_bundle
from mribatch.pipeline.output.parts import PARTS_FOLDER

TIMEOUT_S = 1800.0
KILLED_NODES, NODES = 2, 4
_FILES_A_FOLDER = 1000
_PARTS_BEFORE_KILL = 3
_FINEST_S = 0.001  # of the seconds in a summary: what took less is 0 there


def draw(folder: Path, count: int) -> Path:
    """A folder of `count` files in sub-folders: 64 drawings of 512 x 512 pixels, under many names by hard links."""
    making = folder.with_name(f"{folder.name}.part")  # renamed when all is there: a killed call leaves no half folder
    drawn = making / "drawn"
    shutil.rmtree(making, ignore_errors=True)
    drawn.mkdir(parents=True)
    originals = []
    for number, content in enumerate(drawn_jpegs()):
        originals.append(drawn / f"{number}.jpg")
        originals[-1].write_bytes(content)
    for number in range(count):
        place = making / "images" / f"{number // _FILES_A_FOLDER:04d}"
        place.mkdir(parents=True, exist_ok=True)
        os.link(originals[number % len(originals)], place / f"{number:07d}.jpg")
    making.rename(folder)
    return folder / "images"


@dataclass(frozen=True)
class Bench:
    """What the trials share. threads: Cores of this machine that are used."""

    model: str
    threads: int
    batch_size: int
    scratch: Path
    repeats: int

    def folder(self, count: int) -> Path:
        """The images of a trial, drawn when they are first asked for."""
        place = self.scratch / f"images-{count}"
        return place / "images" if place.exists() else draw(place, count)

    def classify(self, data: Path, name: str, *options: str) -> tuple[Finished, dict[str, Any]]:
        """One run into a new folder; how it went, and its summary."""
        out, log = self.scratch / "runs" / name, self.scratch / f"{name}.log"
        shutil.rmtree(out, ignore_errors=True)
        places = (str(data), "--out", str(out), "--model", self.model, "--labels", "none", "--json")
        ways = ("--batch-size", str(self.batch_size), "--backend", "onnxruntime", "--decoder", "opencv")
        finished = run_measured(
            [*MRIBATCH, "classify", *places, *ways, *options], os.environ, self.scratch, log, TIMEOUT_S
        )
        summary = json.loads(finished.last_line)
        self.summary_file(name).write_text(finished.last_line)
        return finished, summary

    def summary_file(self, name: str) -> Path:
        """Where the summary of a run is kept: run.json lacks the seconds of what comes after the last part."""
        return self.scratch / f"{name}.json"

    def in_turns(self, ways: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
        """Measure each way `repeats` times, in turns, after a round that is not counted."""
        found: dict[str, list[float]] = {name: [] for name in ways}
        for repeat in range(self.repeats + 1):
            for name, way in ways.items():
                value = way()
                print(f"  {'warming up' if not repeat else f'round {repeat}'}: {name} {value:.2f}", file=sys.stderr)
                if repeat:
                    found[name].append(value)
        return found


def trial_of_workers(bench: Bench, images: int, counts: Sequence[int]) -> dict[str, Any]:
    """Several processes on this machine, with the ceiling of its cores measured in the same rounds."""
    data = bench.folder(images)
    files, bundle = sample_files(image_paths(data)), load_bundle(bench.model)

    def ceiling() -> float:
        return bench.threads / sum(core_seconds(files, bundle, bench.threads, bench.batch_size))

    def run(count: int) -> float:
        _, summary = bench.classify(data, f"workers-{count}", "--threads", str(bench.threads), "--workers", str(count))
        return float(summary["images_per_second"])

    ways: dict[str, Callable[[], float]] = {"ceiling": ceiling}
    ways |= {str(count): lambda count=count: run(count) for count in counts}  # type: ignore[misc]
    found = bench.in_turns(ways)
    top = found.pop("ceiling")
    shares = {name: [rate / most for rate, most in zip(rates, top, strict=True)] for name, rates in found.items()}
    return {
        "images": images,
        "ceiling_images_per_second": spread(top),
        "images_per_second": {name: spread(rates) for name, rates in found.items()},
        "of_ceiling": {name: spread(rates) for name, rates in shares.items()},
    }


def trial_of_ray(bench: Bench, counts: Sequence[int]) -> dict[str, Any]:
    """The same cores with Ray and without; the cluster is there before, as it is for its users."""
    found: dict[str, Any] = {}
    with local_cluster(1, bench.threads) as cluster:
        for images in counts:
            data = bench.folder(images)
            ways: dict[str, Callable[[], float]] = {
                "local": lambda data=data: (
                    bench.classify(  # type: ignore[misc]
                        data, "local", "--threads", str(bench.threads)
                    )[0].seconds
                ),
                "ray": lambda data=data: (
                    bench.classify(  # type: ignore[misc]
                        data, "ray", "--on", f"ray://{cluster.address}"
                    )[0].seconds
                ),
            }
            seconds = bench.in_turns(ways)
            overhead = [ray / local - 1 for ray, local in zip(seconds["ray"], seconds["local"], strict=True)]
            found[str(images)] = {name: spread(values) for name, values in seconds.items()}
            found[str(images)] |= {"overhead": spread(overhead), "same_parts": _same(bench, "local", "ray")}
    return {"whole_process_seconds": found, "figures": _figures_of_a_run(bench, max(counts))}


def trial_against_ray_data(bench: Bench, images: int, environments: Path) -> dict[str, Any]:
    """Ray Data's read_images and map_batches with the same graph, each in a cluster of its own for these cores."""
    data, bundle = bench.folder(images), load_bundle(bench.model)
    peer = next(entrant for entrant in ENTRANTS if entrant.name == "ray")
    python = python_of(peer, environments, REQUIREMENTS, False)
    options = ("--model", bench.model, "--precision", "fp32", "--backend", "onnxruntime", "--decoder", "opencv")
    ours = Entrant(name="mribatch-on-ray", label="mribatch --on ray", network=bench.model)
    race = RaceData(
        folder=data,
        single=data,
        kind="synthetic",
        images=images,
        image_bytes=sum(path.stat().st_size for path in image_paths(data)),
        bundle=bundle.spec.name,
        graph=bundle.folder / MODEL_FILE,
        pixels=bundle.spec.height,
    )
    track = Track(race, bench.scratch / "race", bench.threads, TIMEOUT_S)
    with local_cluster(1, bench.threads) as cluster:
        on = ("--on", f"ray://{cluster.address}", "--threads", "1", "--batch-size", str(bench.batch_size))
        entrants = {
            "mribatch --on ray": Ready(ours, Path(sys.executable), (*options, *on)),
            "Ray Data": Ready(peer, python, ("--model", str(race.graph))),
        }
        seconds = bench.in_turns(
            {name: lambda ready=ready: track.run(ready).seconds for name, ready in entrants.items()}  # type: ignore[misc]
        )
    times = [theirs / own for theirs, own in zip(seconds["Ray Data"], seconds["mribatch --on ray"], strict=True)]
    return {
        "images": images,
        "whole_process_seconds": {name: spread(values) for name, values in seconds.items()},
        "times_as_fast": spread(times),
        "versions": versions_of(python, peer.libraries),
    }


def trial_of_killed_nodes(bench: Bench, images: int) -> dict[str, Any]:
    """Four nodes, two of which are killed while they make parts: the part files must be those of a local run."""
    data = bench.folder(images)
    bench.classify(data, "alone", "--threads", str(bench.threads))
    with local_cluster(NODES, 1) as cluster:
        parts = bench.scratch / "runs" / "killed" / PARTS_FOLDER
        shutil.rmtree(parts.parent, ignore_errors=True)
        before = list[int]()

        def kill() -> None:
            deadline = time.monotonic() + TIMEOUT_S
            while len(list(parts.glob("part-*.parquet"))) < _PARTS_BEFORE_KILL and time.monotonic() < deadline:
                time.sleep(0.05)
            before.append(len(list(parts.glob("part-*.parquet"))))
            cluster.kill(KILLED_NODES)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        finished, summary = bench.classify(data, "killed", "--on", f"ray://{cluster.address}")
        killer.join()
    return {
        "images": images,
        "nodes": NODES,
        "killed": KILLED_NODES,
        "parts": len(list(parts.glob("part-*.parquet"))),
        "parts_before_the_kill": before[0],
        "rows": summary["images"],
        "seconds": finished.seconds,
        "same_parts": _same(bench, "alone", "killed"),
    }


def _same(bench: Bench, one: str, other: str) -> bool:
    """Whether two runs have the same part files, byte for byte."""
    first, second = (_read_parts(bench.scratch / "runs" / name) for name in (one, other))
    return bool(first) and first == second


def _read_parts(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / PARTS_FOLDER).glob("part-*.parquet")}


def _figures_of_a_run(bench: Bench, images: int) -> dict[str, Any]:
    """What the simulation needs to know of a run with Ray, and the times of the parts of one without."""
    local = json.loads((bench.scratch / "runs" / "local" / "run.json").read_text())
    seconds = json.loads(bench.summary_file("ray").read_text())["seconds"]
    making = seconds["waiting_for_decoding"] + seconds["inference"] + seconds["writing"]
    marks = sorted(
        path.stat().st_mtime for path in (bench.scratch / "runs" / "local" / PARTS_FOLDER).glob("part-*.parquet")
    )
    assert local["listing"]["files"] == images, "the largest run was the last"
    return {
        "images_per_core_second": images / making / bench.threads,
        "listed_per_second": images / seconds["listing"],
        "counted_per_second": images / max(seconds["checking"], _FINEST_S),
        "part_marks": [round(mark - marks[0], 4) for mark in marks],
        "image_bytes": sum(path.stat().st_size for path in image_paths(bench.folder(images))) / images,
    }
