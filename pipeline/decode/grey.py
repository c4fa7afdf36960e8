"""One whole image file -> grey pixels of the model's size, with OpenCV, and with simplejpeg for whole JPEGs.

The pixels are what the reference trained with: grey, turned as EXIF says, stretched with linear interpolation and no
antialiasing. A JPEG goes straight to grey (libjpeg's luma, never through RGB), which is 1.7 times faster.
"""

from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.pipeline.decode.jpeg_data import DamagedJpeg, RefusedJpeg, decode_jpeg
from mribatch.pipeline.decode.probe import exif_orientation
from mribatch.pipeline.records import Flag, Status, Verdict

_MAX_JPEG_PIXELS = 1 << 30  # OpenCV's own limit (CV_IO_MAX_IMAGE_PIXELS): what it refuses stays refused


@cache
def _cv2() -> ModuleType:
    """OpenCV, imported on first use, so that `mribatch --help` does not pay for it."""
    import cv2

    return cv2


def opencv_version() -> str:
    """Version of the installed OpenCV, e.g. "5.0.0"."""
    return str(_cv2().__version__)


def decoder_versions() -> str:
    """Versions of all that decodes here, e.g. "5.0.0, simplejpeg 1.9.0"; OpenCV's own first."""
    import simplejpeg

    return f"{opencv_version()}, simplejpeg {simplejpeg.__version__}"


def decode_grey(content: bytes, verdict: Verdict, height: int, width: int) -> tuple[Verdict, NDArray[uint8] | None]:
    """Decode one file that `probe` called ok. A bad file is a verdict, never an exception.

    Samples of more than 8 bits, signed or floating-point are scaled by the image's own range: smallest value to 0,
    largest to 255. NaN and minus infinity count as the smallest finite value, plus infinity as the largest. A constant
    image becomes 255, or 0 where it is zero. The first page or frame is used and alpha is dropped.

    Args:
        content: The whole file.
        verdict: Of `probe(content)`; one that is not ok is handed back with no pixels.
        height: Of the result, in pixels.
        width: Of the result, in pixels.

    Returns:
        The verdict, with the flag `extra_bytes` where the data of a JPEG are padded, and `decode_failed` with the
        reason where libjpeg found damage, or OpenCV refused or contradicts the header; and uint8
        (height, width, 1), grey 0..255, C-contiguous, or None where the verdict is not ok.
    """
    if verdict.status is not Status.OK:
        return verdict, None
    try:
        stored, flags = _decode(content, verdict)
        grey = _to_eight_bits(_upright(stored, content, verdict))
        return _flagged(verdict, flags), stretch(grey, height, width)
    except _Undecodable as error:
        return _failed(verdict, str(error)), None
    except MemoryError:
        return _failed(
            verdict, f"The image of {verdict.width} x {verdict.height} pixels does not fit into memory."
        ), None
    except _cv2().error as error:
        reason = " ".join(str(getattr(error, "err", "") or error).split())
        return _failed(verdict, f"OpenCV refused the image: {reason}"), None


def stretch(grey: NDArray[uint8], height: int, width: int) -> NDArray[uint8]:
    """Stretch a grey image to the model's size; uint8 (height, width, 1), C-contiguous."""
    resized = _cv2().resize(grey, (width, height), interpolation=_cv2().INTER_LINEAR)
    return np.ascontiguousarray(resized, dtype=uint8).reshape(height, width, 1)


class _Undecodable(Exception):
    """The decoder's answer is no image, or not the one that the header promised."""


def _flagged(verdict: Verdict, flags: tuple[Flag, ...]) -> Verdict:
    """The verdict with more flags, each once."""
    return replace(verdict, flags=tuple(dict.fromkeys((*verdict.flags, *flags)))) if flags else verdict


def _failed(verdict: Verdict, error: str) -> Verdict:
    return Verdict(
        Status.DECODE_FAILED, error, verdict.format, verdict.width, verdict.height, verdict.flags, verdict.bits
    )


def _decode(content: bytes, verdict: Verdict) -> tuple[NDArray[np.generic], tuple[Flag, ...]]:
    """The stored grey image, (height, width), of whatever type the decoder gives; and flags of the data."""
    cv2 = _cv2()
    grey: NDArray[np.generic] | None
    grey, flags = _decode_jpeg(content, verdict) if verdict.format == "jpeg" else (None, ())
    if grey is None:
        # The orientation is applied later: OpenCV 4.10 ignores it in WebP and 5.0 does not; rows must not depend on it.
        mode = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
        grey = cv2.imdecode(np.frombuffer(content, dtype=uint8), mode)
    if grey is None:
        raise _Undecodable(f"OpenCV could not decode the {str(verdict.format).upper()} data of {len(content):,} bytes.")
    promised = {(verdict.height, verdict.width)}
    if verdict.format == "tiff" and Flag.EXIF_ROTATED in verdict.flags:
        promised.add((verdict.width, verdict.height))  # OpenCV turns a TIFF whatever the mode
    if grey.shape not in promised:
        raise _Undecodable(
            f"OpenCV decoded {grey.shape} samples; the header gives {verdict.height} rows of {verdict.width} pixels."
        )
    return np.asarray(grey), flags


def _decode_jpeg(content: bytes, verdict: Verdict) -> tuple[NDArray[uint8] | None, tuple[Flag, ...]]:
    """The pixels that OpenCV gives, uint8 (height, width), and more flags; None where it is OpenCV's turn."""
    if (verdict.width or 0) * (verdict.height or 0) > _MAX_JPEG_PIXELS:
        return None, ()
    try:
        return decode_jpeg(content)
    except DamagedJpeg as damage:
        raise _Undecodable(
            f'The JPEG data are damaged: libjpeg says "{damage}" of the {len(content):,} bytes.'
        ) from None
    except RefusedJpeg:
        return None, ()


def _upright(grey: NDArray[np.generic], content: bytes, verdict: Verdict) -> NDArray[np.generic]:
    """Turn or mirror the stored image as its EXIF orientation says (CIPA DC-008, tag 0x112)."""
    if Flag.EXIF_ROTATED not in verdict.flags or verdict.format not in ("jpeg", "png", "webp"):
        return grey
    orientation = exif_orientation(content, verdict.format)
    if orientation >= 5:  # 5 to 8: rows are columns
        grey = grey.T
    # After the transposition, each orientation is a choice of mirrored axes.
    upside_down = orientation in (3, 4, 7, 8)
    left_right = orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(grey[:: -1 if upside_down else 1, :: -1 if left_right else 1])


def _to_eight_bits(grey: NDArray[np.generic]) -> NDArray[uint8]:
    """Scale any samples but 8-bit ones by their own range to 0..255, rounded to nearest."""
    if grey.dtype == uint8:
        return np.asarray(grey, dtype=uint8)
    # 16-bit integers and their differences are exact in float32, which halves the memory of a large image.
    small = grey.dtype.kind in "iu" and grey.dtype.itemsize <= 2
    values: NDArray[Any] = grey.astype(np.float32 if small else np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        raise _Undecodable(f"None of the {values.size:,} samples is a finite number.")
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
