"""Data sheets: what is known about a data set beyond its files; quoted in the model card."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mribatch.core.errors import MribatchError

_FIX = "give --data-sheet a JSON file with title, source, licence (texts) and limits (a list of texts), or one of: "


@dataclass(frozen=True, kw_only=True)
class DataSheet:
    """For people. `limits` are whole sentences."""

    title: str
    source: str
    licence: str
    limits: tuple[str, ...] = ()


UNKNOWN = DataSheet(
    title="not stated",
    source="not stated (`--data-sheet` was not given)",
    licence="not stated",
    limits=("Nothing is known about how these images were collected; treat every figure with caution.",),
)

BRAIN_TUMOR_CLASSIFICATION_MRI = DataSheet(
    title="Brain Tumor Classification (MRI), Bhuvaji et al. 2020",
    source="Kaggle, sartajbhuvaji/brain-tumor-classification-mri; its main source is Cheng, figshare 1512427 "
    "(3,064 T1-weighted contrast-enhanced slices)",
    licence="the figshare part is CC BY 4.0; roughly a quarter of the files came from the web with no known licence. "
    "No image of the data set is part of this bundle",
    limits=(
        "no_tumor comes from other sources than the tumours: in the whole set of 3,264 images, size in pixels alone "
        "separates tumour from no tumour 91.2 % of the time (majority class 84.7 %). Specificity, negative predictive "
        "value and every figure of no_tumor measured here have no clinical meaning.",
        "There are no patient identities. Series are runs of neighbouring slices found by similarity; they approximate "
        "one patient in one plane, so slices of one patient may still be on both sides of a split.",
        "At least 20 of the images are CT, not MRI. Some have white borders or crop lines.",
        "Slices are two-dimensional JPEG exports without physical size, sequence or scanner; planes are mixed.",
        "Two groups of near-duplicates carry two different labels.",
    ),
)

DATA_SHEETS: Mapping[str, DataSheet] = {"brain-tumor-classification-mri": BRAIN_TUMOR_CLASSIFICATION_MRI}


def read_data_sheet(name_or_file: str | None) -> DataSheet:
    """Return the data sheet of that name, or read one from a JSON file; UNKNOWN for None.

    Raises:
        MribatchError: There is neither, or the file lacks a field.
    """
    if name_or_file is None:
        return UNKNOWN
    if name_or_file in DATA_SHEETS:
        return DATA_SHEETS[name_or_file]
    fix = _FIX + ", ".join(DATA_SHEETS)
    try:
        content = json.loads(Path(name_or_file).read_text(encoding="utf-8"))
        limits = content.get("limits", [])
        texts = [content["title"], content["source"], content["licence"], *limits]
        if not isinstance(limits, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError("a field is not a text")
    except OSError as error:
        raise MribatchError(f"there is no data sheet '{name_or_file}': {error.strerror or error}", fix) from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise MribatchError(f"{name_or_file} is not a data sheet: {error}", fix) from error
    return DataSheet(title=texts[0], source=texts[1], licence=texts[2], limits=tuple(limits))
