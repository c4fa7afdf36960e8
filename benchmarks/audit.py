"""How long an audit takes and what it finds: python -m benchmarks.audit [--data FOLDER] [--count N] [--repeats N]

The whole command in a process of its own, page included; on synthetic slices without --data. The result holds counts
and seconds, and nothing of an image or of its name.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2

from benchmarks.conditions import RESULTS, conditions, machine, spread
from mribatch.core.files import write_json
from mribatch.core.synthetic import draw_slice

CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
SIZE = 512  # pixels of a synthetic slice


def draw(folder: Path, count: int, size: int = SIZE) -> Path:
    """Different slices, spread over the classes of folders Training and Testing."""
    for number in range(count):
        part = "Testing" if number % 7 == 0 else "Training"
        path = folder / part / CLASSES[number % len(CLASSES)] / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), draw_slice(number, size, size))
    return folder


def measure(data: Path, repeats: int) -> dict[str, Any]:
    """Seconds of the whole command, and the figures of the last one."""
    seconds, cpu_seconds = [], []
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "audit"
        command = [sys.executable, "-m", "mribatch.cli", "audit", str(data), "--out", str(out), "--quiet"]
        for _ in range(repeats):
            begin, before = time.perf_counter(), _cpu_of_children()
            subprocess.run(command, check=True)
            seconds.append(time.perf_counter() - begin)
            cpu_seconds.append(_cpu_of_children() - before)
        content: dict[str, Any] = json.loads((out / "audit.json").read_text(encoding="utf-8"))
        page_bytes = (out / "audit.html").stat().st_size
    kept = ("files", "duplicates", "contradictions", "leaks", "random_split", "series", "shortcuts", "figures")
    images = content["files"]["images"]
    return {
        "images": images,
        "seconds": spread(seconds),
        "cpu_seconds": spread(cpu_seconds),  # of all cores together: what a busy machine does not change
        "images_per_second": images / spread(seconds)["median"],
        "page_bytes": page_bytes,
    } | {key: content[key] for key in kept}


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of real images; synthetic ones are drawn without it")
    parser.add_argument("--count", type=int, default=3000, help="synthetic images")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    facts = conditions()
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(options.data or draw(Path(scratch) / "data", options.count), options.repeats)
    kind = "real" if options.data else f"synthetic{SIZE}px"
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / f"audit-{kind}-{result['images']}images-{machine(facts)}.json"
    write_json(path, {"conditions": facts, "data": kind} | result)
    print(f"{result['images']:,} images in {result['seconds']['median']:.1f} s")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
