"""mribatch features"""

from functools import partial
from pathlib import Path

import click

from mribatch.core.errors import ExitCode

_SCALES = ("none", "1/255", "-1..1", "imagenet", "caffe")  # training.keras_model.Scale, without its import


@click.command(short_help="Draw what every convolutional layer of a Keras model makes of one image.")
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    required=True,
    metavar="MODEL.keras",
    help="Of mribatch train (model.keras in its work folder), or your own.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the pictures.")
@click.option("--scale", type=click.Choice(_SCALES), help="As for `mribatch export`; for a model that does not scale.")
@click.option("--size", type=click.IntRange(1), metavar="PIXELS", help="Height and width, for a model that takes any.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def features(image: Path, model: Path, out: Path, scale: str | None, size: int | None, quiet: bool) -> ExitCode:
    """Draw what every convolutional layer of MODEL.keras makes of one IMAGE: a sheet per layer and an overview.

    The image is read as `mribatch classify` reads it. The pictures show it, so treat them like the image itself.

    \b
    Example:
      mribatch features scan.png --model my-model-work/model.keras --out features/
    """
    from mribatch.training.export.keras_classifier import Scale
    from mribatch.training.figures.features import draw_features

    echo = (lambda _: None) if quiet else partial(click.echo, err=True)
    layers = draw_features(image, model, out, Scale(scale) if scale else None, size, echo, quiet)
    if not quiet:
        click.echo(f"{layers} layers, each as PNG and SVG, and features_overview: {out}")
    return ExitCode.OK
