"""Series of images: as the header says, or estimated from neighbours.

Data sets of single slices lose what belongs together, and keep the order of the export in their names. So neighbours by
name in one folder that resemble each other more than images of that folder usually do are taken for one series.
"""

import re
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy import float32, int64, uint8
from numpy.typing import NDArray

from mribatch.report.audit.duplicates import connect, correlate, number, standardize
from mribatch.report.audit.images import AuditedImages

REACH = 3  # places in the order of names
LEAST_CORRELATION = 0.75
UNUSUAL = 0.98  # quantile of the correlations of images that are no neighbours
_FAR = 10  # places in the order of names from which on images are no neighbours
_SAMPLE = 1000  # images of a folder that tell what is usual
_FEWEST = 100  # pairs that can tell


@dataclass(frozen=True)
class Series:
    """numbers: (n,), equal for images of one series, ascending by first member; -1: unreadable."""

    numbers: NDArray[int64]
    known: NDArray[np.bool_]  # (n,): from the header, not estimated


def find_series(images: AuditedImages, groups: NDArray[int64]) -> Series:
    """Take the series from headers, and estimate those of plain images.

    Args:
        images: All images.
        groups: (n,), of images that show the same picture; these say nothing about what is usual.
    """
    given = number([None if one.study is None else one.study.series for one in images.files])
    known = images.readable & (given >= 0)
    folders = _list_folders(images, np.flatnonzero(images.readable & ~known))
    everywhere = _find_usual(images, np.concatenate(folders), groups) if folders else None
    edges: list[tuple[int, int]] = []
    for places in folders:
        usual = _find_usual(images, places, groups)
        least = max(LEAST_CORRELATION, (everywhere if usual is None else usual) or 0.0)
        edges += _link_neighbours(images.thumbnails[:, 0], places, least)
    estimated = connect(len(images), edges)
    keys: list[str | None] = [
        None if not readable else f"h{header}" if of_header else f"e{component}"
        for readable, of_header, header, component in zip(
            images.readable.tolist(), known.tolist(), given.tolist(), estimated.tolist(), strict=True
        )
    ]
    return Series(number(keys), known)


def _list_folders(images: AuditedImages, places: NDArray[int64]) -> list[NDArray[int64]]:
    """The positions folder by folder, each in the natural order of names: image(2) before image(10)."""

    def folder(place: int) -> tuple[int, str]:
        file = images.files[place]
        return file.input, file.path.rpartition("/")[0]

    ordered = sorted(places.tolist(), key=lambda place: (folder(place), natural_order(images.files[place].path)))
    return [np.array(list(members), int64) for _, members in groupby(ordered, folder)]


def natural_order(path: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """A key that sorts names with numbers by these numbers; spaces and case do not count."""
    name = re.sub(r"\s", "", path.rpartition("/")[2].lower())
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    key = tuple((0, int(part[:18]), "") if part[0] in "0123456789" else (1, 0, part) for part in parts)
    return key, path


def _link_neighbours(thumbnails: NDArray[uint8], places: NDArray[int64], least: float) -> list[tuple[int, int]]:
    edges: list[tuple[int, int]] = []
    for step in range(1, REACH + 1):
        first, second = places[:-step], places[step:]
        near = correlate(thumbnails, first, second) >= least
        edges += zip(first[near].tolist(), second[near].tolist(), strict=True)
    return edges


def _find_usual(images: AuditedImages, places: NDArray[int64], groups: NDArray[int64]) -> float | None:
    """The correlation that images that are no neighbours rarely exceed; None where too few can tell."""
    chosen = np.unique(np.linspace(0, len(places) - 1, min(len(places), _SAMPLE)).round().astype(int64))
    rows = standardize(images.thumbnails[places[chosen], 0])
    apart = np.abs(np.subtract.outer(chosen, chosen)) > _FAR
    others = np.not_equal.outer(groups[places[chosen]], groups[places[chosen]])
    values: NDArray[float32] = (rows @ rows.T)[apart & others]
    return float(np.quantile(values, UNUSUAL)) if len(values) >= _FEWEST else None
