"""JPEGs with damage inside their data, built by code from drawn slices: what a container's markers do not show."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np

from mribatch.core.synthetic import draw_slice
from tests.broken_files import encode


@dataclass(frozen=True)
class DamagedFile:
    name: str
    whole: bytes
    damaged: bytes


def scan_data(jpeg: bytes) -> tuple[int, int]:
    """(first byte of the first scan's data, position of the end marker)."""
    scan = jpeg.index(b"\xff\xda")
    return scan + 2 + int.from_bytes(jpeg[scan + 2 : scan + 4], "big"), jpeg.rindex(b"\xff\xd9")


def _hole(jpeg: bytes, dice: random.Random) -> bytes:
    """Some bytes are gone: a tenth to a third of the data."""
    begin, end = _part(jpeg, dice)
    return jpeg[:begin] + jpeg[end:]


def _zeros(jpeg: bytes, dice: random.Random) -> bytes:
    begin, end = _part(jpeg, dice)
    return jpeg[:begin] + bytes(end - begin) + jpeg[end:]


def _early_end(jpeg: bytes, dice: random.Random) -> bytes:
    begin, end = scan_data(jpeg)
    return jpeg[: begin + int((end - begin) * dice.uniform(0.3, 0.9))] + b"\xff\xd9"


def _swapped_halves(jpeg: bytes, dice: random.Random) -> bytes:
    begin, end = scan_data(jpeg)
    middle = begin + int((end - begin) * dice.uniform(0.4, 0.6))
    return jpeg[:begin] + jpeg[middle:end] + jpeg[begin:middle] + jpeg[end:]


def _part(jpeg: bytes, dice: random.Random) -> tuple[int, int]:
    begin, end = scan_data(jpeg)
    start, size = dice.uniform(0.2, 0.6), dice.uniform(0.1, 0.3)
    return begin + int((end - begin) * start), begin + int((end - begin) * (start + size))


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "hole": _hole,
    "zeros": _zeros,
    "early_end": _early_end,
    "swapped_halves": _swapped_halves,
}


def whole_jpegs(count: int) -> Iterator[tuple[str, bytes]]:
    """`count` slices in each of eight kinds: grey and colour, baseline and progressive, without and with restarts."""
    for seed in range(count):
        grey = draw_slice(seed, 180 + 3 * seed, 200 - seed)
        for colour, progressive, restart in product((0, 1), (0, 1), (0, 8)):
            pixels = np.dstack([grey, grey // 2 + 40, 255 - grey]) if colour else grey
            options = (cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_RST_INTERVAL, restart)
            name = f"{seed}_{'colour' if colour else 'grey'}_{'progressive' if progressive else 'baseline'}_{restart}"
            yield name, encode(".jpg", pixels, *options, cv2.IMWRITE_JPEG_QUALITY, 90)


def damaged_jpegs(count: int) -> Iterator[DamagedFile]:
    """Each of `whole_jpegs(count)` with each kind of damage; 32 times `count` files, the same on every call."""
    for name, whole in whole_jpegs(count):
        for kind, damage in DAMAGES.items():
            dice = random.Random(f"{name} {kind}")
            yield DamagedFile(f"{kind}_{name}", whole, damage(whole, dice))
