"""Folders of studies against the same slices as JPEG: python -m benchmarks.study_folder [--slices N] [--volumes N]

Synthetic heads of 25 slices, 256 x 256, 12 bits: single DICOM files, one head in ten as a multi-frame file, and NIfTI
volumes beside them; the same slices as 8-bit JPEG. Whole `classify` processes in turns, with the files in the page
cache since they were just written: images per second of the whole process and of its rows, and peak memory. DICOM is
also run on half the folder, since memory must not grow with it. A run is right only with a row per image, and without a
failure.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
from numpy import uint16
from numpy.typing import NDArray

from benchmarks.conditions import RESULTS, conditions, machine, spread
from mribatch.core.files import write_json
from mribatch.core.synthetic import draw_volume
from mribatch.pipeline.output.run_file import read_finished_run
from tests.dicom_builder import file_of, mr_elements

SIDE, SLICES_OF_A_HEAD, HEADS_DRAWN = 256, 25, 40
_MULTI_FRAME_ONE_IN = 10  # heads
_QUALITY = 95
_SERIES = "1.2.826.0.1.3680043.8.498"  # pydicom's root for examples


@dataclass(frozen=True)
class Figures:
    """One whole process."""

    images: int
    seconds: float  # of the whole process
    images_per_second: float  # of the whole process
    rows_per_second: float  # without starting, listing and checking
    peak_mib: float


def draw_heads() -> list[NDArray[uint16]]:
    """uint16 (slices, side, side) each, without the blank slices at both ends."""
    return [draw_volume(seed, SLICES_OF_A_HEAD + 2, SIDE, SIDE)[1:-1] for seed in range(HEADS_DRAWN)]


def write_studies(folder: Path, heads: list[NDArray[uint16]], slices: int, volumes: int) -> int:
    """Write DICOM series and NIfTI volumes; return how many images they hold."""
    images = 0
    for series in range(slices // SLICES_OF_A_HEAD):
        head = heads[series % len(heads)]
        place = folder / f"patient-{series // 4:05d}" / f"series-{series:05d}"
        place.mkdir(parents=True)
        for name, content in _dicom_files(head, series):
            (place / name).write_bytes(content)
        images += len(head)
    for number in range(volumes):
        head = heads[number % len(heads)]
        affine = np.diag([-1.0, -1.0, 5.0, 1.0])
        nibabel.Nifti1Image(head.transpose(2, 1, 0).astype(np.int16), affine).to_filename(folder / f"v{number:04d}.nii")
        images += len(head)
    return images


def _dicom_files(head: NDArray[uint16], series: int) -> Iterator[tuple[str, bytes]]:
    window: dict[str, Any] = {"t00281050": ("DS", "1500"), "t00281051": ("DS", "3000")}
    ids = {"t0020000E": ("UI", f"{_SERIES}.{series}"), "t00100020": ("LO", f"P{series // 4}")}
    if series % _MULTI_FRAME_ONE_IN == 0:
        elements = mr_elements(SIDE, SIDE, t00280008=("IS", str(len(head))), **window, **ids)
        yield "IM", file_of(elements, head.astype("<u2").tobytes())
        return
    for position, pixels in enumerate(head):
        where = {"t00200013": ("IS", str(position + 1)), "t00200032": ("DS", f"0\\0\\{5 * position}")}
        yield (
            f"IM{position:04d}",
            file_of(mr_elements(SIDE, SIDE, **window, **ids, **where), pixels.astype("<u2").tobytes()),
        )


def write_jpegs(folder: Path, heads: list[NDArray[uint16]], images: int) -> int:
    """Write as many slices as JPEG, as the window shows them."""
    folder.mkdir()
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    shown = [np.clip(pixels / 3000 * 255, 0, 255).astype(np.uint8) for head in heads for pixels in head]
    encoded = [cv2.imencode(".jpg", grey, quality)[1].tobytes() for grey in shown]
    for number in range(images):
        place = folder / f"{number // 1000:04d}"
        place.mkdir(exist_ok=True)
        (place / f"{number:06d}.jpg").write_bytes(encoded[number % len(encoded)])
    return images


def classify(folder: Path, out: Path, model: str, images: int) -> Figures:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "mribatch", "classify", str(folder), "--out", str(out), "--model", model]
    command += ["--json", "--quiet", "--labels", "none"]
    begin = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)  # the peak of this process alone
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begin
    if process.returncode != 0:
        raise SystemExit(f"classify ended with {process.returncode}")
    summary = json.loads(printed)
    counts = read_finished_run(out).counts
    assert counts is not None
    if not counts.rows == summary["images"] == images or summary["not_ok"] or summary["blank"]:
        raise SystemExit(f"{folder}: {images} images, {counts.rows} rows, {summary['by_status']}")
    return Figures(images, seconds, images / seconds, summary["images_per_second"], usage.ru_maxrss / 1024)


def measure(scratch: Path, *, slices: int, volumes: int, model: str, repeats: int) -> dict[str, Any]:
    """All folders in turns."""
    heads = draw_heads()
    folders = {
        "half": (scratch / "half", write_studies(scratch / "half", heads, slices // 2, volumes // 2)),
        "studies": (scratch / "studies", write_studies(scratch / "studies", heads, slices, volumes)),
    }
    folders["jpeg"] = (scratch / "jpeg", write_jpegs(scratch / "jpeg", heads, folders["studies"][1]))
    runs: dict[str, list[Figures]] = {name: [] for name in folders}
    for repeat in range(repeats):
        for name, (folder, images) in folders.items():
            figures = classify(folder, scratch / f"run-{name}-{repeat}", model, images)
            print(name, asdict(figures), file=sys.stderr, flush=True)
            runs[name].append(figures)
    pairs = list(zip(runs["studies"], runs["jpeg"], strict=True))
    return {
        "model": model,
        "slices_in_dicom": slices,
        "volumes": volumes,
        "images": folders["studies"][1],
        "whole_process_studies_to_jpeg": spread(
            [one.images_per_second / other.images_per_second for one, other in pairs]
        ),
        "rows_studies_to_jpeg": spread([one.rows_per_second / other.rows_per_second for one, other in pairs]),
        "runs": {name: [asdict(each) for each in figures] for name, figures in runs.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=20_000)
    parser.add_argument("--volumes", type=int, default=200)
    parser.add_argument("--model", default="efficientnet-lite2")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="folder for the files; a temporary one by default")
    options = parser.parse_args()
    facts = conditions()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        found = measure(
            Path(scratch),
            slices=options.slices,
            volumes=options.volumes,
            model=options.model,
            repeats=options.repeats,
        )
    name = f"study_folder-{options.model}-{found['images']}images-{machine(facts)}.json"
    write_json(RESULTS / name, {"conditions": facts} | found)
    print(f"written: {RESULTS / name}")


if __name__ == "__main__":
    main()
