"""mribatch table: rows of a run"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mribatch.cli.elements import RunPath

if TYPE_CHECKING:
    from mribatch.pipeline.output.mirror import Place

# As in pipeline/output/selection.py, which a test compares: --help imports nothing heavy.
SORTS = ("listing", "path", "confidence", "margin", "entropy")
STATUSES = (
    *("ok", "empty", "unreadable", "unsupported", "truncated", "too_large", "decode_failed"),
    *("decoder_crash", "timeout", "invalid_output", "blank", "failed"),
)


@click.command(short_help="Print rows of a run: the least certain, of one class, those that failed.")
@click.argument("run", type=RunPath())
@click.option(
    "--top", type=click.IntRange(0), default=20, show_default=True, help="Maximum number of rows; 0 for all of them."
)
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    default="listing",
    show_default=True,
    help="Order of the rows; confidence, margin and entropy put the least certain first.",
)
@click.option("--reverse", is_flag=True, help="The opposite order.")
@click.option("--class", "predicted", metavar="NAME", help="Only rows that were given this class.")
@click.option("--label", metavar="NAME", help="Only rows with this label.")
@click.option(
    "--status", type=click.Choice(STATUSES), metavar="STATUS", help="Only rows with this status; failed for all but ok."
)
@click.option("--wrong", is_flag=True, help="Only rows whose class differs from their label.")
@click.option("--series", is_flag=True, help="One row per series of a study instead; --top and --json apply.")
@click.option("--json", "as_json", is_flag=True, help="Print each row as one line of JSON.")
def table(
    *,
    run: "Place",
    top: int,
    sort: str,
    reverse: bool,
    predicted: str | None,
    label: str | None,
    status: str | None,
    wrong: bool,
    series: bool,
    as_json: bool,
) -> None:
    """Print rows of RUN, the output folder of mribatch classify: file, status, class and probabilities.

    \b
    Examples:
      mribatch table results --sort margin --top 10
      mribatch table results --status failed --top 0
      mribatch table results --class glioma_tumor --sort confidence --reverse
    """
    from mribatch.core.tables import Screen, count
    from mribatch.pipeline.output.mirror import run_copy
    from mribatch.pipeline.output.row_table import format_rows
    from mribatch.pipeline.output.selection import RowSelection, select_rows
    from mribatch.report.run_facts import read_facts

    if series:
        with run_copy(run) as folder:
            read_facts(folder)
            _print_series(folder, top, as_json)
        return
    selection = RowSelection(
        top=top or None,
        sort=sort,
        reverse=reverse,
        predicted=predicted,
        label=label,
        status=status,
        disagreeing=wrong,
    )
    with run_copy(run) as folder:
        classes = read_facts(folder).classes
        selection.check_classes(classes)
        found = select_rows(folder, selection)
    if as_json:
        for row in found.rows:
            click.echo(json.dumps(row, allow_nan=False))
        return
    if not found.rows:
        click.echo("No row fits.")
        return
    click.echo(format_rows(found.rows, classes, Screen.of_stdout()))
    if len(found.rows) < found.matching:
        click.echo(f"{len(found.rows):,} of {count(found.matching, 'row')}; --top 0 prints all.")


def _print_series(run: Path, top: int, as_json: bool) -> None:
    """Print the series of a run, those that show a tumor most first."""
    from mribatch.core.tables import Screen, count
    from mribatch.pipeline.output.row_table import format_series
    from mribatch.pipeline.output.series import RULE, read_series, select_suspicious

    table = read_series(run)
    rows = [] if table is None else select_suspicious(table, top or None)
    if as_json:
        for row in rows:
            click.echo(json.dumps(row, allow_nan=False))
        return
    if table is None:
        click.echo("The run has no series: its images are plain files.")
        return
    click.echo(format_series(rows, Screen.of_stdout()))
    more = f" {len(rows):,} of {count(table.num_rows, 'series', 'series')}; --top 0 prints all."
    click.echo(f"Class: {RULE}.{more if len(rows) < table.num_rows else ''}")
