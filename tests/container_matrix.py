"""A matrix of container features: small files of every format, each with the pixels that an independent reader finds.

The readers are Pillow, tifffile and imagecodecs. What they give (stored samples) is turned into grey here, by the rule
of docs/reference/pixels.md, written down a second time. Every image has SIDE x SIDE pixels, so that nothing is resized,
and is symmetric in no direction.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import cv2
import imagecodecs
import numpy as np
import tifffile
from numpy import float64, uint8
from numpy.typing import NDArray
from PIL import Image, ImageCms

from tests.broken_files import encode, exif_block, jpeg_segment, patched, png_chunk, slice_pixels

SIDE = 61  # odd: rows of packed bits and of subsampled colour end inside a byte or a block

Grey = NDArray[float64]


@dataclass(frozen=True)
class Entry:
    """A file and the grey pixels that it must have, float64 (SIDE, SIDE), 0..255, turned upright."""

    name: str
    content: bytes
    expected: Grey


def matrix() -> Iterator[Entry]:
    """Every file of the matrix."""
    for part in (_jpegs, _exif_jpegs, _pngs, _bmps, _tiffs, _webps, _jpeg2000s):
        yield from part()


def grey_slice() -> NDArray[uint8]:
    return slice_pixels(SIDE, SIDE)


def colours() -> NDArray[uint8]:
    """Saturated false colours, RGB: uint8 (SIDE, SIDE, 3)."""
    grey = grey_slice()
    return np.dstack([255 - grey, grey // 2 + 40, grey])


# ---------------------------------------------------------------------------------------------------------- the rule


def luma(rgb: NDArray[Any]) -> Grey:
    """ITU-R BT.601 luma of samples as stored, (..., 3) or with more channels, which are ignored."""
    weighted: Grey = rgb[..., :3].astype(float64) @ np.array([0.299, 0.587, 0.114])
    return weighted


def by_own_range(values: NDArray[Any]) -> Grey:
    """Smallest value -> 0, largest -> 255."""
    exact = values.astype(float64)
    span: Grey = (exact - exact.min()) / (exact.max() - exact.min()) * 255
    return span


def of_inks(inks: NDArray[Any]) -> Grey:
    """CMYK, 255 a full ink, -> grey."""
    light = 255.0 - inks.astype(float64)
    return luma(light[..., :3] * light[..., 3:] / 255)


def upright(stored: Grey, orientation: int) -> Grey:
    """How a viewer must show the stored image (CIPA DC-008, tag 0x112; TIFF 6.0, tag 274)."""
    shown: dict[int, Callable[[Grey], Grey]] = {
        2: lambda image: image[:, ::-1],
        3: lambda image: image[::-1, ::-1],
        4: lambda image: image[::-1],
        5: lambda image: image.T,
        6: lambda image: np.rot90(image, -1),
        7: lambda image: np.rot90(image.T, 2),
        8: lambda image: np.rot90(image),
    }
    return shown[orientation](stored) if orientation in shown else stored


# ------------------------------------------------------------------------------------------------------------ readers


def _open(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def read_jpeg(content: bytes) -> Grey:
    """With Pillow: luma as libjpeg has it, of RGB by the weights; inks as Adobe stores them, turned round."""
    image = _open(content)
    if image.mode == "CMYK":
        return of_inks(np.asarray(image))
    if image.mode == "L":
        return np.asarray(image).astype(float64)
    image.draft("YCbCr", image.size)
    try:
        return np.asarray(image)[..., 0].astype(float64)
    except OSError:  # libjpeg makes no YCbCr of stored RGB
        return luma(np.asarray(_open(content)))


def read_png(content: bytes) -> Grey:
    """With Pillow, or with imagecodecs where samples have 16 bits, of which Pillow keeps 8."""
    if content[24] == 16:
        stored = imagecodecs.png_decode(_only_pixels(content))
        if stored.ndim == 2 or stored.shape[2] < 3:
            return by_own_range(stored if stored.ndim == 2 else stored[..., 0])
        return by_own_range(luma(stored))
    image = _open(content)
    if image.mode in ("1", "L", "LA"):
        stored = np.asarray(image.convert("LA"))
        return stored[..., 0].astype(float64)
    return luma(np.asarray(image.convert("RGBA")))


def _only_pixels(content: bytes) -> bytes:
    """A PNG without tRNS, of which libpng would make an alpha channel."""
    at = content.find(b"tRNS")
    return content if at < 0 else content[: at - 4] + content[at + 8 + int.from_bytes(content[at - 4 : at], "big") :]


def read_bmp(content: bytes) -> Grey:
    return luma(np.asarray(_open(content).convert("RGB")))


def read_webp(content: bytes) -> Grey:
    return luma(imagecodecs.webp_decode(content, hasalpha=True))


def read_jpeg2000(content: bytes) -> Grey:
    stored = imagecodecs.jpeg2k_decode(content)
    grey = luma(stored) if stored.ndim == 3 else stored.astype(float64)
    return grey if stored.dtype == uint8 else by_own_range(grey)


def read_tiff(content: bytes) -> Grey:
    """With tifffile; the first page."""
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        stored, photometric = page.asarray(), int(page.photometric)
        if photometric == 3:
            assert page.colormap is not None
            return luma(np.moveaxis(page.colormap[:, stored], 0, -1) >> 8)
        if page.planarconfig == 2 and page.samplesperpixel > 1:
            stored = np.moveaxis(stored, 0, -1)
        orientation = page.tags[274].value if 274 in page.tags else 1
    if photometric == 5:
        grey = of_inks(stored)
    elif photometric == 2:
        grey = luma(stored)
    else:
        grey = (stored if stored.ndim == 2 else stored[..., 0]).astype(float64)
        if stored.dtype == bool:
            grey *= 255
        if photometric == 0:
            grey = grey.max() - grey if stored.dtype.itemsize > 1 else 255 - grey
    return upright(grey if stored.dtype in (uint8, bool) else by_own_range(grey), orientation)


def _jpeg8(pixels: NDArray[Any], level: int, **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(pixels, level, **options))


def _jpeg2000(pixels: NDArray[Any], level: int, **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(pixels, level, **options))


# --------------------------------------------------------------------------------------------------------------- JPEG


def _without(jpeg: bytes, *markers: int) -> bytes:
    """The JPEG without segments of these markers before its first scan."""
    position, kept = 2, jpeg[:2]
    while jpeg[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
        if jpeg[position + 1] not in markers:
            kept += jpeg[position:end]
        position = end
    return kept + jpeg[position:]


def _after_start(jpeg: bytes, *segments: bytes) -> bytes:
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def _pillow(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, **options)
    return stream.getvalue()


def _profile() -> bytes:
    """An ICC profile far from sRGB, so that a reader that applies it shows."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


