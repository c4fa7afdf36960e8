"""mribatch report: from a finished run to metrics."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mribatch.cli.elements import RunPath

if TYPE_CHECKING:
    from mribatch.pipeline.output.mirror import Place


@click.command()
@click.argument("run", type=RunPath())
@click.option(
    "--groups",
    metavar="CSV[:COLUMN]|COLUMN",
    help="Groups that the intervals resample: a table with the columns path and patient_id, study_id, series_id or "
    "group_id (the first that it has) or COLUMN; or a column of the predictions.  [default: single images]",
)
@click.option(
    "--group-by",
    metavar="patient=REGEX|CSV",
    help="Patients, for a table of them and figures per patient: the first capture group of REGEX in the path, or a "
    "table with the columns path and patient_id. Works without labels, too.",
)
@click.option(
    "--require",
    multiple=True,
    metavar="REQUIREMENT",
    help="Condition that must hold per image, e.g. 'sensitivity[glioma_tumor]>=0.95'; otherwise the exit code is 4. "
    "With @low, the lower bound of the interval is compared. Repeatable.",
)
@click.option(
    "--require-low",
    multiple=True,
    metavar="REQUIREMENT",
    help="The same for the lower bound of the 95 % interval: 'sensitivity[glioma_tumor]>=0.9'. Repeatable.",
)
@click.option(
    "--protocol", metavar="TEXT", help="How test and training images were kept apart; quoted beside every figure."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the bootstrap intervals."
)
@click.option("--no-html", is_flag=True, help="Do not write report.html, the page with pictures.")
@click.option("--open", "open_page", is_flag=True, help="Open report.html in the browser.")
@click.option("--json", "as_json", is_flag=True, help="Print metrics.json as one line instead of the table.")
def report(
    *,
    run: "Place",
    groups: str | None,
    group_by: str | None,
    require: tuple[str, ...],
    require_low: tuple[str, ...],
    protocol: str | None,
    seed: int,
    no_html: bool,
    open_page: bool,
    as_json: bool,
) -> None:
    """Measure a finished run against its labels.

    RUN is the output folder of mribatch classify. metrics.parquet, metrics.json, report.md and report.html, a page with
    charts and pictures, are written there, and with --group-by patients.parquet and patients.csv, one row per patient.
    Files that could not be read are named first and are not part of any metric.
    Research use only, not a medical device.

    \b
    Examples:
        mribatch report results --groups groups.csv --require 'sensitivity[glioma_tumor]@low>=0.9'
        mribatch report results --group-by 'patient=(P[0-9]+)_'
    """
    from mribatch.core.errors import OptionError
    from mribatch.core.tables import Screen
    from mribatch.core.text import one_line
    from mribatch.pipeline.output.mirror import run_copy
    from mribatch.pipeline.progress import track_on_terminal
    from mribatch.report.html.page import HTML_PAGE
    from mribatch.report.measure import ReportOptions
    from mribatch.report.measure import report as write_report
    from mribatch.report.text.console import format_table

    if no_html and open_page:
        raise OptionError("--open and --no-html exclude each other", "choose one of them")
    if open_page and not isinstance(run, Path):
        raise OptionError(f"--open cannot show a page of {run}", "copy the folder to this machine, or leave --open out")
    with run_copy(run, writes=True) as folder:
        options = ReportOptions(
            run=folder,
            groups=groups,
            group_by=group_by,
            require=require,
            require_low=require_low,
            protocol=protocol,
            seed=seed,
            html=not no_html,
        )
        result = write_report(options, track_on_terminal)
    if result.missing_pictures is not None:
        fix = "put them back and type the same command again for a page with all pictures"
        click.echo(f"Warning: {one_line(result.missing_pictures)} Fix: {fix}", err=True)
    if as_json:
        click.echo(json.dumps(result.content, allow_nan=False))
    else:
        click.echo(format_table(result.file, Screen.of_stdout(), result.patients))
    if open_page:
        click.launch(str(run / HTML_PAGE))
    result.check()
