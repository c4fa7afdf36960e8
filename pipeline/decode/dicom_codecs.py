"""One compressed DICOM frame -> its samples. The size that the coded data declare is checked before they are decoded.

JPEG of 8 bits is decoded by OpenCV, everything else by imagecodecs (BSD-3-Clause), which the extra `dicom` installs.
"""

import struct
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.pipeline.decode.formats.container import Refused
from mribatch.pipeline.decode.jpeg2000_data import check_bare_packets
from mribatch.pipeline.decode.jpeg_data import DamagedJpeg, RefusedJpeg, decode_jpeg
from mribatch.pipeline.decode.probe import probe
from mribatch.pipeline.records import Status
from mribatch.pipeline.studies.dicom_elements import DicomError, damaged, truncated, unsupported
from mribatch.pipeline.studies.dicom_image import Codec, Color, Pixels

PACKAGE = "imagecodecs"
_RLE_SEGMENTS = 15  # at most, PS3.5, G.5
_J2K_START = b"\xff\x4f\xff\x51"
_J2K_END = b"\xff\xd9"
_JPEG_END = b"\xff\xd9"
_NO_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))  # JPEG markers that stand alone
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}  # T.81, table B.1; T.87, C.1.1


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """samples: unsigned integers; (rows, cols), or (rows, cols, 3) where colour is left."""

    samples: NDArray[Any]
    bits: int  # of a stored value
    high_bit: int
    is_rgb: bool = False  # the decoder turned YBR to RGB, whatever the header says


@dataclass(frozen=True, slots=True)
class _Coded:
    """What the coded data declare."""

    width: int
    height: int
    samples: int
    bits: int


def decode_frame(codec: Codec, data: bytes, pixels: Pixels) -> DecodedFrame:
    """Decode one frame.

    Args:
        codec: How it is coded.
        data: All fragments of the frame, joined.
        pixels: What the DICOM header says of it.

    Raises:
        DicomError: The data are cut, damaged, not what the header says, or there is no decoder for them.
    """
    if codec is Codec.RLE:
        return _decode_rle(data, pixels)
    coded = _read_j2k(data) if codec is Codec.JPEG_2000 else _read_jpeg(data)
    if (coded.width, coded.height, coded.samples) != (pixels.width, pixels.height, pixels.samples):
        raise damaged(
            f"The {codec} data hold {coded.width} x {coded.height} x {coded.samples} samples; the DICOM header gives"
            f" {pixels.width} x {pixels.height} x {pixels.samples}."
        )
    if coded.bits > 16:
        raise unsupported(f"The {codec} data have {coded.bits} bits per sample; up to 16 are read.")
    if codec is Codec.JPEG and coded.bits == 8:
        return _decode_jpeg8(data, pixels)
    if codec is Codec.JPEG_2000:
        _check_j2k(data)
    samples = _decode_with_imagecodecs(codec, data, coded)
    unsigned = np.ascontiguousarray(samples).view(f"u{samples.dtype.itemsize}")
    # A decoder may extend the sign to all bits of its samples, or not: the lesser number of bits is right for both.
    bits = min(coded.bits, pixels.stored) if pixels.signed else coded.bits
    return DecodedFrame(unsigned, bits, bits - 1, pixels.color in _TRANSFORMED)


def _check_j2k(data: bytes) -> None:
    """Follow the packets, since OpenJPEG decodes what it finds where they are damaged."""
    try:
        check_bare_packets(data[data.index(_J2K_START) : data.rindex(_J2K_END) + len(_J2K_END)])
    except Refused as refused:
        raise DicomError(refused.status, f"The JPEG 2000 data of the DICOM file: {refused.error}") from None


_TRANSFORMED = (Color.YBR_ICT, Color.YBR_RCT)


@cache
def imagecodecs() -> ModuleType:
    """The package of decoders, imported on first use.

    Raises:
        DicomError: It is not installed.
    """
    try:
        package = import_module(PACKAGE)
    except ImportError:
        raise unsupported(
            f"This compressed DICOM needs the package {PACKAGE}, which the extra dicom of mribatch installs."
        ) from None
    return package


def _decode_jpeg8(data: bytes, pixels: Pixels) -> DecodedFrame:
    """Decode JPEG of 8 bits; of colour, only the luma is computed."""
    verdict = probe(data, pixels.width * pixels.height)
    if verdict.status is not Status.OK:
        raise DicomError(verdict.status, f"The JPEG data of the DICOM file: {verdict.error}")
    try:
        grey: NDArray[Any] | None = decode_jpeg(data)[0]
    except DamagedJpeg as damage:
        raise damaged(f'The JPEG data of the DICOM file are damaged: libjpeg says "{damage}".') from None
    except RefusedJpeg:
        grey = _decode_with_opencv(data)
    if grey is None or grey.shape != (pixels.height, pixels.width):
        raise damaged("OpenCV could not decode the JPEG data of the DICOM file.")
    return DecodedFrame(np.asarray(grey), 8, 7)


def _decode_with_opencv(data: bytes) -> NDArray[Any] | None:
    import cv2

    mode = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(data, dtype=uint8), mode)


