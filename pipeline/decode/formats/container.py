"""What the walks share: the image as known so far, the ways to refuse it, and integers from bytes."""

import struct

from mribatch.pipeline.records import Flag, Status, Verdict

MAX_SIDE = 1 << 20  # OpenCV's CV_IO_MAX_IMAGE_WIDTH and _HEIGHT: it refuses longer sides

# (bytes, offset) -> (value,). A read past the end raises struct.error, which the probe turns into `truncated`.
u16 = struct.Struct(">H").unpack_from
u32 = struct.Struct(">I").unpack_from
u16_little = struct.Struct("<H").unpack_from
u32_little = struct.Struct("<I").unpack_from


def ceil_div(number: int, divisor: int) -> int:
    """number / divisor, rounded up."""
    return -(-number // divisor)


class Refused(Exception):
    """Ends the walk: the image is not ok."""

    def __init__(self, status: Status, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


def truncated(error: str) -> Refused:
    """To raise where the data end before the image does."""
    return Refused(Status.TRUNCATED, error)


def damaged(error: str) -> Refused:
    """To raise where a header contradicts itself or its format."""
    return Refused(Status.DECODE_FAILED, error)


def unsupported(error: str) -> Refused:
    """To raise where the image may be whole but is of a kind that is not read."""
    return Refused(Status.UNSUPPORTED, error)


class Image:
    """What is known of an image so far; the walk fills it in, so that a refusal still carries format and size."""

    __slots__ = ("bits", "content", "flags", "format", "height", "max_pixels", "width")

    def __init__(self, content: bytes, max_pixels: int) -> None:
        self.content = content
        self.max_pixels = max_pixels
        self.format: str | None = None
        self.width: int | None = None
        self.height: int | None = None
        self.bits: int | None = None
        self.flags: list[Flag] = []

    def set_size(self, width: int, height: int) -> None:
        """Record the size that the header promises; refuse one of zero or over the limit."""
        self.width, self.height = width, height
        if width < 1 or height < 1:
            raise damaged(f"The header gives a size of {width} x {height} pixels.")
        if width * height > self.max_pixels:
            raise Refused(
                Status.TOO_LARGE,
                f"The image has {width} x {height} = {width * height:,} pixels; the limit is {self.max_pixels:,}.",
            )
        if max(width, height) > MAX_SIDE:
            raise Refused(
                Status.TOO_LARGE, f"The image is {max(width, height):,} pixels long; the limit is {MAX_SIDE:,}."
            )

    def set_orientation(self, orientation: int) -> None:
        """Flag an EXIF orientation that turns or mirrors the image."""
        if orientation != 1:
            self.flags.append(Flag.EXIF_ROTATED)

    def verdict(self, status: Status, error: str | None) -> Verdict:
        """The verdict, with what is known of the image; each flag once."""
        flags = tuple(dict.fromkeys(self.flags)) if self.flags else ()
        return Verdict(status, error, self.format, self.width, self.height, flags, self.bits)
