"""Is this file a whole image? Decided from its bytes alone, before any decoder sees them.

Decoders disagree about damage, and some do worse than disagree: OpenCV 4.10 returns a cut JPEG half grey without an
error, DALI 2.2 to 2.4 kill the process over a file they cannot parse. So one probe gives one verdict for every
decoder. It walks the container of each format (marker segments, chunks, boxes, directories) and proves that every part
lies inside the file and that the header makes sense; it does not decompress pixels. docs/statuses.md lists the damage
that no such walk can see. The probe is stricter than the decoders: what they would read only by guessing is refused.

Sources: ITU-T T.81 (JPEG), W3C PNG 3rd edition, Microsoft's BITMAPINFOHEADER family (BMP), TIFF 6.0 with Adobe's
supplements and the BigTIFF layout, RFC 9649 (WebP) and RFC 6386 (VP8), ITU-T T.800 (JPEG 2000), CIPA DC-008 (EXIF).
"""

import errno
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterator

from mribatch.pipeline.records import Flag, Status, Verdict

DEFAULT_MAX_PIXELS = 100_000_000
MAX_SIDE = 1 << 20  # OpenCV's CV_IO_MAX_IMAGE_WIDTH and _HEIGHT: it refuses longer sides
MAX_FILE_BYTES = 2 << 30

_u16 = struct.Struct(">H").unpack_from
_u32 = struct.Struct(">I").unpack_from
_u16_little = struct.Struct("<H").unpack_from
_u32_little = struct.Struct("<I").unpack_from


