"""Drawings that stand in for brain MRI slices wherever real patients' images have no place.

A bundle's golden slices, the demo folder, the benchmarks and the tests are made of these. They show an axial head as
a child's drawing would: a skull ring, tissue, two ventricles and perhaps a lesion. They carry no medical meaning.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy import float32, uint8, uint16
from numpy.typing import NDArray

_Grid = NDArray[float32]
_SKIN, _FLUID = 0.035, 0.03  # thickness in half image sides


def draw_slice(seed: int, height: int, width: int, lesion: bool | None = None) -> NDArray[uint8]:
    """Draw one synthetic axial slice.

    The same arguments give the same pixels on every machine: the random bits come from PCG64 and only IEEE 754 basic
    operations and square roots follow, which are rounded the same everywhere; no BLAS, no transcendental function.

    Args:
        seed: Chooses shape, position, contrast, tissue, lesion and noise; 0 or more.
        height, width: In pixels, each at least 8.
        lesion: Draw a lesion or none, all else being the same; None lets the seed choose, with even odds.

    Returns:
        uint8, shape (height, width), grey 0..255.

    Raises:
        ValueError: A side is under 8 pixels or the seed is negative.
    """
    return np.asarray(np.clip(np.rint(_draw_section(seed, height, width, lesion, 1)), 0, 255), dtype=uint8)


def draw_volume(seed: int, slices: int, height: int, width: int, lesion: bool = True) -> NDArray[uint16]:
    """Draw the axial slices of one synthetic head, from the neck's side to the top; the first and the last are empty.

    Args:
        seed: As for `draw_slice`, whose head it is: the middle slice shows it in full size.
        slices: Number of slices, at least 3.
        height, width: In pixels, each at least 8.
        lesion: Draw a lesion through the slices of one half of the head, or none.

    Returns:
        uint16, shape (slices, height, width), 0..4095: 12 bits, as scanners store them.

    Raises:
        ValueError: There are fewer than 3 slices, a side is under 8 pixels or the seed is negative.
    """
    if slices < 3:
        raise ValueError(f"{slices} slices are not a volume")
    volume = np.zeros((slices, height, width), uint16)
    for position in range(1, slices - 1):
        level = (position / (slices - 1)) * 2 - 1  # -1 and 1 are the empty ends
        shows_lesion = lesion and -0.1 < level < 0.7
        section = _draw_section(seed, height, width, shows_lesion, float(np.sqrt(1 - level * level)))
        volume[position] = np.clip(np.rint(section * 15), 0, 4095)
    return volume


def _draw_section(seed: int, height: int, width: int, lesion: bool | None, scale: float) -> _Grid:
    """The brightness of one slice, before it is rounded; the head's outline is scaled, 1 being its full size."""
    if min(height, width) < 8:
        raise ValueError(f"a slice of {height}x{width} pixels is smaller than 8x8")
    random = np.random.Generator(np.random.PCG64(seed))
    head = _Head.draw(random).scaled(scale)
    rows, columns = _centres(height) * 2 - 1, _centres(width) * 2 - 1
    edge = 2.5 / min(height, width)  # outlines are softened over about this distance
    across = (columns[None, :] - head.column) * head.cosine + (rows[:, None] - head.row) * head.sine
    along = (rows[:, None] - head.row) * head.cosine - (columns[None, :] - head.column) * head.sine
    image = _anatomy(head, across, along, edge, _texture(random, height, width))
    shading, noise = _shading(random, rows, columns), _noise(random, height, width)
    by_chance = bool(random.integers(2))  # the lesion comes last: with and without it, all else is the same
    if by_chance if lesion is None else lesion:
        image = _with_lesion(image, head, across, along, edge, random)
    image *= shading
    image += noise
    return image


def golden_slices(count: int = 64, height: int = 160, width: int = 160) -> NDArray[uint8]:
    """The slices of seeds 0..count-1, as a bundle keeps them.

    Returns:
        uint8, shape (count, height, width, 1).
    """
    return np.stack([draw_slice(seed, height, width) for seed in range(count)])[..., None]


@dataclass(frozen=True)
class _Head:
    """What the seed decides about the head. Lengths are in half image sides, brightness in grey levels."""

    row: float
    column: float
    half_length: float
    half_width: float
    cosine: float
    sine: float
    skull: float  # thickness
    skull_level: float
    tissue_level: float
    texture_depth: float
    ventricle_level: float
    ventricle_length: float
    ventricle_width: float
    ventricle_gap: float

    @classmethod
    def draw(cls, random: np.random.Generator) -> "_Head":
        slope = _between(random, -0.09, 0.09)  # half the tangent of the tilt: sine and cosine without libm
        level = _between(random, 75, 150)
        return cls(
            row=_between(random, -0.06, 0.06),
            column=_between(random, -0.06, 0.06),
            half_length=_between(random, 0.74, 0.92),
            half_width=_between(random, 0.58, 0.76),
            cosine=(1 - slope * slope) / (1 + slope * slope),
            sine=2 * slope / (1 + slope * slope),
            skull=_between(random, 0.05, 0.10),
            skull_level=_between(random, 180, 240),
            tissue_level=level,
            texture_depth=_between(random, 14, 30),
            ventricle_level=level * (_between(random, 0.2, 0.5) if random.random() < 0.7 else 1.55),
            ventricle_length=_between(random, 0.20, 0.34),
            ventricle_width=_between(random, 0.06, 0.13),
            ventricle_gap=_between(random, 0.10, 0.16),
        )

    def scaled(self, scale: float) -> "_Head":
        """The same head cut nearer to its top or base: outline and ventricles are smaller, the skull is as thick."""
        return replace(
            self,
            half_length=self.half_length * scale,
            half_width=self.half_width * scale,
            ventricle_length=self.ventricle_length * scale,
            ventricle_width=self.ventricle_width * scale,
        )


