"""The pixels of a BMP, read here since OpenCV ignores colour masks and darkens 16-bit pixels."""

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.pipeline.decode.formats.bmp import BmpLayout, layout
from mribatch.pipeline.decode.formats.container import damaged
from mribatch.pipeline.decode.pixel_rule import luma, luma_of_table

_ROWS_AT_ONCE = 1 << 20  # pixels; bounds the memory


def decode_bmp(content: bytes) -> NDArray[uint8]:
    """Decode a BMP.

    Args:
        content: A whole BMP that `probe` called ok.

    Returns:
        uint8 (height, width), grey.

    Raises:
        Refused: A pixel has a colour that the palette lacks.
    """
    found = layout(content)
    rows = np.frombuffer(content, uint8, found.height * found.row_bytes, found.offset)
    rows = rows.reshape(found.height, found.row_bytes)
    if not found.top_down:
        rows = rows[::-1]
    if found.depth <= 8:
        return _by_palette(rows, found, content)
    grey = np.empty((found.height, found.width), uint8)
    step = max(1, _ROWS_AT_ONCE // found.width)
    for start in range(0, found.height, step):
        grey[start : start + step] = luma(_colours(rows[start : start + step], found))
    return grey


def _by_palette(rows: NDArray[uint8], found: BmpLayout, content: bytes) -> NDArray[uint8]:
    entries = np.frombuffer(content, uint8, found.colours * found.palette_entry, found.palette_at)
    table = luma_of_table(entries.reshape(-1, found.palette_entry)[:, 2::-1])  # stored blue, green, red
    if found.depth < 8:
        bits = np.unpackbits(rows, axis=1).reshape(found.height, -1, found.depth)
        rows = np.right_shift(np.packbits(bits, axis=2)[..., 0], np.uint8(8 - found.depth))
    indices = rows[:, : found.width]
    largest = int(indices.max())
    if largest >= len(table):
        raise damaged(f"The BMP has a pixel of colour {largest} in a palette of {len(table):,} colours.")
    return np.ascontiguousarray(table[indices])


def _colours(rows: NDArray[uint8], found: BmpLayout) -> NDArray[uint8]:
    """Red, green and blue of some rows, uint8 (rows, width, 3)."""
    size = found.depth // 8
    stored = rows[:, : found.width * size].reshape(len(rows), found.width, size)
    if found.masks == (0xFF0000, 0xFF00, 0xFF) and size >= 3:
        return stored[..., 2::-1]
    numbers = np.ascontiguousarray(stored).view(f"<u{size}")[..., 0].astype(np.uint32)
    return np.stack([_channel(numbers, mask) for mask in found.masks], axis=-1)


def _channel(numbers: NDArray[np.uint32], mask: int) -> NDArray[uint8]:
    """One colour, its largest value being 255."""
    if not mask:
        return np.zeros(numbers.shape, uint8)
    lowest = mask & -mask
    values = (numbers & np.uint32(mask)) // np.uint32(lowest)
    spread: NDArray[uint8] = np.rint(values * (255 / (mask // lowest))).astype(uint8)
    return spread