class _Refused(Exception):
    """Ends the walk: the image is not ok."""

    def __init__(self, status: Status, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


def _truncated(error: str) -> _Refused:
    return _Refused(Status.TRUNCATED, error)


def _damaged(error: str) -> _Refused:
    return _Refused(Status.DECODE_FAILED, error)


def _unsupported(error: str) -> _Refused:
    return _Refused(Status.UNSUPPORTED, error)


class _Image:
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
            raise _damaged(f"The header gives a size of {width} x {height} pixels.")
        if width * height > self.max_pixels:
            raise _Refused(
                Status.TOO_LARGE,
                f"The image has {width} x {height} = {width * height:,} pixels; the limit is {self.max_pixels:,}.",
            )
        if max(width, height) > MAX_SIDE:
            raise _Refused(
                Status.TOO_LARGE, f"The image is {max(width, height):,} pixels long; the limit is {MAX_SIDE:,}."
            )

    def set_orientation(self, orientation: int) -> None:
        """Flag an EXIF orientation that turns or mirrors the image."""
        if orientation != 1:
            self.flags.append(Flag.EXIF_ROTATED)

    def verdict(self, status: Status, error: str | None) -> Verdict:
        flags = tuple(dict.fromkeys(self.flags)) if self.flags else ()
        return Verdict(status, error, self.format, self.width, self.height, flags, self.bits)


def probe(content: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Verdict:
    """The verdict on one file's bytes. Never raises; the format is known by content, the name is not asked for.

    Args:
        content: The whole file.
        max_pixels: Width times height above which an image is `too_large`, by its header.

    Returns:
        Status ok, empty, unsupported, truncated, decode_failed or too_large. Where ok: format, width and height as
        stored (before the EXIF orientation), bits per sample, and what a decoder will do to the pixels, as flags.
        `Flag.COLOUR` is never set: most MRI slices are stored as RGB with equal channels, which no header tells.
    """
    if not content:
        return Verdict(Status.EMPTY, "The file is empty (0 bytes).")
    image = _Image(content, max_pixels)
    try:
        _walker(image)(image)
    except _Refused as refused:
        return image.verdict(refused.status, refused.error)
    except (struct.error, IndexError):  # a read past the end, at any depth
        name = _NAMES.get(image.format or "", "image")
        return image.verdict(Status.TRUNCATED, f"The file ends inside the {name} header, after {len(content):,} bytes.")
    return image.verdict(Status.OK, None)


def exif_orientation(content: bytes, image_format: str) -> int:
    """EXIF orientation, 1 to 8, of an image that `probe` calls ok; 1 where there is none or it is out of range.

    Asked for JPEG, PNG and WebP. (The TIFF decoder of OpenCV turns TIFF images itself.)
    """
    try:
        for tiff in _EXIF_BLOCKS[image_format](content):
            return _orientation_of(tiff)
    except (struct.error, IndexError, _Refused):
        pass
    return 1


def unreadable(error: OSError) -> Verdict:
    """The verdict on a file of which the operating system gave no bytes."""
    reason = error.strerror or str(error) or type(error).__name__
    number = f" (errno {error.errno})" if error.errno is not None else ""
    return Verdict(Status.UNREADABLE, f"The file cannot be read: {reason}{number}.")


def read_file(path: bytes) -> bytes:
    """All bytes of a regular file.

    A FIFO without a writer does not block: the open is non-blocking and anything but a regular file is refused.

    Raises:
        OSError: The file is gone, forbidden, no regular file, or larger than 2 GiB.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, f"it is a {_kind_of_file(status.st_mode)}, not a regular file", path)
        chunks: list[bytes] = []
        total = 0
        wanted = status.st_size + 1  # one more byte than expected, so that a file of the expected size ends in one read
        while total <= MAX_FILE_BYTES and status.st_size <= MAX_FILE_BYTES:
            chunk = os.read(descriptor, max(wanted - total, 1 << 16))
            if not chunk:
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.append(chunk)
            total += len(chunk)
        size = max(status.st_size, total)
        raise OSError(errno.EFBIG, f"it has {size:,} bytes; the limit is {MAX_FILE_BYTES:,}", path)
    finally:
        os.close(descriptor)


def _kind_of_file(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "FIFO",
        stat.S_IFCHR: "character device",
        stat.S_IFBLK: "block device",
        stat.S_IFSOCK: "socket",
        stat.S_IFDIR: "folder",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


# --------------------------------------------------------------------------------------------------------- which format


def _walker(image: _Image) -> Callable[[_Image], None]:
    """The walk for the format that the first bytes announce."""
    content = image.content
    if content.startswith(b"\xff\xd8"):
        image.format = "jpeg"
        return _walk_jpeg
    for start, name, walk in _SIGNATURES:
        if content.startswith(start):
            image.format = name
            return walk
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        image.format = "webp"
        return _walk_webp
    if content.startswith(b"BM") and not _is_text(content[:64]):
        image.format = "bmp"
        return _walk_bmp
    for start, name, _ in _SIGNATURES:
        if start.startswith(content):
            image.format = name
            raise _truncated(f"The file ends inside the signature, after {len(content)} bytes.")
    size = len(content)
    raise _unsupported(f"This is {_what_else(content)} ({size:,} bytes), which is not supported.")


_FOREIGN: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GIF8", "a GIF image"),
    (128, b"DICM", "a DICOM file"),
    (344, b"n+1\0", "a NIfTI volume"),
    (344, b"ni1\0", "a NIfTI header"),
    (4, b"\0n+2\0", "a NIfTI-2 volume"),
    (0, b"\x1f\x8b", "a gzip file (perhaps a compressed NIfTI volume)"),
    (4, b"ftypavi", "an AVIF image"),
    (4, b"ftyphei", "a HEIC image"),
    (4, b"ftyphev", "a HEIC image"),
    (4, b"ftypmif1", "a HEIF image"),
    (4, b"ftypmsf1", "a HEIF image"),
    (4, b"ftyp", "a video file"),
    (0, b"%PDF", "a PDF document"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"PK\3\4", "a ZIP archive"),
    (0, b"PK\5\6", "an empty ZIP archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (0, b"#?R", "a Radiance HDR image"),
    (0, b"\x59\xa6\x6a\x95", "a Sun raster image"),
    (0, b"\0\0\1\0", "an icon file"),
    (0, b"NRRD", "an NRRD volume"),
    (0, b"SIMPLE  =", "a FITS image"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"II\xbc\x01", "a JPEG XR image"),
    (0, b"\x7fELF", "a program"),
)
_HTML = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S)
_PNM = re.compile(rb"P[1-7fF]\s")


def _what_else(content: bytes) -> str:
    """Plain words for a file that is no image this tool reads."""
    for offset, mark, name in _FOREIGN:
        if content.startswith(mark, offset):
            return name
    head = content[:1024]
    if _HTML.match(head):
        return "an HTML page"
    if head.lstrip().startswith((b"<?xml", b"<svg")):
        return "an XML or SVG document"
    if _PNM.match(head):
        return "a PNM image"
    if not head.strip(b"\0"):
        return "a file that begins with nothing but zero bytes"
    return "text" if _is_text(head) else "no known image format"


def _is_text(head: bytes) -> bool:
    """True where the bytes are UTF-8 without control characters; a character cut at the end is forgiven."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(letter.isprintable() or letter in "\t\n\r\f\ufeff" for letter in text)


# ----------------------------------------------------------------------------------------------------------------- JPEG

# A marker other than stuffing, fill and restart. The literal byte in front lets `re` search with memchr: 18 times
# faster than a pattern that begins with a repeat.
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_SOI, _EOI, _SOS, _DRI, _APP1 = 0xD8, 0xD9, 0xDA, 0xDD, 0xE1
_FRAMES = {
    0xC0: "",
    0xC1: "",
    0xC2: "",
    0xC3: "lossless",
    0xC5: "hierarchical",
    0xC6: "hierarchical",
    0xC7: "hierarchical",
    0xC9: "arithmetic",
    0xCA: "arithmetic",
    0xCB: "lossless",
    0xCD: "hierarchical",
    0xCE: "hierarchical",
    0xCF: "hierarchical",
}
_TABLES = frozenset({0xC4, 0xDB, 0xDC, _DRI, 0xFE, *range(0xE0, 0xF0)})  # may stand between scans
_MAX_SCANS = 100  # a usual progressive file has ten; thousands of scans are an attack on the decoder's time
_PROGRESSIVE = 0xC2


class _Frame:
    """The frame header of a JPEG and what decides how many bytes a scan needs at least."""

    __slots__ = ("components", "height", "highest", "progressive", "restart", "tallest", "widest", "width")

    def __init__(self, kind: int, width: int, height: int, components: dict[int, tuple[int, int]]) -> None:
        self.progressive = kind == _PROGRESSIVE
        self.width, self.height = width, height
        self.components = components  # id -> (horizontal, vertical) sampling factor
        self.widest = max(across for across, _ in components.values())
        self.tallest = max(down for _, down in components.values())
        self.restart = 0  # MCUs between two restart markers; 0 = none

    def units(self, wanted: bytes) -> tuple[int, int]:
        """(MCUs, blocks) of a scan over the components `wanted` (T.81, A.2)."""
        if len(wanted) == 1:
            across, down = self.components[wanted[0]]
            blocks = _ceil(_ceil(self.width * across, self.widest), 8) * _ceil(
                _ceil(self.height * down, self.tallest), 8
            )
            return blocks, blocks
        mcus = _ceil(self.width, 8 * self.widest) * _ceil(self.height, 8 * self.tallest)
        return mcus, mcus * sum(across * down for across, down in (self.components[one] for one in wanted))


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)


def _walk_jpeg(image: _Image) -> None:
    content = image.content
    frame: _Frame | None = None
    exif: bool = False
    position, restart, scans = 2, 0, 0
    while True:
        marker, start, end = _jpeg_segment(content, position)
        position = end
        if marker == _SOS:
            if frame is None:
                raise _damaged(f"A JPEG scan begins at byte {start:,} before any frame header.")
            scans += 1
            if scans > _MAX_SCANS:
                raise _unsupported(f"The JPEG has more than {_MAX_SCANS} scans.")
            frame.restart = restart
            position = _jpeg_scan(content, frame, start, end)
        elif marker == _APP1:
            if not exif and content.startswith(b"Exif\0\0", start):
                exif = True
                image.set_orientation(_orientation_of(content[start + 6 : end]))
        elif marker in _FRAMES:
            if frame is not None:
                raise _damaged(f"The JPEG has a second frame header at byte {start:,}.")
            frame = _jpeg_frame(image, marker, start, end)
        elif marker == _EOI:
            if scans:
                return
            raise _truncated(f"The JPEG ends at byte {start:,} without any image data.")
        elif marker == _DRI:
            restart = _u16(content, start)[0]
        elif marker not in _TABLES:
            raise _damaged(f"The JPEG has an unexpected marker 0x{marker:02X} before byte {start:,}.")


def _jpeg_segment(content: bytes, position: int) -> tuple[int, int, int]:
    """(marker, first byte of its payload, end) of the segment at `position`; fill bytes before it are skipped."""
    size = len(content)
    if position >= size:
        raise _truncated(f"The JPEG ends after {size:,} bytes without an end-of-image marker.")
    if content[position] != 0xFF:
        raise _damaged(f"The JPEG has no marker where one must be, at byte {position:,}.")
    marker = content[position + 1]
    while marker == 0xFF:
        position += 1
        marker = content[position + 1]
    if marker in (_EOI, _SOI):
        return marker, position + 2, position + 2
    end = position + 2 + _u16(content, position + 2)[0]
    if end < position + 4:
        raise _damaged(f"The JPEG segment at byte {position:,} has a length under 2.")
    if end > size:
        raise _truncated(f"The JPEG ends after {size:,} bytes, inside a segment that runs to byte {end:,}.")
    return marker, position + 4, end


def _jpeg_frame(image: _Image, marker: int, start: int, end: int) -> _Frame:
    """Read the frame header (T.81, B.2.2) and refuse what is not 8-bit, Huffman-coded, sequential or progressive."""
    content = image.content
    if _FRAMES[marker]:
        raise _unsupported(f"This JPEG uses {_FRAMES[marker]} coding (marker 0x{marker:02X}).")
    bits, height, width, count = struct.unpack_from(">BHHB", content, start)
    if end - start != 6 + 3 * count:
        raise _damaged(f"The JPEG frame header has {end - start + 2} bytes for {count} components.")
    image.bits = bits
    if bits == 12:
        raise _unsupported("This is a JPEG of 12 bits per sample; only 8 are supported.")
    if bits != 8:
        raise _damaged(f"The JPEG header gives {bits} bits per sample.")
    image.set_size(width, height)
    if count not in (1, 3, 4):
        raise _unsupported(f"This is a JPEG of {count} components.")
    components: dict[int, tuple[int, int]] = {}
    for at in range(start + 6, end, 3):
        across, down = content[at + 1] >> 4, content[at + 1] & 15
        if not (1 <= across <= 4 and 1 <= down <= 4) or content[at + 2] > 3 or content[at] in components:
            raise _damaged(f"The JPEG frame header is invalid at byte {at:,}.")
        components[content[at]] = across, down
    return _Frame(marker, width, height, components)


def _jpeg_scan(content: bytes, frame: _Frame, start: int, end: int) -> int:
    """Position of the marker that ends the scan whose header is content[start:end]."""
    count = content[start]
    wanted = content[start + 1 : start + 1 + 2 * count : 2]
    known = frame.components
    if not 1 <= count <= 4 or end - start != 4 + 2 * count or any(one not in known for one in wanted):
        raise _damaged(f"The JPEG scan header at byte {start:,} is invalid.")
    found = _SCAN_END.search(content, end)
    if found is None:
        raise _truncated(f"The JPEG ends after {len(content):,} bytes without an end-of-image marker.")
    stop = found.start()
    mcus, blocks = frame.units(wanted)
    # A Huffman code has at least one bit: a sequential block is a DC and an end-of-block code, a first progressive scan
    # has one DC code or bit a block, and later progressive scans may cover any number of blocks with one code.
    bits = 2 * blocks if not frame.progressive else blocks if content[end - 3] == 0 else 0
    if stop - end < _ceil(bits, 8):
        raise _truncated(
            f"A JPEG scan of {blocks:,} blocks has {stop - end:,} bytes, fewer than the {_ceil(bits, 8):,} it needs."
        )
    if frame.restart:
        expected = _ceil(mcus, frame.restart) - 1
        have = len(_RESTART.findall(content, end, stop))
        if have < expected:
            raise _truncated(f"A JPEG scan has {have:,} restart markers of {expected:,}.")
    return stop


# ----------------------------------------------------------------------------------------------------------------- EXIF


def _orientation_of(tiff: bytes) -> int:
    """Orientation (tag 0x112) in the first directory of an EXIF block; 1 where it is missing or invalid."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == 0x112:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _jpeg_exif(content: bytes) -> Iterator[bytes]:
    position = 2
    while True:
        marker, start, end = _jpeg_segment(content, position)
        if marker in (_SOS, _EOI):
            return
        if marker == _APP1 and content.startswith(b"Exif\0\0", start):
            yield content[start + 6 : end]
        position = end


def _png_exif(content: bytes) -> Iterator[bytes]:
    return (content[start:end] for kind, start, end in _png_chunks(content) if kind == b"eXIf")


def _webp_exif(content: bytes) -> Iterator[bytes]:
    blocks = (
        content[start:end] for kind, start, end in _webp_chunks(content, 12, _webp_end(content)) if kind == b"EXIF"
    )
    return (block.removeprefix(b"Exif\0\0") for block in blocks)


# ------------------------------------------------------------------------------------------------------------------ PNG

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type
_PNG_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_PNG_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of every chunk's data up to IEND, checked by CRC where the pixels depend on it."""
    size, position = len(content), 8
    while True:
        if position == size:
            raise _truncated(f"The PNG ends after {size:,} bytes without an IEND chunk.")
        (length,) = _u32(content, position)
        kind = content[position + 4 : position + 8]
        start, end = position + 8, position + 8 + length
        if len(kind) == 4 and not (kind.isalpha() and kind.isascii()):
            raise _damaged(f"The PNG has no chunk where one must be, at byte {position:,}.")
        if end + 4 > size:
            raise _truncated(f"The PNG ends after {size:,} bytes, inside a chunk that runs to byte {end + 4:,}.")
        if kind in _PNG_CRITICAL or kind in _PNG_ANIMATION:
            if zlib.crc32(memoryview(content)[position + 4 : end]) != _u32(content, end)[0]:
                raise _damaged(f"The PNG chunk {kind.decode()} at byte {position:,} fails its checksum.")
        elif not kind[0] & 0x20:
            raise _unsupported(f"The PNG needs an unknown chunk {kind.decode()} at byte {position:,}.")
        yield kind, start, end
        if kind == b"IEND":
            return
        position = end + 4


def _walk_png(image: _Image) -> None:
    content = image.content
    colour, seen = -1, set[bytes]()
    for kind, start, end in _png_chunks(content):
        if colour < 0:
            colour = _png_header(image, kind, start, end)
        elif kind == b"IHDR":
            raise _damaged(f"The PNG has a second header at byte {start:,}.")
        elif kind == b"tRNS" and b"IDAT" not in seen:
            image.flags.append(Flag.ALPHA_DROPPED)
        elif kind == b"acTL" and b"IDAT" not in seen and _u32(content, start)[0] > 1:
            image.flags.append(Flag.FIRST_PAGE)
        elif kind == b"eXIf" and kind not in seen:
            image.set_orientation(_orientation_of(content[start:end]))
        seen.add(kind)
    if b"IDAT" not in seen:
        raise _truncated(f"The PNG of {len(content):,} bytes has no image data.")
    if colour == 3 and b"PLTE" not in seen:
        raise _damaged("The PNG has palette colour (type 3) but no palette.")


def _png_header(image: _Image, kind: bytes, start: int, end: int) -> int:
    """Read IHDR and return the colour type."""
    if kind != b"IHDR" or end - start != 13:
        raise _damaged(f"The PNG begins with a chunk {kind.decode()} of {end - start:,} bytes.")
    width, height, bits, colour, compression, filtering, interlace = struct.unpack_from(
        ">IIBBBBB", image.content, start
    )
    if bits not in _PNG_DEPTHS.get(colour, ()):
        raise _damaged(f"The PNG header gives {bits} bits for colour type {colour}.")
    if compression or filtering or interlace > 1:
        raise _damaged(f"The PNG header gives methods {compression}, {filtering}, {interlace}, which do not exist.")
    image.bits = bits
    image.set_size(width, height)
    if bits == 16:
        image.flags.append(Flag.SCALED_TO_8_BIT)
    if colour in (4, 6):
        image.flags.append(Flag.ALPHA_DROPPED)
    return int(colour)


# ------------------------------------------------------------------------------------------------------------------ BMP

_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_BMP_BITS = {1: 1, 4: 4, 8: 8, 16: 5, 24: 8, 32: 8}  # bits per pixel -> bits per sample


def _walk_bmp(image: _Image) -> None:
    content, size = image.content, len(image.content)
    offset, header = struct.unpack_from("<II", content, 10)
    if header not in _BMP_HEADERS:
        raise _damaged(f"The BMP has an unknown header of {header:,} bytes.")
    if header == 12:
        width, height, planes, depth = struct.unpack_from("<HHHH", content, 18)
        coding = colours = 0
    else:
        width, height, planes, depth, coding, _, _, _, colours = struct.unpack_from("<iiHHIIiiI", content, 18)
    if depth not in _BMP_BITS or planes != 1:
        raise _damaged(f"The BMP header gives {depth} bits per pixel in {planes} planes.")
    image.bits = _BMP_BITS[depth]
    image.set_size(width, abs(height))
    if coding in (1, 2, 4, 5):
        raise _unsupported(f"This is a compressed BMP (method {coding}).")
    if coding not in (0, 3) or (coding == 3 and depth not in (16, 32)):
        raise _damaged(f"The BMP header gives method {coding} with {depth} bits per pixel.")
    _bmp_layout(image, offset, header, depth, coding, colours)
    if size < offset + abs(height) * _ceil(width * depth, 32) * 4:
        raise _truncated(f"The BMP has {size:,} bytes of {offset + abs(height) * _ceil(width * depth, 32) * 4:,}.")


def _bmp_layout(image: _Image, offset: int, header: int, depth: int, coding: int, colours: int) -> None:
    """Check that palette and colour masks lie before the pixels; flag an alpha channel."""
    if colours > 1 << depth and depth <= 8:
        raise _damaged(f"The BMP header gives {colours:,} colours for {depth} bits per pixel.")
    palette = (colours or 1 << depth) * (3 if header == 12 else 4) if depth <= 8 else 0
    masks = 12 if coding == 3 and header == 40 else 0
    least = 14 + header + masks + palette
    if offset < least:
        raise _damaged(f"The BMP's pixels begin at byte {offset:,}, inside its header of {least:,} bytes.")
    if depth == 32 and header in (56, 108, 124) and _u32_little(image.content, 66)[0]:
        image.flags.append(Flag.ALPHA_DROPPED)


# ----------------------------------------------------------------------------------------------------------------- TIFF

_TIFF_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # field type -> struct code
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIP_AT, _ORIENTATION = 256, 257, 258, 259, 262, 273, 274
_SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT = 277, 278, 279, 284, 322, 323
_TILE_AT, _TILE_BYTES, _EXTRA, _FORMAT = 324, 325, 338, 339
_TIFF_WANTED = frozenset(
    {
        _WIDTH,
        _HEIGHT,
        _BITS,
        _COMPRESSION,
        _PHOTOMETRIC,
        _STRIP_AT,
        _ORIENTATION,
        _SAMPLES,
        _ROWS,
        _STRIP_BYTES,
        _PLANAR,
        _TILE_WIDTH,
        _TILE_HEIGHT,
        _TILE_AT,
        _TILE_BYTES,
        _EXTRA,
        _FORMAT,
    }
)
_ONE_STRIP = 0xFFFFFFFF  # rows per strip where there is a single strip, and the tag's default
_MAX_TIFF_VALUES = 1 << 22  # strips or tiles; more than this is an attack on memory
_TIFF_PLAIN, _TIFF_LZW, _TIFF_DEFLATE, _TIFF_PACKBITS = 1, 5, (8, 32946), 32773
_TIFF_COMPRESSIONS = frozenset({_TIFF_PLAIN, _TIFF_LZW, *_TIFF_DEFLATE, _TIFF_PACKBITS})
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK = 0, 1, 2, 3, 5
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
# What OpenCV reads right, by trial: (photometric, samples) -> {sample format: bits per sample}
_GREY = {_UNSIGNED: (1, 8, 10, 12, 14, 16, 32), _SIGNED: (8, 16, 32), _FLOAT: (32, 64)}
_TIFF_SAMPLES: dict[tuple[int, int], dict[int, tuple[int, ...]]] = {
    (_WHITE_IS_ZERO, 1): {_UNSIGNED: (1, 8)},
    (_BLACK_IS_ZERO, 1): _GREY,
    (_BLACK_IS_ZERO, 2): {_UNSIGNED: (8,)},
    (_RGB, 3): {_UNSIGNED: (8, 16)},
    (_RGB, 4): {_UNSIGNED: (8, 16)},
    (_PALETTE, 1): {_UNSIGNED: (8,)},
    (_CMYK, 4): {_UNSIGNED: (8,)},
}


class _Tiff:
    """The first directory of a TIFF: the values of the tags that decide about the pixels."""

    __slots__ = ("next_at", "tags")

    def __init__(self, content: bytes) -> None:
        order = "<" if content[:2] == b"II" else ">"
        (magic,) = struct.unpack_from(f"{order}H", content, 2)
        big = magic == 43
        if big and struct.unpack_from(f"{order}HH", content, 4) != (8, 0):
            raise _damaged("The BigTIFF header does not give offsets of 8 bytes.")
        word = "Q" if big else "I"
        (at,) = struct.unpack_from(f"{order}{word}", content, 8 if big else 4)
        if at >= len(content):
            raise _truncated(f"The TIFF ends after {len(content):,} bytes; its directory is at byte {at:,}.")
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), content, at)
        first, step = at + (8 if big else 2), 20 if big else 12
        if first + count * step + struct.calcsize(f"={word}") > len(content):
            raise _truncated(f"The TIFF ends after {len(content):,} bytes, inside a directory of {count:,} entries.")
        self.tags: dict[int, tuple[int, ...]] = {}
        for entry in range(first, first + count * step, step):
            (tag,) = struct.unpack_from(f"{order}H", content, entry)
            if tag in _TIFF_WANTED and tag not in self.tags:
                self.tags[tag] = _tiff_values(content, entry, order, word, tag)
        (self.next_at,) = struct.unpack_from(f"{order}{word}", content, first + count * step)

    def one(self, tag: int, default: int | None = None) -> int:
        """The single value of a tag; of several equal ones (bits of each sample) any."""
        values = self.tags.get(tag)
        if values is None and default is not None:
            return default
        if not values:
            raise _damaged(f"The TIFF directory lacks tag {tag}.")
        if any(value != values[0] for value in values):
            raise _unsupported(f"The TIFF has samples that differ in tag {tag}: {values[:4]}.")
        return values[0]


