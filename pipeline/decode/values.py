"""Stored values -> 8-bit grey, by one rule for DICOM and NIfTI.

stored --Modality LUT--> values --window or VOI LUT--> 0..255 --inverted for MONOCHROME1--> grey

The order is that of the Grayscale Standard Display pipeline (DICOM PS3.4, N.2). Integers of 8 and 16 bits never meet
floating-point arithmetic one by one: the pipeline runs over a table of all stored values, and the pixels are looked up.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any, Self

import numpy as np
from numpy import float32, float64, uint8
from numpy.typing import NDArray

from mribatch.core.errors import OptionError
from mribatch.pipeline.records import Flag
from mribatch.pipeline.studies.voi import Lut, ModalityLut, Rescale, Voi, VoiFunction, VoiWindow

_LOW, _HIGH = 0.005, 0.998  # quantiles of the series that become black and white
_UNCHANGED = Rescale()
_LEAST_WIDTH = 1e-30  # of a window: 255 / width stays a finite float32
_BLANK_GREY = 25  # a tenth of the range of grey
_BLANK_SHARE = 0.005  # of the pixels


class WindowKind(StrEnum):
    FILE = "file"  # the file's own, where it has a usable one, else the range of the series
    AUTO = "auto"  # the range of the series
    FIXED = "fixed"  # the user's, for every slice


@dataclass(frozen=True, slots=True)
class Window:
    """What the user wants to see: --window."""

    kind: WindowKind = WindowKind.FILE
    center: float | None = None  # FIXED only, in the units of the values after the Modality LUT
    width: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "file", "auto" or "CENTER,WIDTH".

        Raises:
            OptionError: It is none of these.
        """
        if text in (WindowKind.FILE, WindowKind.AUTO):
            return cls(WindowKind(text))
        try:
            center, width = (float(part) for part in text.split(","))
        except ValueError:
            center = width = np.nan
        if not (np.isfinite(center) and np.isfinite(width) and width >= 1):
            raise OptionError(
                f"'{text}' is no window", "give file, auto, or a centre and a width of at least 1 such as 600,1200"
            )
        return cls(WindowKind.FIXED, center, width)

    def __str__(self) -> str:
        return f"{self.center:g},{self.width:g}" if self.kind is WindowKind.FIXED else str(self.kind)


