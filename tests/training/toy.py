"""A data set, a recipe and a network small enough to train in a second; also a process that trains and can be killed.

python -m tests.training.toy DATA OUT SEED
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from mribatch.core.synthetic import draw_slice
from mribatch.training.data.classes import BRAIN_TUMORS
from mribatch.training.fit.checkpoints import Arrays, Checkpoints
from mribatch.training.recipes.augmentation import Augmentation
from mribatch.training.recipes.catalog import RECIPES
from mribatch.training.recipes.recipe import Recipe
from mribatch.training.workflow.options import TrainOptions


class Killed(BaseException):
    """What ends a fit in the tests; nothing in the project catches it."""


class DyingCheckpoints(Checkpoints):
    """Checkpoints that end the fit where it would write a file for the time after `writes`."""

    def __init__(self, folder: Path, writes: int) -> None:
        super().__init__(folder)
        self._left = writes

    def write(self, name: str, arrays: Arrays) -> None:
        if self._left == 0:
            raise Killed
        self._left -= 1
        super().write(name, arrays)


class DyingEcho:
    """An echo that ends the training at the n-th line that starts with a text, n from 1."""

    def __init__(self, start: str, count: int = 1) -> None:
        self._start, self._left = start, count

    def __call__(self, line: str) -> None:
        self._left -= line.startswith(self._start)
        if self._left == 0:
            raise Killed


FOLDERS = ("Training/glioma_tumor", "Training/Meningioma", "Testing/no", "Testing/pituitary-tumor")
EPOCHS = 5

# The cnn recipe at the smallest size that its unpadded convolutions allow, learning fast enough to be seen.
RECIPE = replace(RECIPES["cnn"], size=96, batch=4, epochs=EPOCHS, patience=EPOCHS, learning_rate=1e-3)


def draw_data(root: Path, per_class: int = 12) -> Path:
    """Four class folders of synthetic slices, two of them under other names than the classes'."""
    import cv2

    for position, folder in enumerate(FOLDERS):
        (root / folder).mkdir(parents=True)
        for number in range(per_class):
            pixels = draw_slice(1000 * position + number, 110, 100 + 5 * position, lesion=folder != "Testing/no")
            cv2.imwrite(str(root / folder / f"{number}.png"), pixels)
    return root


def draw_sources(root: Path, per_class: int = 3) -> Path:
    """Four classes, each from three sources: slices of one size, slices of other sizes, and a folder Testing."""
    import cv2

    for source, (part, side) in enumerate((("Training", 96), ("Training", 64), ("Testing", 96))):
        for label, name in enumerate(BRAIN_TUMORS.names):
            folder = root / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(per_class):
                height = side if side == 96 else side + number
                pixels = draw_slice(1000 * source + 100 * label + number, height, side, lesion=name != "no_tumor")
                cv2.imwrite(str(folder / f"{source}-{number}.png"), pixels)
    return root


def options(data: Path, out: Path, **changes: Any) -> TrainOptions:
    """Without figures, which take longer than a toy fit."""
    settings: dict[str, Any] = {"recipe": RECIPE, "data": data, "out": out, "keep_work": True, "draw_figures": False}
    return TrainOptions(**settings | changes)


def tiny_recipe(**changes: Any) -> Recipe:
    """For a network of a few layers at 8 px, registered as "tiny" by the tests that use it."""
    settings: dict[str, Any] = {"name": "tiny", "description": "for tests", "network": "tiny", "size": 8, "batch": 4}
    settings |= {"epochs": 4, "patience": 4, "learning_rate": 0.01, "options": {"dropout": 0.3}}
    settings |= {
        "clean_statistics": True,
        "augmentation": Augmentation(rotation_degrees=10, shift=0.1, zoom=0.1, flip=True),
    }
    return Recipe(**settings | changes)


def tiny_network(pixels: Any, recipe: Recipe) -> Any:
    """Everything that has a state to be kept: weights, BatchNormalization's statistics, Dropout's random numbers."""
    import keras

    features = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    features = keras.layers.BatchNormalization()(keras.layers.Dense(16, activation="relu")(features))
    return keras.layers.Dropout(recipe.options["dropout"])(features)


if __name__ == "__main__":
    from mribatch.training.workflow.train import train

    train(options(Path(sys.argv[1]), Path(sys.argv[2]), seed=int(sys.argv[3])), echo=print)
