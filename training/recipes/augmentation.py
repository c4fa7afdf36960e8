"""How far training slices may be changed at random; `training/fit/augment.py` applies it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The largest random changes, and the shares of slices that get the others.

    Amounts are drawn uniformly from -amount to +amount. A share is the probability with which a slice is changed;
    `training/fit/appearance.py` says how. Everything is off at 0.
    """

    rotation_degrees: float = 0.0
    shift: float = 0.0  # share of the side; down and across are drawn separately
    zoom: float = 0.0  # share of the size; down and across are drawn separately
    flip: bool = False  # left to right, for half of the slices
    brightness: float = 0.0  # added, as a share of 255
    contrast: float = 0.0  # share of the distance from middle grey
    scale: float = 0.0  # logarithm of the size, the same down and across
    aspect: float = 0.0  # logarithm of width over height, at the same area
    shear: float = 0.0  # shift across per pixel down
    gamma: float = 0.0  # logarithm of the exponent of grey values from 0 to 1
    bias_field: float = 0.0  # logarithm of a smooth factor, as uneven coils cause
    bias_field_share: float = 0.0
    noise: float = 0.0  # largest standard deviation, grey levels
    noise_share: float = 0.0
    coarse_share: float = 0.0  # sampled down and up again, as coarser scans and thumbnails are
    blur_share: float = 0.0  # blurred, or sharpened
    jpeg_share: float = 0.0  # compressed strongly
    border_share: float = 0.0  # framed in another colour, as figures on the web are
    fill_share: float = 0.0  # what comes in from outside has one colour instead of that of the edge
    match_share: float = 0.0  # grey levels moved towards those of another training slice
    cutout_share: float = 0.0  # a rectangle painted over (DeVries and Taylor 2017, arXiv:1708.04552)

    def is_none(self) -> bool:
        """True if nothing is changed."""
        return self == Augmentation()

    def scaled(self, strength: float) -> Self:
        """Return all amounts and shares times a strength, shares at most 1; nothing is changed at 0."""
        changes: dict[str, float | bool] = {"flip": self.flip and strength > 0}
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, bool):
                changes[field.name] = min(1.0, value * strength) if field.name.endswith("_share") else value * strength
        return replace(self, **changes)  # type: ignore[arg-type]


REFERENCE = Augmentation(rotation_degrees=7, shift=0.05, zoom=0.10, flip=True)
"""The reference project's, which it built and did not use."""
LIGHT = Augmentation(rotation_degrees=12, shift=0.06, zoom=0.10, flip=True, brightness=0.08, contrast=0.10)
GENTLE = Augmentation(
    rotation_degrees=15,
    shift=0.08,
    zoom=0.14,
    flip=True,
    brightness=0.08,
    contrast=0.15,
    gamma=0.25,
    bias_field=0.25,
    bias_field_share=0.3,
    noise=7,
    noise_share=0.2,
    coarse_share=0.15,
    blur_share=0.12,
    jpeg_share=0.10,
    border_share=0.12,
    fill_share=0.25,
)
STYLE = Augmentation(
    rotation_degrees=15,
    shift=0.08,
    flip=True,
    brightness=0.06,
    contrast=0.15,
    scale=0.22,
    aspect=0.14,
    shear=0.04,
    gamma=0.3,
    bias_field=0.3,
    bias_field_share=0.3,
    noise=7,
    noise_share=0.2,
    coarse_share=0.4,
    blur_share=0.12,
    jpeg_share=0.15,
    border_share=0.10,
    fill_share=0.25,
    match_share=0.4,
    cutout_share=0.10,
)
"""What tells sources apart rather than tumours: framing, aspect, sharpness, grey levels and borders."""
AUGMENTATIONS: Mapping[str, Augmentation] = {
    "none": Augmentation(),
    "reference": REFERENCE,
    "light": LIGHT,
    "gentle": GENTLE,
    "style": STYLE,
}
