"""mribatch export"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import click

from mribatch.core.errors import ExitCode
from mribatch.training.export.declarations import DECLARABLE, OutputKind, Scale

_PATH = click.Path(path_type=Path)


@click.command(short_help="Turn your own Keras classifier into a model bundle.")
@click.argument("model", metavar="MODEL.keras", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Folder of the new bundle.")
@click.option("--classes", metavar="NAME,NAME…", required=True, help="Classes in the order of the model's outputs.")
@click.option(
    "--scale",
    type=click.Choice([scale.value for scale in Scale]),
    help="Scaling of pixels 0..255 before the model, in training.  [default: layers of the model scale them]",
)
@click.option(
    "--outputs",
    type=click.Choice([kind.value for kind in DECLARABLE]),
    help="Kind of the model's outputs, if its last layer does not say: logits (a softmax is added), or sigmoid (each is"
    " divided by their sum).  [default: what the last layer says; a sigmoid is refused]",
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
@click.option("--overwrite", is_flag=True, help="Replace a bundle at --out. Other folders are never replaced.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def export(
    *, classes: str, scale: str | None, outputs: str | None, as_json: bool, quiet: bool, **chosen: Any
) -> ExitCode:
    """Turn MODEL.keras, a classifier that you trained with Keras 3, into a model bundle for `mribatch classify`.

    The model takes grey or RGB images and ends in a softmax, in logits, or in sigmoids that were trained as one answer
    (--outputs sigmoid). Code in the file (Lambda layers, custom classes) is never run. The exported graph is compared
    with Keras before the bundle appears.

    \b
    Example:
      mribatch export my-model.keras --out my-model --classes glioma,meningioma,no_tumor,pituitary
      mribatch classify scans/ --model my-model --out results
    """
    from mribatch.training.data.classes import parse_classes
    from mribatch.training.export.user_model import ExportOptions, export_keras

    options = ExportOptions(
        classes=parse_classes(classes),
        scale=Scale(scale) if scale else None,
        outputs=OutputKind(outputs) if outputs else None,
        **chosen,
    )
    result = export_keras(options, echo=(lambda _: None) if quiet else partial(click.echo, err=True))
    if as_json:
        click.echo(json.dumps(result.facts, allow_nan=False))
    elif not quiet:
        click.echo(_describe_result(result.out, str(result.agreement)))
    return ExitCode.OK


def _describe_result(out: Path, agreement: str) -> str:
    from mribatch.core.about import RESEARCH_NOTICE

    return "\n".join(
        (
            f"ONNX Runtime against Keras on the golden slices: {agreement}",
            f"bundle   {out}",
            f"next     mribatch classify FOLDER --model {out} --out RESULTS",
            RESEARCH_NOTICE,
        )
    )
