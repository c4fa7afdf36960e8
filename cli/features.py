"""mribatch features"""

from functools import partial
from typing import Any

import click

from mribatch.cli.elements import LocalPath
from mribatch.core.errors import ExitCode
from mribatch.training.export.declarations import Scale


@click.command(short_help="Draw what every convolutional layer of a Keras model makes of one image.")
@click.argument("image", type=LocalPath())
@click.option(
    "--model",
    type=LocalPath(),
    required=True,
    metavar="MODEL.keras",
    help="Keras model: model.keras in the work folder of `mribatch train`, or your own.",
)
@click.option("--out", type=LocalPath(), required=True, help="Folder of the pictures.")
@click.option(
    "--scale",
    type=click.Choice([scale.value for scale in Scale]),
    help="Scaling of pixels 0..255 before the model, in training.  [default: layers of the model scale them]",
)
@click.option(
    "--size",
    type=click.IntRange(1),
    metavar="PIXELS",
    help="Height and width of the input, for a model that takes any size.",
)
@click.option("--quiet", is_flag=True, help="Print errors only.")
def features(*, scale: str | None, quiet: bool, **chosen: Any) -> ExitCode:
    """Draw what every convolutional layer of MODEL.keras makes of one IMAGE: a sheet per layer and an overview.

    The image is read as `mribatch classify` reads it. The pictures show it, so treat them like the image itself.

    \b
    Example:
      mribatch features scan.png --model my-model-work/model.keras --out features/
    """
    from mribatch.training.figures.features import FeatureOptions, draw_features

    options = FeatureOptions(scale=Scale(scale) if scale else None, quiet=quiet, **chosen)
    layers = draw_features(options, (lambda _: None) if quiet else partial(click.echo, err=True))
    if not quiet:
        click.echo(
            f"{layers} layer{'' if layers == 1 else 's'}, each as PNG and SVG, and features_overview: {options.out}"
        )
    return ExitCode.OK
