"""Damage inside files that is found, and what the search costs: python -m benchmarks.damage [--count N] [--repeats N]

Slices are written as every kind of file that is read, whole and with damage inside the data (a hole, zeros, an early
end, swapped halves; the container fits what is left). A whole file that is not ok is a false alarm. The cost is
processor time of one thread: probing and decoding a whole file, against a decode without any check by the library that
decodes it (libjpeg, libpng, libtiff, libwebp, OpenJPEG, the last four by OpenCV), in turns within one run.

Slices are drawn. Where MRIBATCH_DATA names the real data, a second result has real slices: --jpegs of them, damaged as
JPEGs in grey and colour, baseline and progressive, fewer in the other formats, and all files of the data as they are.
Of these, counts are kept and no image.
"""

import argparse
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from time import thread_time
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy import uint8
from numpy.typing import NDArray

from benchmarks.conditions import RESULTS, conditions, machine, spread
from mribatch.core.files import write_json
from mribatch.core.synthetic import draw_slice
from mribatch.pipeline.decode.grey import decode_grey, stretch
from mribatch.pipeline.decode.jpeg_data import is_read_alike
from mribatch.pipeline.decode.probe import probe
from mribatch.pipeline.records import Status
from tests.damaged_files import DAMAGES, KINDS, damaged, in_colour

SIDE = 160  # pixels of the result, as the shipped models take them
SPEED_SIDE, SPEED_FILES = 512, 8

Named = tuple[str, NDArray[uint8]]  # a slice's name and its pixels, grey or red, green, blue


def status_of(content: bytes) -> Status:
    """The final verdict, after the decoder has seen the data."""
    return decode_grey(content, probe(content), SIDE, SIDE)[0].status


def drawn(count: int) -> Iterator[Named]:
    """Drawn slices of many sizes, each in grey and in colour."""
    for seed in range(count):
        grey = draw_slice(seed, 160 + 3 * seed % 200, 200 - seed % 60)
        yield f"{seed}_grey", grey
        yield f"{seed}_colour", in_colour(grey)