@dataclass(frozen=True, slots=True)
class ValueRange:
    """What becomes black and white where no window says so; finite, low <= high."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Words:
    """How unsigned integers of 8 or 16 bits hold the stored values (DICOM PS3.5, 8.1.1 and 8.1.2).

    padding: Stored values, from and to, that are no part of the image (PS3.3 C.7.5.1.1.2).
    """

    bits: int  # of a stored value, 1 to 16
    high_bit: int  # position of its most significant bit, at least bits - 1
    signed: bool = False  # two's complement
    modality: ModalityLut = _UNCHANGED
    padding: tuple[int, int] | None = None

    def stored(self) -> NDArray[np.int32]:
        """The stored value of each code, 0 to 2**bits - 1."""
        codes = np.arange(1 << self.bits, dtype=np.int32)
        if self.signed:
            codes[1 << (self.bits - 1) :] -= 1 << self.bits
        return codes

    def spread(self, table: NDArray[Any], cell_bits: int) -> NDArray[Any]:
        """A table by code -> the same table by whole word of `cell_bits` bits: bits above and below do not matter."""
        below = self.high_bit + 1 - self.bits
        if below:
            table = np.repeat(table, 1 << below)
        return np.tile(table, 1 << (cell_bits - self.high_bit - 1))


@dataclass(frozen=True, slots=True, eq=False)
class StoredSlice:
    """One slice as its file holds it, in its orientation on the screen.

    samples: (rows, cols). With `words`: uint8 or uint16, whole words as stored. Without: float32, finite, values
        already.
    words: None where samples are values already.
    valid: bool (rows, cols); False for padding and for what was no number. None where all are valid or `words` tells.
    voi: The file's own window or table where it has a usable one.
    inverted: MONOCHROME1, the lowest value is white.
    """

    samples: NDArray[Any]
    words: Words | None = None
    valid: NDArray[np.bool_] | None = None
    voi: Voi | None = None
    inverted: bool = False
    flags: tuple[Flag, ...] = ()

    @property
    def values(self) -> NDArray[float32]:
        """float32 (rows, cols), after the Modality LUT."""
        if self.words is None:
            return np.asarray(self.samples, dtype=float32)
        by_code = _values_by_code(self.words).astype(float32)
        return self.words.spread(by_code, self.samples.dtype.itemsize * 8).take(self.samples)


def uses_range(stored: StoredSlice, window: Window) -> bool:
    """Whether the grey values of this slice follow the range of its series."""
    return window.kind is WindowKind.AUTO or (window.kind is WindowKind.FILE and stored.voi is None)


def value_range(slices: Iterable[StoredSlice]) -> ValueRange:
    """The 0.5 and 99.8 percentiles of brightness over all valid values of the given slices together.

    For MONOCHROME1, whose lowest value is white, these are the values of the 0.2 and 99.5 percentiles, so that a head
    looks the same in both. A percentile is a value that occurs: the smallest one with at least that share of the pixels
    at or below it.
    Without a single valid value the range is 0 to 0.
    """
    given = list(slices)
    parts = [_histogram(stored) for stored in given]
    values = np.concatenate([values for values, _ in parts]) if parts else np.empty(0)
    if not values.size:
        return ValueRange(0.0, 0.0)
    counts = np.concatenate([counts for _, counts in parts])
    order = np.argsort(values, kind="stable")
    below = np.cumsum(counts[order])
    inverted = bool(given) and given[0].inverted
    shares = (1 - _HIGH, 1 - _LOW) if inverted else (_LOW, _HIGH)
    low, high = (values[order[np.searchsorted(below, share * below[-1])]] for share in shares)
    return ValueRange(float(low), float(high))


def range_of_values(values: NDArray[Any]) -> ValueRange:
    """As `value_range`, of finite numbers in one array of any shape."""
    if not values.size:
        return ValueRange(0.0, 0.0)
    flat = values.reshape(-1)
    places = [max(int(np.ceil(share * flat.size)) - 1, 0) for share in (_LOW, _HIGH)]
    ordered = np.partition(flat, places)
    return ValueRange(float(ordered[places[0]]), float(ordered[places[1]]))


def to_grey(stored: StoredSlice, window: Window, series_range: ValueRange | None) -> NDArray[uint8]:
    """Grey pixels of one slice; what is not valid becomes 0.

    Args:
        stored: The slice.
        window: What the user wants.
        series_range: Of the slice's series, used where `uses_range` says so; None: the slice's own.

    Returns:
        uint8 (rows, cols), C-contiguous.
    """
    voi = _voi(stored, window, series_range)
    if stored.words is None:
        grey = _eight_bits(_apply(voi, np.array(stored.samples, dtype=float32)), stored.inverted)
    else:
        table = _grey_table(stored.words, voi, stored.inverted, stored.samples.dtype.itemsize * 8)
        grey = _look_up_words(table, stored.samples)
    if stored.valid is not None:
        grey[~stored.valid] = 0
    return grey


def is_blank(grey: NDArray[uint8]) -> bool:
    """Whether a slice shows nothing but background: one grey everywhere, or almost nothing above black.

    The rule: fewer than 0.5 % of the pixels are brighter than a tenth of the range (25 of 255). Of 2,774 slices of
    brain MRI from four public collections, the darkest has 13.7 % of such pixels.
    """
    bright = int(np.count_nonzero(grey > _BLANK_GREY))
    return bright < _BLANK_SHARE * grey.size or (bright == grey.size and bool((grey == grey.flat[0]).all()))


def _voi(stored: StoredSlice, window: Window, series_range: ValueRange | None) -> Voi:
    if window.kind is WindowKind.FIXED and window.center is not None and window.width is not None:
        return VoiWindow(window.center, window.width)
    if window.kind is WindowKind.FILE and stored.voi is not None:
        return stored.voi
    found = series_range or value_range([stored])
    return VoiWindow(found.low / 2 + found.high / 2, found.high - found.low, VoiFunction.LINEAR_EXACT)


def _histogram(stored: StoredSlice) -> tuple[NDArray[float64], NDArray[np.int64]]:
    """The valid values that occur, and how often."""
    if stored.words is None:
        samples = stored.samples if stored.valid is None else stored.samples[stored.valid]
        values, counts = np.unique(samples, return_counts=True)
        return values.astype(float64), counts
    words, cell_bits = stored.words, stored.samples.dtype.itemsize * 8
    chosen = stored.samples if stored.valid is None else stored.samples[stored.valid]
    counts = np.bincount(chosen.reshape(-1), minlength=1 << cell_bits)
    occurring = np.flatnonzero(counts)
    codes = (occurring >> (words.high_bit + 1 - words.bits)) & ((1 << words.bits) - 1)
    kept = _valid_by_code(words)[codes]
    return _values_by_code(words)[codes[kept]], counts[occurring[kept]]


def _valid_by_code(words: Words) -> NDArray[np.bool_]:
    stored = words.stored()
    if words.padding is None:
        return np.ones(stored.shape, dtype=np.bool_)
    low, high = words.padding
    return (stored < low) | (stored > high)


def _values_by_code(words: Words) -> NDArray[float64]:
    stored = words.stored().astype(float64)
    if isinstance(words.modality, Lut):
        return _look_up(words.modality, stored)
    stored *= words.modality.slope
    stored += words.modality.intercept
    return stored


def _look_up_words(table: NDArray[uint8], samples: NDArray[Any]) -> NDArray[uint8]:
    """The entry of a table for each word. OpenCV 5 does it three times faster than NumPy; 4 knows bytes only."""
    if not _opencv_takes_words():
        return table.take(samples)
    import cv2

    grey: NDArray[uint8] = cv2.LUT(np.require(samples, requirements=("C", "ALIGNED")), table)
    return grey


@cache
def _opencv_takes_words() -> bool:
    import cv2

    try:
        cv2.LUT(np.zeros((1, 1), dtype=np.uint16), np.zeros(1 << 16, dtype=uint8))
    except cv2.error:
        return False
    return True


@lru_cache(maxsize=64)  # of 64 KiB each
def _grey_table(words: Words, voi: Voi, inverted: bool, cell_bits: int) -> NDArray[uint8]:
    """Grey by whole word of `cell_bits` bits."""
    grey = _eight_bits(_apply(voi, _values_by_code(words)), inverted)
    if words.padding is not None:
        grey[~_valid_by_code(words)] = 0
    table: NDArray[uint8] = words.spread(grey, cell_bits)
    table.setflags(write=False)
    return table


def _eight_bits(levels: NDArray[Any], inverted: bool) -> NDArray[uint8]:
    """Levels 0..255, overwritten, -> the nearest integers, turned round where the lowest value is white."""
    grey: NDArray[uint8] = np.rint(levels, out=levels).astype(uint8)
    return np.subtract(255, grey, out=grey) if inverted else grey


def _look_up(lut: Lut, values: NDArray[Any]) -> NDArray[float64]:
    """The entries for some values (PS3.3 C.11.1.1.1); values between two integers take the lower one's."""
    entries = np.frombuffer(lut.entries, dtype=np.uint16)
    places = np.clip(np.floor(values.astype(float64) - lut.first), 0, len(entries) - 1)
    return entries[places.astype(np.intp)].astype(float64)


