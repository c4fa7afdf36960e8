"""The one rule for pixels: grey from colour, 8 bits from others, upright by the orientation.

docs/reference/pixels.md states it for users. Every decoder gives what this module makes of the stored samples, or
leaves the file to one that does.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy import float32, float64, uint8
from numpy.typing import NDArray

_WEIGHTS = (0.299, 0.587, 0.114)  # of red, green and blue: luma of ITU-R BT.601, as JFIF has it (ITU-T T.871, 7)
_BLOCK = 1 << 20  # pixels that are worked on at once; bounds the memory of large images


class NoFiniteSample(Exception):
    """No sample of an image is a finite number."""


def luma(rgb: NDArray[Any]) -> NDArray[Any]:
    """Grey of colour samples as they are stored, whatever profile describes them.

    Args:
        rgb: (height, width, 3 or more), in the order red, green, blue; further channels are ignored.

    Returns:
        (height, width): uint8, rounded to nearest, of uint8; else float32 of 16 bits, float64 of others.
    """
    eight = rgb.dtype == uint8
    kind = float32 if rgb.dtype.itemsize <= 2 else float64
    weights: NDArray[Any] = np.array(_WEIGHTS, kind)

    def grey(rows: NDArray[Any]) -> NDArray[Any]:
        exact: NDArray[Any] = rows[..., :3].astype(kind)
        return _rounded(np.dot(exact, weights), eight)

    return _by_rows(rgb, uint8 if eight else kind, grey)


def luma_of_table(colours: NDArray[uint8]) -> NDArray[uint8]:
    """Grey of every colour of a palette: uint8 (n, 3), red, green, blue -> uint8 (n,)."""
    return np.asarray(luma(colours[None])[0], dtype=uint8)


def luma_of_inks(light: NDArray[uint8]) -> NDArray[uint8]:
    """Grey of CMYK as Adobe stores it: 255 is no ink. uint8 (height, width, 4) -> uint8 (height, width)."""
    weights = np.array(_WEIGHTS, float32)

    def grey(rows: NDArray[Any]) -> NDArray[Any]:
        exact = rows.astype(float32)
        return _rounded(exact[..., :3] @ weights * exact[..., 3] / 255, True)

    return _by_rows(light, uint8, grey)


def full_scale(bits: int) -> NDArray[uint8]:
    """The grey of every value of fewer than 8 bits: 0 is black, the largest is white. uint8 (2**bits,)."""
    return np.rint(np.linspace(0, 255, 1 << bits)).astype(uint8)


def eight_bits(grey: NDArray[Any]) -> NDArray[uint8]:
    """Samples as 8 bits: uint8 as they are; any others by the image's own range, rounded to nearest.

    The smallest value becomes 0, the largest 255. NaN and minus infinity count as the smallest finite value, plus
    infinity as the largest. A constant image becomes 255, or 0 where it is zero.

    Args:
        grey: (height, width), integer or floating-point.

    Raises:
        NoFiniteSample: None of the samples is finite.
    """
    if grey.dtype == uint8:
        return np.asarray(grey, dtype=uint8)
    # 16-bit integers and their differences are exact in float32, which halves the memory of a large image.
    small = grey.dtype == float32 or (grey.dtype.kind in "iu" and grey.dtype.itemsize <= 2)
    values: NDArray[Any] = grey.astype(float32 if small else float64)
    finite = np.isfinite(values)
    if not finite.any():
        raise NoFiniteSample(f"None of the {values.size:,} samples is a finite number.")
    low, high = float(values.min(where=finite, initial=np.inf)), float(values.max(where=finite, initial=-np.inf))
    if low == high:
        return np.full(values.shape, 0 if low == 0 else 255, dtype=uint8)
    np.nan_to_num(values, copy=False, nan=low, posinf=high, neginf=low)
    half = 0.5 if high - low == np.inf else 1.0  # the range of float64 itself is no float64
    np.multiply(values, half, out=values)
    np.subtract(values, low * half, out=values)
    np.divide(values, high * half - low * half, out=values)  # at most 1, also where the range is subnormal
    np.multiply(values, 255, out=values)
    rounded: NDArray[uint8] = np.rint(values, out=values).astype(uint8)
    return rounded


def upright(stored: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn or mirror an image, (height, width), as its orientation 1 to 8 says; C-contiguous.

    The orientations are those of TIFF 6.0 and EXIF (CIPA DC-008), tag 274.
    """
    if orientation >= 5:  # 5 to 8: rows are columns
        stored = stored.T
    # After the transposition, each orientation is a choice of mirrored axes.
    upside_down = orientation in (3, 4, 7, 8)
    left_right = orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(stored[:: -1 if upside_down else 1, :: -1 if left_right else 1])


def _rounded(exact: NDArray[Any], to_eight_bits: bool) -> NDArray[Any]:
    return np.rint(exact).astype(uint8) if to_eight_bits else exact


def _by_rows(pixels: NDArray[Any], kind: Any, grey: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """`grey` of some rows at a time."""
    made = np.empty(pixels.shape[:2], kind)
    for rows in _blocks(*pixels.shape[:2]):
        made[rows] = grey(pixels[rows])
    return made


def _blocks(height: int, width: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, width))
    return (slice(start, start + step) for start in range(0, height, step))
