"""Hashes of the images that a model was trained on, so that a run can recognise them. Hashes are not images.

pixels of the model's size --perceptual_hashes--> candidates within NEAR_DISTANCE --sha256--> exact, or near

The exact hash is the first 64 bits of the SHA-256 of the pixels that the model sees, for candidates only.
The perceptual hash is a pHash without its constant terms: whether 64 low-frequency cosine coefficients are above their
median. docs/decisions/0011-training-images.md has the figures behind both and behind the distance.
"""

import io
from collections.abc import Iterator
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import Any

import numpy as np
from numpy import float32, uint8, uint16, uint64
from numpy.typing import NDArray

NEAR_DISTANCE = 2  # bits of 64; see the decision
_SIDE = 8  # coefficients along each axis
_AT_ONCE = 8  # images that are hashed together: their coefficients stay in the cache
_BANDS = 4  # of 16 bits: two hashes that differ in at most 2 bits have an equal band


class TrainingMatch(StrEnum):
    """How an image corresponds to one of training."""

    EXACT = "exact"  # the same pixels
    NEAR = "near"  # nearly the same picture: encoded again, a little brighter, cropped by a few pixels


class TrainingImages:
    """The hashes of a model's training images.

    Args:
        exact: uint64 (n,), of the pixels.
        perceptual: uint64 (n,), of the same images.
    """

    def __init__(self, exact: NDArray[uint64], perceptual: NDArray[uint64]) -> None:
        self.exact = exact
        self.perceptual = perceptual
        self._exact = frozenset(exact.tolist())
        bands = _bands(perceptual)
        self._orders = np.argsort(bands, axis=1, kind="stable")
        self._sorted = np.take_along_axis(bands, self._orders, axis=1)

    def __len__(self) -> int:
        return len(self._exact)

    @classmethod
    def of_pixels(cls, pixels: NDArray[uint8]) -> "TrainingImages":
        """Hash images, uint8 (n, height, width, 1); equal ones count once."""
        exact = np.array([_exact_hash(image) for image in pixels], uint64)
        near = perceptual_hashes(pixels)
        first = np.unique(exact, return_index=True)[1]
        return cls(exact[first], near[first])

    def find(self, pixels: NDArray[uint8], hashes: NDArray[uint64] | None = None) -> list[TrainingMatch | None]:
        """Compare images, uint8 (n, height, width, 1) of the model's size, with those of training.

        Args:
            pixels: As above.
            hashes: uint64 (n,), their perceptual hashes where these are known already.
        """
        hashes = perceptual_hashes(pixels) if hashes is None else hashes
        found: list[TrainingMatch | None] = []
        for image, value, candidates in zip(pixels, hashes, self._candidates(hashes), strict=True):
            near = bool(_count_bits(self.perceptual[candidates] ^ value).min(initial=64) <= NEAR_DISTANCE)
            if near and _exact_hash(image) in self._exact:
                found.append(TrainingMatch.EXACT)
            else:  # a flat image has no structure, and is near to any other flat image
                found.append(TrainingMatch.NEAR if near and value else None)
        return found

    def to_bytes(self) -> bytes:
        """Return the content of training_images.npz."""
        stream = io.BytesIO()
        np.savez(stream, exact=self.exact, perceptual=self.perceptual)
        return stream.getvalue()

    def _candidates(self, hashes: NDArray[uint64]) -> Iterator[NDArray[np.intp]]:
        """For each hash, the training images that share a band with it."""
        values = _bands(hashes)
        spans = [
            (np.searchsorted(known, value, "left").tolist(), np.searchsorted(known, value, "right").tolist())
            for known, value in zip(self._sorted, values, strict=True)
        ]
        for row in range(len(hashes)):
            yield np.concatenate(
                [order[lows[row] : highs[row]] for order, (lows, highs) in zip(self._orders, spans, strict=True)]
            )


def perceptual_hashes(pixels: NDArray[uint8]) -> NDArray[uint64]:
    """Hash pictures so that similar ones differ in few bits.

    Args:
        pixels: uint8 (n, height, width, 1), grey 0..255.

    Returns:
        uint64 (n,); 0 for an image of one grey level.
    """
    starts = range(0, len(pixels), _AT_ONCE)
    hashes = [_hash_pictures(pixels[start : start + _AT_ONCE]) for start in starts]
    return np.concatenate(hashes) if hashes else np.zeros(0, uint64)


