"""mribatch merge: the shards of an array job to one run."""

import json
from typing import TYPE_CHECKING

import click

from mribatch.cli.elements import RunPath
from mribatch.core.errors import ExitCode

if TYPE_CHECKING:
    from mribatch.pipeline.output.mirror import Place


@click.command(short_help="Put the shards of an array job together to one run.")
@click.argument("shards", nargs=-1, required=True, metavar="SHARD…", type=RunPath())
@click.option("--out", required=True, type=RunPath(), help="Folder for the whole run: new, or empty.")
@click.option("--csv", is_flag=True, help="Also write predictions.csv, for spreadsheets.")
@click.option("--xlsx", is_flag=True, help="Also write predictions.xlsx, an Excel workbook; needs openpyxl.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in --out. Other files are never deleted.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one line of JSON.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def merge(
    *,
    shards: tuple["Place", ...],
    out: "Place",
    csv: bool,
    xlsx: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> ExitCode:
    """Put the folders SHARD…, which classify --shard 1/N to N/N wrote, together to one run folder.

    The result is what classify without --shard would have written. A shard that is missing, unfinished, given twice or
    of another run is refused. The exit code is that of classify: 3 where some files failed.

    \b
    Example:
      mribatch merge shard-1 shard-2 shard-3 shard-4 --out results
    """
    from mribatch.core.tables import Screen
    from mribatch.pipeline.merge import merge as merge_shards
    from mribatch.pipeline.progress import progress_for

    progress = progress_for(quiet=quiet, log=False, verbose=False)
    summary = merge_shards(shards, out, csv=csv, xlsx=xlsx, overwrite=overwrite, progress=progress)
    if as_json:
        click.echo(json.dumps(summary.to_json(), allow_nan=False))
    elif not quiet:
        click.echo(summary.to_text(Screen.of_stdout()))
    return ExitCode(summary.exit_code)