def _apply(voi: Voi, values: NDArray[Any]) -> NDArray[Any]:
    """Levels 0 to 255 of finite values, which may be overwritten."""
    if isinstance(voi, Lut):
        return _look_up(voi, values) * (255 / ((1 << voi.bits) - 1))
    if voi.function is VoiFunction.SIGMOID:
        return _sigmoid(voi, values)
    return _linear(voi, values)


def _sigmoid(window: VoiWindow, values: NDArray[Any]) -> NDArray[Any]:
    """PS3.3 C.11.2.1.3.1."""
    values -= window.center
    values *= -4 / window.width
    np.clip(values, -80, 80, out=values)  # exp stays finite in float32, and beyond it is black or white anyway
    np.exp(values, out=values)
    values += 1
    levels: NDArray[Any] = np.divide(255, values, out=values)
    return levels


def _linear(window: VoiWindow, values: NDArray[Any]) -> NDArray[Any]:
    """PS3.3 C.11.2.1.2.1 (LINEAR) and C.11.2.1.3.2 (LINEAR_EXACT), with clipping in place of their outer cases."""
    exact = window.function is VoiFunction.LINEAR_EXACT
    width = window.width if exact else window.width - 1
    center = window.center if exact else window.center - 0.5
    if width <= _LEAST_WIDTH:  # a threshold
        return np.multiply(values > center, 255, dtype=values.dtype)
    with np.errstate(over="ignore"):  # what overflows is clipped
        values -= center - width / 2
        values *= 255 / width
    levels: NDArray[Any] = np.clip(values, 0, 255, out=values)
    return levels
