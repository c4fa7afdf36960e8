"""What the images that a model was trained on look like, in numbers, so that a run can flag images that look otherwise.

pixels of the model's size --_describe--> layout, statistics --Mahalanobis distance--> beyond its limit: unlike

*Layout* is where the picture is bright and where it changes: means over 16 x 16 cells, and mean differences of
neighbours over 8 x 8 cells, reduced to their principal components. *Statistics* are quantiles of the grey values, the
brightness of the four borders, contrast and sharpness. Beside both, the stored size must be near those of training. The
limits are quantiles of the distances of training images that were left out of the fit, series by series. No image is
kept.
docs/decisions/0014-unlike-training.md has the figures, and why these are not features of the network.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy import float32, float64, int64, uint8
from numpy.typing import NDArray

FEWEST_IMAGES, FEWEST_UNITS = 100, 10  # with fewer there is no telling what they look like
FEWEST_PIXELS = 16  # along a side
MAX_FALSE_ALARMS = 0.005  # share of the training images beyond each of the two limits
_CELLS, _EDGE_CELLS = 16, 8  # along a side
_COMPONENTS = 20  # of the layout
_BORDER = 4  # pixels
_QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.99)
_LEAST_SPREAD = {"layout": 0.05, "statistics": 0.1}  # of a component, where 1 is that of a single number
_FOLDS = 5
_BATCH = 8  # images that are described at once: what is computed between them stays in the cache


@dataclass(frozen=True)
class _Cloud:
    """Numbers of many images as a mean and a spread.

    mean: float32 (numbers,). transform: float32 (numbers, components); makes distances of deviations from the mean.
    """

    mean: NDArray[float32]
    transform: NDArray[float32]

    @classmethod
    def fit(cls, values: NDArray[float32], components: int, least: float) -> Self:
        mean, spread = values.mean(axis=0, dtype=float64), values.std(axis=0, dtype=float64) + 1e-3
        scaled = (values - mean) / spread
        variances, directions = np.linalg.eigh(scaled.T @ scaled / len(values))
        kept = slice(len(variances) - components, None)
        deviations = np.maximum(np.sqrt(np.maximum(variances[kept], 0)), least)
        return cls(mean.astype(float32), (directions[:, kept] / deviations / spread[:, None]).astype(float32))

    def measure(self, values: NDArray[float32]) -> NDArray[float64]:
        """Mahalanobis distances, (n,); each row by itself, so that none depends on its neighbours."""
        moved = np.matmul((values - self.mean)[:, None, :], self.transform)[:, 0]
        return np.asarray(np.sqrt((moved.astype(float64) ** 2).sum(axis=1)))


@dataclass(frozen=True, kw_only=True)
class TrainingLook:
    """Statistics of the training images, and limits.

    sides: float64 (2,), the shortest and the longest side in pixels that still count as like training. ratio: likewise
    the largest ratio of the longer to the shorter side. images: how many the statistics are of. false_alarms: share of
    these that are flagged when they, with all others of their series, are left out of the fit.
    """

    layout_mean: NDArray[float32]
    layout_transform: NDArray[float32]
    layout_limit: float
    statistics_mean: NDArray[float32]
    statistics_transform: NDArray[float32]
    statistics_limit: float
    sides: NDArray[float64]
    ratio: float
    images: int
    false_alarms: float

    @classmethod
    def of_images(cls, pixels: NDArray[uint8], sizes: Sequence[tuple[int, int]], units: NDArray[int64]) -> Self | None:
        """Describe images; None where they are too few or too small.

        Args:
            pixels: uint8 (n, height, width, 1), of the model's size.
            sizes: Width and height of each as stored, in pixels.
            units: int64 (n,); equal numbers are of one series or patient, and are left out together.
        """
        numbers = np.unique(units, return_inverse=True)[1]
        few = len(pixels) < FEWEST_IMAGES or numbers.max(initial=-1) + 1 < FEWEST_UNITS
        if few or min(pixels.shape[1:3]) < FEWEST_PIXELS:
            return None
        values = _describe_all(pixels)
        order = np.random.Generator(np.random.PCG64(0)).permutation(int(numbers.max()) + 1)
        folds = order[numbers] % _FOLDS
        distances = {name: _measure_left_out(name, each, folds) for name, each in values.items()}
        limits = {name: float(np.quantile(each, 1 - MAX_FALSE_ALARMS)) for name, each in distances.items()}
        clouds = {name: _fit(name, each) for name, each in values.items()}
        beyond = np.any([distances[name] > limits[name] for name in values], axis=0)
        sides = np.array(sizes, float64)
        return cls(
            layout_mean=clouds["layout"].mean,
            layout_transform=clouds["layout"].transform,
            layout_limit=limits["layout"],
            statistics_mean=clouds["statistics"].mean,
            statistics_transform=clouds["statistics"].transform,
            statistics_limit=limits["statistics"],
            sides=np.array([sides.min() / 2, sides.max() * 2]),
            ratio=float((sides.max(axis=1) / sides.min(axis=1)).max() * 1.25),
            images=len(pixels),
            false_alarms=float(beyond.mean()),
        )

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Take the arrays of a training_look.npz from anywhere.

        Raises:
            ValueError: They do not fit; names the first that does not.
        """
        wanted = _wanted_shapes(arrays["layout_transform"])
        for name, (shape, kind) in wanted.items():
            found = arrays[name]
            if found.shape != shape or found.dtype.kind != kind or not np.isfinite(found).all():
                raise ValueError(f"'{name}' is {found.dtype} {found.shape}, or not finite")
        values: dict[str, Any] = {
            name: arrays[name] if shape else arrays[name].item() for name, (shape, _) in wanted.items()
        }
        return cls(**values)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the arrays of a training_look.npz."""
        return tuple(field.name for field in fields(cls))

    def find_unlike(self, pixels: NDArray[uint8], sizes: Sequence[tuple[int | None, int | None]]) -> NDArray[np.bool_]:
        """Which images do not look like those of training, bool (n,).

        Args:
            pixels: uint8 (n, height, width, 1), of the model's size.
            sizes: Width and height of each as stored, in pixels; None where it is not known.
        """
        described = _describe_all(pixels)
        layout, statistics = described["layout"], described["statistics"]
        unlike = _Cloud(self.layout_mean, self.layout_transform).measure(layout) > self.layout_limit
        unlike |= _Cloud(self.statistics_mean, self.statistics_transform).measure(statistics) > self.statistics_limit
        return np.asarray(unlike | np.array([self._is_odd(*size) for size in sizes], np.bool_))

    def to_bytes(self) -> bytes:
        """Return the content of training_look.npz."""
        stream = io.BytesIO()
        arrays: dict[str, Any] = {name: np.asarray(getattr(self, name)) for name in self.names()}
        np.savez_compressed(stream, **arrays)
        return stream.getvalue()

    def _is_odd(self, width: int | None, height: int | None) -> bool:
        if not width or not height:
            return False
        shorter, longer = sorted((width, height))
        return bool(shorter < self.sides[0] or longer > self.sides[1] or longer > self.ratio * shorter)


def _wanted_shapes(transform: NDArray[Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Array -> its shape and kind of numbers."""
    components = transform.shape[-1] if transform.ndim == 2 else 0
    numbers, few = _CELLS**2 + 2 * _EDGE_CELLS**2, len(_QUANTILES) + 8
    return {
        "layout_mean": ((numbers,), "f"),
        "layout_transform": ((numbers, components), "f"),
        "layout_limit": ((), "f"),
        "statistics_mean": ((few,), "f"),
        "statistics_transform": ((few, few), "f"),
        "statistics_limit": ((), "f"),
        "sides": ((2,), "f"),
        "ratio": ((), "f"),
        "images": ((), "i"),
        "false_alarms": ((), "f"),
    }