def _tiff_values(content: bytes, entry: int, order: str, word: str, tag: int) -> tuple[int, ...]:
    """The integers of a directory entry, which lie in the entry itself or where it points."""
    kind, count = struct.unpack_from(f"{order}H{word}", content, entry + 2)
    code = _TIFF_INTEGERS.get(kind)
    if code is None:
        raise _damaged(f"The TIFF tag {tag} has type {kind}, which is no integer.")
    if count > _MAX_TIFF_VALUES:
        raise _damaged(f"The TIFF tag {tag} has {count:,} values.")
    inline = struct.calcsize(f"={word}")
    at = entry + 4 + inline
    total = count * struct.calcsize(f"={code}")
    if total > inline:
        (at,) = struct.unpack_from(f"{order}{word}", content, at)
    if at + total > len(content):
        raise _truncated(f"The TIFF ends after {len(content):,} bytes; the values of tag {tag} run to {at + total:,}.")
    return struct.unpack_from(f"{order}{count}{code}", content, at)


def _walk_tiff(image: _Image) -> None:
    content = image.content
    tiff = _Tiff(content)
    bits, samples = tiff.one(_BITS, 1), tiff.one(_SAMPLES, 1)
    image.bits = bits
    image.set_size(tiff.one(_WIDTH), tiff.one(_HEIGHT))
    compression, photometric = tiff.one(_COMPRESSION, 1), tiff.one(_PHOTOMETRIC)
    form = tiff.one(_FORMAT, _UNSIGNED)
    planar = tiff.one(_PLANAR, 1) == 2 and samples > 1
    if compression not in _TIFF_COMPRESSIONS:
        raise _unsupported(f"This is a TIFF with compression {compression}.")
    if bits not in _TIFF_SAMPLES.get((photometric, samples), {}).get(form, ()) or (planar and bits != 8):
        raise _unsupported(
            f"This TIFF has {samples} x {bits} bits per pixel{' in separate planes' if planar else ''} "
            f"(photometric {photometric}, sample format {form})."
        )
    if bits > 8 or form != _UNSIGNED:
        image.flags.append(Flag.SCALED_TO_8_BIT)
    if (photometric, samples) in ((_BLACK_IS_ZERO, 2), (_RGB, 4)):
        image.flags.append(Flag.ALPHA_DROPPED)
    if 0 < tiff.next_at < len(content):
        image.flags.append(Flag.FIRST_PAGE)
    orientation = tiff.one(_ORIENTATION, 1)
    image.set_orientation(orientation if 1 <= orientation <= 8 else 1)
    if _TILE_WIDTH in tiff.tags and Flag.EXIF_ROTATED in image.flags:  # OpenCV mirrors each tile, not the image
        raise _unsupported(f"This TIFF is stored in tiles with orientation {orientation}.")
    _tiff_data(image, tiff, bits * (1 if planar else samples), samples if planar else 1, compression)


