"""How many images a second the host can feed to a GPU: python -m benchmarks.host_rate [--workers 1,2,3]

The whole of `mribatch classify` runs, with its processes, the real DALI being fed, the real cuda-core and the Parquet
files, on a GPU in memory (tests/trt/fake_gpu). Only the GPU's own work is free: decoding, resizing and inference
(stand_ins/sitecustomize.py). So a rate is the most that the host would allow, however fast the GPU is.

How it is measured is said in watching.py and gil.py.

What many cores would do is computed from the CPU time of one image, and called so: nothing was measured there.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.conditions import RESULTS, conditions, machine, spread
from benchmarks.cpu_ceiling import SIDE
from benchmarks.host_rate.drawn_files import draw_files
from benchmarks.host_rate.gil import GilNotFound
from benchmarks.host_rate.watching import FEWEST_PARTS, RunFailed, watch_run
from mribatch.core.bundle import DEFAULT_MODEL
from mribatch.core.cores import usable_cores
from mribatch.core.files import write_json
from mribatch.pipeline.output.layout import PART_ROWS
from tests.trt.fake_gpu.machine import DALI, H100, ROOT, TENSORRT, FakeMachine, build_libcuda, make_machine

STAND_INS = Path(__file__).parent / "stand_ins"
PROJECTED_CORES = 16
GOAL = 25_000  # images a second
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def _measure_run(host: FakeMachine, source: Path, data: Path, out: Path, options: Sequence[str]) -> dict[str, float]:
    environment = host.environment() | {"PYTHONPATH": f"{STAND_INS}:{source}"}
    command = [str(host.python), "-m", "mribatch", "classify", str(data), "--out", str(out)]
    command += ["--backend", "tensorrt", "--decoder", "dali", "--quiet", *options]
    try:
        return watch_run(command, out, environment, source)
    except (GilNotFound, RunFailed) as error:
        sys.exit(f"Error: {error}")


def _measure_parts(source: Path, data: Path) -> dict[str, float]:
    command = [sys.executable, str(STAND_INS.parent / "parts.py"), str(data), DEFAULT_MODEL]
    environment = os.environ | {"PYTHONPATH": str(source), **dict.fromkeys(_ONE_THREAD, "1")}
    done = subprocess.run(command, env=environment, cwd=source, capture_output=True, text=True, check=True)
    parts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return parts


def project(figures: dict[str, Any], cores: int) -> dict[str, float]:
    """What `cores` cores would do where only the CPU time of an image counts, and no worker's lock is the limit."""
    rate = cores * 1e6 / figures["cpu_us_per_image"]["median"]
    held = max(figures["worker_gil_us_per_image"]["median"], figures["seat_gil_us_per_image"]["median"])
    return {
        "cores": cores,
        "images_per_second": round(rate),
        "workers_whose_lock_is_held_half_the_time": max(1, -(-int(rate * held) // 500_000)),
    }


def measure(sizes: Sequence[int], workers: Sequence[int], chosen: argparse.Namespace) -> dict[str, Any]:
    """By size of the files and number of workers."""
    found: dict[str, Any] = {}
    with _scratch() as folder:
        host = make_machine(folder / "machine", build_libcuda(folder), [H100], [TENSORRT, DALI])
        for size in sizes:
            data = folder / f"{size}kB"
            mean = draw_files(data, chosen.parts * PART_ROWS, size * 1000)
            by_workers: dict[str, Any] = {}
            for repeat in range(chosen.repeats):
                for count in workers:
                    options = ["--workers", str(count), "--gpus", "0", *chosen.options.split()]
                    once = _measure_run(host, chosen.source, data, folder / "run", options)
                    shutil.rmtree(folder / "run")
                    for name, value in once.items():
                        by_workers.setdefault(f"{count}", {}).setdefault(name, []).append(value)
                    print(
                        f"{size} kB, {count} workers, run {repeat + 1}: {once['images_per_second']:.0f} images/s",
                        flush=True,
                    )
            figures = {count: {name: spread(all_) for name, all_ in one.items()} for count, one in by_workers.items()}
            projected = project(figures[str(_most_that_fit(workers))], PROJECTED_CORES)
            found[f"{size}kB"] = {
                "mean_bytes": mean,
                "cpu_us_by_part": _measure_parts(chosen.source, data),
                "by_workers": figures,
                "projected_not_measured": projected,
            }
    return found


def _most_that_fit(workers: Sequence[int]) -> int:
    """The largest number of workers with a core each: the way of many cores, where none waits for another's core."""
    return max((count for count in workers if count <= usable_cores()), default=min(workers))


@contextmanager
def _scratch() -> Iterator[Path]:
    """In memory where there is such a folder: what is measured is not the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="mribatch-", dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def print_table(found: dict[str, Any]) -> None:
    names = (
        "images_per_second",
        "cpu_us_per_image",
        "worker_gil_us_per_image",
        "seat_gil_us_per_image",
        "parent_gil_us_per_image",
    )
    print(f"{'files':<8}{'workers':>8}" + "".join(f"{name:>26}" for name in names))
    for size, one in found.items():
        for count, figures in one["by_workers"].items():
            print(f"{size:<8}{count:>8}" + "".join(f"{figures[name]['median']:>26.1f}" for name in names))
        parts = ", ".join(f"{name} {value:.0f}" for name, value in one["cpu_us_by_part"].items())
        print(f"{size:<8}CPU us an image by part: {parts}")
        projected = one["projected_not_measured"]
        print(
            f"{size:<8}projected, not measured: {projected['images_per_second']:,} images/s on"
            f" {projected['cores']} cores (goal {GOAL:,}) with"
            f" {projected['workers_whose_lock_is_held_half_the_time']} workers"
        )


def main() -> None:
    chosen = _arguments()
    facts = conditions()
    found = measure(chosen.kilobytes, chosen.workers, chosen)
    print_table(found)
    name = f"host_rate-{DEFAULT_MODEL}-synthetic{SIDE}px-{machine(facts)}{chosen.label}.json"
    chosen.results.mkdir(parents=True, exist_ok=True)
    how = {
        "gpu": "in memory: decoding, resizing and inference cost nothing; no GPU was involved",
        "lock": "share of readings of the interpreter's own flag, in the memory of the process",
        "model": DEFAULT_MODEL,
        "options": chosen.options,
        "parts": chosen.parts,
    }
    write_json(chosen.results / name, {"conditions": facts, "how": how} | found)
    print(f"written: {chosen.results / name}")


def _numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=_numbers, default=[1, 2, 3])
    parser.add_argument("--kilobytes", type=_numbers, default=[32, 83], help="sizes of the files")
    parser.add_argument("--parts", type=int, default=24, help=f"part files of {PART_ROWS} images in each run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--options", default="", help="more options of classify, in one word: --options='--batch-size 256'"
    )
    parser.add_argument(
        "--source", type=Path, default=ROOT, help="checkout that is measured, e.g. of an earlier version"
    )
    parser.add_argument("--label", default="", help="added to the name of the result")
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    if chosen.parts < FEWEST_PARTS:
        parser.error(f"--parts is {FEWEST_PARTS} or more: the first and the last ones do not count")
    return chosen


if __name__ == "__main__":
    main()
