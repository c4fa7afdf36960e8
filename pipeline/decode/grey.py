"""One whole image file -> grey pixels of the model's size: each format with the decoder that reads all of it right.

The pixels are what the reference trained with: grey, turned upright, stretched with linear interpolation and no
antialiasing. docs/reference/pixels.md has the rule, `pixel_rule` its code. A JPEG goes straight to grey (libjpeg's
luma, never through RGB), which is 1.7 times faster.
"""

import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.pipeline.decode.bmp_data import decode_bmp
from mribatch.pipeline.decode.formats import png
from mribatch.pipeline.decode.formats.container import Refused
from mribatch.pipeline.decode.jpeg2000_data import check_packets
from mribatch.pipeline.decode.jpeg_data import DamagedJpeg, RefusedJpeg, decode_jpeg
from mribatch.pipeline.decode.pixel_rule import NoFiniteSample, eight_bits, luma, upright
from mribatch.pipeline.decode.probe import exif_orientation
from mribatch.pipeline.decode.tiff_data import decode_tiff
from mribatch.pipeline.decode.webp_data import is_used_up
from mribatch.pipeline.records import Flag, Status, Verdict

_MAX_JPEG_PIXELS = 1 << 30  # OpenCV's own limit (CV_IO_MAX_IMAGE_PIXELS): what it refuses stays refused

_LEAST_WEBP = 32  # bytes that OpenCV asks for; a black image may have 30

_Stored = tuple[NDArray[Any], int, tuple[Flag, ...]]  # grey as stored (height, width), its orientation, more flags


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

    Args:
        content: The whole file.
        verdict: Of `probe(content)`; one that is not ok is handed back with no pixels.
        height: Of the result, in pixels.
        width: Of the result, in pixels.

    Returns:
        The verdict, with the flag `extra_bytes` where the data of a JPEG are padded, and the status and reason where
        the data are damaged or cut, or a decoder refused or contradicts the header; and uint8 (height, width, 1), grey
        0..255, C-contiguous, or None where the verdict is not ok.
    """
    if verdict.status is not Status.OK:
        return verdict, None
    try:
        stored, orientation, flags = _DECODERS[str(verdict.format)](content, verdict)
        if stored.shape != (verdict.height, verdict.width):
            raise _Undecodable(
                f"The decoder gave {stored.shape} samples; the header gives {verdict.height} rows of {verdict.width} "
                "pixels."
            )
        grey = upright(eight_bits(stored), orientation)
        return _flagged(verdict, flags), stretch(grey, height, width)
    except (_Undecodable, NoFiniteSample) as error:
        return _failed(verdict, str(error)), None
    except Refused as refused:
        return replace(_failed(verdict, refused.error), status=refused.status), None
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


def _decode_jpeg(content: bytes, verdict: Verdict) -> _Stored:
    orientation = _orientation(content, verdict)
    if (verdict.width or 0) * (verdict.height or 0) > _MAX_JPEG_PIXELS:
        return _by_opencv(content, verdict), orientation, ()
    try:
        grey, flags = decode_jpeg(content)
        return grey, orientation, flags
    except DamagedJpeg as damage:
        raise _Undecodable(
            f'The JPEG data are damaged: libjpeg says "{damage}" of the {len(content):,} bytes.'
        ) from None
    except RefusedJpeg:
        return _by_opencv(content, verdict), orientation, ()


def _decode_png(content: bytes, verdict: Verdict) -> _Stored:
    return _by_opencv(png.only_pixels(content), verdict), _orientation(content, verdict), ()


def _decode_bmp(content: bytes, _: Verdict) -> _Stored:
    return decode_bmp(content), 1, ()


def _decode_tiff(content: bytes, _: Verdict) -> _Stored:
    return (*decode_tiff(content), ())


def _decode_webp(content: bytes, verdict: Verdict) -> _Stored:
    content += bytes(max(0, _LEAST_WEBP - len(content)))
    stored = _by_opencv(content, verdict)
    if not is_used_up(content, lambda copy: _read(copy) is not None):
        raise _Undecodable(f"The WebP data are damaged: the {len(content):,} bytes hold more than the image needs.")
    return stored, _orientation(content, verdict), ()


def _decode_jpeg2000(content: bytes, verdict: Verdict) -> _Stored:
    try:
        check_packets(content)
    except (struct.error, IndexError):
        raise _Undecodable(f"The JPEG 2000 data of {len(content):,} bytes have no valid tile-parts.") from None
    return _by_opencv(content, verdict), 1, ()


_DECODERS: dict[str, Callable[[bytes, Verdict], _Stored]] = {
    "jpeg": _decode_jpeg,
    "png": _decode_png,
    "bmp": _decode_bmp,
    "tiff": _decode_tiff,
    "webp": _decode_webp,
    "jp2": _decode_jpeg2000,
}


def _orientation(content: bytes, verdict: Verdict) -> int:
    """The EXIF orientation, looked for where the probe found one."""
    return exif_orientation(content, str(verdict.format)) if Flag.EXIF_ROTATED in verdict.flags else 1


def _by_opencv(content: bytes, verdict: Verdict) -> NDArray[Any]:
    """The stored image in grey.

    Where samples are scaled afterwards, grey is made of colour here: OpenCV would round it before.
    """
    read = _read(content, unchanged=Flag.SCALED_TO_8_BIT in verdict.flags)
    if read is None:
        raise _Undecodable(f"OpenCV could not decode the {str(verdict.format).upper()} data of {len(content):,} bytes.")
    return luma(read[..., 2::-1]) if read.ndim == 3 else read  # blue, green, red, perhaps alpha


def _read(content: bytes, *, unchanged: bool = False) -> NDArray[Any] | None:
    """What OpenCV reads: 8-bit grey, or all channels as they are; None where it cannot."""
    cv2 = _cv2()
    # The orientation is applied later: OpenCV 4.10 ignores it in WebP and 5.0 does not; rows must not depend on it.
    mode = cv2.IMREAD_UNCHANGED if unchanged else cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    read: NDArray[Any] | None = cv2.imdecode(np.frombuffer(content, dtype=uint8), mode)
    return read