def _between(random: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(random.random())


def _depth(across: _Grid, along: _Grid, half_width: float, half_length: float) -> _Grid:
    """About how far inside an ellipse each pixel lies, negative outside."""
    x, y = across * (1 / half_width), along * (1 / half_length)
    depth: _Grid = (1 - np.sqrt(x * x + y * y)) * min(half_width, half_length)
    return depth


def _step(depth: _Grid, edge: float) -> _Grid:
    """1 inside, 0 outside, a ramp of the width `edge` between."""
    ramp = depth * (1 / edge)
    ramp += 0.5
    np.maximum(ramp, 0, out=ramp)
    np.minimum(ramp, 1, out=ramp)
    return ramp


def _ellipse(across: _Grid, along: _Grid, half_width: float, half_length: float, edge: float) -> _Grid:
    return _step(_depth(across, along, half_width, half_length), edge)


def _anatomy(head: _Head, across: _Grid, along: _Grid, edge: float, texture: _Grid) -> _Grid:
    depth = _depth(across, along, head.half_width, head.half_length)
    brain_depth = head.skull + _SKIN + _FLUID
    brain = _step(depth - brain_depth, edge)
    image = _step(depth, edge) * 70
    image += _step(depth - _SKIN, edge) * (head.skull_level - 70)
    image += _step(depth - (_SKIN + head.skull), edge) * (22 - head.skull_level)
    image += brain * (head.tissue_level * 0.86 - 22 + head.texture_depth * texture)
    image += _step(depth - (brain_depth + 0.075) - 0.07 * texture, 3 * edge) * (
        head.tissue_level * 0.14
    )  # white matter
    fissure = np.clip(1 - np.abs(across) / (1.2 * edge), 0, 1) * brain
    image -= fissure * head.tissue_level * 0.35
    for side in (-1, 1):  # two bows that open away from the middle line
        bent = across - side * (head.ventricle_gap + 0.9 * along * along)
        ventricle = _ellipse(bent, along, head.ventricle_width, head.ventricle_length, edge)
        image += ventricle * (head.ventricle_level - image)
    return image


def _with_lesion(
    image: _Grid, head: _Head, across: _Grid, along: _Grid, edge: float, random: np.random.Generator
) -> _Grid:
    side = 1 if random.random() < 0.5 else -1
    brain_half_width = head.half_width - head.skull - _SKIN - _FLUID
    size = brain_half_width * _between(random, 0.14, 0.36)
    from_middle = side * brain_half_width * _between(random, 0.30, 0.52)
    from_centre = head.half_length * _between(random, -0.42, 0.42)
    x, y = across - from_middle, along - from_centre
    stretch, level = _between(random, 0.7, 1.3), _between(random, 195, 250)
    image = image * (1 - 0.4 * _ellipse(x, y, size * 1.7 * stretch, size * 1.7, 8 * edge))  # a dark, soft surround
    body = _ellipse(x, y, size * stretch, size, 1.5 * edge)
    image += body * (level - image)
    if random.random() < 0.4:  # a dark core
        image -= _ellipse(x, y, size * stretch * 0.5, size * 0.5, 2 * edge) * level * 0.55
    return image


def _texture(random: np.random.Generator, height: int, width: int) -> _Grid:
    """Smooth random field of about -1..1: two coarse random grids, enlarged by interpolation."""
    field = np.zeros((height, width), dtype=float32)
    for cells, weight in ((5, 0.6), (14, 0.4)):
        grid = random.random((cells + 1, cells + 1), dtype=float32) * (2 * weight) - weight
        field += _enlarged(grid, height, width)
    return field


def _enlarged(grid: _Grid, height: int, width: int) -> _Grid:
    upper, down = _positions(height, len(grid) - 1)
    left, right = _positions(width, grid.shape[1] - 1)
    rows = grid[upper] + (grid[upper + 1] - grid[upper]) * down[:, None]
    enlarged: _Grid = rows[:, left] + (rows[:, left + 1] - rows[:, left]) * right
    return enlarged


def _positions(pixels: int, cells: int) -> tuple[NDArray[np.intp], _Grid]:
    """For every pixel the cell it lies in and how far into it, eased by 3t²-2t³."""
    place = _centres(pixels) * cells
    cell = place.astype(np.intp)
    into = place - cell
    return cell, into * into * (3 - 2 * into)


def _centres(pixels: int) -> _Grid:
    """The middle of each pixel on a side of length 1."""
    return np.asarray((np.arange(pixels) + 0.5) / pixels, dtype=float32)


def _shading(random: np.random.Generator, rows: _Grid, columns: _Grid) -> _Grid:
    """The slow brightness change that a receive coil leaves across an image, as a factor."""
    down, right = _between(random, -0.12, 0.12), _between(random, -0.12, 0.12)
    return 1 + down * rows[:, None] + right * columns[None, :]


def _noise(random: np.random.Generator, height: int, width: int) -> _Grid:
    """Noise of about normal shape, from sums of four uniform integers: exact on every machine, unlike a logarithm."""
    draws = random.integers(0, 256, (4, height, width), dtype=uint8).sum(axis=0, dtype=np.int32) - 510
    deviation = 148  # of such a sum
    noise: _Grid = draws.astype(float32) * (_between(random, 2.5, 6.0) / deviation)
    return noise
