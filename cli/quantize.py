"""mribatch quantize"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mribatch.core.errors import ExitCode

if TYPE_CHECKING:
    from mribatch.training.export.int8_bundle import Int8Facts

_PATH = click.Path(path_type=Path)


@click.command(short_help="Add an INT8 graph to a model bundle, for faster classification on the CPU.")
@click.argument("bundle", metavar="BUNDLE")
@click.option(
    "--calibration",
    type=_PATH,
    required=True,
    help="Folder of images like those that the model was trained on, for the ranges of its layers.",
)
@click.option("--out", type=_PATH, required=True, help="Folder of the new bundle; with --overwrite also BUNDLE itself.")
@click.option("--note", metavar="TEXT", default="", help="Paragraph to add to the section on INT8 of the model card.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle at --out. Other folders are never replaced.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def quantize(
    bundle: str, calibration: Path, out: Path, note: str, overwrite: bool, as_json: bool, quiet: bool
) -> ExitCode:
    """Add model.int8.onnx to BUNDLE, a bundle's folder or the name of a shipped model.

    The graph is compared with the FP32 graph on images of --calibration that gave no range. `mribatch classify` uses it
    where it is faster (see its --precision).

    \b
    Example:
      mribatch quantize my-model --calibration slices/ --out my-model-int8
    """
    from mribatch.core.bundle import load_bundle
    from mribatch.training.export.int8_bundle import add_int8, check_free, read_slices

    check_free(out, overwrite=overwrite)
    loaded = load_bundle(bundle)
    slices = read_slices(calibration, loaded.spec.height, loaded.spec.width)
    facts = add_int8(loaded.folder, slices, out, note=note)
    if as_json:
        click.echo(json.dumps({"out": str(out)} | asdict(facts), allow_nan=False))
    elif not quiet:
        click.echo(_describe(facts, out))
    return ExitCode.OK


def _describe(facts: "Int8Facts", out: Path) -> str:
    from mribatch.core.about import RESEARCH_NOTICE

    compared = facts.comparison
    lines = [
        f"INT8 against FP32: the same class for {compared.same_class} of {compared.images} images, |Δp| at most "
        f"{compared.max_difference:.3f}; {facts.speed.gain:.1f} times as fast on one thread",
        f"bundle   {out}",
        f"next     mribatch classify FOLDER --model {out} --out RESULTS",
        RESEARCH_NOTICE,
    ]
    return "\n".join(lines)
