"""Images that show the same picture: the same bytes, the same pixels, or nearly so.

near: perceptual hashes within NEAR_BITS and thumbnails correlated by NEAR_CORRELATION at least, in the same one of two
views: the whole image, or the box of what is not background. docs/decisions/0015-audit.md has the figures behind both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy import float32, int64, uint8, uint64
from numpy.typing import NDArray

from mribatch.report.audit.images import VIEWS, AuditedImages

NEAR_BITS = 8  # of 64
NEAR_CORRELATION = 0.985
MAX_PAIRS_OF_AN_IMAGE = 8  # that are kept; groups are made of all of them
_BITS = 64
_BLOCK = 512  # images that are compared with all later ones at once
_CHUNK = 4096  # pairs of thumbnails in memory


class PairKind(StrEnum):
    """How much two images have in common."""

    SAME_FILE = "same_file"  # byte for byte
    SAME_PIXELS = "same_pixels"  # at 160 x 160; the files differ
    NEAR = "near"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images, by their positions; `first` comes earlier in the listing."""

    first: int
    second: int
    kind: PairKind
    bits: int = 0  # of the hashes that differ, in the view that is more alike
    correlation: float = 1.0  # of the thumbnails, likewise


@dataclass(frozen=True)
class AuditDuplicates:
    """What was found. groups: (n,), equal numbers show the same picture, ascending by first member; -1: unreadable."""

    pairs: tuple[Pair, ...]
    groups: NDArray[int64]
    pixels: NDArray[int64]  # (n,), likewise for exactly equal pixels

    def sizes(self) -> NDArray[int64]:
        """(n,), images in the group of each; 0 for unreadable ones."""
        counts = np.bincount(self.groups[self.groups >= 0], minlength=1)
        return np.where(self.groups >= 0, counts[self.groups], 0).astype(int64)


def find_duplicates(images: AuditedImages) -> AuditDuplicates:
    """Find all pairs and the groups that they make.

    Images of one series whose header says so are not compared by likeness: neighbouring slices look alike.
    """
    pixels = number([*images.content])
    first = _first_of(pixels)
    exact = _pair_copies(images, pixels, first)
    edges = _Edges()
    for one in _find_near(images, np.array(sorted(first.values()), int64)):
        edges.add(*one)
    groups = connect(len(images), [*((pair.first, pair.second) for pair in exact), *edges.all])
    groups = np.where(pixels >= 0, groups, -1)
    found = sorted((*exact, *edges.nearest()), key=lambda pair: (pair.first, pair.second))
    return AuditDuplicates(tuple(found), renumber(groups), pixels)


def number(keys: list[str | None]) -> NDArray[int64]:
    """Numbers for equal keys, by first appearance; -1 for None."""
    seen: dict[str, int] = {}
    return np.array([-1 if key is None else seen.setdefault(key, len(seen)) for key in keys], int64)


def renumber(groups: NDArray[int64]) -> NDArray[int64]:
    """The same groups, numbered by first appearance; -1 stays."""
    return number([None if group < 0 else str(group) for group in groups.tolist()])


