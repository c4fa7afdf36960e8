"""A picture of synthetic slices and what an augmentation makes of them: `python -m` with `--help`.

python -m mribatch.training.figures.augmentations FOLDER --augment style
"""

import argparse
from pathlib import Path

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.core.synthetic import draw_slice
from mribatch.training.figures.page import GREY, MARGIN, WIDTH, draw_image, make_page
from mribatch.training.fit.augment import augment
from mribatch.training.recipes.augmentation import AUGMENTATIONS, Augmentation

_ROWS, _COLUMNS, _SIDE = 5, 9, 160
_GAP = 0.08  # inches


def draw_augmentations(augmentation: Augmentation, title: str, folder: Path, seed: int = 0) -> list[Path]:
    """Draw augmentations.png and .svg: one synthetic slice per row, as it is and as eight epochs see it."""
    slices = np.stack([draw_slice(seed + row, _SIDE, _SIDE) for row in range(_ROWS)])[..., None]
    columns = [slices, *(_change(slices, augmentation, seed, epoch) for epoch in range(1, _COLUMNS))]
    lines = ("Synthetic slices. Left: as they are; then as eight epochs of a fit would see them.",)
    page = make_page(title, lines)
    axes = page.canvas()
    side = min((page.body_height + _GAP) / _ROWS, (WIDTH - 2 * MARGIN + _GAP) / _COLUMNS) - _GAP
    for column, images in enumerate(columns):
        left = column * (side + _GAP)
        for row, image in enumerate(images):
            top = row * (side + _GAP)
            draw_image(axes, image[:, :, 0], (left, top), side, cmap="gray", vmin=0, vmax=255)
    axes.plot([side + _GAP / 2] * 2, [0, _ROWS * (side + _GAP) - _GAP], color=GREY, linewidth=1)
    return page.save(folder, "augmentations")


def _change(slices: NDArray[uint8], augmentation: Augmentation, seed: int, epoch: int) -> NDArray[uint8]:
    return augment(slices, np.arange(len(slices)), augmentation, seed=seed, epoch=epoch, pool=slices)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw synthetic slices and what an augmentation makes of them.")
    parser.add_argument("folder", type=Path, help="folder of the picture")
    parser.add_argument("--augment", choices=list(AUGMENTATIONS), default="style", help="the augmentation")
    parser.add_argument("--strength", type=float, default=1.0, help="factor of its amounts and shares")
    parser.add_argument("--seed", type=int, default=0, help="of slices and changes")
    given = parser.parse_args()
    named = f"Augmentation '{given.augment}', strength {given.strength:g}"
    for path in draw_augmentations(
        AUGMENTATIONS[given.augment].scaled(given.strength), named, given.folder, given.seed
    ):
        print(path)
