"""Changes to a recipe from the command line: `--set KEY=VALUE`, `--augment` and `--weights`."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from mribatch.core.errors import OptionError
from mribatch.training.recipes.augmentation import AUGMENTATIONS
from mribatch.training.recipes.recipe import Recipe
from mribatch.training.recipes.schedules import SCHEDULES

OPTIMIZERS = ("adam", "adamw")


def change_recipe(recipe: Recipe, settings: Iterable[str], augment: str | None, weights: str | None) -> Recipe:
    """Return the recipe with other settings.

    Args:
        recipe: As listed.
        settings: "key=value" each; keys as in `Recipe.settings`, `lr` for learning_rate.
        augment: A name in AUGMENTATIONS, or None for the recipe's own.
        weights: "none", "imagenet" or a file, or None for the recipe's own.

    Raises:
        MribatchError: A key is unknown or a value is invalid; names the valid ones.
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
            raise OptionError(f"'{setting}' is not a setting of '{recipe.name}'", f"choose one of: {', '.join(known)}")
        recipe = _replace_setting(recipe, key, _parse_value(key, text, known[key]))
    _check(recipe)
    return recipe


def _replace_setting(recipe: Recipe, key: str, value: Any) -> Recipe:
    outer, _, inner = key.partition(".")
    if not inner:
        return replace(recipe, **{outer: value})
    if outer == "options":
        return replace(recipe, options={**recipe.options, inner: value})
    return replace(recipe, augmentation=replace(recipe.augmentation, **{inner: value}))


def _parse_value(key: str, text: str, like: Any) -> Any:
    """Convert text to the type of the present value."""
    try:
        if isinstance(like, bool):
            return {"true": True, "false": False}[text.lower()]
        value = text if isinstance(like, str) else int(text) if key in _WHOLE else float(text)
        if isinstance(value, int | float) and not (math.isfinite(value) and value >= 0):
            raise ValueError
    except (ValueError, KeyError) as error:
        kind = "a whole number, 0 or more" if key in _WHOLE else "a number, 0 or more"
        kind = "true or false" if isinstance(like, bool) else kind
        raise OptionError(f"'{text}' is not a value of {key}", f"give {kind}") from error
    return value


def _check(recipe: Recipe) -> None:
    """Refuse what would fail only during the fit."""
    choices: Mapping[str, Iterable[str]] = {
        "schedule": SCHEDULES,
        "optimizer": OPTIMIZERS,
        "keep": ("best", "last"),
        "late_augmentation": AUGMENTATIONS,
    }
    for key, names in choices.items():
        if getattr(recipe, key) not in names:
            raise OptionError(f"'{getattr(recipe, key)}' is not a value of {key}", f"choose one of: {', '.join(names)}")
    if recipe.frozen_blocks and not recipe.network.startswith("efficientnet_lite"):
        raise OptionError(f"'{recipe.name}' has no blocks that can be frozen", "omit frozen_blocks")
    if recipe.early_epochs and not (recipe.frame and recipe.early_frame):
        raise OptionError("early_epochs needs sizes of frames", "add --set frame=160 --set early_frame=112")
    if recipe.late_epochs and not (recipe.late_rate and recipe.late_epochs < recipe.epochs and recipe.keep == "last"):
        problem = "late_epochs are some of all epochs, need a learning rate, and end with the epoch that is kept"
        raise OptionError(problem, "add --set late_rate=0.0002 --set keep=last, and give more epochs than late_epochs")
    _check_shares(recipe)
    for key in ("size", "batch", "epochs", "patience"):
        if getattr(recipe, key) < 1:
            raise OptionError(f"{key} is {getattr(recipe, key)}", "give 1 or more")
    for key in ("label_smoothing", "weights_average"):
        if getattr(recipe, key) >= 1:
            raise OptionError(f"{key} is {getattr(recipe, key)}", "give less than 1")


def _check_shares(recipe: Recipe) -> None:
    """Refuse shares that are none, and averages that exclude each other."""
    shares = {key: value for key, value in recipe.settings().items() if key.endswith("_share")}
    wrong = [key for key, value in shares.items() if value > 1]
    if wrong:
        raise OptionError(f"{wrong[0]} is {shares[wrong[0]]:g}", "give 0 to 1")
    if recipe.mixup_share + recipe.cutmix_share > 1:
        raise OptionError("mixup_share and cutmix_share are more than 1 together", "give shares that fit")
    for key in ("mixup", "cutmix", "teacher_temperature"):
        if getattr(recipe, key) <= 0:
            raise OptionError(f"{key} is {getattr(recipe, key):g}", "give more than 0")
    if recipe.average_epochs and (recipe.weights_average or recipe.keep == "best"):
        problem = "average_epochs needs a recipe that keeps its last epoch and has no other average of the weights"
        raise OptionError(problem, "add --set keep=last --set weights_average=0, or omit average_epochs")


_WHOLE = (
    "size",
    "batch",
    "epochs",
    "patience",
    "frozen_blocks",
    "average_epochs",
    "frame",
    "early_epochs",
    "early_frame",
    "late_epochs",
)
_SHORT: Mapping[str, str] = {"lr": "learning_rate"}
