"""mribatch against its peers: python -m benchmarks.race --data FOLDER [--repeats N] [--peers A,B] [--count N]

Everybody classifies the same folder, each in a process and an environment of its own, taken in turns; every round
begins with another one. Per run:

    whole    images per second from the start of the process to its end: imports, loading, decoding, the result file
    steady   images per second from a quarter of the images to the last one
    start    seconds from the start of the process to its end for a folder of one image
    memory   largest sum over the process and its descendants, pages that they share counted once

Every runner must give each image one class; that is checked, and one that does not is left out. All get the same
number of cores and no GPU, and none needs the network once it is installed. Ratios are of one round. The peers'
environments are made with pip in build/race/ on the first call (about 15 GB, most of it PyTorch, twice); --install
makes them and nothing else. pip's own settings (PIP_INDEX_URL and so on) hold, and --requirements names a folder of
lists to use in place of those in benchmarks/race/requirements/.

Figures of a busy machine are noise: run it while nothing else runs.

    python -m benchmarks.race --table RESULT.json    write the table and the plot of a result again
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.conditions import RESULTS, conditions, machine, spread
from benchmarks.race.data import RaceData, prepare
from benchmarks.race.entrants import ENTRANTS, REFERENCE, Entrant, choose
from benchmarks.race.environments import REQUIREMENTS, PeerError, python_of, versions_of
from benchmarks.race.heat import Heat, Ready, Track
from benchmarks.race.process import RunError
from benchmarks.race.table import write_table

BUILD = Path("build/race")


@dataclass
class Standing:
    """What is known of one entrant.

    Attributes:
        ready: What it runs with.
        starts: Seconds for one image, one figure a round.
        heats: Whole runs by round.
    """

    ready: Ready
    starts: list[float] = field(default_factory=list)
    heats: list[Heat] = field(default_factory=list)


def race(standings: dict[str, Standing], track: Track, images: int, repeats: int) -> tuple[dict[str, str], list[float]]:
    """Run all rounds; the first, over one image each, is not counted.

    Returns:
        Who was left out and why, and the load of the machine before each counted round.
    """
    left_out, loads = dict[str, str](), list[float]()
    for number in range(repeats + 1):
        if number:
            loads.append(round(os.getloadavg()[0], 2))
        names = list(standings)
        turn = number % len(names) if names else 0
        for name in (*names[turn:], *names[:turn]):
            standing = standings[name]
            try:
                start = track.run(standing.ready, single=True)
                if not number:
                    print(f"warming up: {name:<16}one image in {start.seconds:.1f} s", file=sys.stderr)
                else:
                    heat = track.run(standing.ready)
                    standing.starts.append(start.seconds)
                    standing.heats.append(heat)
                    said = f"{images / heat.seconds:.1f} images/s, start {start.seconds:.2f} s"
                    print(f"round {number} of {repeats}: {name:<16}{said}", file=sys.stderr)
            except (RunError, OSError, ValueError) as error:
                left_out[name] = str(error)
                del standings[name]
                print(f"left out: {name}: {error}", file=sys.stderr)
    return left_out, loads


def figures(standing: Standing, reference: Standing | None, data: RaceData) -> dict[str, Any]:
    """An entrant's part of the result."""
    entrant = standing.ready.entrant
    whole = [data.images / heat.seconds for heat in standing.heats]
    steady = [heat.steady_rate for heat in standing.heats if heat.steady_rate is not None]
    part: dict[str, Any] = {
        "label": entrant.label,
        "network": entrant.network.replace("{bundle}", f"{data.bundle}, {data.pixels} px"),
        "runs": f"python -m {entrant.module}" if entrant.module else " ".join(("mribatch classify", *entrant.options)),
        **({} if entrant.variant is None else {"model": data.bundle, **entrant.variant}),
        "versions": versions_of(standing.ready.python, entrant.libraries),
        "whole_images_per_second": spread(whole),
        "steady_images_per_second": spread(steady) if steady else None,
        "start_seconds": spread(standing.starts),
        "peak_memory_bytes": spread([heat.peak_bytes for heat in standing.heats]),
    }
    if reference is not None:
        rates = zip(standing.heats, reference.heats, strict=True)
        part["whole_to_reference"] = spread([theirs.seconds / own.seconds for own, theirs in rates])
    return part


