"""How values of interest become grey, as a header says: a window or a lookup table, and which windows can be believed.

The functions are those of DICOM PS3.3, C.11.2 (VOI LUT Module); NIfTI has nothing of the kind.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

_LEVELS = 16  # grey levels that a window must be able to give


class VoiFunction(StrEnum):
    """VOI LUT Function (0028,1056), PS3.3 C.11.2.1.3."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True, slots=True)
class VoiWindow:
    """Window centre and width, in the units of the values after the Modality LUT."""

    center: float
    width: float
    function: VoiFunction = VoiFunction.LINEAR


@dataclass(frozen=True, slots=True)
class Lut:
    """A lookup table; values outside take its first or last entry (PS3.3 C.11.1.1.1 and C.11.2.1.1).

    entries: native uint16, one after the other, at least one.
    """

    first: int  # the value that takes the first entry
    bits: int  # of an entry, 8 to 16
    entries: bytes

    def __len__(self) -> int:
        return len(self.entries) // 2


@dataclass(frozen=True, slots=True)
class Rescale:
    """Rescale slope and intercept: value = slope * stored + intercept (PS3.3 C.11.1.1.2)."""

    slope: float = 1.0
    intercept: float = 0.0


Voi: TypeAlias = VoiWindow | Lut
ModalityLut: TypeAlias = Rescale | Lut


def is_sane(window: VoiWindow, low: float, high: float, step: float) -> bool:
    """Whether a window can show the values that the stored bits can hold.

    The rule: its numbers are finite; its width is at least 1 (LINEAR) or above 0 (PS3.3 C.11.2.1.2, C.11.2.1.3); and
    the values that the stored bits can hold give at least 16 grey levels through it, or as many as there are values.
    A window that lies beside all values, a width of 1 on 12 bits, or one a hundred times wider than the values is a
    placeholder, or was meant for other units.

    Args:
        window: As the header gives it.
        low: Smallest value that the stored bits can hold, after the Modality LUT.
        high: Largest such value.
        step: Distance of two neighbouring values, above 0.
    """
    if not (math.isfinite(window.center) and math.isfinite(window.width)) or window.width <= 0:
        return False
    if window.function is VoiFunction.LINEAR and window.width < 1:
        return False
    overlap = min(high, window.center + window.width / 2) - max(low, window.center - window.width / 2)
    levels = min(overlap / window.width * 255, overlap / step) + 1
    return levels >= min(_LEVELS, (high - low) / step + 1)
