"""Real image files, whole and broken, built by code from synthetic pixels. Nothing here comes from a patient.

    good_files()    name -> bytes; every one of them is ok and decodes
    broken_files()  name -> (bytes, status); every one of them must get exactly this status
    write(folder)   puts both into a folder, for tests and benchmarks that need files

Names are plain ASCII with a suffix that the listing takes up, so that each may be written to a folder as it stands;
some of them lie about their format on purpose. The bytes are the same on every call with the same OpenCV.
"""

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy import uint8
from numpy.typing import NDArray

from mribatch.pipeline.records import Status

HEIGHT, WIDTH = 96, 120  # of every good file, as stored


def slice_pixels(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> NDArray[uint8]:
    """A bright oval with a brighter spot, noise, black around: uint8 (height, width), symmetric in no direction."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    oval = ((y - height * 0.5) / (height * 0.4)) ** 2 + ((x - width * 0.45) / (width * 0.35)) ** 2 < 1
    spot = (y - height * 0.3) ** 2 + (x - width * 0.6) ** 2 < (min(height, width) * 0.08) ** 2
    grey = 90.0 * oval + 100.0 * spot + rng.normal(0, 6, (height, width)) * oval
    return np.asarray(cv2.GaussianBlur(grey, (3, 3), 0)).clip(0, 255).astype(uint8)


def colour_pixels() -> NDArray[uint8]:
    """The slice in false colour: uint8 (HEIGHT, WIDTH, 3), in OpenCV's order blue, green, red."""
    grey = slice_pixels()
    return np.dstack([grey, grey // 2 + 40, 255 - grey])


def encode(suffix: str, pixels: NDArray[np.generic], *options: int) -> bytes:
    """`pixels` as OpenCV writes them to a file of this suffix."""
    done, data = cv2.imencode(suffix, pixels, list(options))
    assert done, suffix
    return bytes(data)


# ------------------------------------------------------------------------------------------------------ hand-made parts


def jpeg_segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def exif_block(orientation: int, thumbnail: bytes = b"") -> bytes:
    """An EXIF block (without "Exif") with an orientation and, in a second directory, perhaps a JPEG thumbnail."""
    second = 8 + 2 + 12 + 4
    first = struct.pack("<HHHIHHI", 1, 0x112, 3, 1, orientation, 0, second if thumbnail else 0)
    if not thumbnail:
        return b"II*\0" + struct.pack("<I", 8) + first
    at = second + 2 + 2 * 12 + 4
    entries = struct.pack("<HHIIHHII", 0x201, 4, 1, at, 0x202, 4, 1, len(thumbnail))
    return b"II*\0" + struct.pack("<I", 8) + first + struct.pack("<H", 2) + entries + bytes(4) + thumbnail


def with_exif(jpeg: bytes, orientation: int, thumbnail: bytes = b"") -> bytes:
    """The JPEG with an EXIF segment right after its start marker."""
    return jpeg[:2] + jpeg_segment(0xE1, b"Exif\0\0" + exif_block(orientation, thumbnail)) + jpeg[2:]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows: NDArray[uint8], width: int, bits: int, colour: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG of packed rows, uint8 (height, bytes per row), with more chunks before and after the image data."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    first, middle, last = (png_chunk(kind, part) for kind, part in parts)
    return b"\x89PNG\r\n\x1a\n" + first + before + middle + after + last


def multiscan_jpeg(grey_jpeg: bytes, components: int) -> bytes:
    """A sequential JPEG with a scan for each component, all with the data of a grey one; four of them are CMYK."""
    frame, scan = grey_jpeg.index(b"\xff\xc0"), grey_jpeg.index(b"\xff\xda")
    tables = grey_jpeg[2:frame] + grey_jpeg[frame + 13 : scan]
    data = grey_jpeg[scan + 10 : -2]
    names = range(1, components + 1)
    header = grey_jpeg[frame + 4 : frame + 9] + bytes([components]) + b"".join(bytes([n, 0x11, 0]) for n in names)
    scans = b"".join(jpeg_segment(0xDA, bytes([1, n, 0, 0, 63, 0])) + data for n in names)
    adobe = jpeg_segment(0xEE, b"Adobe\0\x64\0\0\0\0\0") if components == 4 else b""
    return b"\xff\xd8" + adobe + tables + jpeg_segment(0xC0, header) + scans + b"\xff\xd9"


def tiff(pixels: NDArray[np.generic], **options: object) -> bytes:
    """`pixels` as tifffile writes them."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def plain_tiff(data: bytes, tags: dict[int, int]) -> bytes:
    """A little-endian TIFF of one strip at byte 8, with these single values over the usual ones of a grey image."""
    usual = {256: WIDTH, 257: HEIGHT, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: HEIGHT, 279: len(data)}
    entries = sorted((usual | tags).items())
    packed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    padded = data + bytes(len(data) & 1)
    return (
        b"II*\0"
        + struct.pack("<IH", 8 + len(padded), len(entries))[:4]
        + padded
        + (struct.pack("<H", len(entries)) + packed + bytes(4))
    )


def webp_with_exif(webp: bytes, orientation: int) -> bytes:
    """A simple lossless WebP turned into an extended one with an EXIF chunk."""
    block = exif_block(orientation)
    canvas = bytes([8, 0, 0, 0]) + (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + canvas + webp[12:] + b"EXIF" + struct.pack("<I", len(block)) + block
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp(pixels: bytes, depth: int, *, height: int = HEIGHT, colours: int = 0, masks: tuple[int, ...] = ()) -> bytes:
    """A BMP of these rows with a grey palette of `colours` entries, or with colour masks: three, or four with alpha."""
    palette = b"".join(struct.pack("<I", value * 0x010101) for value in range(colours))
    packed = struct.pack(f"<{len(masks)}I", *masks) + bytes(
        52 if len(masks) == 4 else 0
    )  # then the rest of a V4 header
    size = 108 if len(masks) == 4 else 40
    offset = 54 + len(packed) + len(palette)
    method = 3 if masks else 0
    header = struct.pack("<IiiHHIIiiII", size, WIDTH, height, 1, depth, method, len(pixels), 0, 0, colours, 0)
    return struct.pack("<2sIHHI", b"BM", offset + len(pixels), 0, 0, offset) + header + packed + palette + pixels


def animated_webp(*pictures: bytes) -> bytes:
    """An animation of simple WebP files of HEIGHT x WIDTH pixels, each a full frame."""
    canvas = (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    body = (
        b"WEBPVP8X" + struct.pack("<I", 10) + bytes([2, 0, 0, 0]) + canvas + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    )
    for picture in pictures:
        frame = bytes(6) + canvas + (100).to_bytes(3, "little") + b"\0" + picture[12:]
        body += b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def patched(data: bytes, at: int, new: bytes) -> bytes:
    """`data` with the bytes at `at` replaced; the length stays."""
    assert at >= 0 and at + len(new) <= len(data)
    return data[:at] + new + data[at + len(new) :]


# ----------------------------------------------------------------------------------------------------------- good files


@cache
def good_files() -> dict[str, bytes]:
    """Whole files of every format and variant that is read, HEIGHT x WIDTH as stored."""
    return {**_good_jpegs(), **_good_pngs(), **_good_bmps(), **_good_tiffs(), **_good_others()}


def _good_jpegs() -> dict[str, bytes]:
    grey, colour = encode(".jpg", slice_pixels()), encode(".jpg", colour_pixels())
    thumbnail = encode(".jpg", slice_pixels(24, 30))
    files = {
        "baseline.jpg": encode(".jpg", cv2.cvtColor(slice_pixels(), cv2.COLOR_GRAY2BGR)),
        "colour.jpg": colour,
        "grey.jpg": grey,
        "progressive.jpg": encode(".jpg", colour_pixels(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "restart.jpg": encode(".jpg", colour_pixels(), cv2.IMWRITE_JPEG_RST_INTERVAL, 5),
        "optimised.jpeg": encode(".jpg", slice_pixels(), cv2.IMWRITE_JPEG_OPTIMIZE, 1),
        "full_chroma.jpg": encode(
            ".jpg", colour_pixels(), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        ),
        "scan_per_component.jpg": multiscan_jpeg(grey, 3),
        "cmyk.jpg": multiscan_jpeg(grey, 4),
        "thumbnail.jpg": with_exif(colour, 1, thumbnail),
        "trailing_bytes.jpg": colour + b"\0" * 37 + b"trailer",
        "second_image_behind.jpg": colour + thumbnail,
        "fill_bytes.jpg": colour[:2] + b"\xff\xff\xff" + colour[2:-2] + b"\xff\xff" + colour[-2:],
        "no_suffix_known.jpe": grey,
        "jpeg_named.png": colour,
    }
    return files | {f"exif_{turn}.jpg": with_exif(colour, turn) for turn in range(2, 9)}


def _good_pngs() -> dict[str, bytes]:
    grey = slice_pixels()
    alpha = np.dstack([colour_pixels(), grey])
    bits = np.packbits(grey > 60, axis=1)
    palette = png_chunk(b"PLTE", bytes(value for entry in range(256) for value in (entry, entry, entry)))
    exif = png_chunk(b"eXIf", exif_block(6))
    control = struct.pack(">IIIIHHBB", WIDTH, HEIGHT, 0, 0, 1, 10, 0, 0)
    frames = png_chunk(b"acTL", struct.pack(">II", 2, 0)) + png_chunk(b"fcTL", struct.pack(">I", 0) + control)
    black = zlib.compress(bytes(HEIGHT * (WIDTH + 1)))
    second = png_chunk(b"fcTL", struct.pack(">I", 1) + control) + png_chunk(b"fdAT", struct.pack(">I", 2) + black)
    return {
        "grey.png": encode(".png", grey),
        "colour.png": encode(".png", colour_pixels()),
        "alpha.png": encode(".png", alpha),
        "grey_alpha.png": png(np.dstack([grey, grey]).reshape(HEIGHT, -1), WIDTH, 8, 4),
        "sixteen_bit.png": encode(".png", grey.astype(np.uint16) * 16 + 7),
        "sixteen_bit_colour.png": encode(".png", colour_pixels().astype(np.uint16) * 200),
        "one_bit.png": png(bits, WIDTH, 1, 0),
        "palette.png": png(grey, WIDTH, 8, 3, before=palette),
        "palette_alpha.png": png(grey, WIDTH, 8, 3, before=palette + png_chunk(b"tRNS", bytes(9))),
        "exif.png": png(grey, WIDTH, 8, 0, before=exif),
        "exif_behind.png": png(grey, WIDTH, 8, 0, after=exif),
        "animated.png": png(grey, WIDTH, 8, 0, before=frames, after=second),
        "trailing.png": encode(".png", grey) + b"more",
        "png_named.jpg": encode(".png", grey),
    }


def _good_bmps() -> dict[str, bytes]:
    grey = slice_pixels()
    rgba = np.dstack([colour_pixels(), grey])
    masks = (0xFF0000, 0xFF00, 0xFF)
    return {
        "grey.bmp": encode(".bmp", grey),
        "colour.bmp": encode(".bmp", colour_pixels()),
        "alpha.bmp": bmp(rgba.tobytes(), 32, height=-HEIGHT, masks=(*masks, 0xFF000000)),
        "top_down.bmp": bmp(grey.tobytes(), 8, height=-HEIGHT, colours=256),
        "masks.bmp": bmp(rgba.tobytes(), 32, height=-HEIGHT, masks=masks),
    }


def _good_tiffs() -> dict[str, bytes]:
    grey, colour = slice_pixels(), cv2.cvtColor(colour_pixels(), cv2.COLOR_BGR2RGB)
    wide = grey.astype(np.uint16) * 16 + 7
    unfinite = grey.astype(np.float32) / 255
    unfinite[0, :3] = np.nan, np.inf, -np.inf
    stack = np.stack([grey, grey // 2, grey // 3])
    packed = b"".join(bytes([len(row) - 1]) + row.tobytes() for row in grey)  # PackBits: literal runs only
    return {
        "grey.tif": tiff(grey),
        "lzw.tiff": encode(".tiff", grey),
        "lzw_colour.tiff": encode(".tiff", colour_pixels()),
        "deflate.tif": tiff(grey, compression="zlib", rowsperstrip=16),
        "packbits.tif": plain_tiff(packed, {259: 32773}),
        "big_endian.tif": tiff(wide, byteorder=">"),
        "big.tif": tiff(grey, bigtiff=True),
        "tiles.tif": tiff(grey, tile=(48, 48), compression="zlib"),
        "sixteen_bit.tif": tiff(wide, rowsperstrip=10),
        "sixteen_bit_lzw.tif": encode(".tiff", wide),
        "signed.tif": tiff(wide.astype(np.int16) - 900),
        "float.tif": tiff(grey.astype(np.float32) / 255),
        "double.tif": tiff(grey.astype(np.float64) * 1e300),
        "not_finite.tif": tiff(unfinite),
        "one_bit.tif": tiff(grey > 60),
        "white_is_zero.tif": tiff(255 - grey, photometric="miniswhite"),
        "colour.tif": tiff(colour, photometric="rgb"),
        "planes.tif": tiff(np.moveaxis(colour, 2, 0), photometric="rgb", planarconfig="separate"),
        "alpha.tif": tiff(np.dstack([colour, grey]), photometric="rgb", extrasamples=["unassalpha"]),
        "pages.tif": tiff(stack, photometric="minisblack"),
        "turned.tif": tiff(grey, extratags=[(274, 3, 1, 6, True)]),
        "tiles_turned.tif": tiff(grey, tile=(48, 48), extratags=[(274, 3, 1, 6, True)]),
        "half_float.tif": tiff(grey.astype(np.float16)),
    }


def _good_others() -> dict[str, bytes]:
    grey = slice_pixels()
    lossless = encode(".webp", colour_pixels(), cv2.IMWRITE_WEBP_QUALITY, 101)
    alpha = np.dstack([colour_pixels(), grey])
    jp2 = encode(".jp2", grey)
    return {
        "lossy.webp": encode(".webp", colour_pixels(), cv2.IMWRITE_WEBP_QUALITY, 80),
        "lossless.webp": lossless,
        "lossy_alpha.webp": encode(".webp", alpha, cv2.IMWRITE_WEBP_QUALITY, 80),
        "lossless_alpha.webp": encode(".webp", alpha, cv2.IMWRITE_WEBP_QUALITY, 101),
        "exif.webp": webp_with_exif(lossless, 6),
        "grey.jp2": jp2,
        "colour.jp2": encode(".jp2", colour_pixels()),
        "sixteen_bit.jp2": encode(".jp2", grey.astype(np.uint16) * 16 + 7),
        "codestream.jp2": jp2[jp2.index(b"\xff\x4f\xff\x51") :],
    }


# --------------------------------------------------------------------------------------------------------- broken files


@cache
def broken_files() -> dict[str, tuple[bytes, Status]]:
    """Files that must never be classified, each with the status that says why."""
    groups: tuple[Callable[[], dict[str, tuple[bytes, Status]]], ...] = (
        _not_images,
        _broken_jpegs,
        _unsupported_jpegs,
        _broken_pngs,
        _broken_bmps,
        _broken_tiffs,
        _broken_others,
    )
    return {name: entry for group in groups for name, entry in group().items()}


def _not_images() -> dict[str, tuple[bytes, Status]]:
    noise = np.random.default_rng(7).bytes(3000)
    nifti = struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes(200)
    contents = {
        "text.jpg": b"This is a text, not an image.\n",
        "begins_like_bmp.bmp": b"BMW drives, the patient does not.\n",
        "noise.jpg": b"\x01\x9f" + noise,
        "zeros.jpg": bytes(4096),
        "page.jpg": b"<!DOCTYPE html>\n<html><body><h1>404 Not Found</h1></body></html>\n",
        "drawing.png": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
        "animation.jpg": b"GIF89a\x02\0\x02\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x02\0\x02\0\0\x02\x02\x44\x01\0;",
        "avif.jpg": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + noise[:64],
        "heic.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + noise[:64],
        "dicom.jpg": bytes(128) + b"DICM" + b"\2\0\0\0UL\4\0\xbe\0\0\0" + noise[:64],
        "nifti.png": nifti,
        "archive.jpg": b"PK\3\4\x14\0\0\0\0\0" + noise[:64],
        "gzip.jpg": b"\x1f\x8b\x08\0\0\0\0\0\0\3" + noise[:64],
        "document.jpg": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        "photoshop.jpg": b"8BPS\0\1\0\0\0\0\0\0\0\3" + bytes(12),
        "netpbm.jpg": b"P5\n2 2\n255\n\0\1\2\3",
    }
    return {"empty.jpg": (b"", Status.EMPTY)} | {name: (data, Status.UNSUPPORTED) for name, data in contents.items()}


def _broken_jpegs() -> dict[str, tuple[bytes, Status]]:
    whole = encode(".jpg", colour_pixels())
    progressive = good_files()["progressive.jpg"]
    restart = good_files()["restart.jpg"]
    thumbnail = with_exif(whole, 1, encode(".jpg", slice_pixels(24, 30)))
    frame, scan = whole.index(b"\xff\xc0"), whole.index(b"\xff\xda")
    data = scan + 2 + int.from_bytes(whole[scan + 2 : scan + 4], "big")
    lost = restart.index(b"\xff\xd1", restart.index(b"\xff\xda"))
    giant = patched(whole, frame + 5, struct.pack(">HH", 65000, 65000))
    return {
        "only_soi.jpg": (b"\xff\xd8", Status.TRUNCATED),
        "cut_in_header.jpg": (whole[: frame + 6], Status.TRUNCATED),
        "cut_before_scan.jpg": (whole[:data], Status.TRUNCATED),
        "half.jpg": (whole[: len(whole) // 2], Status.TRUNCATED),
        "ten_bytes_short.jpg": (whole[:-10], Status.TRUNCATED),
        "no_eoi.jpg": (whole[:-2], Status.TRUNCATED),
        "half_eoi.jpg": (whole[:-1], Status.TRUNCATED),
        "eoi_only_in_thumbnail.jpg": (thumbnail[: len(thumbnail) - 300], Status.TRUNCATED),
        "progressive_cut.jpg": (progressive[: len(progressive) * 2 // 3], Status.TRUNCATED),
        "zeros_behind_half.jpg": (whole[: len(whole) // 2] + bytes(len(whole) // 2), Status.TRUNCATED),
        "empty_scan.jpg": (whole[:data] + b"\xff\xd9", Status.TRUNCATED),
        "no_scan.jpg": (whole[:scan] + b"\xff\xd9", Status.TRUNCATED),
        "restart_lost.jpg": (restart[:lost] + restart[lost + 2 :], Status.TRUNCATED),
        "garbage_after_soi.jpg": (b"\xff\xd8" + np.random.default_rng(3).bytes(2000), Status.DECODE_FAILED),
        "zero_width.jpg": (patched(whole, frame + 7, b"\0\0"), Status.DECODE_FAILED),
        "zero_height.jpg": (patched(whole, frame + 5, b"\0\0"), Status.DECODE_FAILED),
        "sampling_zero.jpg": (patched(whole, frame + 11, b"\0"), Status.DECODE_FAILED),
        "two_frames.jpg": (whole[:scan] + whole[frame : frame + 19] + whole[scan:], Status.DECODE_FAILED),
        "scan_of_unknown_component.jpg": (patched(whole, scan + 5, b"\x09"), Status.DECODE_FAILED),
        "segment_length_wrong.jpg": (patched(whole, 4, b"\0\x11"), Status.DECODE_FAILED),
        "giant.jpg": (giant, Status.TOO_LARGE),
    }


def _unsupported_jpegs() -> dict[str, tuple[bytes, Status]]:
    whole = encode(".jpg", colour_pixels())
    frame = whole.index(b"\xff\xc0")
    kinds = {"lossless.jpg": b"\xc3", "hierarchical.jpg": b"\xc5", "arithmetic.jpg": b"\xc9"}
    files = {name: (patched(whole, frame + 1, kind), Status.UNSUPPORTED) for name, kind in kinds.items()}
    twelve = patched(patched(whole, frame + 1, b"\xc1"), frame + 4, b"\x0c")
    return files | {"twelve_bit.jpg": (twelve, Status.UNSUPPORTED)}


def _broken_pngs() -> dict[str, tuple[bytes, Status]]:
    whole = encode(".png", slice_pixels())
    data = whole.index(b"IDAT") - 4
    header = struct.pack(">IIBBBBB", 40000, 40000, 8, 0, 0, 0, 0)
    odd = png_chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 3, 0, 0, 0, 0))
    nothing = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 0, HEIGHT, 8, 0, 0, 0, 0))
    bad_zlib = png_chunk(b"IDAT", b"no zlib stream, but its checksum is right")
    few_rows = png(slice_pixels()[:40], WIDTH, 8, 0)
    return {
        "header_cut.png": (whole[:20], Status.TRUNCATED),
        "cut.png": (whole[: len(whole) // 2], Status.TRUNCATED),
        "no_iend.png": (whole[:-12], Status.TRUNCATED),
        "iend_cut.png": (whole[:-2], Status.TRUNCATED),
        "no_data.png": (whole[:data] + whole[-12:], Status.TRUNCATED),
        "header_damaged.png": (patched(whole, 17, b"\x99"), Status.DECODE_FAILED),
        "checksum.png": (patched(whole, data + 40, bytes([whole[data + 40] ^ 1])), Status.DECODE_FAILED),
        "three_bit.png": (whole[:8] + odd + whole[33:], Status.DECODE_FAILED),
        "zero_width.png": (whole[:8] + nothing + whole[33:], Status.DECODE_FAILED),
        "no_palette.png": (png(slice_pixels(), WIDTH, 8, 3), Status.DECODE_FAILED),
        "giant.png": (whole[:8] + png_chunk(b"IHDR", header) + whole[33:], Status.TOO_LARGE),
        "no_zlib.png": (whole[:data] + bad_zlib + whole[-12:], Status.DECODE_FAILED),
        "few_rows.png": (whole[:33] + few_rows[33:], Status.DECODE_FAILED),
    }


def _broken_bmps() -> dict[str, tuple[bytes, Status]]:
    whole = encode(".bmp", slice_pixels())
    return {
        "header_cut.bmp": (whole[:24], Status.TRUNCATED),
        "cut.bmp": (whole[:-500], Status.TRUNCATED),
        "header_unknown.bmp": (patched(whole, 14, struct.pack("<I", 4711)), Status.DECODE_FAILED),
        "palette_in_pixels.bmp": (patched(whole, 10, struct.pack("<I", 60)), Status.DECODE_FAILED),
        "zero_height.bmp": (patched(whole, 22, bytes(4)), Status.DECODE_FAILED),
        "run_length.bmp": (patched(whole, 30, struct.pack("<I", 1)), Status.UNSUPPORTED),
        "giant.bmp": (patched(whole, 18, struct.pack("<ii", 100_000, 100_000)), Status.TOO_LARGE),
    }


def _broken_tiffs() -> dict[str, tuple[bytes, Status]]:
    grey = slice_pixels()
    whole, lzw = tiff(grey), encode(".tiff", grey)
    data = grey.tobytes()
    return {
        "header_cut.tif": (whole[:6], Status.TRUNCATED),
        "directory_cut.tif": (whole[:60], Status.TRUNCATED),
        "cut.tif": (whole[:-500], Status.TRUNCATED),
        "directory_lost.tif": (lzw[: len(lzw) // 2], Status.TRUNCATED),
        "offset_past_end.tif": (plain_tiff(data, {273: 1 << 30}), Status.TRUNCATED),
        "strip_short.tif": (plain_tiff(data, {279: 100}), Status.TRUNCATED),
        "zero_width.tif": (plain_tiff(data, {256: 0}), Status.DECODE_FAILED),
        "strips_missing.tif": (plain_tiff(data, {278: 10}), Status.DECODE_FAILED),
        "lzw_garbled.tif": (plain_tiff(b"\xff" * 900, {259: 5}), Status.DECODE_FAILED),
        "deflate_garbled.tif": (plain_tiff(zlib.compress(data)[:60] + b"\xff" * 900, {259: 8}), Status.DECODE_FAILED),
        "deflate_short.tif": (plain_tiff(zlib.compress(data[:-1]), {259: 8}), Status.TRUNCATED),
        "packbits_short.tif": (plain_tiff(b"\x7f" + data[:128], {259: 32773}), Status.TRUNCATED),
        "jpeg_inside.tif": (plain_tiff(encode(".jpg", grey), {259: 7}), Status.UNSUPPORTED),
        "giant.tif": (plain_tiff(data, {256: 50_000, 257: 50_000}), Status.TOO_LARGE),
        "fax.tif": (plain_tiff(data, {258: 1, 259: 4}), Status.UNSUPPORTED),
        "eight_bytes.tif": (tiff(grey.astype(np.uint64)), Status.UNSUPPORTED),
        "five_samples.tif": (
            tiff(np.dstack([grey] * 5), photometric="minisblack", planarconfig="contig"),
            Status.UNSUPPORTED,
        ),
    }


def _broken_others() -> dict[str, tuple[bytes, Status]]:
    lossy, lossless = good_files()["lossy.webp"], good_files()["lossless.webp"]
    jp2 = good_files()["grey.jp2"]
    size = jp2.index(b"\xff\x51") + 6
    wide = patched(jp2, jp2.index(b"ihdr") + 4, struct.pack(">II", HEIGHT, WIDTH + 1))
    return {
        "header_cut.webp": (lossy[:14], Status.TRUNCATED),
        "cut.webp": (lossy[: len(lossy) // 2], Status.TRUNCATED),
        "lossless_cut.webp": (lossless[:-30], Status.TRUNCATED),
        "no_picture.webp": (b"RIFF" + struct.pack("<I", 12) + b"WEBPICCP" + bytes(4), Status.TRUNCATED),
        "start_code.webp": (patched(lossy, 23, b"\0"), Status.DECODE_FAILED),
        "header_cut.jp2": (jp2[:70], Status.TRUNCATED),
        "cut.jp2": (jp2[: len(jp2) // 2], Status.TRUNCATED),
        "no_end.jp2": (jp2[:-2], Status.TRUNCATED),
        "sizes_differ.jp2": (wide, Status.DECODE_FAILED),
        "giant.jp2": (patched(jp2, size, struct.pack(">II", 90_000, 90_000)), Status.TOO_LARGE),
    }


def write(folder: Path) -> dict[str, Status]:
    """Write all files to `folder`/good and `folder`/broken; relative path -> expected status."""
    expected: dict[str, Status] = {}
    for name, data in good_files().items():
        expected[f"good/{name}"] = Status.OK
        target = folder / "good" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    for name, (data, status) in broken_files().items():
        expected[f"broken/{name}"] = status
        target = folder / "broken" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return expected