def find_ready(
    entrants: list[Entrant], track: Track, root: Path, requirements: Path, here: bool
) -> tuple[dict[str, Standing], dict[str, str]]:
    """Environments and networks of all entrants; who cannot race, and why."""
    standings, left_out = dict[str, Standing](), dict[str, str]()
    reference = next(entrant for entrant in ENTRANTS if entrant.name == REFERENCE)
    for entrant in entrants:
        try:
            python = python_of(entrant, root, requirements, here)
            keras = None
            if any("{b3" in option for option in entrant.options):
                keras = python_of(reference, root, requirements, here)
            standings[entrant.name] = Standing(track.ready(entrant, python, keras))
        except PeerError as error:
            left_out[entrant.name] = str(error)
            print(f"left out: {entrant.name}: {error}", file=sys.stderr)
    return standings, left_out


def measure(options: argparse.Namespace, entrants: list[Entrant]) -> tuple[dict[str, Any], str]:
    """The whole race: the result and the name of its file."""
    facts = conditions()
    if facts["load_before"] > facts["cores"] / 4:
        print(f"the machine is busy (load {facts['load_before']}): these figures are noise", file=sys.stderr)
    cores = sorted(os.sched_getaffinity(0))
    threads = min(options.threads or len(cores), len(cores))
    os.sched_setaffinity(0, cores[:threads])  # everybody inherits it
    facts["cores"] = threads
    with tempfile.TemporaryDirectory(prefix="mribatch-race-") as scratch:
        data = prepare(options.data, options.count, Path(scratch).resolve())
        track = Track(data, options.build, threads, options.timeout)
        standings, left_out = find_ready(entrants, track, options.build, options.requirements, options.here)
        failed, loads = race(standings, track, data.images, options.repeats)
        reference = standings.get(REFERENCE)
        result = {
            "conditions": facts,
            "data": data.kind,
            "images": data.images,
            "image_bytes": data.image_bytes,
            "threads": threads,
            "repeats": options.repeats,
            "load_before_each_round": loads,
            "page_cache": "warm: every file and every library was read before the first round that counts",
            "weights": "the peers' are random where the network says so: they decide the answers, not the speed",
            "entrants": {name: figures(one, reference, data) for name, one in standings.items()},
            "left_out": left_out | failed,
        }
    return result, f"race-{data.kind}-{data.images}images-{machine(facts | {'gpu': None})}.json"


def install(entrants: list[Entrant], options: argparse.Namespace) -> int:
    """Make the environments of the entrants and nothing else."""
    exit_code = 0
    for entrant in entrants:
        try:
            python = python_of(entrant, options.build, options.requirements, options.here)
            found = versions_of(python, entrant.libraries)
            print(f"{entrant.name:<16}" + ", ".join(f"{library} {version}" for library, version in found.items()))
        except PeerError as error:
            print(f"{entrant.name:<16}{error}")
            exit_code = 1
    return exit_code


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.race", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of real images; synthetic slices are drawn without it")
    parser.add_argument("--count", type=int, help="most images of --data; without it, slices to draw (1000)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (3)")
    parser.add_argument("--peers", metavar="NAME,NAME…", help="all, or " + ",".join(e.name for e in ENTRANTS))
    parser.add_argument(
        "--ours", action="append", default=[], metavar="NAME=OPTIONS", help="one more `mribatch classify` with OPTIONS"
    )
    parser.add_argument("--threads", type=int, help="cores for everybody (all)")
    parser.add_argument("--timeout", type=float, default=900, metavar="SECONDS", help="for one run (900)")
    parser.add_argument("--requirements", type=Path, default=REQUIREMENTS, help="folder with lists in place of ours")
    parser.add_argument("--build", type=Path, default=BUILD, help="folder of the peers' environments (build/race)")
    parser.add_argument("--here", action="store_true", help="race those peers that this environment has, in it")
    parser.add_argument("--install", action="store_true", help="only make the environments and show versions")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the result")
    parser.add_argument("--table", type=Path, metavar="RESULT.json", help="only write a result's table and plot again")
    options = parser.parse_args()
    if options.table is not None:
        print(write_table(options.table))
        return 0
    if min(options.repeats, options.count or 1, options.threads or 1) < 1:
        parser.error("--repeats, --count and --threads are 1 or more")
    try:
        entrants = choose(options.peers, options.ours)
    except ValueError as error:
        parser.error(str(error))
    options.build = options.build.resolve()
    options.build.mkdir(parents=True, exist_ok=True)
    if options.install:
        return install(entrants, options)
    try:
        result, name = measure(options, entrants)
    except RuntimeError as error:
        sys.exit(f"Error: {error}")
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / name).write_text(json.dumps(result, indent=2) + "\n")
    print(write_table(options.results / name))
    print(f"written: {options.results / name}, and its .md and .svg")
    return 0 if result["entrants"] else 1


if __name__ == "__main__":
    sys.exit(main())