def _tiff_data(image: _Image, tiff: _Tiff, pixel_bits: int, planes: int, compression: int) -> None:
    """Check that every strip or tile lies inside the file and is long enough."""
    content, size = image.content, len(image.content)
    at_tag, bytes_tag = (_TILE_AT, _TILE_BYTES) if _TILE_WIDTH in tiff.tags else (_STRIP_AT, _STRIP_BYTES)
    pieces, least = _tiff_pieces(image, tiff, pixel_bits)
    pieces *= planes
    starts = tiff.tags.get(at_tag, ())
    lengths = tiff.tags.get(bytes_tag, ())
    if len(starts) != pieces or len(lengths) != pieces:
        raise _damaged(f"The TIFF lists {len(starts):,} offsets and {len(lengths):,} lengths for {pieces:,} pieces.")
    for number, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        if start + length > size:
            raise _truncated(f"The TIFF ends after {size:,} bytes; piece {number:,} runs to byte {start + length:,}.")
        if length == 0 or start < 8:
            raise _damaged(f"The TIFF piece {number:,} has {length:,} bytes at byte {start:,}.")
        _tiff_piece(content[start : start + length], number, least(number % (pieces // planes)), compression)


def _tiff_piece(piece: bytes, number: int, least: int, compression: int) -> None:
    """Check that a strip or tile yields the bytes it must: libtiff leaves the rest black without an error."""
    if compression == _TIFF_LZW:
        # Its length is known only by decoding it, which Python does too slowly; it must at least begin with ClearCode.
        if piece[0] != 0x80 or len(piece) < 2 or piece[1] & 0x80:
            raise _damaged(f"The TIFF piece {number:,} does not begin as LZW data do.")
        return
    if compression == _TIFF_PLAIN:
        have = len(piece)
    elif compression == _TIFF_PACKBITS:
        have = _packbits_size(piece, least)
    else:
        have = _deflated_size(piece, number, least)
    if have < least:
        raise _truncated(f"The TIFF piece {number:,} holds {have:,} bytes of {least:,}.")


def _packbits_size(piece: bytes, least: int) -> int:
    """Bytes that a PackBits piece unpacks to, counted up to `least` (TIFF 6.0, section 9)."""
    position = have = 0
    while have < least and position < len(piece):
        code = piece[position]
        position += 2 + code if code < 128 else 1 if code == 128 else 2
        if position > len(piece):
            break
        have += code + 1 if code < 128 else 0 if code == 128 else 257 - code
    return have


def _deflated_size(piece: bytes, number: int, least: int) -> int:
    """Bytes that a Deflate piece inflates to, counted up to `least`."""
    inflate = zlib.decompressobj()
    have = 0
    try:
        while have < least:
            part = inflate.decompress(piece, min(least - have, 1 << 20))
            if not part:
                break
            have += len(part)
            piece = inflate.unconsumed_tail
    except zlib.error as error:
        raise _damaged(f"The TIFF piece {number:,} is no Deflate data: {error}.") from None
    return have


def _tiff_pieces(image: _Image, tiff: _Tiff, pixel_bits: int) -> tuple[int, Callable[[int], int]]:
    """(number of strips or tiles of one plane, bytes that the n-th needs where it is not compressed)."""
    width, height = image.width or 0, image.height or 0
    largest = max(image.max_pixels, 1 << 16)
    if _TILE_WIDTH in tiff.tags:
        across, down = tiff.one(_TILE_WIDTH), tiff.one(_TILE_HEIGHT)
        if across < 1 or down < 1 or across % 16 or down % 16 or across * down > largest:
            raise _damaged(f"The TIFF has tiles of {across:,} x {down:,} pixels.")
        tile_bytes = _ceil(across * pixel_bits, 8) * down
        return _ceil(width, across) * _ceil(height, down), lambda _: tile_bytes
    rows = tiff.one(_ROWS, _ONE_STRIP)
    if rows < 1 or (height < rows < _ONE_STRIP and rows * width > largest):  # OpenCV's buffer has as many rows
        raise _damaged(f"The TIFF has strips of {rows:,} rows.")
    rows = min(rows, height)
    row_bytes = _ceil(width * pixel_bits, 8)
    return _ceil(height, rows), lambda number: row_bytes * min(rows, height - number * rows)


# ----------------------------------------------------------------------------------------------------------------- WebP

_WEBP_ANIMATED, _WEBP_ALPHA = 0x02, 0x10


def _webp_end(content: bytes) -> int:
    """Where the RIFF container ends, by its header."""
    end = 8 + int(_u32_little(content, 4)[0])
    if end > len(content):
        raise _truncated(f"The WebP has {len(content):,} bytes of {end:,}.")
    return end


def _webp_chunks(content: bytes, position: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of every chunk in content[position:stop]."""
    while position < stop:
        kind = content[position : position + 4]
        (length,) = _u32_little(content, position + 4)
        start = position + 8
        if start + length > stop:
            raise _damaged(f"The WebP chunk at byte {position:,} runs past its container, which ends at {stop:,}.")
        yield kind, start, start + length
        position = start + length + (length & 1)


def _walk_webp(image: _Image) -> None:
    content = image.content
    stop = _webp_end(content)
    extended, frames, pictures, exif = False, 0, 0, False
    for kind, start, end in _webp_chunks(content, 12, stop):
        if kind == b"VP8X" and not pictures:
            extended = True
            _webp_canvas(image, start, end)
        elif kind == b"ANMF":
            frames += 1
            if frames == 1:
                _webp_frame(image, start, end)
        elif kind in (b"VP8 ", b"VP8L") and not pictures:
            pictures += 1
            size = _webp_picture(image, kind, start, end)
            if extended and size != (image.width, image.height):
                raise _damaged(
                    f"The WebP picture has {size[0]} x {size[1]} pixels, its canvas {image.width} x {image.height}."
                )
            image.set_size(*size)
        elif kind == b"EXIF" and not exif:
            exif = True
            image.set_orientation(_orientation_of(content[start:end].removeprefix(b"Exif\0\0")))
    if not pictures and not frames:
        raise _truncated(f"The WebP of {len(content):,} bytes has no image data.")
    image.bits = 8
    if frames > 1:
        image.flags.append(Flag.FIRST_PAGE)


def _webp_canvas(image: _Image, start: int, end: int) -> None:
    """Read the VP8X header: features and canvas."""
    if end - start < 10:
        raise _damaged(f"The WebP header VP8X has {end - start} bytes, not 10.")
    features = image.content[start]
    if features & _WEBP_ALPHA:
        image.flags.append(Flag.ALPHA_DROPPED)
    width = int.from_bytes(image.content[start + 4 : start + 7], "little") + 1
    height = int.from_bytes(image.content[start + 7 : start + 10], "little") + 1
    image.set_size(width, height)


def _webp_frame(image: _Image, start: int, end: int) -> None:
    """Check the first frame of an animation: its picture is whole and lies on the canvas."""
    if image.width is None or image.height is None or end - start < 16:
        raise _damaged(f"The WebP has an animation frame at byte {start:,} without a canvas.")
    left = 2 * int.from_bytes(image.content[start : start + 3], "little")
    top = 2 * int.from_bytes(image.content[start + 3 : start + 6], "little")
    for kind, first, last in _webp_chunks(image.content, start + 16, end):
        if kind in (b"VP8 ", b"VP8L"):
            width, height = _webp_picture(image, kind, first, last)
            if left + width > image.width or top + height > image.height:
                raise _damaged(f"The WebP frame of {width} x {height} pixels at {left}, {top} leaves the canvas.")
            return
    raise _damaged(f"The WebP frame at byte {start:,} has no picture.")


def _webp_picture(image: _Image, kind: bytes, start: int, end: int) -> tuple[int, int]:
    """Width and height of a lossy (RFC 6386, 9.1) or lossless (RFC 9649, 3.4) bitstream."""
    content = image.content
    if end - start < (10 if kind == b"VP8 " else 5):
        raise _truncated(f"The WebP image data have {end - start} bytes.")
    if kind == b"VP8L":
        (packed,) = _u32_little(content, start + 1)
        if content[start] != 0x2F or packed >> 29:
            raise _damaged(f"The lossless WebP header at byte {start:,} is invalid.")
        if packed >> 28 & 1:
            image.flags.append(Flag.ALPHA_DROPPED)
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    tag = int.from_bytes(content[start : start + 3], "little")
    if tag & 1 or content[start + 3 : start + 6] != b"\x9d\x01\x2a":
        raise _damaged(f"The lossy WebP header at byte {start:,} is invalid.")
    if 10 + (tag >> 5) > end - start:
        raise _truncated(
            f"The WebP image data have {end - start:,} bytes; their first part alone needs {10 + (tag >> 5):,}."
        )
    return _u16_little(content, start + 6)[0] & 0x3FFF, _u16_little(content, start + 8)[0] & 0x3FFF


# ------------------------------------------------------------------------------------------------------------ JPEG 2000

_JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_J2K_SIGNATURE = b"\xff\x4f\xff\x51"
_COD, _CAP, _SOT, _EOC = 0xFF52, 0xFF50, 0xFF90, b"\xff\xd9"
_MAX_LAYERS = 1_000
_MAX_PRECINCTS = 1_000_000  # tiny precincts in a large image exhaust the decoder's memory


def _boxes(content: bytes, position: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of every box's payload in content[position:stop] (T.800, I.4)."""
    while position < stop:
        length, kind = struct.unpack_from(">I4s", content, position)
        start = position + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", content, start)
            start += 8
        end = stop if length == 0 else position + length
        if end < start:
            raise _damaged(f"The JPEG 2000 box at byte {position:,} has a length of {length:,}.")
        if end > stop:
            raise _truncated(f"The JPEG 2000 file has {len(content):,} bytes; a box runs to byte {end:,}.")
        yield kind, start, end
        position = end


def _walk_jp2(image: _Image) -> None:
    content = image.content
    promised: tuple[int, int] | None = None
    for kind, start, end in _boxes(content, 12, len(content)):
        if kind == b"jp2h":
            for inner, first, last in _boxes(content, start, end):
                if inner in (b"pclr", b"cmap"):
                    raise _unsupported(f"This is a JPEG 2000 file with a palette (at byte {first:,}).")
                if inner == b"ihdr":
                    if last - first != 14:
                        raise _damaged(f"The JPEG 2000 header has {last - first} bytes, not 14.")
                    promised = (_u32(content, first + 4)[0], _u32(content, first)[0])
        elif kind == b"jp2c":
            if promised is None:
                raise _damaged(f"The JPEG 2000 data at byte {start:,} have no header before them.")
            _codestream(image, start, end)
            if promised != (image.width, image.height):
                raise _damaged(
                    f"The JPEG 2000 header gives {promised[0]} x {promised[1]} pixels, "
                    f"its data {image.width} x {image.height}."
                )
            return
    raise _truncated(f"The JPEG 2000 file of {len(content):,} bytes has no image data.")


def _walk_j2k(image: _Image) -> None:
    _codestream(image, 0, len(image.content))


def _codestream(image: _Image, start: int, stop: int) -> None:
    """Walk a codestream: main header, every tile-part, end marker (T.800, A)."""
    content = image.content
    if stop - start < 4 or content[start : start + 4] != _J2K_SIGNATURE:
        raise _damaged(f"The JPEG 2000 data at byte {start:,} do not begin with their header.")
    tiles, across, down = _j2k_size(image, start + 4)
    position = start + 4 + _u16(content, start + 4)[0]
    coded = False
    while True:
        marker, length = struct.unpack_from(">HH", content, position)
        if marker == _SOT:
            break
        if marker <= _CAP or marker > _SOT or length < 2:
            what = "high-throughput JPEG 2000" if marker == _CAP else f"marker 0x{marker:04X}"
            status = Status.UNSUPPORTED if marker == _CAP else Status.DECODE_FAILED
            raise _Refused(status, f"The JPEG 2000 header has an unexpected {what} at byte {position:,}.")
        if position + 2 + length > stop:
            raise _truncated(f"The JPEG 2000 file ends after {len(content):,} bytes, inside its header.")
        if marker == _COD:
            coded = True
            _j2k_coding(content, position + 4, position + 2 + length, across, down, tiles)
        position += 2 + length
    if not coded:
        raise _damaged(f"The JPEG 2000 header, {position - start:,} bytes, lacks its coding style.")
    _tile_parts(content, position, stop, tiles)


def _j2k_size(image: _Image, at: int) -> tuple[int, int, int]:
    """Read SIZ (T.800, A.5.1): (number of tiles, width and height of a tile). Refuse what OpenCV does not read."""
    content = image.content
    length, _, right, bottom, left, top, across, down, tile_left, tile_top, count = struct.unpack_from(
        ">HHIIIIIIIIH", content, at
    )
    if length != 38 + 3 * count:
        raise _damaged(f"The JPEG 2000 size marker has {length} bytes for {count} components.")
    parts = content[at + 38 : at + 38 + 3 * count]
    if len(parts) < 3 * count:
        raise _truncated(f"The JPEG 2000 file ends after {len(content):,} bytes, inside its header.")
    image.bits = (parts[0] & 0x7F) + 1 if parts else None
    image.set_size(right - left, bottom - top)
    if left or top or tile_left or tile_top:
        raise _unsupported(f"The JPEG 2000 image begins at {left}, {top}, not at 0, 0.")
    if across < 1 or down < 1:
        raise _damaged(f"The JPEG 2000 header gives tiles of {across} x {down} pixels.")
    if count not in (1, 3, 4) or len({bytes(parts[n : n + 3]) for n in range(0, 3 * count, 3)}) != 1:
        raise _unsupported(f"This JPEG 2000 file has {count} components, or components that differ.")
    if parts[0] & 0x80 or not 7 <= parts[0] <= 15 or parts[1:3] != b"\x01\x01":
        raise _unsupported(
            f"This is a JPEG 2000 file of {image.bits} {'signed ' if parts[0] & 0x80 else ''}bits, "
            f"sampled every {parts[1]} x {parts[2]} pixels."
        )
    if parts[0] > 7:
        image.flags.append(Flag.SCALED_TO_8_BIT)
    if count == 4:
        image.flags.append(Flag.ALPHA_DROPPED)
    return _ceil(right, across) * _ceil(bottom, down), min(across, right), min(down, bottom)


def _j2k_coding(content: bytes, at: int, stop: int, across: int, down: int, tiles: int) -> None:
    """Check the coding style (T.800, A.6.1) against what would cost the decoder memory or time without end."""
    style, _, layers, _, levels, wide, tall = struct.unpack_from(">BBHBBBB", content, at)
    if levels > 32 or wide > 8 or tall > 8 or wide + tall > 8 or layers < 1:
        raise _damaged(
            f"The JPEG 2000 coding style is invalid: {levels} levels, blocks {wide} x {tall}, {layers} layers."
        )
    if layers > _MAX_LAYERS:
        raise _unsupported(f"The JPEG 2000 file has {layers:,} quality layers.")
    if not style & 1:
        return
    sizes = content[at + 10 : stop]
    if len(sizes) < levels + 1:
        raise _damaged(f"The JPEG 2000 coding style gives {len(sizes)} precincts for {levels} levels.")
    precincts = 0
    for level, size in enumerate(sizes[: levels + 1]):
        shift = levels - level
        precincts += _ceil(across, 1 << shift + (size & 15)) * _ceil(down, 1 << shift + (size >> 4))
    if precincts * tiles > _MAX_PRECINCTS:
        raise _unsupported(f"The JPEG 2000 file has {precincts * tiles:,} precincts.")


def _tile_parts(content: bytes, position: int, stop: int, tiles: int) -> None:
    """Step from tile-part to tile-part up to the end marker; every tile must have begun."""
    seen: set[int] = set()
    while content[position : position + 2] != _EOC or position + 2 > stop:
        if position >= stop:
            raise _truncated(f"The JPEG 2000 file ends after {len(content):,} bytes without an end marker.")
        marker, size, tile, length = struct.unpack_from(">HHHI", content, position)
        if marker != _SOT or size != 10 or tile >= tiles or 0 < length < 14:
            raise _damaged(f"The JPEG 2000 file has no valid tile-part at byte {position:,}.")
        seen.add(tile)
        if length == 0:  # the last tile-part: up to the end marker
            position = content.rfind(_EOC, position + 12, stop)
            if position < 0:
                raise _truncated(f"The JPEG 2000 file ends after {len(content):,} bytes without an end marker.")
            break
        position += length
        if position > stop:
            raise _truncated(f"The JPEG 2000 file has {len(content):,} bytes; a tile-part runs to byte {position:,}.")
    if len(seen) < tiles:
        raise _truncated(f"The JPEG 2000 file has {len(seen):,} of {tiles:,} tiles.")


_NAMES = {"jpeg": "JPEG", "png": "PNG", "bmp": "BMP", "tiff": "TIFF", "webp": "WebP", "jp2": "JPEG 2000"}
_SIGNATURES: tuple[tuple[bytes, str, Callable[[_Image], None]], ...] = (
    (_PNG_SIGNATURE, "png", _walk_png),
    (b"II*\0", "tiff", _walk_tiff),
    (b"MM\0*", "tiff", _walk_tiff),
    (b"II+\0", "tiff", _walk_tiff),
    (b"MM\0+", "tiff", _walk_tiff),
    (_JP2_SIGNATURE, "jp2", _walk_jp2),
    (_J2K_SIGNATURE, "jp2", _walk_j2k),
)
_EXIF_BLOCKS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "jpeg": _jpeg_exif,
    "png": _png_exif,
    "webp": _webp_exif,
}
