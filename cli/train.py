"""mribatch train"""

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from mribatch.cli.elements import LocalPath
from mribatch.core.errors import ExitCode, OptionError
from mribatch.training.data.split_names import HOLDOUT, IN_FOLDS, SPLITS
from mribatch.training.recipes.augmentation import AUGMENTATIONS
from mribatch.training.recipes.catalog import RECIPES, find_recipe
from mribatch.training.recipes.settings import change_recipe

if TYPE_CHECKING:
    from mribatch.core.bundle import Bundle
    from mribatch.core.classifier import Classifier
    from mribatch.training.work_folder.summary import BundleMetric
    from mribatch.training.workflow.finish import TrainResult

_SPLITS_HELP = "\n".join(f"  {name:<9}  {what}" for name, what in SPLITS.items())
_RECIPES_HELP = "\n".join(f"  {recipe.name:<18}  {recipe.description}" for recipe in RECIPES.values())
_HELP = f"""Train RECIPE on the images in DIR, one folder per class at any depth, and write a model bundle.

The test part, on which the figures are measured, is never used to choose anything. The exported graph is compared with
Keras before the bundle appears. After an interruption the same command resumes at the next epoch, with the same result.

\b
Splits:
{_SPLITS_HELP}

\b
Recipes:
{_RECIPES_HELP}

\b
Examples:
  mribatch train cnn scans/ --groups groups.csv --out my-model
  mribatch train efficientnet_lite0 scans/ --groups groups.csv --split grouped --final --out my-model
"""


