"""mribatch audit: what makes a folder of images unfit for training or for a published figure."""

from pathlib import Path

import click

from mribatch.cli.elements import LocalPath


@click.command(short_help="Find duplicates, leaks, contradictory labels and shortcuts in a data set.")
@click.argument("inputs", nargs=-1, required=True, metavar="FOLDER…", type=click.Path(path_type=str))
@click.option("--out", required=True, type=LocalPath(holds_parquet=True), help="Folder for the results.")
@click.option(
    "--labels",
    metavar="auto|none|FILE.csv",
    default="auto",
    show_default=True,
    help="Source of the classes: folder names, none, or a CSV file with the columns path,label.",
)
@click.option("--classes", metavar="NAME,NAME,…", help="Names of the classes.  [default: those of the default model]")
@click.option(
    "--alias",
    multiple=True,
    metavar="FOLDER=CLASS",
    help="Another name of a class, in folder names and in the labels table. Repeatable.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Files and folders to leave out, as in .gitignore: '*_mask.png', 'masks/', 'a/**/b.png'. Repeatable.",
)
@click.option(
    "--require",
    multiple=True,
    metavar="REQUIREMENT",
    help="Condition that must hold, e.g. 'leak_rate<=0.01'; otherwise the exit code is 4. With @low or @high, a bound "
    "of the interval is compared. Repeatable.",
)
@click.option("--threads", type=int, help="Number of cores to use.  [default: all that this process may use]")
@click.option("--timeout", type=float, metavar="SECONDS", help="Maximum time to read and decode a file.  [default: 60]")
@click.option(
    "--anonymize-paths",
    is_flag=True,
    help="Show pseudonyms in place of paths, and no pictures; paths.parquet maps them. Leaves out groups.csv.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of forests and intervals.")
@click.option("--no-html", is_flag=True, help="Do not write audit.html, the page with pictures.")
@click.option("--open", "open_page", is_flag=True, help="Open audit.html in the browser.")
@click.option("--json", "as_json", is_flag=True, help="Print audit.json as one line instead of the tables.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def audit(
    *,
    inputs: tuple[str, ...],
    out: Path,
    labels: str,
    classes: str | None,
    alias: tuple[str, ...],
    exclude: tuple[str, ...],
    require: tuple[str, ...],
    threads: int | None,
    timeout: float | None,
    anonymize_paths: bool,
    seed: int,
    no_html: bool,
    open_page: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find what makes FOLDER… unfit for training or for a published figure.

    Exact and near duplicates, also across folders train and test; pictures with several labels; how well the size of an
    image, the header of its file or its border alone tell the class; uneven classes; files that cannot be read.
    audit.parquet has a row per image, pairs.parquet the duplicates, groups.csv what `mribatch train --groups` keeps
    together, audit.json the figures, and audit.html shows them. Research use only, not a medical device.

    \b
    Example:
      mribatch audit data/ --out audit/ --require 'leak_rate<=0.01'
    """
    import json

    from mribatch.core.errors import OptionError
    from mribatch.core.native_stderr import without_native_stderr
    from mribatch.core.tables import Screen
    from mribatch.pipeline.options import DEFAULT_TIMEOUT_S
    from mribatch.pipeline.progress import progress_for
    from mribatch.report.audit.audit import audit as audit_folder
    from mribatch.report.audit.console import format_audit
    from mribatch.report.audit.options import AuditOptions
    from mribatch.report.audit.page import AUDIT_PAGE

    if no_html and open_page:
        raise OptionError("--open and --no-html exclude each other", "choose one of them")
    options = AuditOptions(
        labels=labels,
        classes=() if classes is None else tuple(name.strip() for name in classes.split(",")),
        alias=alias,
        exclude=exclude,
        require=require,
        threads=threads,
        timeout_s=DEFAULT_TIMEOUT_S if timeout is None else timeout,
        anonymize_paths=anonymize_paths,
        html=not no_html,
        seed=seed,
    )
    with without_native_stderr():
        found = audit_folder(inputs, out, options, progress_for(quiet=quiet, doing="reading"))
    if as_json:
        click.echo(json.dumps(found.file.to_json(), allow_nan=False))
    elif not quiet:
        click.echo(format_audit(found.file, out, Screen.of_stdout()))
    if open_page:
        click.launch(str(out / AUDIT_PAGE))
    found.check()
