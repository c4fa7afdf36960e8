"""mribatch export-triton"""

from pathlib import Path

import click

from mribatch.cli.elements import LocalPath
from mribatch.core.errors import ExitCode, WriteError, advising

MAX_BATCH_SIZE = 4096


@click.command(short_help="Write a bundle as a model of Triton Inference Server.")
@click.argument("bundle", metavar="BUNDLE")
@click.option("--out", type=LocalPath(), required=True, help="Model repository; made if it does not exist.")
@click.option(
    "--engine",
    "file",
    type=LocalPath(),
    metavar="FILE.engine",
    help="TensorRT engine of the bundle to serve, from the engine cache.  [default: the ONNX graph]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, MAX_BATCH_SIZE),
    default=64,
    show_default=True,
    help="Largest batch that the server may form of the ONNX graph.",
)
def export_triton(bundle: str, out: Path, file: Path | None, batch_size: int) -> ExitCode:
    """Write BUNDLE (a name or a folder) into a model repository of NVIDIA Triton Inference Server.

    Writes config.pbtxt with dynamic batching, the classes, and the ONNX graph or an engine. The served model takes grey
    pixels, not files: whoever sends them must prepare them as config.pbtxt says under "preprocessing". Nothing checks
    them there, and nothing checks the answers.

    \b
    Example:
      mribatch export-triton cnn --out model_repository
    """
    from mribatch.core.bundle import load_bundle
    from mribatch.trt.engine.cache import read_engine
    from mribatch.trt.triton import export_triton as write

    engine = read_engine(file) if file is not None else None
    with advising({WriteError: "choose an --out folder that you may write to"}):
        click.echo(f"written: {write(load_bundle(bundle), out, batch_size, engine)}")
    return ExitCode.OK
