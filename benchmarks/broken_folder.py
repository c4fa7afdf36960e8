"""What broken files cost with DALI: python -m benchmarks.broken_folder [--count N] [--model MODEL] [--repeats N]

A folder of which one file in twenty is broken, in fifteen ways, and stands first in its batch of 64, where DALI takes a
bad file worst; against the same folder with good files in their places. Whole `classify` calls with --decoder dali, in
turns, after an uncounted one. Nothing is measured that is not also right: the run ends with an error unless every file
has its row, every status is that of a run with OpenCV, and every good row is bit for bit that of the clean folder.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.conditions import RESULTS, conditions, machine, spread
from benchmarks.cpu_ceiling import SIDE, drawn_jpegs, end_to_end
from mribatch.core.bundle import DEFAULT_MODEL, load_bundle
from mribatch.core.errors import MribatchError
from mribatch.core.files import write_json
from mribatch.pipeline.choices import DALI, OPENCV, choose_decoder
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.folder import WORKER_LOG
from tests.broken_files import broken_files
from tests.folders import rows

BATCH = 64
ONE_IN = 20  # files is broken
# What damaged folders hold; over the first four DALI 2.4 kills its process.
FIFTEEN = (
    "text.jpg",
    "noise.jpg",
    "page.jpg",
    "zeros.jpg",
    "empty.jpg",
    "animation.jpg",
    "avif.jpg",
    "dicom.jpg",
    "cut_in_header.jpg",
    "half.jpg",
    "no_eoi.jpg",
    "giant.jpg",
    "cut.png",
    "checksum.png",
    "cut.bmp",
)

Rows = dict[str, dict[str, Any]]  # by path


def kinds() -> list[tuple[str, bytes, str]]:
    """Fifteen ways to be broken: name, content and status."""
    there = broken_files()
    return [(name, there[name][0], there[name][1].value) for name in FIFTEEN]


def write_folder(folder: Path, pictures: Sequence[bytes], count: int, broken: int) -> dict[str, str]:
    """`count` files, of which `broken` stand first in their batches of 64, as many in each as can be.

    Args:
        folder: Is made.
        pictures: Whole JPEG files, taken in turns.
        count, broken: The order of the names is that of a listing; the good files' names do not depend on `broken`.

    Returns:
        The broken files' statuses by path.
    """
    folder.mkdir()
    expected, damage, batches = {}, cycle(kinds()), -(-count // BATCH)
    for number in range(count):
        batch, place = divmod(number, BATCH)
        path, content = f"{number:06d}.jpg", pictures[number % len(pictures)]
        if place < broken * (batch + 1) // batches - broken * batch // batches:
            name, content, status = next(damage)
            path = f"{number:06d}_{name}"
            expected[path] = status
        (folder / path).write_bytes(content)
    return expected


def measure(scratch: Path, model: str, count: int, repeats: int) -> dict[str, Any]:
    """Both folders in turns, and whether the rows are right."""
    pictures, figures, deaths = drawn_jpegs(), dict[str, list[float]](), dict[str, list[int]]()
    expected = write_folder(scratch / "broken", pictures, count, count // ONE_IN)
    write_folder(scratch / "clean", pictures, count, 0)
    end_to_end(scratch / "broken", scratch / "run-opencv", _options(model, OPENCV))  # these two warm everything up
    end_to_end(scratch / "clean", scratch / "run-warm", _options(model, DALI))
    opencv = _rows(scratch / "run-opencv")
    for repeat in range(repeats):
        once, found = {}, {}
        for name in ("clean", "broken"):
            out = scratch / f"run-{name}-{repeat}"
            once[f"{name}_whole_call"], once[f"{name}_rows"] = end_to_end(scratch / name, out, _options(model, DALI))
            found[name] = _rows(out)
            deaths.setdefault(name, []).append(worker_deaths(out))
        check(found["broken"], found["clean"], opencv, expected, count)
        for part in ("whole_call", "rows"):
            ratio = once[f"broken_{part}"] / once[f"clean_{part}"]
            figures.setdefault(f"{part}_broken_to_clean", []).append(ratio)
        for key, value in once.items():
            figures.setdefault(f"{key}_images_per_second", []).append(value)
    facts = {
        "files": count,
        "broken": len(expected),
        "ways_to_be_broken": dict(Counter(path.split("_", 1)[1] for path in expected)),
        "statuses": dict(Counter(row["status"] for row in opencv.values())),
        "checked": "rows == files, statuses and errors as with OpenCV, good rows bit for bit as in the clean folder",
        "worker_deaths": deaths,
    }
    return facts | {key: spread(values) for key, values in figures.items()}


def _options(model: str, decoder: str) -> ClassifyOptions:
    return ClassifyOptions(model=model, batch_size=BATCH, decoder=decoder, keep_going=True)


def _rows(run: Path) -> Rows:
    return {row["path"]: row for row in rows(run)}


def worker_deaths(run: Path) -> int:
    """How many worker processes died in a run, by its log."""
    return (run / WORKER_LOG).read_text().count(" died: ")


def check(broken: Rows, clean: Rows, opencv: Rows, expected: dict[str, str], count: int) -> None:
    """Raises RuntimeError: a row is missing, or is not what it should be; names the file."""
    if len(broken) != count or len(clean) != count or broken.keys() != opencv.keys():
        raise RuntimeError(f"{len(broken):,} and {len(clean):,} rows for {count:,} files")
    for path, row in broken.items():
        status = expected.get(path, "ok")
        said, by_opencv = ((one["status"], one["error"]) for one in (row, opencv[path]))
        if said != by_opencv or row["status"] != status:
            raise RuntimeError(f"{path} is {said}, with OpenCV {by_opencv}, and should be {status}")
        if path not in expected and row != clean[path]:
            raise RuntimeError(f"{path} has the row {row}, in the clean folder {clean[path]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="files; one in twenty is broken")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.repeats < 1 or options.count < ONE_IN:
        parser.error(f"--repeats is 1 or more, --count {ONE_IN} or more")
    try:
        reason = choose_decoder(DALI).reason
    except MribatchError as error:
        sys.exit(f"Error: {error}")
    facts, spec = conditions(), load_bundle(options.model).spec
    with tempfile.TemporaryDirectory(prefix="mribatch-bench-") as scratch:
        result = measure(Path(scratch), options.model, options.count, options.repeats)
    about = {
        "model": spec.name,
        "model_sha256": spec.model_sha256,
        "batch_size": BATCH,
        "decoder": f"dali, {reason}",
        "page_cache": "warm: both folders had just been written",
    }
    name = f"broken_folder-{spec.name}-synthetic{SIDE}px-{machine(facts)}-batch{BATCH}-{options.count}files.json"
    options.results.mkdir(parents=True, exist_ok=True)
    write_json(options.results / name, {"conditions": facts, "data": f"synthetic{SIDE}px"} | about | result)
    for key in [key for key in result if key.endswith(("_to_clean", "_per_second"))]:
        digits = 3 if key.endswith("_to_clean") else 1
        low, high = (f"{result[key][end]:.{digits}f}" for end in ("low", "high"))
        print(f"{key:<40}{result[key]['median']:10.{digits}f}  ({low} to {high})")
    print(
        f"{result['broken']:,} of {result['files']:,} files broken, all rows right; "
        f"worker deaths: {sum(result['worker_deaths']['broken'])}"
    )
    print(f"written: {options.results / name}")


if __name__ == "__main__":
    main()
