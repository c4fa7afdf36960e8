"""mribatch train"""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mribatch.errors import ExitCode

if TYPE_CHECKING:
    from mribatch.training.train import TrainResult

_PATH = click.Path(path_type=Path)


@click.command(short_help="Train a network on a folder of class folders and write a model bundle.")
@click.argument("recipe", metavar="RECIPE")
@click.argument("data", metavar="DIR", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Folder of the new bundle.")
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
@click.option("--overwrite", is_flag=True, help="Replace another bundle at --out. Other folders are never replaced.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def train(
    recipe: str, classes: str | None, data_sheet: str | None, licence: str, as_json: bool, quiet: bool, **chosen: Any
) -> ExitCode:
    """Train RECIPE on the images in DIR, one folder per class at any depth, and write a model bundle.

    Images are divided into training, validation and test parts (70, 15, 15 of 100); what belongs together stays in
    one part. The epoch with the lowest validation loss is kept; every figure comes from the test part. The exported
    graph is proven equal to Keras before the bundle appears.

    The same command on an interrupted fit goes on at the next epoch, with the same result.

    \b
    Recipes:
      cnn   five convolutions from scratch, 160 px

    \b
    Example:
      mribatch train cnn scans/ --groups groups.csv --out my-model
    """
    from mribatch.training.classes import class_list
    from mribatch.training.data_sheets import data_sheet as sheet_named
    from mribatch.training.recipes import recipe_named
    from mribatch.training.train import TrainOptions
    from mribatch.training.train import train as run_train

    options = TrainOptions(
        recipe=recipe_named(recipe),
        classes=class_list(classes),
        sheet=sheet_named(data_sheet),
        weights_licence=licence,
        quiet=quiet,
        **chosen,
    )
    result = run_train(options, echo=(lambda _: None) if quiet else partial(click.echo, err=True))
    if as_json:
        click.echo(json.dumps(result.facts, allow_nan=False))
    elif not quiet:
        click.echo(_shown(result))
    return ExitCode.OK


def _shown(result: "TrainResult") -> str:
    from mribatch import RESEARCH_NOTICE

    training = result.facts["training"]
    lines = [
        f"{'metric':<36} {'value':>8}   95 % interval",
        *(_metric_line(row) for row in result.facts["metrics"] if row["metric"] != "support"),
        "",
        f"test part    {training['images']['test']} images; {training['protocol']}",
        f"leak rate    {training['leak']}",
        f"best epoch   {training['best_epoch']} of {training['epochs']}",
        f"bundle       {result.out}",
        f"tables       {result.work}",
        RESEARCH_NOTICE,
    ]
    return "\n".join(lines)


def _metric_line(row: dict[str, Any]) -> str:
    name = row["metric"] if row["class"] is None else f"{row['metric']}[{row['class']}]"
    if row["value"] is None:
        return f"{name:<36} {'-':>8}"
    interval = "" if row["low"] is None else f"   {row['low']:.4f} to {row['high']:.4f}"
    return f"{name:<36} {row['value']:8.4f}{interval}"
