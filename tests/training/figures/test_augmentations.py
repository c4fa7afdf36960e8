"""The picture of augmented slices, and the same picture again."""

from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="needs the extra 'train'")

from mribatch.training.figures.augmentations import draw_augmentations
from mribatch.training.recipes.augmentation import LIGHT


def test_the_same_picture_again(tmp_path: Path) -> None:
    png, svg = draw_augmentations(LIGHT, "Augmentation 'light'", tmp_path)
    assert png.name == "augmentations.png" and png.stat().st_size > 10_000
    before = png.read_bytes(), svg.read_bytes()
    draw_augmentations(LIGHT, "Augmentation 'light'", tmp_path)
    assert (png.read_bytes(), svg.read_bytes()) == before
