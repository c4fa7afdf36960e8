"""Mixed slices: labels mixed as the pixels are, the same again for the same random numbers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mribatch.training.fit.mixing import SoftBatch, mix, mixes
from tests.training.toy import tiny_recipe


def batch(count: int = 4, side: int = 10) -> SoftBatch:
    """Slices of one grey level each, 60 apart, each of its own class."""
    pixels = np.repeat(np.arange(count, dtype=np.uint8) * 60, side * side).reshape(count, side, side, 1)
    truth = np.eye(count, dtype=np.float32)
    return SoftBatch(pixels=pixels, truth=truth, answers=truth[::-1].copy())


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@given(seed=st.integers(0, 500), strength=st.floats(0.1, 3))
@settings(deadline=None, max_examples=30)
def test_labels_are_mixed_by_the_share_of_the_pixels(kind: str, seed: int, strength: float) -> None:
    recipe = tiny_recipe(**{f"{kind}_share": 1.0, kind: strength})
    mixed, again = (mix(batch(), recipe, np.random.default_rng(seed)) for _ in range(2))
    assert (mixed.pixels == again.pixels).all() and (mixed.truth == again.truth).all()
    assert mixed.pixels.dtype == np.uint8 and mixed.truth.dtype == mixed.answers.dtype == np.float32
    assert np.abs(mixed.truth.sum(axis=1) - 1).max() < 1e-6 and np.abs(mixed.answers.sum(axis=1) - 1).max() < 1e-6
    expected = mixed.truth @ (np.arange(4) * 60)
    assert np.abs(mixed.pixels.mean(axis=(1, 2, 3)) - expected).max() <= 0.51
    if kind == "cutmix":
        assert set(np.unique(mixed.pixels)) <= {0, 60, 120, 180}


def test_a_share_of_the_batches_is_mixed() -> None:
    recipe = tiny_recipe(mixup_share=0.3, cutmix_share=0.3)
    whole = batch()
    kept = sum(mix(whole, recipe, np.random.default_rng(seed)) is whole for seed in range(300))
    assert 80 < kept < 160
    plain = replace(recipe, mixup_share=0.0, cutmix_share=0.0)
    assert mixes(recipe) and not mixes(plain)
    assert all(mix(whole, plain, np.random.default_rng(seed)) is whole for seed in range(20))
