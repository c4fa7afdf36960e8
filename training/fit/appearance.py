"""Random changes to how a slice looks: what scanners, exports and web pages do to a picture.

Each function takes a slice, uint8 (height, width), and random numbers, and returns a new slice of the same shape; sizes
are shares of the side, so that slices of two sizes are changed alike by the same numbers. `SharedChange` says which
share of an `Augmentation` switches each on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import float32, uint8
from numpy.random import Generator
from numpy.typing import NDArray

from mribatch.training.recipes.augmentation import Augmentation

Slice = NDArray[uint8]  # (height, width)

_AIR = 8  # grey levels below are background, whose level stays
_FEWEST_PIXELS = 100  # above _AIR, for a distribution of grey levels
_SIDE = 160  # pixels; blurs are given for slices of this size


@dataclass(frozen=True)
class SharedChange:
    """A change that a share of the slices gets.

    number: Of its random numbers, so that switching one change on or off leaves the others as they were.
    share: The field of `Augmentation`.
    """

    number: int
    share: str
    change: Callable[[Slice, Generator, Augmentation], Slice]


def coarsen(image: Slice, random: Generator, _: Augmentation) -> Slice:
    """Sample down to 40 to 85 % of the size and up again."""
    import cv2

    height, width = image.shape
    factor, how = random.uniform(0.4, 0.85), (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[random.integers(2)]
    small = cv2.resize(image, (max(8, int(width * factor)), max(8, int(height * factor))), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=how), uint8)


def add_border(image: Slice, random: Generator, _: Augmentation) -> Slice:
    """Paint a frame in one colour on some sides, up to 6 % of the side wide."""
    framed, colour = image.copy(), draw_colour(random)
    for sides in (framed, framed[::-1], framed.T, framed.T[::-1]):
        painted, width = random.random() < 0.6, random.uniform(0, 0.06)
        if painted:
            sides[: max(1, round(width * len(sides)))] = colour
    return framed


def blur_or_sharpen(image: Slice, random: Generator, _: Augmentation) -> Slice:
    """Blur by a Gaussian of 0.5 to 1.3 pixels at 160 px, or in 3 of 10 cases sharpen by an unsharp mask."""
    import cv2

    sharpened, sigma, unit = random.random() < 0.3, random.uniform(0.5, 1.3), max(image.shape) / _SIDE
    if sharpened:
        return np.asarray(cv2.addWeighted(image, 1.7, cv2.GaussianBlur(image, (0, 0), 1.2 * unit), -0.7, 0), uint8)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma * unit), uint8)


def add_bias_field(image: Slice, random: Generator, augmentation: Augmentation) -> Slice:
    """Multiply by a smooth field: the exponential of a cubic surface through 3 x 3 random heights."""
    import cv2

    heights = random.uniform(-1, 1, (3, 3)).astype(float32) * float32(augmentation.bias_field)
    field = cv2.resize(heights, image.shape[::-1], interpolation=cv2.INTER_CUBIC)
    return _round(image * np.exp(field))


def add_noise(image: Slice, random: Generator, augmentation: Augmentation) -> Slice:
    """Add Gaussian noise of up to `noise` grey levels, in 3 of 10 cases correlated between neighbours."""
    import cv2

    level, correlated = random.uniform(0, augmentation.noise), random.random() < 0.3
    noise = random.standard_normal(image.shape, dtype=float32) * float32(level)
    if correlated:
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), 0.8), float32) * 2
    return _round(image + noise)


def compress(image: Slice, random: Generator, _: Augmentation) -> Slice:
    """Encode and decode as JPEG of quality 25 to 84."""
    import cv2

    quality = int(random.integers(25, 85))
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), uint8)


def cut_out(image: Slice, random: Generator, _: Augmentation) -> Slice:
    """Paint a rectangle of 8 to 25 % of each side in one grey level."""
    height, width = image.shape
    down, across, top, left = random.uniform(size=4)
    rows, columns = max(1, int((0.08 + 0.17 * down) * height)), max(1, int((0.08 + 0.17 * across) * width))
    row, column = int(top * (height - rows)), int(left * (width - columns))
    cut = image.copy()
    cut[row : row + rows, column : column + columns] = random.integers(256)
    return cut


def match_levels(image: Slice, random: Generator, other: Slice) -> Slice:
    """Move the grey levels 30 to 100 % of the way to the distribution of another slice's; air stays."""
    share = random.uniform(0.3, 1)
    own, wanted = (each[each >= _AIR] for each in (image, other))
    if min(len(own), len(wanted)) < _FEWEST_PIXELS:
        return image
    levels = np.arange(256)
    matched = np.interp(_accumulate(own), _accumulate(wanted), levels)
    table = (1 - share) * levels + share * matched
    table[:_AIR] = levels[:_AIR]
    return _round(table)[image]


def draw_colour(random: Generator) -> int:
    """Draw black, white or any grey level, each as often."""
    return (0, 255, int(random.integers(256)))[random.integers(3)]


BEFORE_MOVING = (SharedChange(1, "coarse_share", coarsen), SharedChange(2, "border_share", add_border))
AFTER_TONES = (
    SharedChange(3, "blur_share", blur_or_sharpen),
    SharedChange(4, "bias_field_share", add_bias_field),
    SharedChange(5, "noise_share", add_noise),
    SharedChange(6, "jpeg_share", compress),
    SharedChange(7, "cutout_share", cut_out),
)
"""In the order in which they are applied, after the slice was moved and its tones were changed."""
MATCH, FILL, SHAPE, GAMMA = 8, 9, 10, 11  # numbers of the random numbers of other changes


def _accumulate(levels: NDArray[uint8]) -> NDArray[np.float64]:
    return np.cumsum(np.bincount(levels, minlength=256)) / len(levels)


def _round(values: NDArray[np.floating]) -> NDArray[uint8]:
    rounded: NDArray[uint8] = np.rint(values.clip(0, 255)).astype(uint8)
    return rounded
