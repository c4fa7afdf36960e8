"""mribatch verify: whether a finished run still says what was written."""

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from mribatch.cli.elements import RunPath

if TYPE_CHECKING:
    from mribatch.pipeline.output.mirror import Place


@click.command(short_help="Check every file and every row of a finished run.")
@click.argument("run", type=RunPath())
@click.option("--inputs", is_flag=True, help="Also compare the input files with the hashes in their rows.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
def verify(*, run: "Place", inputs: bool, as_json: bool) -> None:
    """Check that the results in RUN are those that mribatch classify wrote.

    The part files are compared with the hashes in parts.sha256, their rows with the listing and with themselves, and
    run.json and series.parquet with what the rows give. The exit code is 1 where something does not fit; the first ten
    findings are printed. Research use only, not a medical device.

    \b
    Example:
        mribatch verify results --inputs
    """
    from mribatch.core.about import RESEARCH_NOTICE
    from mribatch.core.errors import RunError
    from mribatch.core.tables import count
    from mribatch.core.text import one_line
    from mribatch.pipeline.output.mirror import run_copy
    from mribatch.pipeline.progress import track_on_terminal
    from mribatch.report.verify import verify_run

    with run_copy(run) as folder:
        found = replace(verify_run(folder, inputs=inputs, track=track_on_terminal), run=str(run))
    if as_json:
        click.echo(json.dumps(asdict(found) | {"research_notice": RESEARCH_NOTICE}))
    else:
        for text in found.findings:
            click.echo(one_line(text))
        if found.parts_without_hash:
            click.echo(f"{count(found.parts_without_hash, 'part')} of an earlier version without a recorded hash")
    if found.problems:
        raise RunError(
            f"{count(found.problems, 'problem')} in {run}", "restore the folder, or classify the images again"
        )
    if not as_json:
        hashed = "" if found.input_files is None else f", {count(found.input_files, 'input file')} unchanged"
        click.echo(f"{count(found.rows, 'row')} in {count(found.parts, 'part')} verified{hashed}")
        click.echo(RESEARCH_NOTICE)
