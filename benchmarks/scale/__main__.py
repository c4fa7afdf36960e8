"""Several processes and machines, measured and simulated: python -m benchmarks.scale [--trials workers,ray,…]

    workers      1, 2 and 4 processes of one machine, beside the ceiling of its cores
    ray          the same cores with Ray and without, for few and for many images: what Ray costs
    peer         against Ray Data's read_images and map_batches with the same graph
    nodes        a cluster of four nodes on loopback, two of which are killed: the same part files as a local run
    driver       parts that the driver can hand out in a second

Where ray and driver were measured, 10 and 100 machines are simulated from their figures.

Every run is a process of its own, from its start to its end; rounds take turns, and the first one is not counted.
Writes benchmarks/results/scale-*.json, after each trial, and the section of docs/how-to/cluster.md that is made from
it. With --trials the other trials of that file stay, where they were measured on this kind of machine with these
libraries. Figures of a busy machine are noise: run it while nothing else runs. On two cores all takes about 30 minutes.

    python -m benchmarks.scale --section    write the section again
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.conditions import RESULTS, conditions, machine
from benchmarks.cpu_ceiling import SIDE
from benchmarks.race.__main__ import BUILD
from benchmarks.scale.driver_rate import measure_driver
from benchmarks.scale.local_cluster import local_cluster
from benchmarks.scale.section import TRIALS, write_section
from benchmarks.scale.simulation import Measured, Setting, driver_limit, simulate, spread_of, storage_limit
from benchmarks.scale.trials import (
    Bench,
    trial_against_ray_data,
    trial_of_killed_nodes,
    trial_of_ray,
    trial_of_workers,
)
from mribatch.core.bundle import load_bundle
from mribatch.core.cores import usable_cores
from mribatch.core.files import write_json
from mribatch.pipeline.options import BATCH_SIZE_PER_CORE

WORKERS = (1, 2, 4)
_ALIKE = ("mribatch", "processor", "cores", "python", "libraries")  # conditions of trials in one result
SETTINGS = tuple((nodes, images) for images in (10**6, 10**7, 10**8) for nodes in (1, 10, 100))


def measure(options: argparse.Namespace, bench: Bench) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every trial that was asked for, as soon as it is done: its name and what it found."""
    trials: Mapping[str, Callable[[], Any]] = {
        "workers": lambda: trial_of_workers(bench, options.workers_images, WORKERS),
        "ray": lambda: trial_of_ray(bench, options.ray_images),
        "peer": lambda: trial_against_ray_data(bench, options.peer_images, options.build),
        "nodes": lambda: trial_of_killed_nodes(bench, options.nodes_images),
        "driver": lambda: trial_of_driver(bench, options.driver_parts),
    }
    for name, trial in trials.items():
        if name in options.trials:
            load = round(os.getloadavg()[0], 2)
            print(f"{name}, load {load:.2f}", file=sys.stderr)
            yield name, {"load_before": load, "repeats": options.repeats} | trial()


def earlier_trials(path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The trials of a result that is there, where they were measured under the same conditions, but for the load."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text())
    alike = all(found["conditions"].get(name) == facts[name] for name in _ALIKE)
    return {name: found[name] for name in TRIALS if name in found} if alike else {}


def trial_of_driver(bench: Bench, parts: int) -> dict[str, Any]:
    """Seconds in which the driver takes a part and hands out the next, and until actors are ready."""
    with local_cluster(1, bench.threads) as cluster:
        return {"parts": parts, "seconds_per_part": measure_driver(cluster, parts)}


def simulations(found: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Runs on more machines, from what the trials gave."""
    figures, runs = found["ray"]["figures"], found["ray"]["whole_process_seconds"]
    few = min(map(int, runs))  # a run that is nearly all start
    work_s = few / figures["images_per_core_second"] / usable_cores()
    measured = Measured(
        core_rate=figures["images_per_core_second"],
        part_spread=spread_of(figures["part_marks"]),
        driver_part_s=found["driver"]["seconds_per_part"],
        start_s=max(0.0, runs[str(few)]["ray"]["median"] - work_s),
        listed_per_s=figures["listed_per_second"],
        counted_per_s=figures["counted_per_second"],
        image_bytes=figures["image_bytes"],
    )
    storage = options.storage_mb * 1e6
    settings = [
        Setting(nodes=nodes, cores=options.node_cores, images=images, storage_bytes_s=storage)
        for nodes, images in SETTINGS
    ]
    limits = {
        "driver_images_per_second": {str(images): driver_limit(measured, images) for images in (10**6, 10**8)},
        "storage_images_per_second": storage_limit(measured, storage),
    }
    runs = [asdict(setting) | asdict(simulate(measured, setting)) for setting in settings]
    return {"measured": asdict(measured), "limits": limits, "runs": runs}


def _parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", action="store_true", help="only write the section of the newest result again")
    parser.add_argument("--trials", type=_read_names, default=TRIALS, help=f"of {','.join(TRIALS)}")
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--workers-images", type=int, default=8_192)
    parser.add_argument("--ray-images", type=_read_numbers, default=(1_000, 50_000))
    parser.add_argument("--peer-images", type=int, default=6_000)
    parser.add_argument("--nodes-images", type=int, default=20_000)
    parser.add_argument("--driver-parts", type=int, default=3_000)
    parser.add_argument("--node-cores", type=int, default=16, help="of each simulated machine")
    parser.add_argument("--storage-mb", type=float, default=1250, help="MB/s of simulated storage: 10 Gbit/s")
    parser.add_argument("--build", type=Path, default=BUILD, help="environments of the peers, as benchmarks.race has")
    parser.add_argument("--scratch", type=Path, help="folder for images and runs, 2 GB; a new one by default")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def _read_names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - set(TRIALS):
        raise argparse.ArgumentTypeError(f"there is no trial {', '.join(sorted(unknown))}")
    return names


def _read_numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def main() -> None:
    options = _parse()
    if options.section:
        print(f"written: {write_section(options.results)}")
        return
    facts, cores = conditions(), usable_cores()
    if facts["load_before"] > cores / 4:
        print(f"the machine is busy (load {facts['load_before']}): these figures are noise", file=sys.stderr)
    spec = load_bundle(options.model).spec
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / f"scale-{spec.name}-synthetic{SIDE}px-{machine(facts)}.json"
    result = {"conditions": facts, "data": f"synthetic{SIDE}px", "model": spec.name} | earlier_trials(path, facts)
    with tempfile.TemporaryDirectory(prefix="mribatch-scale-") as temporary:
        scratch = (options.scratch or Path(temporary)).resolve()
        scratch.mkdir(parents=True, exist_ok=True)
        bench = Bench(options.model, cores, BATCH_SIZE_PER_CORE * cores, scratch, options.repeats)
        for name, trial in measure(options, bench):
            result[name] = trial
            write_json(path, result)
    if {"ray", "driver"} <= set(result):
        write_json(path, result | {"simulation": simulations(result, options)})
    print(f"written: {path}")
    if set(TRIALS) <= set(result) and options.results == RESULTS:
        print(f"written: {write_section(options.results)}")


if __name__ == "__main__":
    main()
