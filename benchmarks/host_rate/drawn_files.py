"""Folders of drawn JPEG files of a given size."""

import os
import statistics
from pathlib import Path

from benchmarks.cpu_ceiling import SIDE
from mribatch.core.synthetic import draw_slice

_DRAWN = 64  # slices, linked again and again under other names


def draw_files(folder: Path, count: int, size: int) -> float:
    """Fill a folder with JPEG files of about `size` bytes; return the mean of their sizes.

    They are links to _DRAWN files, so that the page cache holds what is read, whatever their number.
    """
    import cv2

    drawn = [draw_slice(seed, SIDE, SIDE) for seed in range(_DRAWN)]

    def encode(quality: int) -> list[bytes]:
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        return [cv2.imencode(".jpg", image, options)[1].tobytes() for image in drawn]

    def mean(quality: int) -> float:
        return statistics.mean(map(len, encode(quality)))

    quality = min(range(40, 100, 3), key=lambda one: abs(mean(one) - size))
    folder.mkdir(parents=True)
    originals = folder.parent / f"{folder.name}-originals"
    originals.mkdir()
    contents = encode(quality)
    for number, content in enumerate(contents):
        (originals / f"{number}.jpg").write_bytes(content)
    for number in range(count):
        os.link(originals / f"{number % _DRAWN}.jpg", folder / f"{number:07d}.jpg")
    return statistics.mean(map(len, contents))