_FACTORS = {"444": 0x111111, "422": 0x211111, "420": 0x221111, "440": 0x121111, "411": 0x411111}


def _jpeg_kinds() -> Iterator[tuple[str, bytes]]:
    rgb, grey = colours(), grey_slice()
    bgr = rgb[..., ::-1]
    for progressive, restart in product((0, 1), (0, 3)):
        options = (cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_RST_INTERVAL, restart)
        kind = f"{'progressive' if progressive else 'baseline'}_{restart}"
        yield f"grey_{kind}", encode(".jpg", grey, *options)
        for name, factor in _FACTORS.items():
            yield f"ycc{name}_{kind}", encode(".jpg", bgr, *options, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor)
    yield "optimised", encode(".jpg", grey, cv2.IMWRITE_JPEG_OPTIMIZE, 1)
    for quality in (3, 100):
        yield f"quality_{quality}", encode(".jpg", bgr, cv2.IMWRITE_JPEG_QUALITY, quality)
    yield "rgb", _pillow(Image.fromarray(rgb), format="JPEG", keep_rgb=True)
    yield "profile", _pillow(Image.fromarray(rgb), format="JPEG", icc_profile=_profile())
    four = np.dstack([rgb, grey // 3])
    cmyk = _pillow(Image.fromarray(four, "CMYK"), format="JPEG", quality=92)
    ycck = _jpeg8(255 - four, 92, colorspace="CMYK", outcolorspace="YCCK")
    for sampling in ("444", "420"):
        yield (
            f"ycck_{sampling}",
            _jpeg8(255 - four, 92, colorspace="CMYK", outcolorspace="YCCK", subsampling=sampling),
        )
    yield "cmyk", cmyk
    yield "ycck", ycck
    yield "cmyk_progressive", _pillow(Image.fromarray(four, "CMYK"), format="JPEG", progressive=True)


def _jpegs() -> Iterator[Entry]:
    """Colour spaces and samplings, with the markers that tell the colour space, without them, and with wrong ones."""
    adobe = b"Adobe\0\x64\0\0\0\0"
    for name, plain in _jpeg_kinds():
        bare = _without(plain, 0xE0, 0xEE)
        variants = {"": plain}
        if name.startswith(("rgb", "cmyk", "ycck", "grey_baseline_0", "ycc420_baseline_0", "ycc444_baseline_0")):
            variants["_bare"] = bare
            variants["_jfif"] = _after_start(bare, jpeg_segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"))
            for transform in range(3):
                variants[f"_adobe{transform}"] = _after_start(bare, jpeg_segment(0xEE, adobe + bytes([transform])))
        for variant, content in variants.items():
            yield Entry(f"jpeg_{name}{variant}.jpg", content, read_jpeg(content))
    grey, colour = encode(".jpg", grey_slice()), encode(".jpg", colours()[..., ::-1])
    frame = grey.index(b"\xff\xc0")
    for factors in (0x12, 0x21, 0x22, 0x41, 0x44):  # of a single component: without a meaning
        yield Entry(f"jpeg_grey_factors_{factors:x}.jpg", patched(grey, frame + 11, bytes([factors])), read_jpeg(grey))
    for ids in ((0, 1, 2), (82, 71, 66), (34, 35, 36)):  # the second is "RGB"
        for kind, plain in (("jfif", colour), ("bare", _without(colour, 0xE0))):
            content = _with_ids(plain, ids)
            yield Entry(f"jpeg_ids_{ids[0]}_{kind}.jpg", content, read_jpeg(content))


def _with_ids(jpeg: bytes, ids: Sequence[int]) -> bytes:
    """The JPEG with other names of its three components."""
    frame, scan = jpeg.index(b"\xff\xc0"), jpeg.index(b"\xff\xda")
    for place, name in enumerate(ids):
        jpeg = patched(patched(jpeg, frame + 10 + 3 * place, bytes([name])), scan + 5 + 2 * place, bytes([name]))
    return jpeg


def directory(kind: int, value: int, order: str = "<", count: int = 1) -> bytes:
    """An EXIF block with one tag, the orientation, of any type."""
    field = {1: "B3x", 3: "H2x", 4: "I", 6: "b3x", 8: "h2x", 9: "i"}[kind]
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(f"{order}IHHHI{field}I", 8, 1, 0x112, kind, count, value, 0)


def exif_variants() -> Mapping[str, tuple[Sequence[bytes], int]]:
    """Name -> EXIF blocks and the orientation that they stand for."""
    found: dict[str, tuple[Sequence[bytes], int]] = {
        f"{kind}_{order}_{value}": ([directory(code, value, sign)], value)
        for (kind, code), (order, sign), value in product(
            (("short", 3), ("long", 4)), (("le", "<"), ("be", ">")), range(1, 9)
        )
    }
    for kind, code in (("byte", 1), ("sbyte", 6), ("sshort", 8), ("slong", 9)):  # not as the standard has it
        found[kind] = [directory(code, 3)], 1
    return found | {
        "zero": ([directory(3, 0)], 1),
        "nine": ([directory(3, 9)], 1),
        "large": ([directory(4, 0x10003)], 1),
        "two_blocks": ([directory(3, 6), directory(3, 3)], 6),
        "upright_block_first": ([directory(3, 1), directory(3, 3)], 1),
        "no_tag_first": ([b"II*\0\x08\0\0\0\0\0\0\0\0\0", directory(3, 3)], 1),
        "empty_first": ([b"", directory(3, 3)], 3),
        "no_directory_first": ([b"nonsense", directory(4, 8, ">")], 8),
        "empty_alone": ([b""], 1),
        "cut": ([directory(3, 3)[:12]], 1),
        "with_thumbnail": ([exif_block(6, encode(".jpg", grey_slice()[:20, :30]))], 6),
    }


def _exif_jpegs() -> Iterator[Entry]:
    stored = {"grey": encode(".jpg", grey_slice()), "colour": encode(".jpg", colours()[..., ::-1])}
    for name, (blocks, orientation) in exif_variants().items():
        for colour, plain in stored.items():
            content = _after_start(plain, *(jpeg_segment(0xE1, b"Exif\0\0" + block) for block in blocks))
            yield Entry(f"exif_{name}_{colour}.jpg", content, upright(read_jpeg(plain), orientation))
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    for name, segments, orientation in (
        ("xmp_first", (jpeg_segment(0xE1, xmp), jpeg_segment(0xE1, b"Exif\0\0" + directory(3, 6))), 6),
        ("xmp_alone", (jpeg_segment(0xE1, xmp),), 1),
    ):
        content = _after_start(stored["grey"], *segments)
        yield Entry(f"exif_{name}.jpg", content, upright(read_jpeg(stored["grey"]), orientation))


# ---------------------------------------------------------------------------------------------------------------- PNG

_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type


def _adam7(pixels: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for top, left, down, across in (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ):
        yield pixels[top::down, left::across]


def _packed(rows: NDArray[Any], bits: int) -> list[bytes]:
    """Rows of samples (height, samples), most significant bit first."""
    if bits == 16:
        return [row.astype(">u2").tobytes() for row in rows]
    each = (rows[..., None] >> np.arange(bits - 1, -1, -1) & 1).astype(uint8)
    return [np.packbits(row).tobytes() for row in each.reshape(len(rows), -1)]


def png_of(samples: NDArray[Any], bits: int, colour: int, before: bytes = b"", interlaced: bool = False) -> bytes:
    """A PNG of samples (height, width, channels), with more chunks before the data."""
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    passes = _adam7(samples) if interlaced else iter([samples])
    lines = [line for one in passes if one.size for line in _packed(one.reshape(len(one), -1), bits)]
    data = zlib.compress(b"".join(b"\0" + line for line in lines))
    chunks = png_chunk(b"IHDR", header) + before + png_chunk(b"IDAT", data[:50]) + png_chunk(b"IDAT", data[50:])
    return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")


def _png_samples(bits: int, colour: int) -> NDArray[Any]:
    rgb = colours().astype(int)
    layers = {
        0: [grey_slice()],
        2: [*np.moveaxis(rgb, 2, 0)],
        3: [grey_slice()],
        4: [grey_slice(), rgb[..., 1]],
        6: [*np.moveaxis(rgb, 2, 0), grey_slice()],
    }[colour]
    eight = np.dstack(layers).astype(int)
    return eight * 257 // 3 + 5 if bits == 16 else eight >> (8 - bits)


def _before_palette(colour: int, bits: int) -> dict[str, bytes]:
    """Chunks that say how samples look on a screen, or what an image is meant to be; no pixel depends on them here."""
    packed = zlib.compress(_profile())
    sizes = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[colour]
    chunks = {
        "srgb": png_chunk(b"sRGB", b"\0"),
        "gama": png_chunk(b"gAMA", struct.pack(">I", 45455)),
        "gama1": png_chunk(b"gAMA", struct.pack(">I", 100000)),
        "chrm": png_chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
        "iccp": png_chunk(b"iCCP", b"profile\0\0" + packed),
        "cicp": png_chunk(b"cICP", bytes([9, 16, 0, 1])),
        "sbit": png_chunk(b"sBIT", bytes([min(5, bits)]) * sizes),
        "exif3": png_chunk(b"eXIf", directory(3, 3)),
        "exif_long6": png_chunk(b"eXIf", directory(4, 6, ">")),
        "text": png_chunk(b"tEXt", b"Gamma\0002.2") + png_chunk(b"pHYs", struct.pack(">IIB", 1, 2, 0)),
    }
    return chunks | {"all": b"".join(chunks[name] for name in ("chrm", "gama", "iccp", "sbit"))}


def _after_palette(colour: int, bits: int) -> dict[str, bytes]:
    clear = {0: struct.pack(">H", 3), 2: struct.pack(">3H", 1, 2, 3), 3: bytes([0, 128, 7][: 1 << bits])}
    ground = {0: ">H", 2: ">3H", 3: ">B", 4: ">H", 6: ">3H"}[colour]
    values = [1] * (3 if "3" in ground else 1)
    chunks = {"bkgd": png_chunk(b"bKGD", struct.pack(ground, *values))}
    return chunks | ({"trns": png_chunk(b"tRNS", clear[colour])} if colour in clear else {})


def _pngs() -> Iterator[Entry]:
    """Every colour type and depth, plain and interlaced, with each of the chunks that decoders let change pixels."""
    depths = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
    for colour, bits in ((colour, bits) for colour, choices in depths.items() for bits in choices):
        samples = _png_samples(bits, colour)
        table = np.random.default_rng(bits).integers(0, 256, (1 << min(bits, 8), 3)).astype(uint8)
        palette = png_chunk(b"PLTE", table.tobytes()) if colour == 3 else b""
        kinds: dict[str, tuple[bytes, bool]] = {"plain": (palette, False), "interlaced": (palette, True)}
        kinds |= {name: (chunk + palette, False) for name, chunk in _before_palette(colour, bits).items()}
        kinds |= {name: (palette + chunk, False) for name, chunk in _after_palette(colour, bits).items()}
        turned = {"exif3": 3, "exif_long6": 6}
        for name, (before, interlaced) in kinds.items():
            content = png_of(samples, bits, colour, before, interlaced)
            yield Entry(f"png_{colour}_{bits}_{name}.png", content, upright(read_png(content), turned.get(name, 1)))


# ---------------------------------------------------------------------------------------------------------------- BMP


def _bmp(header: bytes, rows: Sequence[bytes], after: bytes = b"") -> bytes:
    """A BMP of rows from the bottom up, each padded to four bytes."""
    data = b"".join(row + bytes(-len(row) % 4) for row in rows)
    offset = 14 + len(header) + len(after)
    return struct.pack("<2sIHHI", b"BM", offset + len(data), 0, 0, offset) + header + after + data


def _info(depth: int, method: int = 0, colours_used: int = 0, *, top_down: bool = False, size: int = 40) -> bytes:
    height = -SIDE if top_down else SIDE
    return struct.pack("<IiiHHIIiiII", size, SIDE, height, 1, depth, method, 0, 2835, 2835, colours_used, 0)


def _bmp_kinds() -> Iterator[tuple[str, bytes]]:
    grey, rgb = grey_slice()[::-1], colours()[::-1]
    bgr, five = rgb[..., ::-1], rgb.astype(int) >> 3
    table = np.random.default_rng(5).integers(0, 256, (256, 4)).astype(uint8)
    table[:, 3] = 0
    for depth in (1, 4, 8):
        few, packed = table[: 1 << depth], _packed(grey.astype(int) >> (8 - depth), depth)
        yield f"palette_{depth}", _bmp(_info(depth, 0, len(few)), packed, few.tobytes())
        yield f"palette_{depth}_top_down", _bmp(_info(depth, top_down=True), packed[::-1], few.tobytes())
        core = struct.pack("<IHHHH", 12, SIDE, SIDE, 1, depth)
        yield f"palette_{depth}_core", _bmp(core, packed, few[:, :3].tobytes())
    ramp = np.repeat(np.arange(255, -1, -1, dtype=uint8)[:, None], 4, axis=1) * np.array([1, 1, 1, 0], uint8)
    yield "palette_white_first", _bmp(_info(8), [row.tobytes() for row in grey], ramp.tobytes())
    words = five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]
    yield "555", _bmp(_info(16), [row.astype("<u2").tobytes() for row in words])
    wide = (five[..., 0] << 11 | (rgb[..., 1].astype(int) >> 2) << 5 | five[..., 2]).astype("<u2")
    yield "565", _bmp(_info(16, 3), [row.tobytes() for row in wide], struct.pack("<3I", 0xF800, 0x7E0, 0x1F))
    yield (
        "555_masks",
        _bmp(_info(16, 3), [row.astype("<u2").tobytes() for row in words], struct.pack("<3I", 0x7C00, 0x3E0, 0x1F)),
    )
    yield "24", _bmp(_info(24), [row.tobytes() for row in bgr])
    yield "24_core", _bmp(struct.pack("<IHHHH", 12, SIDE, SIDE, 1, 24), [row.tobytes() for row in bgr])
    yield "24_top_down", _bmp(_info(24, top_down=True), [row.tobytes() for row in bgr[::-1]])
    four = np.dstack([bgr, grey])
    yield "32", _bmp(_info(32), [row.tobytes() for row in four])
    masks = struct.pack("<3I", 0xFF0000, 0xFF00, 0xFF)
    yield "32_masks", _bmp(_info(32, 3), [row.tobytes() for row in four], masks)
    other, shifted = np.dstack([grey, bgr]), struct.pack("<3I", 0xFF000000, 0xFF0000, 0xFF00)
    yield "32_shifted_masks", _bmp(_info(32, 3), [row.tobytes() for row in other], shifted)
    for size in (108, 124):
        rest = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(size - 56)
        yield f"32_alpha_v{size}", _bmp(_info(32, 3, size=size) + rest, [row.tobytes() for row in four])
        plain = bytes(size - 40)
        yield f"24_v{size}", _bmp(_info(24, size=size) + plain, [row.tobytes() for row in bgr])


def _bmps() -> Iterator[Entry]:
    for name, content in _bmp_kinds():
        yield Entry(f"bmp_{name}.bmp", content, read_bmp(content))


# --------------------------------------------------------------------------------------------------------------- TIFF


def tiff_of(pixels: NDArray[Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def with_tag(tiff: bytes, tag: int, value: int) -> bytes:
    """A classic TIFF with a single value in a tag, which is added or replaced, in a first directory at the file's end."""
    order = "<" if tiff[:2] == b"II" else ">"
    (at,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, at)
    stop = at + 2 + 12 * count
    entries = {struct.unpack_from(f"{order}H", tiff, one)[0]: tiff[one : one + 12] for one in range(at + 2, stop, 12)}
    field = "HIH2x" if value < 1 << 16 else "HII"
    entries[tag] = struct.pack(f"{order}H{field}", tag, 3 if value < 1 << 16 else 4, 1, value)
    packed = b"".join(entry for _, entry in sorted(entries.items()))
    where = len(tiff) + len(tiff) % 2
    body = tiff[:4] + struct.pack(f"{order}I", where) + tiff[8:] + bytes(where - len(tiff))
    return body + struct.pack(f"{order}H", len(entries)) + packed + tiff[stop : stop + 4]


def bits_reversed(tiff: bytes) -> bytes:
    """A classic TIFF with FillOrder 2, of one made with FillOrder 1: the bits of each byte of its strips."""
    with tifffile.TiffFile(io.BytesIO(tiff)) as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        pieces = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    data = bytearray(with_tag(tiff, 266, 2))
    for start, length in pieces:
        data[start : start + length] = imagecodecs.bitorder_encode(bytes(data[start : start + length]))
    return bytes(data)


def _tiff_kinds() -> Iterator[tuple[str, bytes]]:
    grey, rgb = grey_slice(), colours()
    wide = grey.astype(np.uint16) * 16 + 7
    kinds: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
        "grey": (grey, {"photometric": "minisblack"}),
        "white16": (0xFFFF - wide, {"photometric": "miniswhite"}),
        "grey32": (wide.astype(np.uint32) << 12, {"photometric": "minisblack"}),
        "half": (grey.astype(np.float16) / 255, {"photometric": "minisblack"}),
        "rgb_float": (rgb.astype(np.float32) / 255, {"photometric": "rgb"}),
        "planes16": (
            np.moveaxis(rgb.astype(np.uint16) * 200, 2, 0),
            {"photometric": "rgb", "planarconfig": "separate"},
        ),
        "white": (255 - grey, {"photometric": "miniswhite"}),
        "bilevel": (grey > 60, {"photometric": "minisblack"}),
        "bilevel_white": (grey > 60, {"photometric": "miniswhite"}),
        "grey16": (wide, {"photometric": "minisblack"}),
        "signed8": (grey.astype(np.int16).astype(np.int8), {"photometric": "minisblack"}),
        "signed16": (wide.astype(np.int16) - 900, {"photometric": "minisblack"}),
        "signed32": (wide.astype(np.int32) * 999 - 77777, {"photometric": "minisblack"}),
        "float": (grey.astype(np.float32) / 255, {"photometric": "minisblack"}),
        "double": (grey.astype(np.float64) / 255, {"photometric": "minisblack"}),
        "rgb": (rgb, {"photometric": "rgb"}),
        "rgb16": (rgb.astype(np.uint16) * 200, {"photometric": "rgb"}),
        "planes": (np.moveaxis(rgb, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}),
        "rgba_unassociated": (np.dstack([rgb, grey]), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        "rgba_associated": (np.dstack([rgb, grey]), {"photometric": "rgb", "extrasamples": ["assocalpha"]}),
        "rgba_unspecified": (np.dstack([rgb, grey]), {"photometric": "rgb", "extrasamples": ["unspecified"]}),
        "rgba16": (
            np.dstack([rgb, grey]).astype(np.uint16) * 200,
            {"photometric": "rgb", "extrasamples": ["unassalpha"]},
        ),
        "grey_alpha": (
            np.dstack([grey, 255 - grey]),
            {"photometric": "minisblack", "extrasamples": ["unassalpha"], "planarconfig": "contig"},
        ),
        "grey_associated": (
            np.dstack([grey, 255 - grey]),
            {"photometric": "minisblack", "extrasamples": ["assocalpha"], "planarconfig": "contig"},
        ),
        "palette": (
            grey,
            {
                "photometric": "palette",
                "colormap": np.random.default_rng(1).integers(0, 1 << 16, (3, 256)).astype(np.uint16),
            },
        ),
        "cmyk": (np.dstack([rgb, grey // 3]), {"photometric": "separated"}),
        "pages": (np.stack([grey, grey // 2]), {"photometric": "minisblack"}),
    }
    compressions = (None, "lzw", "zlib", "packbits")
    for (name, (pixels, options)), compression in product(kinds.items(), compressions):
        layouts: dict[str, dict[str, Any]] = {"strip": {}, "strips": {"rowsperstrip": 7}, "tiles": {"tile": (32, 16)}}
        for (layout, more), order in product(layouts.items(), "<>"):
            predictors = [False]
            if compression in ("lzw", "zlib") and pixels.dtype not in (bool, np.float16):
                predictors.append(True)
            for predictor in predictors:
                made = tiff_of(
                    pixels, byteorder=order, compression=compression, predictor=predictor or None, **options, **more
                )
                yield (
                    f"{name}_{compression or 'plain'}_{layout}_{'le' if order == '<' else 'be'}"
                    f"{'_predictor' if predictor else ''}",
                    made,
                )
    for compression, (name, kind) in product(
        compressions, (("grey", grey), ("bilevel", grey > 60), ("rgb", rgb), ("grey16", wide))
    ):
        for rows in (7, SIDE):
            made = tiff_of(np.asarray(kind), compression=compression, rowsperstrip=rows)
            yield f"fill_order_{name}_{compression or 'plain'}_{rows}", bits_reversed(made)
        for rows in (SIDE + 1, 400_000, 1 << 31, (1 << 32) - 1):
            made = tiff_of(np.asarray(kind), compression=compression, rowsperstrip=SIDE)
            yield f"rows_per_strip_{name}_{compression or 'plain'}_{rows}", with_tag(made, 278, rows)
    for name, pixels in (("grey", grey), ("grey16", wide), ("rgb", rgb)):
        for orientation, code in product(range(1, 9), (3, 4)):
            tags = [(274, code, 1, orientation, True)]
            yield f"orientation_{name}_{code}_{orientation}", tiff_of(pixels, extratags=tags, rowsperstrip=9)
            yield f"orientation_{name}_{code}_{orientation}_tiles", tiff_of(pixels, extratags=tags, tile=(32, 16))
        for orientation in (0, 9):
            yield f"orientation_{name}_{orientation}", tiff_of(pixels, extratags=[(274, 3, 1, orientation, True)])
        yield f"big_{name}", tiff_of(pixels, bigtiff=True)
        yield f"big_{name}_be", tiff_of(pixels, bigtiff=True, byteorder=">", compression="zlib")
        yield f"profile_{name}", tiff_of(pixels, iccprofile=_profile())
    for compression in ("lzw", "deflate", "tiff_adobe_deflate", "packbits"):
        for mode, image in (
            ("L", Image.fromarray(grey)),
            ("RGB", Image.fromarray(rgb)),
            ("CMYK", Image.fromarray(np.dstack([rgb, grey // 3])).convert("CMYK")),
            ("1", Image.fromarray(grey > 60)),
        ):
            packed = _pillow(image, format="TIFF", compression=compression)
            yield f"libtiff_{mode}_{compression}", packed


def _tiffs() -> Iterator[Entry]:
    for name, content in _tiff_kinds():
        yield Entry(f"tiff_{name}.tif", content, read_tiff(content))


# ----------------------------------------------------------------------------------------------- WebP and JPEG 2000


def _webps() -> Iterator[Entry]:
    rgb, grey = colours(), grey_slice()
    layers = {"grey": np.dstack([grey] * 3), "rgb": rgb, "rgba": np.dstack([rgb, grey])}
    clear = np.dstack([rgb, np.where(grey > 60, 255, 0)]).astype(uint8)
    for (name, pixels), lossless in product({**layers, "clear": clear}.items(), (False, True)):
        image = Image.fromarray(pixels)
        kind = "lossless" if lossless else "lossy"
        plain = _pillow(image, format="WEBP", lossless=lossless, exact=True, quality=80)
        yield Entry(f"webp_{name}_{kind}.webp", plain, read_webp(plain))
        profile = _pillow(image, format="WEBP", lossless=lossless, exact=True, quality=80, icc_profile=_profile())
        yield Entry(f"webp_{name}_{kind}_profile.webp", profile, read_webp(plain))
        for turn, (blocks, orientation) in exif_variants().items():
            if len(blocks) == 1 and blocks[0] and (name == "rgb" or turn == "short_le_6"):
                made = _pillow(image, format="WEBP", lossless=lossless, exact=True, quality=80, exif=blocks[0])
                prefixed = _pillow(
                    image, format="WEBP", lossless=lossless, exact=True, quality=80, exif=b"Exif\0\0" + blocks[0]
                )
                expected = upright(read_webp(plain), orientation)
                yield Entry(f"webp_{name}_{kind}_{turn}.webp", made, expected)
                yield Entry(f"webp_{name}_{kind}_{turn}_prefixed.webp", prefixed, expected)

    frame = _pillow(Image.fromarray(rgb[:20, :30].copy()), format="WEBP", lossless=True)
    for count in (1, 2):
        content = animated(frame, 10, 14, count)
        yield Entry(f"webp_animated_{count}.webp", content, luma(np.asarray(_open(content).convert("RGBA"))))


def animated(frame: bytes, left: int, top: int, count: int) -> bytes:
    """An animation of `count` equal frames of 30 x 20 pixels, smaller than the canvas."""
    sides = b"".join(side.to_bytes(3, "little") for side in (left // 2, top // 2, 29, 19, 100))
    part = sides + b"\0" + frame[12:]
    canvas = (SIDE - 1).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes([2, 0, 0, 0]) + canvas + b"ANIM" + struct.pack("<I", 6)
    body += bytes(6) + (b"ANMF" + struct.pack("<I", len(part)) + part) * count
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _jpeg2000s() -> Iterator[Entry]:
    for name, content in _jpeg2000_kinds():
        yield Entry(f"jp2_{name}", content, read_jpeg2000(content))
    rgb, grey = colours(), grey_slice()
    stored = _jpeg2000(rgb, 0, codecformat="jp2", reversible=True)
    alone = _jpeg2000(grey, 0, codecformat="jp2", reversible=True)
    yield Entry("jp2_sycc.jp2", in_colour_space(stored, 18), rgb[..., 0].astype(float64))
    for space in (16, 17, 18):
        yield Entry(f"jp2_grey_space_{space}.jp2", in_colour_space(alone, space), grey.astype(float64))
    swapped = with_channels(stored, ((0, 0, 3), (1, 0, 2), (2, 0, 1)))
    yield Entry("jp2_blue_first.jp2", swapped, luma(rgb[..., ::-1]))


def in_colour_space(jp2: bytes, space: int) -> bytes:
    """The JP2 file with another enumerated colour space."""
    return patched(jp2, jp2.index(b"colr") + 7, struct.pack(">I", space))


def with_channels(jp2: bytes, channels: Sequence[tuple[int, int, int]]) -> bytes:
    """The JP2 file with a definition of its channels: (channel, 0 for colour and 1 for opacity, number of the colour)."""
    packed = struct.pack(">H", len(channels)) + b"".join(struct.pack(">HHH", *one) for one in channels)
    box = struct.pack(">I4s", 8 + len(packed), b"cdef") + packed
    head = jp2.index(b"jp2h") - 4
    (length,) = struct.unpack_from(">I", jp2, head)
    made = jp2[: head + length] + box + jp2[head + length :]
    return patched(made, head, struct.pack(">I", length + len(box)))


def refused() -> dict[str, bytes]:
    """Whole files whose pixels no decoder here gives right: they must be `unsupported`, never `ok`."""
    rgb, grey = colours(), grey_slice()
    colour = _jpeg2000(np.dstack([rgb, grey]), 0, codecformat="jp2", reversible=True)
    wide = _jpeg2000(rgb.astype(np.uint16), 0, codecformat="jp2", reversible=True, bitspersample=16)
    signed = _jpeg2000(grey.astype(np.int16), 0, codecformat="jp2", reversible=True)
    lzw = tiff_of(grey, compression="lzw")
    return {
        "jp2_alpha_first.jp2": with_channels(colour, ((0, 1, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3))),
        "jp2_cmyk.jp2": in_colour_space(colour, 12),
        "jp2_lab.jp2": in_colour_space(colour, 14),
        "jp2_colour_in_grey.jp2": in_colour_space(colour, 17),
        "jp2_sycc_of_16_bits.jp2": in_colour_space(wide, 18),
        "jp2_signed.jp2": signed,
        "jp2_two_channels.jp2": _pillow(Image.fromarray(np.dstack([grey, grey])), format="JPEG2000"),
        "tiff_ycbcr.tif": with_tag(tiff_of(rgb), 262, 6),
        "tiff_lab.tif": with_tag(tiff_of(rgb), 262, 8),
        "tiff_multi_ink.tif": with_tag(tiff_of(np.dstack([rgb, grey]), photometric="separated"), 332, 2),
        "tiff_signed_white.tif": with_tag(tiff_of(grey.astype(np.int16), photometric="minisblack"), 262, 0),
        "tiff_predictor.tif": with_tag(lzw, 317, 9),
        "bmp_split_mask.bmp": _bmp(
            _info(32, 3),
            [row.tobytes() for row in np.dstack([rgb, grey])],
            struct.pack("<3I", 0xFF00FF, 0xFF00, 0xFF000000),
        ),
    }


def _jpeg2000_kinds() -> Iterator[tuple[str, bytes]]:
    rgb, grey = colours(), grey_slice()
    rgba = np.dstack([rgb, grey])
    for bits, level, (name, pixels) in product(
        (8, 10, 12, 16), (0, 90), (("grey", grey), ("rgb", rgb), ("rgba", rgba))
    ):
        stored = pixels if bits == 8 else pixels.astype(np.uint16) << (bits - 8)
        for form, mct in product(("jp2", "j2k"), (True, False)):
            options: dict[str, Any] = {"codecformat": form, "bitspersample": bits, "reversible": not level, "mct": mct}
            kind = f"{'lossy' if level else 'reversible'}{'' if mct else '_no_mct'}"
            yield f"{name}{bits}_{kind}.{form}", _jpeg2000(stored, level, **options)
    variants: dict[str, dict[str, Any]] = {
        "tiles": {"tile_size": (32, 32)},
        "precincts": {"precinct_size": (32, 32), "codeblock_size": (16, 16), "progression": "RPCL"},
        "layers": {"quality_mode": "rates", "quality_layers": (20, 8, 1), "irreversible": True},
    }
    variants |= {order: {"progression": order} for order in ("LRCP", "RLCP", "RPCL", "PCRL", "CPRL")}
    for (kind, options), (mode, pixels) in product(variants.items(), (("L", grey), ("RGB", rgb))):
        image = Image.fromarray(pixels)
        yield f"{kind}_{mode}.jp2", _pillow(image, format="JPEG2000", **options)
        yield f"{kind}_{mode}.j2k", _pillow(image, format="JPEG2000", no_jp2=True, **options)
