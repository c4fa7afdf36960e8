"""mribatch doctor"""

import json

import click

from mribatch.core.errors import ExitCode


@click.command(short_help="Show what this machine has, what auto picks, and what is missing.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one line of JSON.")
def doctor(as_json: bool) -> ExitCode:
    """Show versions, cores and GPU, what `auto` picks and why, and what each extra would add.

    \b
    Exit codes: 0 a run would work; 1 something is missing.
    """
    from mribatch.core.tables import Screen
    from mribatch.pipeline.doctor import diagnose

    diagnosis = diagnose()
    click.echo(json.dumps(diagnosis.to_json(), allow_nan=False) if as_json else diagnosis.to_text(Screen.of_stdout()))
    return ExitCode.USER_ERROR if diagnosis.problems else ExitCode.OK
