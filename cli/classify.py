"""mribatch classify"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mribatch.core.errors import ExitCode, MribatchError

if TYPE_CHECKING:
    from mribatch.pipeline.options import ClassifyOptions
    from mribatch.pipeline.progress import Progress
    from mribatch.pipeline.progress_events import ProgressEvents
    from mribatch.pipeline.prometheus_file import PrometheusFile

BACKENDS = ("auto", "onnxruntime", "onnxruntime-cuda", "tensorrt")
DECODERS = ("auto", "opencv", "dali")
PLANES = ("axial", "coronal", "sagittal")
PRECISIONS = ("auto", "fp32", "int8")
CHECKS = ("always", "never")


@click.command(short_help="Classify every image of a folder into Parquet, one row per image.")
@click.argument("inputs", nargs=-1, metavar="INPUT…", type=click.Path(path_type=str))
@click.option(
    "--out",
    type=click.Path(path_type=str),
    help="Folder or address (s3://…) for the results: new, empty, or holding a run to resume.",
)
@click.option(
    "--model", help="Name of a shipped model; folder or address of a bundle.  [default: efficientnet-lite2-framed]"
)
@click.option("--batch-size", type=int, help="Images per batch.  [default: 8 per core; 64 with dali or tensorrt]")
@click.option("--threads", type=int, help="Number of cores to use.  [default: all that this process may use]")
@click.option(
    "--workers",
    metavar="K|auto",
    help="Processes that classify side by side, each with its share of the cores; auto: what GPUs and cores need."
    "  [default: 1, or one for each of --gpus]",
)
@click.option(
    "--on",
    metavar="ray[://HOST:PORT]",
    help="Classify on a Ray cluster whose machines see the inputs and --out under the same paths.",
)
@click.option(
    "--allow-mixed",
    is_flag=True,
    help="Let the machines of the cluster differ in processor, GPU and versions; run.json says who made what.",
)
@click.option("--gpus", metavar="N,N…", help="Numbers of the GPUs that they use, in turn.  [default: the first]")
@click.option(
    "--backend", type=click.Choice(BACKENDS), default="auto", show_default=True, help="Library that runs the model."
)
@click.option(
    "--decoder", type=click.Choice(DECODERS), default="auto", show_default=True, help="Library that decodes images."
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="Precision on the CPU. auto: int8 for 1,000 files or more, where the model has it and it is faster here.",
)
@click.option(
    "--labels",
    metavar="auto|none|FILE.csv",
    default="auto",
    show_default=True,
    help="Source of the true classes: folder names, none, or a CSV file with the columns path,label.",
)
@click.option(
    "--alias",
    multiple=True,
    metavar="FOLDER=CLASS",
    help="Another name of a class, in folder names and in the labels table. Repeatable.",
)
@click.option(
    "--from-file", metavar="LIST|-", help="File or pipe with more input paths, one per line; - for standard input."
)
@click.option("--null", is_flag=True, help="Paths in --from-file end with NUL bytes, as from find -print0.")
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Files and folders to leave out, as in .gitignore: '*_mask.png', 'masks/', 'a/**/b.png'. Repeatable.",
)
@click.option("--csv", is_flag=True, help="Also write predictions.csv, for spreadsheets.")
@click.option("--xlsx", is_flag=True, help="Also write predictions.xlsx, an Excel workbook; needs openpyxl.")
@click.option("--dry-run", is_flag=True, help="Count the files by type, estimate the time, write nothing.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in --out. Other files are never deleted.")
@click.option(
    "--shard",
    metavar="I/N",
    help="Classify only the I-th of N shares, for array jobs; mribatch merge puts them together.",
)
@click.option("--add-new", is_flag=True, help="Add the files that are new since the run in --out; keep its rows.")
@click.option("--keep-going", is_flag=True, help="Continue even if the first 1,000 files all fail.")
@click.option(
    "--max-failures",
    metavar="N|P%",
    help="Stop, with exit code 4, once more images than this number or share of all have failed.",
)
@click.option(
    "--max-pixels",
    type=int,
    help="Maximum pixels per image; larger ones are too_large.  [default: 100000000]",
)
@click.option(
    "--check-data",
    type=click.Choice(CHECKS),
    default="always",
    show_default=True,
    help="Whether the data of JPEGs are looked at for damage where DALI decodes, which hides it. never: for files that"
    " were checked before, on a host that cannot feed its GPU; rows get the flag unchecked_data.",
)
@click.option("--timeout", type=float, metavar="SECONDS", help="Maximum time to read and decode a file.  [default: 60]")
@click.option(
    "--strict", is_flag=True, help="Exit code 3 also if DICOM images or endlessly linked files were left out."
)
@click.option(
    "--window",
    metavar="file|auto|CENTER,WIDTH",
    default="file",
    show_default=True,
    help="Grey values of DICOM slices: the file's window, the range of the series, or one window for all.",
)
@click.option(
    "--plane", type=click.Choice(PLANES), help="Plane of the slices of NIfTI volumes.  [default: as acquired]"
)
@click.option("--volume", metavar="N|all", help="Volume of a NIfTI file with several, from 0.  [default: 0]")
@click.option("--any-modality", is_flag=True, help="Also classify DICOM images of other modalities than MR.")
@click.option("--dicom-anywhere", is_flag=True, help="Also find DICOM files without the preamble.")
@click.option(
    "--pseudonym-key",
    metavar="FILE",
    type=click.Path(path_type=str),
    help="Key of the patients' pseudonyms, made if missing.  [default: a key of the run's own]",
)
@click.option("--anonymize-paths", is_flag=True, help="Show pseudonyms in place of paths; paths.parquet maps them.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one line of JSON.")
@click.option(
    "--progress",
    "shown_as",
    type=click.Choice(("auto", "json")),
    default="auto",
    show_default=True,
    help="json: events on stderr, one JSON object per line, for schedulers. auto: a bar in a terminal, else lines.",
)
@click.option(
    "--metrics-file",
    metavar="FILE.prom",
    help="File of metrics for Prometheus' node_exporter, replaced every 5 s; needs prometheus-client.",
)
@click.option("--log", "log_file", metavar="FILE", help="File that log lines with timestamps (UTC) are appended to.")
@click.option("-v", "--verbose", is_flag=True, help="Print log lines with timestamps instead of a progress bar.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def classify(
    inputs: tuple[str, ...],
    out: str | None,
    dry_run: bool,
    as_json: bool,
    shown_as: str,
    metrics_file: str | None,
    log_file: str | None,
    verbose: bool,
    quiet: bool,
    **chosen: Any,
) -> ExitCode:
    """Classify every image of INPUT… (folders, files, patterns, archives, addresses) into Parquet: one row per image.

    An image is a file, or one slice of a DICOM file or a NIfTI volume.

    The same command resumes an interrupted run where it stopped. The rows of up to 10 files are printed; `mribatch
    table` prints rows of any run.

    \b
    Exit codes: 0 every image is ok or blank; 1 error; 2 usage; 3 finished, some files
    failed; 4 stopped by --max-failures, can be resumed; 129, 130 or 143 interrupted, can
    be resumed.

    \b
    Example:
      mribatch classify scans/ --out results/
    """
    from mribatch.core.address_space import check_address_space

    check_address_space()
    from mribatch.cli.log_file import logging_to
    from mribatch.core.native_stderr import without_native_stderr
    from mribatch.pipeline.options import ClassifyOptions

    if shown_as == "json" and (dry_run or quiet or verbose):
        given = "--dry-run" if dry_run else "--quiet" if quiet else "--verbose"
        raise click.UsageError(f"--progress json and {given} exclude each other", click.get_current_context())
    if metrics_file is not None and dry_run:
        raise click.UsageError("--metrics-file and --dry-run exclude each other", click.get_current_context())
    if out is None and not dry_run:
        raise click.UsageError("Missing option '--out'", click.get_current_context())
    chosen["timeout_s"] = chosen.pop("timeout")
    options = ClassifyOptions(**{key: value for key, value in chosen.items() if value is not None})
    with without_native_stderr(), logging_to(log_file, verbose):
        observers = _open_observers(out, metrics_file, events=shown_as == "json")
        shown = _open_progress(observers, quiet=quiet or shown_as == "json", log=log_file is not None, verbose=verbose)
        result = _estimate(inputs, out, options, shown) if dry_run else _run(inputs, out, options, shown, observers)
    if as_json:
        click.echo(json.dumps(result.to_json(), allow_nan=False))
    elif not quiet:
        _print_result(result, may_show_rows=not dry_run and chosen.get("shard") is None)
    return ExitCode(result.exit_code)


def _estimate(inputs: Sequence[str], out: str | None, options: "ClassifyOptions", progress: "Progress") -> Any:
    from mribatch.pipeline.dry_run import estimate

    return estimate(inputs, out, options, progress)


def _open_observers(
    out: str | None, metrics_file: str | None, *, events: bool
) -> "list[ProgressEvents | PrometheusFile]":
    """Who is told how the run goes, and how it ended."""
    found: list[Any] = []
    if events:
        from mribatch.pipeline.progress_events import ProgressEvents

        found.append(ProgressEvents(sys.stderr))
    if metrics_file is not None:
        from mribatch.pipeline.prometheus_file import PrometheusFile

        found.append(PrometheusFile(Path(metrics_file), out or ""))
    return found


def _open_progress(
    observers: "Sequence[ProgressEvents | PrometheusFile]", *, quiet: bool, log: bool, verbose: bool
) -> "Progress":
    from mribatch.pipeline.progress import SeveralProgress, progress_for

    shown = progress_for(quiet=quiet, log=log, verbose=verbose)
    return SeveralProgress(shown, *observers) if observers else shown


def _run(
    inputs: Sequence[str],
    out: str | None,
    options: "ClassifyOptions",
    progress: "Progress",
    observers: "Sequence[ProgressEvents | PrometheusFile]",
) -> Any:
    from mribatch.pipeline.run import classify as classify_folder

    try:
        result = classify_folder(inputs, out or "", options, progress)
    except MribatchError as error:
        for observer in observers:
            observer.stopped(error)
        raise
    for observer in observers:
        observer.finished(result)
    return result


def _print_result(result: Any, *, may_show_rows: bool) -> None:
    """Print the summary; the rows of a few images come first."""
    from mribatch.core.tables import Screen
    from mribatch.pipeline.output.summary import FEW_IMAGES

    screen = Screen.of_stdout()
    if may_show_rows and result.images <= FEW_IMAGES:
        from mribatch.pipeline.output.mirror import run_copy
        from mribatch.pipeline.output.row_table import format_rows
        from mribatch.pipeline.output.selection import RowSelection, select_rows

        with run_copy(result.out) as folder:
            click.echo(format_rows(select_rows(folder, RowSelection()).rows, result.classes, screen) + "\n")
    click.echo(result.to_text(screen))