def connect(count: int, edges: list[tuple[int, int]]) -> NDArray[int64]:
    """Number the connected components of `count` images, (count,)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ends = np.array(edges, int64).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], int64)


def correlate(thumbnails: NDArray[uint8], first: NDArray[int64], second: NDArray[int64]) -> NDArray[float32]:
    """The correlation of pairs of thumbnails, uint8 (n, pixels): float32 (pairs,), 0 where one is of a single grey."""
    found = [np.empty(0, float32)]
    for start in range(0, len(first), _CHUNK):
        a, b = (standardize(thumbnails[each[start : start + _CHUNK]]) for each in (first, second))
        found.append((a * b).sum(axis=1))
    return np.concatenate(found)


def standardize(thumbnails: NDArray[uint8]) -> NDArray[float32]:
    """Rows of mean 0 and length 1, so that a product is a correlation; a row of a single grey stays 0."""
    values = thumbnails.astype(float32)
    values -= values.mean(axis=1, keepdims=True)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
    return values


def _first_of(numbers: NDArray[int64]) -> dict[int, int]:
    """Number -> position of its first image."""
    first: dict[int, int] = {}
    for position, each in enumerate(numbers.tolist()):
        if each >= 0:
            first.setdefault(each, position)
    return first


def _pair_copies(images: AuditedImages, pixels: NDArray[int64], first: dict[int, int]) -> list[Pair]:
    """Each copy with the first image of the same file, else of the same pixels."""
    files: dict[tuple[str | None, int | None], int] = {}
    pairs = []
    for position, each in enumerate(pixels.tolist()):
        if each < 0:
            continue
        study = images.files[position].study
        key = (images.decoded[position].sha256, None if study is None else study.slice)
        same_file = files.setdefault(key, position)
        if same_file != position:
            pairs.append(Pair(same_file, position, PairKind.SAME_FILE))
        elif first[each] != position:
            pairs.append(Pair(first[each], position, PairKind.SAME_PIXELS))
    return pairs


class _Edges:
    """Pairs of nearly equal images: all of them, and of each image the most alike."""

    def __init__(self) -> None:
        self.all: list[tuple[int, int]] = []
        self._of: dict[int, list[Pair]] = {}

    def add(self, first: NDArray[int64], second: NDArray[int64], bits: NDArray[int64], alike: NDArray[float32]) -> None:
        """Add the pairs of one view; a pair of both views keeps the one that is more alike."""
        columns = (first.tolist(), second.tolist(), bits.tolist(), alike.tolist())
        for one, other, differing, correlation in zip(*columns, strict=True):
            self.all.append((one, other))
            pair = Pair(one, other, PairKind.NEAR, differing, round(correlation, 4))
            kept = {known.first: known for known in self._of.get(other, ())}
            if one not in kept or kept[one].correlation < pair.correlation:
                kept[one] = pair
            ordered = sorted(kept.values(), key=lambda known: (-known.correlation, known.first))
            self._of[other] = ordered[:MAX_PAIRS_OF_AN_IMAGE]

    def nearest(self) -> Iterator[Pair]:
        for pairs in self._of.values():
            yield from pairs


_Found = tuple[NDArray[int64], NDArray[int64], NDArray[int64], NDArray[float32]]


def _find_near(images: AuditedImages, places: NDArray[int64]) -> Iterator[_Found]:
    """Yield (first, second, differing bits, correlation) of images that are nearly alike, among those at `places`."""
    studies = (images.files[place].study for place in places.tolist())
    series = number([None if study is None else study.series for study in studies])
    for view in range(VIEWS):
        hashes, thumbnails = images.hashes[places, view], images.thumbnails[places, view]
        signs = _to_signs(hashes)
        for start in range(0, len(places), _BLOCK):
            products = signs[start : start + _BLOCK] @ signs[start:].T
            rows, columns = np.nonzero(products >= _BITS - 2 * NEAR_BITS)
            one_series = (series[start + rows] >= 0) & (series[start + rows] == series[start + columns])
            flat = hashes[start + rows] == 0  # no structure: near to any other such image
            kept = (columns > rows) & ~one_series & ~flat
            rows, columns = rows[kept], columns[kept]
            alike = correlate(thumbnails, start + rows, start + columns)
            near = alike >= NEAR_CORRELATION
            rows, columns = rows[near], columns[near]
            bits = ((_BITS - products[rows, columns]) / 2).astype(int64)
            yield places[start + rows], places[start + columns], bits, alike[near]


def _to_signs(hashes: NDArray[uint64]) -> NDArray[float32]:
    """Bits as 1 and -1, (n, 64): the product of two rows is 64 less twice the bits that differ."""
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(uint8).reshape(len(hashes), 8), axis=1)
    return bits.astype(float32) * 2 - 1
