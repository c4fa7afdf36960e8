"""Augmentation is random, small, and the same again."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mribatch.core.synthetic import draw_slice
from mribatch.training.fit.augment import augment
from mribatch.training.recipes.augmentation import AUGMENTATIONS, GENTLE, LIGHT, STYLE, Augmentation
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


SHARES = [each.name for each in fields(Augmentation) if each.name.endswith("_share")]
AMOUNTS: dict[str, Any] = {"bias_field": 0.4, "noise": 12.0}
ALWAYS = Augmentation(**AMOUNTS | dict.fromkeys(SHARES, 1.0))


@given(
    st.sampled_from([*AUGMENTATIONS.values(), ALWAYS]),
    st.floats(0, 2),
    st.integers(0, 1000),
    st.integers(1, 60),
    st.sampled_from([(8, 8), (33, 20), (64, 64)]),
)
@settings(deadline=None, max_examples=40)
def test_any_strength_gives_slices_of_the_same_shape_and_again_the_same(
    augmentation: Augmentation, strength: float, seed: int, epoch: int, shape: tuple[int, int]
) -> None:
    chosen = augmentation.scaled(strength)
    slices = np.random.default_rng(seed).integers(0, 256, (3, *shape, 1)).astype(np.uint8)
    before = slices.copy()
    first, again = (augment(slices, np.arange(3), chosen, seed=seed, epoch=epoch, pool=slices) for _ in range(2))
    assert first.shape == slices.shape and first.dtype == np.uint8 and (first == again).all()
    assert (slices == before).all(), "the data themselves are never changed"
    alone = augment(slices[1:2], np.array([1]), chosen, seed=seed, epoch=epoch, pool=slices)
    assert (alone[0] == first[1]).all()


@pytest.mark.parametrize("augmentation", AUGMENTATIONS.values())
def test_at_strength_zero_nothing_is_changed(augmentation: Augmentation) -> None:
    assert augmentation.scaled(0).is_none() and augmentation.scaled(1) == augmentation
    assert augment(SLICES, INDICES, augmentation.scaled(0), seed=0, epoch=1) is SLICES


@pytest.mark.parametrize("share", SHARES)
def test_a_share_of_the_slices_is_changed_and_the_others_are_not(share: str) -> None:
    many, indices = np.repeat(SLICES[:1], 120, axis=0), np.arange(120)
    moves = Augmentation(shift=0.1) if share == "fill_share" else Augmentation()  # it shows where something comes in
    only = replace(moves, **AMOUNTS | {share: 0.5})
    plain = augment(many, indices, replace(moves, brightness=1e-9), seed=2, epoch=3, pool=SLICES)
    changed = (augment(many, indices, only, seed=2, epoch=3, pool=SLICES) != plain).any(axis=(1, 2, 3))
    assert 30 <= changed.sum() <= 80


def test_the_other_changes_leave_the_random_numbers_of_the_movements_and_tones_alone() -> None:
    """The light augmentation computed again from the draws that the shipped models were trained with."""
    import cv2

    changed = augment(SLICES, INDICES, LIGHT, seed=1, epoch=2)
    for index, image in enumerate(SLICES[..., 0]):
        random = np.random.default_rng((1, 2, index))
        turn, down, across, zoom_down, zoom_across = random.uniform(-1, 1, 5)
        mirror = -1 if random.random() < 0.5 else 1
        brighter, harder = random.uniform(-1, 1, 2)
        sine, cosine = np.sin(np.deg2rad(turn * 12)), np.cos(np.deg2rad(turn * 12))
        scale = np.diag([(1 + zoom_across * 0.1) * mirror, 1 + zoom_down * 0.1])
        linear, centre = np.array([[cosine, sine], [-sine, cosine]]) @ scale, np.array([23.5, 31.5])
        matrix = np.column_stack([linear, centre + [across * 48 * 0.06, down * 64 * 0.06] - linear @ centre])
        moved = cv2.warpAffine(image, matrix, (48, 64), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        toned = ((moved - 127.5) * (1 + harder * 0.1) + 127.5 + 255 * brighter * 0.08).clip(0, 255)
        assert np.abs(changed[index, :, :, 0] - toned).max() <= 0.51


def test_gamma_scale_and_aspect_stay_within_their_bounds() -> None:
    flat = np.full((300, 4, 4, 1), 64, np.uint8)
    toned = augment(flat, np.arange(300), Augmentation(gamma=0.3), seed=0, epoch=1)[:, 0, 0, 0].astype(float)
    exponents = np.log(np.log(toned / 255) / np.log(64 / 255))
    assert np.abs(exponents).max() < 0.32 and exponents.min() < -0.25 and exponents.max() > 0.25
    many = np.repeat(disc(80, 80), 300, axis=0)
    changed = augment(many, np.arange(300), Augmentation(scale=0.2, aspect=0.2), seed=1, epoch=1)[..., 0]
    down, across = ((changed.max(axis=axis) > 100).sum(axis=1).astype(float) for axis in (2, 1))
    size, ratio = np.log(np.sqrt(down * across) / 32), np.log(across / down)
    assert np.abs(size).max() < 0.27 and np.ptp(size) > 0.3
    assert np.abs(ratio).max() < 0.3 and np.ptp(ratio) > 0.3


def test_a_bias_field_is_smooth_and_noise_is_as_strong_as_it_may_be() -> None:
    flat = np.full((200, 64, 64, 1), 120, np.uint8)
    biased = augment(flat, np.arange(200), Augmentation(bias_field=0.3, bias_field_share=1), seed=0, epoch=1)
    levels = biased[..., 0].astype(float)
    assert np.abs(np.diff(levels, axis=1)).max() <= 8 and np.ptp(levels, axis=(1, 2)).mean() > 20
    noisy = augment(flat, np.arange(200), Augmentation(noise=10, noise_share=1), seed=0, epoch=1).astype(float)
    deviations = noisy.std(axis=(1, 2, 3))
    assert deviations.min() < 2 and 8 < deviations.max() < 16


def test_grey_levels_move_towards_those_of_the_pool_and_air_stays() -> None:
    dark = np.tile(np.arange(100, dtype=np.uint8), (100, 1))[None, ..., None]
    bright = np.full((1, 100, 100, 1), 250, np.uint8)
    matched = augment(dark, np.array([0]), Augmentation(match_share=1), seed=0, epoch=1, pool=bright)
    assert (matched[dark < 8] == dark[dark < 8]).all() and matched[dark >= 8].mean() > dark[dark >= 8].mean() + 30
    assert (augment(dark, np.array([0]), Augmentation(match_share=1), seed=0, epoch=1) == dark).all()


def test_two_sizes_of_a_slice_are_changed_alike() -> None:
    """A teacher may see slices at another size: the same seed, epoch and index mean the same change."""
    import cv2

    large = np.stack([draw_slice(seed, 128, 128) for seed in range(6)])
    small = np.stack([cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA) for image in large])
    for augmentation in (GENTLE, STYLE):
        seen, shown = (
            augment(each[..., None], INDICES, replace(augmentation, jpeg_share=0, noise_share=0), seed=4, epoch=1)
            for each in (large, small)
        )
        again = np.stack([cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA) for image in seen[..., 0]])
        assert np.abs(again.astype(float) - shown[..., 0]).mean() < 6
