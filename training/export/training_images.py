"""Adds what it should know of its training images to a bundle of before that was written: `python -m` with `--help`.

    python -m mribatch.training.export.training_images models/cnn DATA --groups groups.csv

These are their hashes and statistics. The images and their division are read again and must have the hashes that
bundle.json records; else nothing is written. model.onnx and golden.npz stay as they are; bundle.json gains two keys,
and its own hash changes.
"""

import argparse
import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mribatch.core.bundle import SPEC_FILE, TRAINING_IMAGES_FILE, TRAINING_LOOK_FILE, load_bundle
from mribatch.core.errors import MribatchError
from mribatch.core.files import publishing, write_json
from mribatch.core.training_images import TrainingImages
from mribatch.core.training_look import TrainingLook
from mribatch.training.data.classes import ClassList
from mribatch.training.data.images import load
from mribatch.training.data.protocols import divide
from mribatch.training.data.split import PARTS, group, read_groups
from mribatch.training.data.split_names import HOLDOUT

_FIX = "give the folder and the groups table that the model was trained with"


@dataclass(frozen=True)
class KnownImages:
    """What a bundle knows of its training images. look: None where they are too few."""

    hashes: TrainingImages
    look: TrainingLook | None = None


def find_training_images(bundle: Path, data: Path, groups: Path | None) -> KnownImages:
    """Hash and describe the images that a shipped model was fitted on, or whose epoch was chosen by them.

    Raises:
        MribatchError: The images or their division are not those that bundle.json records.
    """
    spec = load_bundle(str(bundle)).spec
    fit: dict[str, Any] = dict(spec.training["fit"])
    images = load(data, ClassList(spec.classes, dict(spec.aliases)), spec.height)
    if images.fingerprint != fit["data_sha256"]:
        raise MribatchError(f"{data} does not hold the images that '{spec.name}' was trained on", _FIX)
    grouping = group(images.paths, images.content_sha256, None if groups is None else read_groups(groups), data)
    used = np.ones(len(images.paths), np.bool_)
    if "folds" not in spec.training:  # else the final fit used all images
        parts = divide(HOLDOUT, images, grouping, spec.training["split_seed"], chooses=True).parts
        if sha256(parts.astype("<i8").tobytes()).hexdigest() != fit["parts_sha256"]:
            raise MribatchError(f"the division into parts is not the one that '{spec.name}' was trained with", _FIX)
        used = np.not_equal(parts, PARTS.index("test"))
    pixels = images.pixels[used]
    sizes = [size for size, chosen in zip(images.stored_sizes, used, strict=True) if chosen]
    return KnownImages(TrainingImages.of_pixels(pixels), TrainingLook.of_images(pixels, sizes, grouping.units[used]))


def add_training_images(bundle: Path, known: KnownImages) -> None:
    """Write training_images.npz and training_look.npz, then bundle.json with their hashes."""
    contents = {TRAINING_IMAGES_FILE: known.hashes.to_bytes()}
    if known.look is not None:
        contents[TRAINING_LOOK_FILE] = known.look.to_bytes()
    keys = {}
    for name, packed in contents.items():
        with publishing(bundle / name) as temporary:
            temporary.write_bytes(packed)
        keys[f"{Path(name).stem}_sha256"] = sha256(packed).hexdigest()
    added: dict[str, Any] = {}
    for key, value in json.loads((bundle / SPEC_FILE).read_bytes()).items():
        added[key] = value
        if key == "golden_sha256":  # beside the other hashes, as `ModelSpec.to_json` has it
            added |= keys
    write_json(bundle / SPEC_FILE, added | keys)
    load_bundle(str(bundle))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Add hashes and statistics of its training images to a bundle.")
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("data", type=Path, help="folder of the images that it was trained on")
    parser.add_argument("--groups", type=Path, help="groups table that it was trained with")
    given = parser.parse_args()
    found = find_training_images(given.bundle, given.data, given.groups)
    add_training_images(given.bundle, found)
    print(f"{len(found.hashes):,} hashes of training images are now in {given.bundle}")
    if found.look is not None:
        print(f"{found.look.false_alarms:.2%} of {found.look.images:,} training images look unlike the others")
