"""A drawn data set whose faults are known, image by image."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.core.synthetic import draw_slice

GLIOMA, MENINGIOMA, NO_TUMOR, PITUITARY = "glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor"
CLASSES = (GLIOMA, MENINGIOMA, NO_TUMOR, PITUITARY)
OF_A_CLASS = 10
SIZE, OTHER_SIZE = 160, 144  # pixels; healthy slices have the other size: a shortcut


@dataclass(frozen=True)
class Faults:
    """Copy -> what it is a copy of, relative to the folder."""

    same_file: Mapping[str, str]
    same_pixels: Mapping[str, str]
    near: Mapping[str, str]

    @property
    def all(self) -> dict[str, str]:
        return {**self.same_file, **self.same_pixels, **self.near}


FAULTS = Faults(
    same_file={"Testing/glioma_tumor/copy.jpg": "Training/glioma_tumor/slice (0).jpg"},
    same_pixels={"Testing/glioma_tumor/pixels.png": "Training/glioma_tumor/slice (1).jpg"},
    near={
        "Testing/meningioma_tumor/encoded.jpg": "Training/meningioma_tumor/slice (0).jpg",
        "Testing/meningioma_tumor/framed.png": "Training/meningioma_tumor/slice (1).jpg",
        "Testing/pituitary_tumor/brighter.png": "Training/pituitary_tumor/slice (0).jpg",
        "Training/pituitary_tumor/relabelled.png": "Training/glioma_tumor/slice (2).jpg",  # another class
    },
)
LEAKED = {path for path in FAULTS.all if path.startswith("Testing/")}
CONTRADICTORY = {"Training/pituitary_tumor/relabelled.png", "Training/glioma_tumor/slice (2).jpg"}
BROKEN = {"Training/no_tumor/empty.jpg": "empty", "Training/no_tumor/cut.jpg": "truncated"}


def draw_data_set(folder: Path) -> Path:
    """Ten slices of each class in Training and two in Testing, then the faults."""
    for position, name in enumerate(CLASSES):
        size = OTHER_SIZE if name == NO_TUMOR else SIZE
        for number in range(OF_A_CLASS):
            draw(folder / f"Training/{name}/slice ({number}).jpg", 100 * position + number, size)
        for number in range(2):
            draw(folder / f"Testing/{name}/slice ({number}).jpg", 100 * position + 50 + number, size)
    add_faults(folder)
    return folder


def draw(path: Path, seed: int, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), draw_slice(seed, size, size), [cv2.IMWRITE_JPEG_QUALITY, 90])


def add_faults(folder: Path) -> None:
    def pixels(copy: str) -> NDArray[uint8]:
        return np.asarray(cv2.imread(str(folder / FAULTS.all[copy]), cv2.IMREAD_GRAYSCALE))

    for copy, source in FAULTS.same_file.items():
        shutil.copy(folder / source, folder / copy)
    for copy in FAULTS.same_pixels:
        cv2.imwrite(str(folder / copy), pixels(copy))
    for copy in FAULTS.near:
        image, options = pixels(copy), [cv2.IMWRITE_JPEG_QUALITY, 50] if copy.endswith("jpg") else []
        if "framed" in copy:
            image = np.pad(image, 24)
        elif "framed" not in copy and not copy.endswith("jpg"):
            image = np.minimum(image.astype(float) * 1.1, 255).astype(uint8)
        cv2.imwrite(str(folder / copy), image, options)
    (folder / "Training/no_tumor/empty.jpg").write_bytes(b"")
    whole = (folder / "Training/no_tumor/slice (0).jpg").read_bytes()
    (folder / "Training/no_tumor/cut.jpg").write_bytes(whole[: len(whole) // 2])
