"""Recipes: the reference's numbers, settings that can be changed and no others, and what a fingerprint sees of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mribatch.cli.train import train
from mribatch.core.errors import MribatchError
from mribatch.training.recipes.augmentation import LIGHT, REFERENCE, Augmentation
from mribatch.training.recipes.catalog import RECIPES, find_recipe
from mribatch.training.recipes.recipe import Recipe
from mribatch.training.recipes.settings import change_recipe


def changed(*settings: str, name: str = "cnn", augment: str | None = None, weights: str | None = None) -> Recipe:
    return change_recipe(RECIPES[name], settings, augment, weights)


@pytest.mark.parametrize(
    ("name", "rate", "clipnorm", "batch", "patience", "options"),
    [
        ("cnn", 7e-5, 0, 9, 15, {"dropout": 0.15}),
        ("efficientnetb2", 6e-5, 1, 12, 9, {"dropout": 0.5}),
        ("efficientnetb3", 2.5e-4, 0, 11, 7, {"dropout": 0.55, "dense": 60, "dense_dropout": 0.35}),
        ("efficientnetb6", 2.3e-5, 1, 8, 3, {"dropout": 0.5}),
    ],
)
def test_the_references_recipes(
    name: str, rate: float, clipnorm: float, batch: int, patience: int, options: dict[str, float]
) -> None:
    recipe = RECIPES[name]
    assert (recipe.learning_rate, recipe.clipnorm, recipe.batch, recipe.patience) == (rate, clipnorm, batch, patience)
    assert (recipe.size, recipe.epochs, recipe.keep, recipe.optimizer) == (160, 70, "best", "adam")
    assert recipe.options == options and recipe.augmentation == REFERENCE


def test_settings_are_read_as_what_they_are() -> None:
    recipe = changed("lr=1e-3", "batch=4", "clean_statistics=false", "options.dropout=0.3", "augmentation.shift=0")
    assert (recipe.learning_rate, recipe.batch, recipe.clean_statistics) == (1e-3, 4, False)
    assert recipe.options == {"dropout": 0.3} and recipe.augmentation == replace(REFERENCE, shift=0.0)
    assert RECIPES["cnn"].options == {"dropout": 0.15}
    assert changed("augmentation.rotation_degrees=7.5").augmentation.rotation_degrees == 7.5
    assert changed("schedule=cosine", "optimizer=adamw", "keep=last").schedule == "cosine"


def test_augmentations_by_name() -> None:
    kinds = [changed(augment=name).augmentation for name in ("none", "reference", "light")]
    assert kinds == [Augmentation(), REFERENCE, LIGHT] and kinds[0].is_none()
    assert changed(weights="x.pth").weights == "x.pth"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("speed=3", "'speed=3' is not a setting of 'cnn'. Fix: choose one of: options.dropout, size, batch"),
        ("batch", "'batch' is not a setting"),
        ("name=x", "'name=x' is not a setting"),
        ("batch=two", "'two' is not a value of batch. Fix: give a whole number"),
        ("batch=1.5", "'1.5' is not a value of batch"),
        ("batch=0", "batch is 0. Fix: give 1 or more"),
        ("lr=-1", "'-1' is not a value of learning_rate. Fix: give a number, 0 or more"),
        ("lr=nan", "'nan' is not a value of learning_rate"),
        ("clean_statistics=1", "'1' is not a value of clean_statistics. Fix: give true or false"),
        ("schedule=linear", "'linear' is not a value of schedule. Fix: choose one of: constant, cosine, one_cycle"),
        ("optimizer=sgd", "'sgd' is not a value of optimizer"),
        ("keep=first", "'first' is not a value of keep"),
        ("weights_average=1", "weights_average is 1.0. Fix: give less than 1"),
        ("late_epochs=2", "late_epochs are some of all epochs, need a learning rate"),
        ("late_augmentation=none-such", "'none-such' is not a value of late_augmentation. Fix: choose one of: none, "),
        ("early_epochs=2", "early_epochs needs sizes of frames. Fix: add --set frame=160 --set early_frame=112"),
        ("frozen_blocks=2", "'cnn' has no blocks that can be frozen"),
    ],
)
def test_other_settings_are_refused(setting: str, message: str) -> None:
    with pytest.raises(MribatchError) as caught:
        changed(setting)
    assert message in str(caught.value)


def test_a_schedule_makes_the_number_of_epochs_part_of_the_fit() -> None:
    constant, cycle = RECIPES["cnn"], RECIPES["efficientnet_lite0"]
    assert replace(constant, epochs=9).facts() == constant.facts()
    assert replace(cycle, epochs=9).facts() != cycle.facts()
    for field in ("label_smoothing", "weights_average", "weight_decay", "clipnorm", "frozen_blocks", "learning_rate"):
        change: dict[str, Any] = {field: 0.01}
        assert replace(cycle, **change).facts() != cycle.facts()


def test_the_list_shows_every_recipe_with_its_settings() -> None:
    result = CliRunner().invoke(train, ["--list"])
    assert result.exit_code == 0
    assert all(f"{name}: {recipe.description}" in result.output for name, recipe in RECIPES.items())
    assert "learning_rate=0.00025" in result.output and "augmentation.rotation_degrees=7" in result.output


def test_the_command_changes_the_recipe_before_it_reads_anything(tmp_path: Path) -> None:
    error = (
        CliRunner().invoke(train, ["cnn", str(tmp_path), "--out", str(tmp_path / "o"), "--set", "speed=3"]).exception
    )
    assert isinstance(error, MribatchError) and "'speed=3' is not a setting" in str(error)


def test_final_without_folds_is_refused(tmp_path: Path) -> None:
    error = CliRunner().invoke(train, ["cnn", str(tmp_path), "--out", str(tmp_path / "o"), "--final"]).exception
    assert isinstance(error, MribatchError) and "--final follows the folds" in str(error)


def test_hyphens_and_underscores_are_the_same() -> None:
    assert find_recipe("efficientnet-lite2") is find_recipe("efficientnet_lite2") is RECIPES["efficientnet_lite2"]
