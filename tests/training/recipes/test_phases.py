"""Which changes and which learning rate an epoch has."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mribatch.training.recipes.augmentation import LIGHT, STYLE
from mribatch.training.recipes.catalog import find_recipe
from mribatch.training.recipes.phases import augmentation_in, is_late, learning_rate_after
from mribatch.training.recipes.schedules import SCHEDULES

RECIPE = replace(find_recipe("framed_lite2"), epochs=26, late_epochs=6, late_rate=2e-4, late_augmentation="light")


def test_the_last_epochs_are_milder() -> None:
    assert [epoch for epoch in range(1, 27) if is_late(RECIPE, epoch)] == [21, 22, 23, 24, 25, 26]
    assert augmentation_in(RECIPE, 20) == RECIPE.augmentation == STYLE
    assert augmentation_in(RECIPE, 21) == LIGHT


def test_the_rate_follows_the_schedule_and_then_falls_once_more() -> None:
    assert learning_rate_after(RECIPE, 4) == pytest.approx(RECIPE.learning_rate), "the peak of one_cycle"
    assert learning_rate_after(RECIPE, 19.99) < RECIPE.learning_rate / 500
    assert learning_rate_after(RECIPE, 20) == 2e-4
    assert learning_rate_after(RECIPE, 23) == pytest.approx(1e-4, rel=0.01)
    assert learning_rate_after(RECIPE, 25.99) < 1e-6


@given(st.floats(0, 19.99), st.sampled_from(["constant", "cosine", "one_cycle"]))
def test_without_late_epochs_nothing_changes(epochs: float, schedule: str) -> None:
    recipe = replace(RECIPE, epochs=20, late_epochs=0, schedule=schedule)
    assert learning_rate_after(recipe, epochs) == recipe.learning_rate * SCHEDULES[schedule](epochs / 20)
    assert not is_late(recipe, 20)
    assert recipe.facts() == replace(recipe, late_rate=0.5, late_augmentation="none").facts()