def _list_recipes(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    for recipe in RECIPES.values():
        settings = ", ".join(f"{key}={value}" for key, value in recipe.settings().items())
        click.echo(f"{recipe.name}: {recipe.description}\n    {settings}")
    context.exit()


@click.command(short_help="Train a network on a folder of class folders and write a model bundle.", help=_HELP)
@click.argument("recipe", metavar="RECIPE")
@click.argument("data", metavar="DIR", type=LocalPath())
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_recipes,
    help="Show the recipes and their settings, and exit.",
)
@click.option("--out", type=LocalPath(holds_parquet=True), required=True, help="Folder of the new bundle.")
@click.option(
    "--split",
    type=click.Choice(list(SPLITS)),
    default=HOLDOUT,
    show_default=True,
    help="Division of the images for training and test; see above.",
)
@click.option(
    "--folds", type=click.IntRange(2), default=5, show_default=True, help="Number of folds of --split grouped."
)
@click.option("--final", is_flag=True, help="After the folds, train on all images; write a bundle.")
@click.option(
    "--fitted",
    type=LocalPath(),
    metavar="FOLDER",
    help="Networks that were fitted elsewhere by this recipe (fits.json); measured and exported in place of own fits.",
)
@click.option(
    "--teacher",
    metavar="MODEL",
    help="Teacher of a recipe with a teacher_share: name or folder of a bundle, or the --fold-bundles folder"
    " of a training with the same folds, which keeps the figures free of what a teacher knows about tested images.",
)
@click.option(
    "--fold-bundles",
    type=LocalPath(),
    metavar="FOLDER",
    help="Folder for the network of each fold as a bundle, to be teachers.",
)
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Another setting for the recipe, e.g. learning_rate=1e-4 (or lr); repeatable.",
)
@click.option("--augment", type=click.Choice(list(AUGMENTATIONS)), help="Augmentation.  [default: the recipe's]")
@click.option("--weights", metavar="imagenet|none|FILE", help="Initial weights.  [default: the recipe's]")
@click.option(
    "--groups",
    type=LocalPath(),
    metavar="CSV",
    help="Table of images that belong together: columns path (relative to DIR) and one or more of group_id, series_id,"
    " patient_id.  [default: equal pixels]",
)
@click.option("--classes", metavar="NAME,NAME…", help="Classes in output order.  [default: brain tumour classes]")
@click.option("--name", help="Model name.  [default: the name of the --out folder]")
@click.option("--epochs", type=click.IntRange(1), help="Maximum number of epochs.  [default: the recipe's]")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed of initial weights and fit."
)
@click.option("--split-seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed of the split.")
@click.option(
    "--work",
    type=LocalPath(holds_parquet=True),
    help="Work folder: checkpoints, tables and figures.  [default: OUT-work]",
)
@click.option("--keep-work", is_flag=True, help="Keep the checkpoints after the bundle is finished.")
@click.option("--data-sheet", metavar="NAME|JSON", help="Description of the data; quoted in the model card.")
@click.option(
    "--licence", default="not stated", show_default=True, help="Licence of the weights; quoted in the model card."
)
@click.option(
    "--cite",
    type=LocalPath(),
    multiple=True,
    metavar="FOLDER",
    help="Work folder or report of another run, for comparison in the model card; repeatable.",
)
@click.option(
    "--figures/--no-figures", "draw_figures", default=True, show_default=True, help="Figures in the work folder."
)
@click.option("--int8", is_flag=True, help="Add an INT8 graph to the bundle, for faster classification on the CPU.")
@click.option("--overwrite", is_flag=True, help="Replace another bundle at --out. Other folders are never replaced.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def train(
    *,
    recipe: str,
    teacher: str | None,
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
    """Parse the options, train, and print the result."""
    if chosen["final"] and chosen["split"] not in IN_FOLDS:
        problem = f"--final follows the folds of --split {' or '.join(IN_FOLDS)}"
        raise OptionError(problem, "add --split grouped, or omit --final")
    if chosen["fold_bundles"] and chosen["split"] not in IN_FOLDS:
        raise OptionError("--fold-bundles needs folds", "add --split grouped, or omit --fold-bundles")
    changed = change_recipe(find_recipe(recipe), settings, augment, weights)

    from mribatch.core.about import JSON_SCHEMA_VERSION
    from mribatch.training.data.classes import parse_classes
    from mribatch.training.data.data_sheets import read_data_sheet
    from mribatch.training.workflow.cross_validation import cross_validate
    from mribatch.training.workflow.options import Teaching, TrainOptions
    from mribatch.training.workflow.train import train as train_on_split

    options = TrainOptions(
        recipe=changed,
        classes=parse_classes(classes),
        sheet=read_data_sheet(data_sheet),
        weights_licence=licence,
        quiet=quiet,
        teaching=None if teacher is None else Teaching(teacher, _open_classifier),
        **chosen,
    )
    run = cross_validate if options.split in IN_FOLDS else train_on_split
    result = run(options, echo=(lambda _: None) if quiet else partial(click.echo, err=True))
    if as_json:
        content = {"schema_version": JSON_SCHEMA_VERSION} | result.summary.to_json()
        click.echo(json.dumps(content, allow_nan=False))
    elif not quiet:
        click.echo(describe_result(result))
    return ExitCode.OK


def _open_classifier(bundle: "Bundle") -> "Classifier":
    from mribatch.core.cores import usable_cores
    from mribatch.pipeline.inference.onnxruntime import OnnxRuntimeClassifier

    return OnnxRuntimeClassifier(bundle, threads=usable_cores())


def describe_result(result: "TrainResult") -> str:
    """Return metrics and highlights as a table for people."""
    from mribatch.core.about import RESEARCH_NOTICE
    from mribatch.core.tables import Column, format_table

    metrics = result.summary.metrics
    whole = metrics[0].metric.protocol
    columns = [Column("metric"), Column("value", "right"), Column("95 % interval")]
    cells = [_describe_metric(row, whole) for row in metrics if row.metric.metric != "support"]
    highlights = format_table([Column(), Column()], list(result.summary.highlights.items()))
    return "\n".join((format_table(columns, cells), "", highlights, RESEARCH_NOTICE))


def _describe_metric(row: "BundleMetric", whole: str) -> tuple[str, str, str]:
    """Describe one metric; a share of the test images, whose protocol is longer than that of all, is named."""
    metric = row.metric
    name = metric.name
    if metric.protocol != whole:
        name += f" ({metric.protocol.removeprefix(f'{whole}; ')})"
    if metric.value is None:
        return name, "-", ""
    return name, f"{metric.value:.4f}", "" if metric.low is None else f"{metric.low:.4f} to {metric.high:.4f}"