def real(paths: Sequence[Path], count: int) -> Iterator[Named]:
    """Every so many-th of the real slices, every second one in false colours."""
    for number, path in enumerate(paths[:: max(1, len(paths) // count)][:count]):
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert grey is not None, "a file of the data that OpenCV does not read"
        pixels = np.asarray(grey, dtype=uint8)
        yield str(number), in_colour(pixels) if number % 2 else pixels


def count_found(kind: str, slices: Iterator[Named]) -> dict[str, Any]:
    """How many damaged files of a kind are found, and how many whole ones are called bad."""
    statuses, missed = Counter[str](), Counter[str]()
    whole = false_alarms = 0
    for name, pixels in slices:
        content = KINDS[kind](pixels)
        whole += 1
        false_alarms += status_of(content) is not Status.OK
        for file in damaged(f"{kind}_{name}", content):
            status = status_of(file.damaged)
            statuses[status] += 1
            if status is Status.OK:
                missed[next(damage for damage in DAMAGES if file.name.startswith(damage))] += 1
    made = sum(statuses.values())
    return {
        "whole": whole,
        "false_alarms": false_alarms,
        "made": made,
        "found": made - sum(missed.values()),
        "statuses": dict(sorted(statuses.items())),
        "missed_by_damage": dict(sorted(missed.items())),
    }


def _unchecked(content: bytes) -> None:
    """A decode to the same size that goes on after damage."""
    if content.startswith(b"\xff\xd8"):
        grey = simplejpeg.decode_jpeg(content, "GRAY", strict=False)[..., 0]
    else:
        read = cv2.imdecode(np.frombuffer(content, uint8), cv2.IMREAD_GRAYSCALE)
        assert read is not None
        grey = np.asarray(read, dtype=uint8)
    stretch(grey, SIDE, SIDE)


def _checked(content: bytes) -> None:
    assert status_of(content) is Status.OK


def _seconds(work: Callable[[bytes], object], contents: Sequence[bytes]) -> float:
    begin = thread_time()
    for content in contents:
        work(content)
    return (thread_time() - begin) / len(contents)


def measure_speed(kind: str, repeats: int) -> dict[str, Any]:
    """Milliseconds of a thread for a file with and without the check, in turns, and the ratio."""
    contents = [KINDS[kind](draw_slice(seed, SPEED_SIDE, SPEED_SIDE)) for seed in range(SPEED_FILES)]
    works: dict[str, Callable[[bytes], object]] = {"unchecked": _unchecked, "checked": _checked}
    if kind.startswith("jpeg-"):
        works["check_before_dali"] = is_read_alike
    taken: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            seconds = _seconds(work, contents)
            if repeat:  # the first warms up
                taken[name].append(seconds)
    found = {f"{name}_milliseconds": round(1000 * median(values), 3) for name, values in taken.items()}
    ratios = [with_it / without for with_it, without in zip(taken["checked"], taken["unchecked"], strict=True)]
    return found | {"checked_to_unchecked": spread([round(ratio, 3) for ratio in ratios])}


def of_drawn(count: int, repeats: int) -> dict[str, Any]:
    """Every kind of file: found, false alarms, cost."""
    kinds = {kind: count_found(kind, drawn(count)) for kind in KINDS}
    speed = {kind: measure_speed(kind, repeats) for kind in KINDS}
    return {"kinds": kinds, "speed_side": SPEED_SIDE, "speed": speed}


def of_real(folder: Path, jpegs: int, others: int) -> dict[str, Any]:
    """The same of real slices, and the files of the data as they are."""
    paths = sorted(
        path for path in (folder / "brain-mri").rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    )
    as_they_are = Counter(status_of(path.read_bytes()) for path in paths)
    kinds = {}
    for kind in KINDS:
        wanted = jpegs // 2 if kind in ("jpeg-baseline", "jpeg-progressive") else others
        kinds[kind] = count_found(kind, real(paths, wanted))
    statuses = {status.value: number for status, number in sorted(as_they_are.items())}
    return {"files_as_they_are": statuses, "kinds": kinds}


def print_table(result: dict[str, Any]) -> None:
    """Found, made, false alarms and cost of each kind."""
    print(f"{'':<20}{'found':>7}{'made':>7}{'false':>7}{'whole':>7}{'cost':>8}")
    for kind, one in result["kinds"].items():
        cost = result.get("speed", {}).get(kind, {}).get("checked_to_unchecked", {}).get("median")
        print(
            f"{kind:<20}{one['found']:>7}{one['made']:>7}{one['false_alarms']:>7}{one['whole']:>7}"
            f"{'' if cost is None else f'{cost:8.2f}'}"
        )
    if "files_as_they_are" in result:
        print(f"real files as they are: {result['files_as_they_are']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="drawn slices of each kind, each in grey and in colour")
    parser.add_argument("--jpegs", type=int, default=150, help="real slices that become JPEGs")
    parser.add_argument("--others", type=int, default=50, help="real slices in each other kind of file")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if min(options.count, options.jpegs, options.others, options.repeats) < 1:
        parser.error("--count, --jpegs, --others and --repeats are 1 or more")
    facts = conditions()
    options.results.mkdir(parents=True, exist_ok=True)
    results = {f"damage-synthetic-{machine(facts)}.json": of_drawn(options.count, options.repeats)}
    if folder := os.environ.get("MRIBATCH_DATA"):
        found = of_real(Path(folder), options.jpegs, options.others)
        total = sum(found["files_as_they_are"].values())
        results[f"damage-real-{total}images.json"] = found
    for name, result in results.items():
        write_json(options.results / name, {"conditions": facts} | result)
        print_table(result)
        print(f"written: {options.results / name}")


if __name__ == "__main__":
    main()