def _describe_all(pixels: NDArray[uint8]) -> dict[str, NDArray[float32]]:
    described = [_describe(pixels[start : start + _BATCH]) for start in range(0, len(pixels), _BATCH)]
    layouts, statistics = zip(*described, strict=True)
    return {"layout": np.concatenate(layouts), "statistics": np.concatenate(statistics)}


def _fit(name: str, values: NDArray[float32]) -> _Cloud:
    components = min(_COMPONENTS, len(values) // 10) if name == "layout" else values.shape[1]
    return _Cloud.fit(values, components, _LEAST_SPREAD[name])


def _measure_left_out(name: str, values: NDArray[float32], folds: NDArray[int64]) -> NDArray[float64]:
    """The distance of each image from the images of the other folds."""
    distances = np.zeros(len(values))
    for fold in range(_FOLDS):
        inside = folds == fold
        distances[inside] = _fit(name, values[~inside]).measure(values[inside])
    return distances


def _describe(pixels: NDArray[uint8]) -> tuple[NDArray[float32], NDArray[float32]]:
    """Layout, float32 (n, 384), and statistics, float32 (n, 13), of images, uint8 (n, height, width, 1).

    Most of it is computed of means over 2 x 2 pixels, which is four times as fast.
    """
    images = pixels[..., 0]
    count = len(images)
    fine = _mean_differences(images)
    half = _halve(images)
    across, down = np.abs(np.diff(half, axis=2)), np.abs(np.diff(half, axis=1))
    layout = [_pool(half, _CELLS), np.sqrt(_pool(across, _EDGE_CELLS)), np.sqrt(_pool(down, _EDGE_CELLS))]
    coarse = across.mean(axis=(1, 2), dtype=float64) + down.mean(axis=(1, 2), dtype=float64)
    sharpness = np.log((fine.sum(axis=1) + 0.004) / (coarse + 0.004))
    contrast = np.log(half.std(axis=(1, 2), dtype=float64) + 0.01)
    statistics = [_quantiles(images), _borders(half), np.log(fine + 0.002), sharpness[:, None], contrast[:, None]]
    return (
        np.concatenate([each.reshape(count, -1) for each in layout], axis=1).astype(float32),
        np.concatenate(statistics, axis=1).astype(float32),
    )


def _mean_differences(images: NDArray[uint8]) -> NDArray[float64]:
    """Mean absolute difference of neighbours along each axis, in every fourth row, (n, 2), white being 1."""
    means, rows = [], images[:, :-1:4]
    for one, other in ((rows[:, :, 1:], rows[:, :, :-1]), (images[:, 1::4], rows)):
        difference = np.maximum(one, other) - np.minimum(one, other)
        means.append(difference.mean(axis=(1, 2), dtype=float64) / 255)
    return np.stack(means, axis=1)


def _halve(images: NDArray[uint8]) -> NDArray[float32]:
    """Means over 2 x 2 pixels, white being 1; of an odd side the last row or column is left out."""
    height, width = (side // 2 * 2 for side in images.shape[1:])
    pairs = np.ascontiguousarray(images[:, :height, :width]).view("<u2")
    across = (pairs & 0xFF) + (pairs >> 8)
    sums = across[:, ::2] + across[:, 1::2]
    return sums.astype(float32) / float32(4 * 255)


def _pool(images: NDArray[float32], cells: int) -> NDArray[float32]:
    """Means over cells x cells areas."""
    height, width = images.shape[1:]
    return np.asarray(_areas(height, cells) @ (images @ _areas(width, cells).T), float32)


@lru_cache
def _areas(size: int, cells: int) -> NDArray[float32]:
    """Weights of pixels in the mean of each cell: float32 (cells, size). Cells may share a pixel."""
    edges = np.arange(cells + 1) * size / cells
    places = np.arange(size)
    overlap = np.minimum(edges[1:, None], places + 1) - np.maximum(edges[:-1, None], places)
    return np.asarray(np.maximum(overlap, 0) * cells / size, float32)


def _quantiles(images: NDArray[uint8]) -> NDArray[float64]:
    """Quantiles of the grey values of a sixteenth of the pixels, (n, 5), white being 1."""
    samples = images[:, 1::4, 1::4].reshape(len(images), -1)
    own = samples + 256 * np.arange(len(images))[:, None]  # grey values of different images are counted apart
    counts = np.bincount(own.ravel(), minlength=256 * len(images)).reshape(-1, 256)
    shares = np.cumsum(counts, axis=1) / samples.shape[1]
    return np.asarray((shares[:, None, :] < np.array(_QUANTILES)[:, None]).sum(axis=2) / 255)


def _borders(half: NDArray[float32]) -> NDArray[float64]:
    """Mean brightness of the four borders, the darkest first, (n, 4)."""
    width = _BORDER // 2
    sides = (half[:, :width], half[:, -width:], half[:, :, :width], half[:, :, -width:])
    return np.sort(np.stack([side.mean(axis=(1, 2), dtype=float64) for side in sides], axis=1), axis=1)
