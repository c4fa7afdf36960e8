"""fits.json: networks that were fitted outside mribatch, and what their maker says about each fit."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from mribatch.core.errors import MribatchError
from mribatch.core.typed_json import read_record

FITS_FILE = "fits.json"
_FIX = "docs/how-to/train-your-own.md says what --fitted needs"


@dataclass(frozen=True, kw_only=True)
class OutsideEpoch:
    """One epoch as its maker measured it on the training images."""

    epoch: int  # from 1
    loss: float  # mean cross-entropy, nats
    accuracy: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class OutsideFit:
    """One fit; the last epoch of its history is the one that was kept."""

    file: str  # of the weights, in the same folder: .keras, or .npz with arrays "LAYER/POSITION"
    sha256: str  # of that file
    held_out: tuple[str, ...]  # paths of the images that it did not learn from, relative to the data folder
    history: tuple[OutsideEpoch, ...]


@dataclass(frozen=True, kw_only=True)
class OutsideFits:
    """The content of fits.json."""

    made_by: str  # libraries and precision, for people; ends "fitted with …"
    notes: tuple[str, ...] = ()  # where the fits depart from the recipe; whole sentences, quoted in the model card
    versions: Mapping[str, str] = field(default_factory=dict)  # library -> version
    fits: Mapping[str, OutsideFit]  # "fold-1", "fold-2", … "all" for a split in folds; "split" for any other


@dataclass(frozen=True)
class OutsideFolder:
    """A folder with fits.json that was read."""

    folder: Path
    content: OutsideFits
    sha256: str  # of fits.json, which holds the hashes of all weights

    def find(self, name: str) -> OutsideFit:
        """Return the fit of that name.

        Raises:
            MribatchError: There is none.
        """
        if name not in self.content.fits:
            there = ", ".join(self.content.fits) or "none"
            raise MribatchError(f"{self.folder / FITS_FILE} has no fit '{name}'; it has: {there}", _FIX)
        return self.content.fits[name]


def read_outside_fits(folder: Path) -> OutsideFolder:
    """Read fits.json.

    Raises:
        MribatchError: It is missing, or a field is missing or of the wrong type; names it.
    """
    path = folder / FITS_FILE
    try:
        text = path.read_bytes()
        content = read_record(OutsideFits, json.loads(text))
        if not all(fit.history for fit in content.fits.values()):
            raise ValueError("a fit has no history")
    except OSError as error:
        raise MribatchError(f"cannot read {path}: {error.strerror or error}", _FIX) from error
    except (ValueError, RecursionError) as error:
        raise MribatchError(f"{path} does not describe fits: {error}", _FIX) from error
    return OutsideFolder(folder, content, sha256(text).hexdigest())
