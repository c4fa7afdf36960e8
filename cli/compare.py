"""mribatch compare: what changed between two runs."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mribatch.cli.elements import RunPath

if TYPE_CHECKING:
    from mribatch.pipeline.output.mirror import Place


@click.command(short_help="Compare two runs over the same images: flips, differences, agreement.")
@click.argument("run_a", type=RunPath())
@click.argument("run_b", type=RunPath())
@click.option("--max-flips", type=click.IntRange(0), help="Exit code 4 if more images changed class.")
@click.option("--max-difference", type=click.FloatRange(0, 1), help="Exit code 4 if a probability changed by more.")
@click.option(
    "--parquet", type=click.Path(path_type=Path), metavar="FILE", help="Also write every compared image into FILE."
)
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Also write a page with pictures into FILE."
)
@click.option("--open", "open_page", is_flag=True, help="Open that page in the browser.")
@click.option("--top", type=click.IntRange(0), default=10, show_default=True, help="Maximum number of images to print.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one line of JSON.")
def compare(
    *,
    run_a: "Place",
    run_b: "Place",
    max_flips: int | None,
    max_difference: float | None,
    parquet: Path | None,
    html: Path | None,
    open_page: bool,
    top: int,
    as_json: bool,
) -> None:
    """Compare RUN_A with RUN_B, two output folders of mribatch classify over the same images.

    Images are matched by the content of their files, so folders and names may differ. Use it for two models, for CPU
    against GPU, or before and after an update. Research use only, not a medical device.

    \b
    Example:
        mribatch compare results-cpu results-gpu --html changes.html --max-flips 0
    """
    from mribatch.core.about import RESEARCH_NOTICE
    from mribatch.core.errors import OptionError, RequirementNotMetError
    from mribatch.core.tables import Screen
    from mribatch.pipeline.output.mirror import run_copy
    from mribatch.report.compare import compare_runs, write_images
    from mribatch.report.html.compare_page import write_compare_page
    from mribatch.report.text.comparison import format_comparison

    if open_page and html is None:
        raise OptionError("--open needs a page", "name its file with --html")
    with run_copy(run_a) as folder_a, run_copy(run_b) as folder_b:
        found = compare_runs(folder_a, folder_b)
        found = replace(found, figures=replace(found.figures, run_a=str(run_a), run_b=str(run_b)))
        if parquet is not None:
            write_images(found, parquet)
        if html is not None:
            write_compare_page(found, html)
    if as_json:
        click.echo(json.dumps(asdict(found.figures) | {"research_notice": RESEARCH_NOTICE}, allow_nan=False))
    else:
        click.echo(format_comparison(found, Screen.of_stdout(), top))
    if open_page:
        click.launch(str(html))
    figures = found.figures
    if max_flips is not None and figures.flips > max_flips:
        raise RequirementNotMetError(
            f"{figures.flips:,} images changed class, more than --max-flips {max_flips:,}",
            "look at them with --top, or allow more",
        )
    if max_difference is not None and (figures.max_difference or 0) > max_difference:
        raise RequirementNotMetError(
            f"a probability changed by {figures.max_difference:.3g}, more than --max-difference {max_difference:g}",
            "look at the images with --parquet, or allow more",
        )
