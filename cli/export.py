"""mribatch export"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import click

from mribatch.core.errors import ExitCode
from mribatch.training.export.declarations import DECLARABLE, MeanAndStd, OutputKind, Scale

_PATH = click.Path(path_type=Path)


@click.command(short_help="Turn your own Keras or ONNX classifier into a model bundle.")
@click.argument("model", metavar="MODEL", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Folder of the new bundle.")
@click.option("--classes", metavar="NAME,NAME…", required=True, help="Classes in the order of the model's outputs.")
@click.option(
    "--scale",
    type=click.Choice([scale.value for scale in Scale]),
    help="Scaling of pixels 0..255 before the model, in training.  [default: layers of the model scale them]",
)
@click.option("--mean", metavar="NUMBERS", help="Mean of pixels 0..1, one or one per channel; with --std, not --scale.")
@click.option("--std", metavar="NUMBERS", help="Deviation of pixels 0..1, one or one per channel.")
@click.option(
    "--scale-twice",
    is_flag=True,
    help="Scale by --scale although the model scales its pixels too, for a model that was trained so.",
)
@click.option(
    "--outputs",
    type=click.Choice([kind.value for kind in DECLARABLE]),
    help="Kind of the model's outputs, if its last layer does not say: logits (a softmax is added), or sigmoid (each is"
    " divided by their sum). One output for two classes speaks for the second.  [default: what the last layer says;"
    " several sigmoids are refused]",
)
@click.option(
    "--size",
    type=click.IntRange(1),
    metavar="PIXELS",
    help="Height and width of the input, for a model that takes any size.",
)
@click.option("--name", help="Model name.  [default: the name of the --out folder]")
@click.option(
    "--licence", default="not stated", show_default=True, help="Licence of the weights; quoted in the model card."
)
@click.option(
    "--untrained", is_flag=True, help="Weights are random; every run of the bundle says that it means nothing."
)
@click.option("--overwrite", is_flag=True, help="Replace a bundle at --out. Other folders are never replaced.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def export(
    *,
    classes: str,
    scale: str | None,
    mean: str | None,
    std: str | None,
    outputs: str | None,
    as_json: bool,
    quiet: bool,
    **chosen: Any,
) -> ExitCode:
    """Turn MODEL, a classifier that you trained, into a model bundle for `mribatch classify`.

    MODEL is a .keras file of Keras 3, or an .onnx file from PyTorch, timm or another tool. It takes grey or RGB images
    and ends in a softmax, in logits, in one sigmoid for two classes, or in sigmoids that were trained as one answer
    (--outputs sigmoid). Code in the file (Lambda layers, custom classes and operators) is never run. The exported graph
    is compared with the model before the bundle appears.

    \b
    Examples:
      mribatch export my-model.keras --out my-model --classes glioma,meningioma,no_tumor,pituitary
      mribatch export resnet.onnx --out resnet --classes no_tumor,tumor --scale imagenet
      mribatch classify scans/ --model my-model --out results
    """
    from mribatch.training.data.classes import parse_classes
    from mribatch.training.export.user_model import ExportOptions, export_model

    options = ExportOptions(
        classes=parse_classes(classes),
        scale=_read_scaling(scale, mean, std),
        outputs=OutputKind(outputs) if outputs else None,
        **chosen,
    )
    result = export_model(options, echo=(lambda _: None) if quiet else partial(click.echo, err=True))
    if as_json:
        click.echo(json.dumps(result.facts.to_json(), allow_nan=False))
    elif not quiet:
        click.echo(_describe_result(result.out, result.reference, str(result.agreement)))
    return ExitCode.OK


def _read_scaling(scale: str | None, mean: str | None, std: str | None) -> Scale | MeanAndStd | None:
    if mean is None and std is None:
        return Scale(scale) if scale else None
    if scale or mean is None or std is None:
        raise click.UsageError("--mean and --std are given together, and without --scale.")
    return MeanAndStd(_read_numbers("--mean", mean), _read_numbers("--std", std))


def _read_numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(
            f"'{text}' is not one number, or several separated by commas.", param_hint=option
        ) from error


def _describe_result(out: Path, reference: str, agreement: str) -> str:
    from mribatch.core.about import RESEARCH_NOTICE

    return "\n".join(
        (
            f"ONNX Runtime against {reference} on the golden slices: {agreement}",
            f"bundle   {out}",
            f"next     mribatch classify FOLDER --model {out} --out RESULTS",
            RESEARCH_NOTICE,
        )
    )
