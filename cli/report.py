"""mribatch report: from a finished run to metrics."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--groups",
    metavar="CSV[:COLUMN]|COLUMN",
    help="What the intervals resample: a table with path and series_id, group_id, patient or the COLUMN named; or a "
    "column of the predictions. Default: single images.",
)
@click.option(
    "--group-by",
    metavar="patient=REGEX|CSV",
    help="Also aggregate slices to patients: the first capture group in the path, or a table with path and patient.",
)
@click.option(
    "--require",
    multiple=True,
    metavar="REQUIREMENT",
    help="End with exit code 1 unless it holds per image, e.g. 'sensitivity[glioma_tumor]>=0.95'; with @low the lower "
    "bound must. May be repeated.",
)
@click.option("--protocol", metavar="TEXT", help="How test and training images were kept apart; stands in the report.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the bootstrap intervals.")
@click.option("--json", "as_json", is_flag=True, help="Print metrics.json as one line instead of the table.")
def report(
    run: Path,
    groups: str | None,
    group_by: str | None,
    require: tuple[str, ...],
    protocol: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Measure a finished run against its labels.

    RUN is the folder that classify wrote. The report goes there: metrics.parquet, metrics.json and report.md.
    Files that could not be read are named first and count in no metric. Research use only, not a medical device.

    \b
    Example:
        mribatch report results --groups groups.csv --require 'sensitivity[glioma_tumor]@low>=0.9'
    """
    from mribatch.report.measure import ReportOptions
    from mribatch.report.measure import report as write_report

    options = ReportOptions(run=run, groups=groups, group_by=group_by, require=require, protocol=protocol, seed=seed)
    result = write_report(options)
    click.echo(json.dumps(result.content, ensure_ascii=False, allow_nan=False) if as_json else result.table)
    result.check()
