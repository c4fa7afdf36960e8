"""Adds the hashes of its training images to a bundle of before they were written: `python -m` with `--help`.

    python -m mribatch.training.export.training_images models/cnn DATA --groups groups.csv

The images and their division are read again and must have the hashes that bundle.json records; else nothing is written.
model.onnx and golden.npz stay as they are; bundle.json gains one key, and its own hash changes.
"""

import argparse
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mribatch.core.bundle import SPEC_FILE, TRAINING_IMAGES_FILE, load_bundle
from mribatch.core.errors import MribatchError
from mribatch.core.files import publishing, write_json
from mribatch.core.training_images import TrainingImages
from mribatch.training.data.classes import ClassList
from mribatch.training.data.images import load
from mribatch.training.data.protocols import divide
from mribatch.training.data.split import PARTS, group, read_groups
from mribatch.training.data.split_names import HOLDOUT

_FIX = "give the folder and the groups table that the model was trained with"


def find_training_images(bundle: Path, data: Path, groups: Path | None) -> TrainingImages:
    """Hash the images that a shipped model was fitted on, or whose epoch was chosen by them.

    Raises:
        MribatchError: The images or their division are not those that bundle.json records.
    """
    spec = load_bundle(str(bundle)).spec
    fit: dict[str, Any] = dict(spec.training["fit"])
    images = load(data, ClassList(spec.classes, dict(spec.aliases)), spec.height)
    if images.fingerprint != fit["data_sha256"]:
        raise MribatchError(f"{data} does not hold the images that '{spec.name}' was trained on", _FIX)
    if "folds" in spec.training:  # the final fit used all images
        return TrainingImages.of_pixels(images.pixels)
    table = None if groups is None else read_groups(groups)
    grouping = group(images.paths, images.content_sha256, table, data)
    parts = divide(HOLDOUT, images, grouping, spec.training["split_seed"], chooses=True).parts
    if sha256(parts.astype("<i8").tobytes()).hexdigest() != fit["parts_sha256"]:
        raise MribatchError(f"the division into parts is not the one that '{spec.name}' was trained with", _FIX)
    return TrainingImages.of_pixels(images.pixels[np.not_equal(parts, PARTS.index("test"))])


def add_training_images(bundle: Path, known: TrainingImages) -> None:
    """Write training_images.npz, then bundle.json with its hash."""
    content = json.loads((bundle / SPEC_FILE).read_bytes())
    with publishing(bundle / TRAINING_IMAGES_FILE) as temporary:
        temporary.write_bytes(known.to_bytes())
    added = {}
    for key, value in content.items():  # beside the other hashes, as `ModelSpec.to_json` has it
        added[key] = value
        if key == "golden_sha256":
            added["training_images_sha256"] = sha256(known.to_bytes()).hexdigest()
    write_json(bundle / SPEC_FILE, added)
    load_bundle(str(bundle))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Add the hashes of its training images to a bundle.")
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("data", type=Path, help="folder of the images that it was trained on")
    parser.add_argument("--groups", type=Path, help="groups table that it was trained with")
    given = parser.parse_args()
    found = find_training_images(given.bundle, given.data, given.groups)
    add_training_images(given.bundle, found)
    print(f"{len(found):,} hashes of training images are now in {given.bundle}")