def _decode_with_imagecodecs(codec: Codec, data: bytes, coded: _Coded) -> NDArray[Any]:
    package = imagecodecs()
    try:
        if codec is Codec.JPEG:
            samples = package.jpeg8_decode(data)
        elif codec is Codec.JPEG_LOSSLESS:
            samples = package.jpegsof3_decode(data)
        elif codec is Codec.JPEG_LS:
            samples = package.jpegls_decode(data)
        else:
            samples = package.jpeg2k_decode(data, numthreads=1)
    except (RuntimeError, ValueError, MemoryError, OverflowError):  # their texts are not ours to pass on
        raise damaged(f"The {codec} data of the DICOM file cannot be decoded.") from None
    shape = (coded.height, coded.width) if coded.samples == 1 else (coded.height, coded.width, coded.samples)
    if samples.shape != shape or samples.dtype.kind not in "iu" or samples.dtype.itemsize > 2:
        raise damaged(f"The {codec} data of the DICOM file decode to samples of another shape than they declare.")
    return np.asarray(samples)


def _decode_rle(data: bytes, pixels: Pixels) -> DecodedFrame:
    """Decode RLE (PS3.5, annex G): a segment for each byte of each sample, the most significant first."""
    sample_bytes = pixels.allocated // 8
    segments = sample_bytes * pixels.samples
    if pixels.allocated == 1 or segments > _RLE_SEGMENTS:
        raise unsupported(f"The DICOM image has RLE data of {pixels.samples} x {pixels.allocated} bits per pixel.")
    if len(data) < 64:
        raise truncated(f"The RLE data of the DICOM file have {len(data)} bytes; their header alone has 64.")
    count, *offsets = struct.unpack_from(f"<{1 + segments}I", data)
    if count != segments:
        raise damaged(f"The RLE data of the DICOM file have {count:,} segments in place of {segments}.")
    offsets.append(len(data))
    size = pixels.width * pixels.height
    planes = np.empty((segments, size), dtype=uint8)
    for index, plane in enumerate(planes):
        begin, end = offsets[index], offsets[index + 1]
        if not 64 <= begin <= end <= len(data):
            raise damaged("The RLE data of the DICOM file have segments in the wrong places.")
        _unpack_bits(data[begin:end], plane)
    by_sample = planes.reshape(pixels.samples, sample_bytes, size)
    cells = np.ascontiguousarray(by_sample.transpose(0, 2, 1)).view(f">u{sample_bytes}").astype(f"u{sample_bytes}")
    shaped = cells.reshape(pixels.samples, pixels.height, pixels.width)
    samples = shaped[0] if pixels.samples == 1 else np.moveaxis(shaped, 0, -1)
    return DecodedFrame(samples, pixels.stored, pixels.high_bit)


def _unpack_bits(segment: bytes, plane: NDArray[uint8]) -> None:
    """Decode one RLE segment (PS3.5, G.3.2) into `plane`, which it has to fill."""
    out = memoryview(plane.data)
    at, have, size, need = 0, 0, len(segment), len(plane)
    while have < need and at < size:
        code = segment[at]
        if code < 128:
            run = min(code + 1, need - have)
            part = segment[at + 1 : at + 1 + run]
            if len(part) < run:
                break
            out[have : have + run] = part
            at += code + 2
            have += run
        elif code > 128:
            run = min(257 - code, need - have)
            if at + 1 >= size:
                break
            out[have : have + run] = segment[at + 1 : at + 2] * run
            at += 2
            have += run
        else:
            at += 1
    if have < need:
        raise truncated(f"A segment of the DICOM file's RLE data ends after {have:,} of {need:,} samples.")


def _read_jpeg(data: bytes) -> _Coded:
    """Read the frame header of a JPEG or JPEG-LS image (T.81, B.2.2; T.87, C.2.2)."""
    if data[:2] != b"\xff\xd8":
        raise damaged("The JPEG data of the DICOM file do not begin with a start-of-image marker.")
    if _JPEG_END not in data[-16:]:
        raise truncated("The JPEG data of the DICOM file have no end-of-image marker.")
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAME_MARKERS:
            bits, height, width, samples = struct.unpack_from(">BHHB", data, at + 4)
            return _Coded(width, height, samples, bits)
        if marker == 0xFF:
            at += 1
        elif marker in _NO_LENGTH:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise damaged("The JPEG data of the DICOM file have no frame header.")


def _read_j2k(data: bytes) -> _Coded:
    """Read the SIZ segment of a JPEG 2000 codestream (T.800, A.5.1), which some writers put into a JP2 file."""
    at = data.find(_J2K_START, 0, 4096)
    if at < 0 or len(data) < at + 45:
        raise damaged("The JPEG 2000 data of the DICOM file do not begin as a codestream does.")
    if _J2K_END not in data[-16:]:
        raise truncated("The JPEG 2000 data of the DICOM file have no end-of-codestream marker.")
    right, bottom, left, top = struct.unpack_from(">4I", data, at + 8)
    samples, depth, across, down = struct.unpack_from(">HBBB", data, at + 40)
    if (across, down) != (1, 1):
        raise unsupported("The JPEG 2000 data of the DICOM file are subsampled.")
    return _Coded(right - left, bottom - top, samples, (depth & 0x7F) + 1)
