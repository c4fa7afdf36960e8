"""The functions of the public face: `mribatch.classify`, `classify_images`, `open_run`, `report` and `audit`."""

import contextlib
import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mribatch.results import AuditResult, ImageResults, Run, RunReport, in_python_terms, measure_run

if TYPE_CHECKING:
    from mribatch.pipeline.images import Image
    from mribatch.pipeline.options import ClassifyOptions
    from mribatch.report.audit.options import AuditOptions

StrPath = str | os.PathLike[str]


def classify(
    inputs: StrPath | Iterable[StrPath],
    out: StrPath,
    options: "ClassifyOptions | None" = None,
    *,
    progress: bool = True,
    **changes: Any,
) -> Run:
    """Classify every image of the inputs into the run folder `out`: one row per image.

    An image is a file, or one slice of a DICOM file or a NIfTI volume.

    A bad file never raises: its row has a status and the reason. The same call resumes an interrupted run.

    Args:
        inputs: A folder (walked recursively), a file or a glob pattern, or several of them.
        out: Output folder that is new, empty, or holds an earlier run of the same inputs and options.
        options: Options as one object.
        progress: Show a progress bar in notebooks and terminals.
        **changes: Single options by name, e.g. `threads=2`; each replaces the field of `options`.

    Returns:
        The finished run.

    Raises:
        MribatchError: A problem that the user can fix, such as a folder that does not exist; names the fix.
        TypeError: A name in `changes` is not a field of ClassifyOptions.

    Example:
        run = mribatch.classify("scans/", "results/", threads=2)
        print(run.counts.by_status)
    """
    from mribatch.core.address_space import check_address_space

    with in_python_terms():
        check_address_space()
    from mribatch.pipeline.options import ClassifyOptions
    from mribatch.pipeline.progress import SilentProgress, progress_in_python
    from mribatch.pipeline.run import classify as classify_folder

    names = [inputs] if isinstance(inputs, str | bytes | os.PathLike) else inputs
    with in_python_terms():
        chosen = dataclasses.replace(options, **changes) if options is not None else ClassifyOptions(**changes)
        bar = progress_in_python() if progress else SilentProgress()
        return Run(classify_folder([os.fspath(name) for name in names], os.fspath(out), chosen, bar).out)


def classify_images(
    images: "Iterable[Image]",
    options: "ClassifyOptions | None" = None,
    *,
    progress: bool = True,
    **changes: Any,
) -> ImageResults:
    """Classify images that are in memory, or single files: one row per image, in order, without a run folder.

    Pixels and answers are those that `classify` gives for the same images as files. A bad image never raises: its row
    has a status and the reason.

    Args:
        images: NumPy arrays (uint8 or uint16; grey, or RGB in this order, of any size), contents of image files as
            bytes, or paths; also a column of a DataFrame that holds these.
        options: Options as one object. Those about labels and run folders have no effect.
        progress: Show a progress bar in notebooks and terminals.
        **changes: Single options by name, e.g. `model="cnn"`; each replaces the field of `options`.

    Raises:
        MribatchError: An array has another type or shape, or the model or a library is not available.
        TypeError: A name in `changes` is not a field of ClassifyOptions.

    Example:
        import numpy as np

        results = mribatch.classify_images([np.zeros((160, 160), np.uint8), b"not an image"])
        for row in results:
            print(row["status"], row["predicted"], row["confidence"])
    """
    from mribatch.pipeline.images import classify_images as classify_all
    from mribatch.pipeline.options import ClassifyOptions
    from mribatch.pipeline.progress import SilentProgress, progress_in_python

    if isinstance(images, str | bytes | os.PathLike):
        raise TypeError("images is a list of arrays, bytes or paths, not a single one")
    with in_python_terms():
        chosen = dataclasses.replace(options, **changes) if options is not None else ClassifyOptions(**changes)
        bar = progress_in_python() if progress else SilentProgress()
        with contextlib.closing(bar):
            return ImageResults(classify_all(images, chosen, bar))


