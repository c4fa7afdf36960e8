"""Folders of small synthetic images, and the rows that a run made of them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa

from mribatch.core.synthetic import draw_slice
from mribatch.pipeline.output.parts import read_parts

CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")


def draw_images(folder: Path, count: int, size: int = 24, classes: tuple[str, ...] = CLASSES) -> list[Path]:
    """`count` different JPEG slices, spread over one folder per class; returns them in listing order."""
    paths = []
    for number in range(count):
        path = folder / classes[number % len(classes)] / f"slice_{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), draw_slice(number, size, size))
        paths.append(path)
    return sorted(paths, key=lambda path: bytes(path))


def rows(run: Path) -> list[dict[str, Any]]:
    """Every row of a run, in order."""
    return [row for table in read_parts(run) for row in table.to_pylist()]


def table(run: Path) -> pa.Table:
    """A run as one table without the parts' metadata."""
    return pa.concat_tables([part.replace_schema_metadata(None) for part in read_parts(run)])


def mribatch(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "mribatch.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)
