"""Whether the data of a WebP are used up by its pixels.

libwebp refuses a picture whose data end before its pixels do, and says nothing of one whose pixels are there before the
data end, as they are where bytes in the middle are gone or others. Writers end the data with the last pixel. So a copy
without the last bytes must be refused; where it is not, the data are damaged. (RFC 6386, section 9, and RFC 9649,
section 3, have the layout.)
"""

from collections.abc import Callable

from mribatch.pipeline.decode.formats import webp

_READ_AHEAD = 4  # bytes that libwebp may leave unread at the end of whole data: at most three were seen
_MOST_PADDING = 64  # bytes of one value behind the data
_LOSSY_HEADER = 10


def is_used_up(content: bytes, decodes: Callable[[bytes], bool]) -> bool:
    """Whether a picture needs all its data.

    Args:
        content: A WebP that `probe` called ok and that decodes.
        decodes: Whether libwebp decodes a file without an error.
    """
    kind, picture = webp.first_picture(content)
    return not any(decodes(webp.simple_file(kind, copy)) for copy in _shortened(kind, picture))


def _shortened(kind: bytes, picture: bytes) -> list[bytes]:
    """The picture without the last bytes of its data; a lossy one also without those of its first part."""
    cut = _cut(picture)
    # An odd chunk is followed by a zero, in which libwebp might find the rest of the last block.
    copies = [picture[: len(picture) - cut & ~1]]
    if kind == b"VP8 ":
        tag = int.from_bytes(picture[:3], "little")
        end = _LOSSY_HEADER + (tag >> 5)  # the first part holds how blocks are predicted, the rest their coefficients
        cut = _cut(picture[_LOSSY_HEADER:end])
        shorter = (tag & 31 | (tag >> 5) - cut << 5).to_bytes(3, "little")
        copies.append(shorter + picture[3 : end - cut] + picture[end:])
    return copies


def _cut(data: bytes) -> int:
    """How many bytes at the end of some data whole data cannot lack."""
    padding = len(data) - len(data.rstrip(data[-1:]))
    return min((padding if padding <= _MOST_PADDING else 0) + _READ_AHEAD, len(data) - 1)
