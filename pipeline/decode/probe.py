"""Is this file a whole image? Decided from its bytes alone, before any decoder sees them.

Decoders disagree about damage, and some do worse than disagree: OpenCV 4.10 returns a cut JPEG half grey without an
error, DALI 2.2 to 2.4 kill the process over a file they cannot parse. So one probe gives one verdict for every
decoder. It walks the container of each format (marker segments, chunks, boxes, directories) and proves that every part
lies inside the file and that the header makes sense; it does not decompress pixels. docs/reference/statuses.md lists
the damage that no such walk can see. The probe is stricter than the decoders: what they would read only by guessing is
refused.

This module tells a file's format and words the verdict; `decode.formats` holds the walks, one
module per format, each with the specification that it follows.
"""

import struct
from collections.abc import Callable, Iterator

from mribatch.pipeline.decode.formats import bmp, jpeg, jpeg2000, png, tiff, webp
from mribatch.pipeline.decode.formats.container import Image, Refused, truncated, unsupported
from mribatch.pipeline.decode.formats.exif import orientation_of
from mribatch.pipeline.decode.formats.foreign import STUDIES, is_text, what_else
from mribatch.pipeline.records import Status, Verdict

DEFAULT_MAX_PIXELS = 100_000_000

_NAMES = {"jpeg": "JPEG", "png": "PNG", "bmp": "BMP", "tiff": "TIFF", "webp": "WebP", "jp2": "JPEG 2000"}
# Signatures inside which a cut file may end. JPEG (first, as the most frequent), WebP and BMP are told in `_walker`.
_SIGNATURES: tuple[tuple[bytes, str, Callable[[Image], None]], ...] = (
    (png.SIGNATURE, "png", png.walk),
    *((signature, "tiff", tiff.walk) for signature in tiff.SIGNATURES),
    (jpeg2000.JP2_SIGNATURE, "jp2", jpeg2000.walk_jp2),
    (jpeg2000.CODESTREAM_SIGNATURE, "jp2", jpeg2000.walk_codestream),
)
_EXIF_BLOCKS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "jpeg": jpeg.exif_blocks,
    "png": png.exif_blocks,
    "webp": webp.exif_blocks,
}


def probe(content: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Verdict:
    """The verdict on one file's bytes. Never raises; the format is known by content, the name is not asked for.

    Args:
        content: The whole file.
        max_pixels: Width times height above which an image is `too_large`, by its header.

    Returns:
        Status ok, empty, unsupported, truncated, decode_failed or too_large. Where ok: format, width and height as
        stored (before the EXIF orientation), bits per sample, and what a decoder will do to the pixels, as flags.
    """
    if not content:
        return Verdict(Status.EMPTY, "The file is empty (0 bytes).")
    image = Image(content, max_pixels)
    try:
        _walker(image)(image)
    except Refused as refused:
        return image.verdict(refused.status, refused.error)
    except (struct.error, IndexError):  # a read past the end, at any depth
        name = _NAMES.get(image.format or "", "image")
        return image.verdict(Status.TRUNCATED, f"The file ends inside the {name} header, after {len(content):,} bytes.")
    return image.verdict(Status.OK, None)


def exif_orientation(content: bytes, image_format: str) -> int:
    """EXIF orientation, 1 to 8, of an image that `probe` calls ok; 1 where there is none or it is out of range.

    Asked for JPEG, PNG and WebP; a TIFF has its own in its directory.
    """
    try:
        return orientation_of(_EXIF_BLOCKS[image_format](content))
    except (struct.error, IndexError, Refused):
        return 1


def unreadable(error: OSError) -> Verdict:
    """The verdict on a file of which the operating system gave no bytes."""
    reason = error.strerror or str(error) or type(error).__name__
    number = f" (errno {error.errno})" if error.errno is not None else ""
    return Verdict(Status.UNREADABLE, f"The file cannot be read: {reason}{number}.")


def _walker(image: Image) -> Callable[[Image], None]:
    """The walk for the format that the first bytes announce."""
    content = image.content
    if content.startswith(jpeg.SIGNATURE):
        image.format = "jpeg"
        return jpeg.walk
    for start, name, walk in _SIGNATURES:
        if content.startswith(start):
            image.format = name
            return walk
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        image.format = "webp"
        return webp.walk
    if content.startswith(bmp.SIGNATURE) and not is_text(content[:64]):
        image.format = "bmp"
        return bmp.walk
    for start, name, _ in _SIGNATURES:
        if start.startswith(content):
            image.format = name
            raise truncated(f"The file ends inside the signature, after {len(content)} bytes.")
    size = len(content)
    what = what_else(content)
    if what in STUDIES:
        raise unsupported(f"This is {what} ({size:,} bytes), but its name ends like that of another format.")
    raise unsupported(f"This is {what} ({size:,} bytes), which is not supported.")