def merge(
    shards: Iterable[StrPath],
    out: StrPath,
    *,
    csv: bool = False,
    xlsx: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Run:
    """Put the shards of an array job together to the run folder that one process would have written.

    Args:
        shards: Output folders of `classify` with `shard="1/N"`, … `shard="N/N"`, in any order.
        out: Output folder that is new, empty, or holds this merge.
        csv: Also write predictions.csv.
        xlsx: Also write predictions.xlsx; needs openpyxl.
        overwrite: Replace another run in `out`.
        progress: Show a progress bar in notebooks and terminals.

    Raises:
        MribatchError: A shard is missing, given twice, unfinished, damaged or of another run.

    Example:
        for number in (1, 2):
            mribatch.classify("scans/", f"shard-{number}/", shard=f"{number}/2")
        run = mribatch.merge(["shard-1/", "shard-2/"], "merged/")
    """
    from mribatch.pipeline.merge import merge as merge_shards
    from mribatch.pipeline.output.mirror import place_of
    from mribatch.pipeline.progress import SilentProgress, progress_in_python

    with in_python_terms():
        bar = progress_in_python() if progress else SilentProgress()
        folders = [place_of(folder) for folder in shards]
        return Run(merge_shards(folders, place_of(out), csv=csv, xlsx=xlsx, overwrite=overwrite, progress=bar).out)


def open_run(folder: StrPath) -> Run:
    """Open the output folder of a finished run.

    Args:
        folder: What was given to `classify` as `out`.

    Raises:
        MribatchError: The folder holds no run, the run is not complete, or its run.json is damaged.

    Example:
        run = mribatch.open_run("results/")
        table = run.to_arrow()
        print(table.num_rows, table.column_names)
    """
    from mribatch.pipeline.output.mirror import place_of

    with in_python_terms():
        return Run(place_of(folder))


def report(
    run: Run | StrPath,
    *,
    groups: str | None = None,
    group_by: str | None = None,
    require: str | Iterable[str] = (),
    require_low: str | Iterable[str] = (),
    protocol: str | None = None,
    seed: int = 0,
    html: bool = True,
) -> RunReport:
    """Measure a finished run against its labels; write metrics.parquet, metrics.json, report.md and report.html.

    Files that could not be read count in no metric; the report names them first.

    Args:
        run: A run, or the folder of one.
        groups: What the confidence intervals resample: a CSV file with the columns `path` and a group, optionally
            followed by `:COLUMN`; or a column of the predictions. Without it, single images.
        group_by: Also aggregate slices to patients, and write patients.parquet and patients.csv: `patient=REGEX`, whose
            first group in the path names the patient, or `patient=FILE.csv`.
        require: Requirements such as "sensitivity[glioma_tumor]@low>=0.9"; `RunReport.check` raises if one is not met.
        require_low: Likewise, of the lower bounds of the intervals.
        protocol: How test and training images were kept apart; quoted in the report.
        seed: Seed of the bootstrap intervals.
        html: Write report.html, the page with pictures and charts, too.

    Raises:
        MribatchError: The run is not complete or is damaged, or an option does not fit it.

    Example:
        result = mribatch.report("results/")
        for metric in result.metrics:
            print(metric.metric, metric.class_, metric.value)
    """
    from mribatch.pipeline.output.mirror import place_of

    return measure_run(
        run.place if isinstance(run, Run) else place_of(run),
        groups=groups,
        group_by=group_by,
        require=require,
        require_low=require_low,
        protocol=protocol,
        seed=seed,
        html=html,
    )


def audit(
    inputs: StrPath | Iterable[StrPath],
    out: StrPath,
    options: "AuditOptions | None" = None,
    *,
    progress: bool = True,
    **changes: Any,
) -> AuditResult:
    """Find what makes a data set unfit for training or for a published figure: duplicates, leaks, shortcuts.

    Writes audit.parquet, pairs.parquet, groups.csv, audit.json and audit.html into `out`. A file that cannot be read
    never raises: its row has a status and the reason.

    Args:
        inputs: A folder (walked recursively), a file or a glob pattern, or several of them.
        out: Folder for the results; files of an earlier audit are replaced.
        options: Options as one object.
        progress: Show a progress bar in notebooks and terminals.
        **changes: Single options by name, e.g. `require="leak_rate<=0.01"`; each replaces the field of `options`.

    Raises:
        MribatchError: A problem that the user can fix, such as a folder that does not exist; names the fix.
        TypeError: A name in `changes` is not a field of AuditOptions.

    Example:
        found = mribatch.audit("scans/", "audit/", html=False)
        for text in found.facts.findings:
            print(text)
    """
    from mribatch.pipeline.progress import SilentProgress, progress_in_python
    from mribatch.report.audit.audit import audit as audit_folder
    from mribatch.report.audit.options import AuditOptions

    names = [inputs] if isinstance(inputs, str | bytes | os.PathLike) else inputs
    with in_python_terms():
        chosen = dataclasses.replace(options, **changes) if options is not None else AuditOptions(**changes)
        bar = progress_in_python(doing="reading") if progress else SilentProgress()
        found = audit_folder([os.fspath(name) for name in names], Path(out), chosen, bar)
        return AuditResult(found.out, found.file)
