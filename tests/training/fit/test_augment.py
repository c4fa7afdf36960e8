"""Augmentation is random, small, and the same again."""

from dataclasses import replace

import numpy as np
import pytest

from mribatch.core.synthetic import draw_slice
from mribatch.training.fit.augment import augment
from mribatch.training.recipes.augmentation import Augmentation
from mribatch.training.recipes.catalog import RECIPES

REFERENCE = RECIPES["cnn"].augmentation
SLICES = np.stack([draw_slice(seed, 64, 48) for seed in range(6)])[..., None]
INDICES = np.arange(6)


def test_the_same_seed_epoch_and_index_give_the_same_slice() -> None:
    first, again = (augment(SLICES, INDICES, REFERENCE, seed=3, epoch=5) for _ in range(2))
    assert (first == again).all() and first.shape == SLICES.shape and first.dtype == np.uint8


def test_a_slice_does_not_depend_on_its_batch() -> None:
    whole = augment(SLICES, INDICES, REFERENCE, seed=3, epoch=5)
    parts = [augment(SLICES[[i]], INDICES[[i]], REFERENCE, seed=3, epoch=5)[0] for i in (4, 1)]
    assert (whole[[4, 1]] == parts).all()


@pytest.mark.parametrize(("seed", "epoch", "shift"), [(4, 5, 0), (3, 6, 0), (3, 5, 1)])
def test_another_seed_epoch_or_index_gives_another_slice(seed: int, epoch: int, shift: int) -> None:
    first, other = (
        augment(SLICES, INDICES, REFERENCE, seed=3, epoch=5),
        augment(SLICES, INDICES + shift, REFERENCE, seed=seed, epoch=epoch),
    )
    assert all((a != b).any() for a, b in zip(first, other, strict=True))


def test_nothing_to_change_changes_nothing() -> None:
    assert augment(SLICES, INDICES, Augmentation(), seed=0, epoch=1) is SLICES


def test_flip_alone_mirrors_about_half_of_the_slices() -> None:
    many = np.repeat(SLICES[:1], 200, axis=0)
    changed = augment(many, np.arange(200), Augmentation(flip=True), seed=0, epoch=1)
    mirrored = [(row == many[0, :, ::-1]).all() for row in changed]
    same = [(row == many[0]).all() for row in changed]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 70 <= sum(mirrored) <= 130


def disc(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    inside = (rows - (height - 1) / 2) ** 2 + (columns - (width - 1) / 2) ** 2 < (min(height, width) / 5) ** 2
    return np.array(inside * 200, np.uint8)[None, ..., None]


@pytest.mark.parametrize("amount", [0.05, 0.1])
def test_shift_moves_by_up_to_its_share_of_the_side_in_both_directions(amount: float) -> None:
    many = np.repeat(disc(60, 100), 300, axis=0)
    changed = augment(many, np.arange(300), Augmentation(shift=amount), seed=1, epoch=1)[..., 0].astype(float)
    total = changed.sum(axis=(1, 2))
    down = (changed.sum(axis=2) * np.arange(60)).sum(axis=1) / total - 29.5
    across = (changed.sum(axis=1) * np.arange(100)).sum(axis=1) / total - 49.5
    for moved, side in ((down, 60), (across, 100)):
        assert np.abs(moved).max() <= amount * side + 0.1
        assert moved.min() < -0.8 * amount * side and moved.max() > 0.8 * amount * side


def test_zoom_changes_the_size_within_its_bounds() -> None:
    many = np.repeat(disc(80, 80), 300, axis=0)
    changed = augment(many, np.arange(300), Augmentation(zoom=0.1), seed=1, epoch=1)[..., 0]
    height = (changed.max(axis=2) > 100).sum(axis=1) / (many[0].max(axis=1) > 100).sum()
    assert height.min() >= 0.85 and height.max() <= 1.15
    assert height.min() < 0.95 and height.max() > 1.05


def test_rotation_turns_by_up_to_its_degrees() -> None:
    bar = np.zeros((1, 101, 101, 1), dtype=np.uint8)
    bar[0, 48:53, 10:91] = 200
    changed = augment(np.repeat(bar, 300, axis=0), np.arange(300), Augmentation(rotation_degrees=7), seed=1, epoch=1)[
        ..., 0
    ]
    rows, columns = np.mgrid[:101, :101] - 50
    weights = changed.astype(float)
    angles = np.degrees(
        np.arctan((weights * rows * columns).sum(axis=(1, 2)) / (weights * columns**2).sum(axis=(1, 2)))
    )
    assert np.abs(angles).max() <= 7.2 and angles.min() < -6 and angles.max() > 6


def test_brightness_and_contrast_stay_within_their_bounds() -> None:
    flat = np.full((400, 4, 4, 1), 100, np.uint8)
    changed = augment(flat, np.arange(400), Augmentation(brightness=0.1), seed=0, epoch=1)[:, 0, 0, 0].astype(int)
    assert 100 - 26 <= changed.min() < 80 and 120 < changed.max() <= 100 + 26
    dark_and_bright = np.zeros((400, 4, 4, 1), np.uint8)
    dark_and_bright[:, :, 2:] = 200
    changed = augment(dark_and_bright, np.arange(400), Augmentation(contrast=0.1), seed=0, epoch=1)[:, 0, :, 0].astype(
        int
    )
    spread = changed[:, 3] - changed[:, 0]
    assert 180 <= spread.min() < 186 and 205 < spread.max() <= 213


def test_tone_leaves_the_movements_as_they_were() -> None:
    moved = augment(SLICES, INDICES, REFERENCE, seed=0, epoch=1)
    toned = augment(SLICES, INDICES, replace(REFERENCE, brightness=1e-9), seed=0, epoch=1)
    assert (moved == toned).all()