def _hash_pictures(pixels: NDArray[uint8]) -> NDArray[uint64]:
    count, height, width = pixels.shape[:3]
    images = pixels.reshape(count, height, width).astype(float32)
    coefficients = _cosines(height) @ images @ _cosines(width).T
    values = np.rint(coefficients).reshape(count, _SIDE * _SIDE)  # a flat image has nothing but rounding errors
    middle = np.partition(values, _SIDE * _SIDE // 2 - 1, axis=1)[:, _SIDE * _SIDE // 2 - 1, None]
    packed: NDArray[uint64] = np.packbits(values > middle, axis=1).view(">u8")[:, 0].astype(uint64)
    return packed


def group_near(hashes: NDArray[uint64]) -> NDArray[np.int64]:
    """Group pictures that are nearly the same, directly or through others.

    Args:
        hashes: uint64 (n,), perceptual hashes; 0 is near to nothing, not even to another 0.

    Returns:
        int64 (n,): equal numbers are of one group; each is the position of the group's first picture.
    """
    known, first, places = np.unique(hashes, return_index=True, return_inverse=True)
    parents = _Parents(len(known))
    for band in _bands(known):
        order = np.argsort(band, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
            for position, one in enumerate(members[:-1].tolist()):
                others = members[position + 1 :]
                for other in others[_count_bits(known[others] ^ known[one]) <= NEAR_DISTANCE].tolist():
                    parents.join(one, other)
    roots = np.array([parents.find(place) for place in range(len(known))], np.int64).reshape(-1)
    earliest = np.full(len(known), len(hashes), np.int64)
    np.minimum.at(earliest, roots, first)
    groups = earliest[roots][places.reshape(-1)]
    return np.where(hashes == 0, np.arange(len(hashes)), groups)


class _Parents:
    """Sets that are joined, by the usual forest of parents."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def find(self, place: int) -> int:
        while self._parents[place] != place:
            self._parents[place] = self._parents[self._parents[place]]
            place = self._parents[place]
        return place

    def join(self, one: int, other: int) -> None:
        self._parents[self.find(one)] = self.find(other)


def check_arrays(arrays: dict[str, NDArray[Any]]) -> TrainingImages:
    """Take the arrays of a training_images.npz from anywhere.

    Raises:
        ValueError: They are not two lists of hashes of the same length.
    """
    exact, perceptual = arrays["exact"], arrays["perceptual"]
    for name, values in (("exact", exact), ("perceptual", perceptual)):
        if values.dtype != uint64 or values.ndim != 1 or len(values) != len(exact):
            raise ValueError(f"'{name}' is {values.dtype} {values.shape}, not uint64 hashes, one for each image")
    return TrainingImages(exact, perceptual)


@lru_cache
def _cosines(size: int) -> NDArray[float32]:
    """The cosines 1 to 8 of the discrete cosine transform, type 2: float32 (8, size)."""
    places, frequencies = 2 * np.arange(size) + 1, np.arange(1, _SIDE + 1)
    return np.cos(np.pi * frequencies[:, None] * places / (2 * size)).astype(float32)


def _bands(hashes: NDArray[uint64]) -> NDArray[uint16]:
    """uint16 (bands, n)."""
    return np.ascontiguousarray(np.ascontiguousarray(hashes, "<u8").view("<u2").reshape(-1, _BANDS).T, uint16)


def _exact_hash(image: NDArray[uint8]) -> int:
    return int.from_bytes(sha256(np.ascontiguousarray(image).tobytes()).digest()[:8], "big")


def _count_bits(values: NDArray[uint64]) -> NDArray[np.int64]:
    """How many bits of each value are set; np.bitwise_count exists from NumPy 2 on only."""
    counts: NDArray[np.int64] = np.unpackbits(values.view(uint8)).reshape(len(values), 64).sum(axis=1, dtype=np.int64)
    return counts
