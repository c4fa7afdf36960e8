"""Strict decoding of JPEG data: whether what libjpeg warns of changes pixels; which JPEGs all decoders read alike.

libjpeg goes on after damage inside the entropy-coded data and says so only in a warning. libjpeg-turbo has the eleven
warnings of the decoder that stand here (`JWRN_` in its jerror.h). TurboJPEG hands over the first one of a file only:
where it is harmless, its cause is taken out of a copy, and the copy must decode without any warning.
"""

import re
import struct

from numpy import uint8
from numpy.typing import NDArray

from mribatch.pipeline.decode.formats.container import Refused
from mribatch.pipeline.decode.formats.jpeg import coding, first_scan, normalized
from mribatch.pipeline.decode.pixel_rule import luma_of_inks
from mribatch.pipeline.records import Flag

# Pixels are wrong, or a guess.
_DAMAGE = (
    re.compile(r"Corrupt JPEG data: premature end of data segment"),
    re.compile(r"Corrupt JPEG data: bad Huffman code"),
    re.compile(r"Corrupt JPEG data: bad arithmetic code"),
    re.compile(r"Corrupt JPEG data: found marker 0x[0-9a-f]{2} instead of RST\d"),
    re.compile(r"Premature end of JPEG file"),
    re.compile(r"Inconsistent progression sequence for component \d+ coefficient \d+"),
    re.compile(r"Didn't expect more than one scan"),  # an error, but behind the scan that other decoders read
)
# Damage, unless the bytes are padding: a decoder that lost its place in the data often finds all blocks too early.
_EXTRA_BYTES = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
# Headers that decoders read alike; no pixel depends on them.
_HEADER = (
    re.compile(r"Unknown Adobe color transform code \d+"),
    re.compile(r"Warning: unknown JFIF revision number \d+\.\d+"),
    re.compile(r"Invalid SOS parameters for sequential JPEG"),
    re.compile(r"Corrupt JPEG data: bad ICC marker"),
)
# Bytes of one value before a marker: four are no coincidence; cameras align to 16 at most, a lost sector has 512.
_LEAST_PADDING, _MOST_PADDING = 4, 64
_COPIES = 8  # with one more cause taken out each; a file that needs more is not padded but damaged


class DamagedJpeg(Exception):
    """The data are damaged so that pixels are wrong; the message is libjpeg's own."""


class RefusedJpeg(Exception):
    """TurboJPEG does not read such a file, which says nothing about damage."""


def decode_jpeg(content: bytes) -> tuple[NDArray[uint8], tuple[Flag, ...]]:
    """Decode to libjpeg's luma, or to that of four inks, without the EXIF orientation.

    Args:
        content: A whole JPEG that `probe` called ok.

    Returns:
        uint8 (height, width), grey 0..255; and `extra_bytes` where padding stands before a marker.

    Raises:
        DamagedJpeg: libjpeg warns of what changes pixels.
        RefusedJpeg: TurboJPEG refuses the file.
        MemoryError: The image does not fit.
    """
    from simplejpeg import decode_jpeg as decode

    flags: tuple[Flag, ...] = ()
    inks = len(coding(content).components) == 4
    for _ in range(_COPIES):
        try:
            stored: NDArray[uint8] = decode(content, "CMYK" if inks else "GRAY", strict=True)
        except ValueError as error:
            words = str(error)
        else:
            return luma_of_inks(stored) if inks else stored[:, :, 0], flags
        try:
            content, more = _without_cause(content, words)
        except (Refused, struct.error, IndexError):  # a marker by chance, and the copy is no JPEG any more
            raise DamagedJpeg(words) from None
        flags = flags or more
    raise DamagedJpeg(words)


def is_read_alike(content: bytes) -> bool:
    """Whether any decoder may have a JPEG that `probe` called ok: it holds nothing that decoders see differently.

    That is grey, or YCbCr that no marker calls anything else, in a usual sampling, all components in the first scan,
    and data that libjpeg decodes without a word.
    """
    return has_usual_headers(content) and is_without_warning(content)


def has_usual_headers(content: bytes) -> bool:
    """`is_read_alike` of the headers alone: its data may be damaged."""
    kind = coding(content)
    return kind.is_grey_or_ycc and kind.is_usually_sampled and kind.is_interleaved


def is_without_warning(content: bytes) -> bool:
    """Whether libjpeg decodes all data of a JPEG without a word; its entropy decoder runs, at 1/8 of the size."""
    from simplejpeg import decode_jpeg as decode

    try:
        decode(content, "GRAY", strict=True, min_height=1, min_width=1)
    except (ValueError, MemoryError):
        return False
    return True


def _without_cause(content: bytes, words: str) -> tuple[bytes, tuple[Flag, ...]]:
    """A copy without the cause of a harmless warning, and its flag. Raises DamagedJpeg or RefusedJpeg for others."""
    extra = _EXTRA_BYTES.search(words)
    if extra:
        copy = _without_padding(content, int(extra[1]), int(extra[2], 16))
        if copy is None:
            raise DamagedJpeg(words)
        return copy, (Flag.EXTRA_BYTES,)
    if any(one.search(words) for one in _DAMAGE):
        raise DamagedJpeg(words)
    if any(one.search(words) for one in _HEADER):
        return normalized(content), ()
    raise RefusedJpeg(words)


def _without_padding(content: bytes, count: int, marker: int) -> bytes | None:
    """A copy without `count` bytes before the first such marker with a short run of one value; None: there is none."""
    for found in re.compile(b"\xff+" + re.escape(bytes([marker]))).finditer(content, first_scan(content)):
        before = content[max(0, found.start() - _MOST_PADDING - 1) : found.start()]
        run = len(before) - len(before.rstrip(before[-1:]))
        if max(count, _LEAST_PADDING) <= run <= _MOST_PADDING:
            return content[: found.start() - count] + content[found.start() :]
    return None
