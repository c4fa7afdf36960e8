"""mribatch demo: a folder to try the tool on."""

import shlex
from pathlib import Path

import click

from mribatch.cli.elements import LocalPath


@click.command()
@click.argument("folder", type=LocalPath())
@click.option("--count", type=int, default=24, show_default=True, help="Number of slices to draw.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the drawings.")
def demo(folder: Path, count: int, seed: int) -> None:
    """Draw a small folder of synthetic slices to try mribatch on.

    The slices are drawings made from random numbers, in one sub-folder per class; a few broken files are among them.
    A study of one drawn head, as DICOM series and as a NIfTI volume, is beside them.
    FOLDER must be empty, missing, or drawn by this command before.

    \b
    Example:
        mribatch demo slices
        mribatch classify slices --out results
    """
    from mribatch.pipeline.demo_folder import add_demo_study, draw_demo_folder

    drawn = draw_demo_folder(folder, count, seed)
    study = add_demo_study(folder, seed)
    click.echo(f"Drew {drawn.slices} synthetic slices and {drawn.broken} broken files in {drawn.folder}")
    click.echo(f"Drew a head of {study.images + study.blank} slices in DICOM and NIfTI files in {study.folder}")
    results = folder.with_name(f"{folder.resolve().name}-results")
    click.echo(f"Next: mribatch classify {shlex.quote(str(folder))} --out {shlex.quote(str(results))}")
