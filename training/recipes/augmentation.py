"""How far training slices may be changed at random; `training/fit/augment.py` applies it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The largest random changes. Every amount is drawn uniformly from -amount to +amount."""

    rotation_degrees: float = 0.0
    shift: float = 0.0  # share of the side; down and across are drawn separately
    zoom: float = 0.0  # share of the size; down and across are drawn separately
    flip: bool = False  # left to right, for half of the slices
    brightness: float = 0.0  # added, as a share of 255
    contrast: float = 0.0  # share of the distance from middle grey

    def is_none(self) -> bool:
        """True if nothing is changed."""
        return self == Augmentation()


REFERENCE = Augmentation(rotation_degrees=7, shift=0.05, zoom=0.10, flip=True)
"""The reference project's, which it built and did not use."""
LIGHT = Augmentation(rotation_degrees=12, shift=0.06, zoom=0.10, flip=True, brightness=0.08, contrast=0.10)
AUGMENTATIONS: Mapping[str, Augmentation] = {"none": Augmentation(), "reference": REFERENCE, "light": LIGHT}
