"""Plain words for files that are no image this tool reads, by the marks that their formats begin with."""

import re

# (offset, bytes there, name); the first that fits counts, so the brands of `ftyp` stand before the rest of it
_MARKS: tuple[tuple[int, bytes, str], ...] = (
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
    (0, b"\0\x05\x16\x07", "an AppleDouble companion, which macOS keeps beside a file"),
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
# Read, but not by the probe: the listing tells them from plain images unless their name says otherwise.
STUDIES = frozenset(name for _, _, name in _MARKS if "DICOM" in name or name.startswith("a NIfTI"))
_HTML = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S)
_PNM = re.compile(rb"P[1-7fF]\s")


def what_else(content: bytes) -> str:
    """Plain words for a file that is no image this tool reads."""
    for offset, mark, name in _MARKS:
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
    return "text" if is_text(head) else "no known image format"


def is_text(head: bytes) -> bool:
    """True where the bytes are UTF-8 without control characters; a character cut at the end is forgiven."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(letter.isprintable() or letter in "\t\n\r\f\ufeff" for letter in text)
