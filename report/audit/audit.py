"""`mribatch audit`: a folder of images -> audit.parquet, pairs.parquet, groups.csv, audit.json and audit.html."""

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy import int64
from numpy.typing import NDArray

from mribatch.core.about import RESEARCH_NOTICE, __version__
from mribatch.core.cores import usable_cores
from mribatch.core.errors import OptionError, RequirementNotMetError, WriteError, advising
from mribatch.core.local_paths import check_local, utf8_path
from mribatch.core.model_spec import find_no_tumor_class
from mribatch.pipeline.options import FIXES
from mribatch.pipeline.progress import Progress, SilentProgress
from mribatch.pipeline.records import Status
from mribatch.report.audit.audit_file import (
    SCHEMA_VERSION,
    AuditedFiles,
    AuditFile,
    ClassCount,
    Contradictions,
    DuplicateCounts,
    RandomSplit,
    SeriesCounts,
    figure_keys,
    list_figures,
)
from mribatch.report.audit.duplicates import AuditDuplicates, PairKind, connect, find_duplicates, number
from mribatch.report.audit.files import write_files
from mribatch.report.audit.findings import list_findings
from mribatch.report.audit.images import AuditedImages, ListedFolder, list_images, read_images
from mribatch.report.audit.leaks import (
    PARTS,
    RANDOM_TEST_SHARE,
    Ties,
    expect_random_leak,
    find_leaked,
    find_parts,
    measure_leaks,
)
from mribatch.report.audit.options import AuditOptions
from mribatch.report.audit.page import AUDIT_PAGE, write_page
from mribatch.report.audit.series import Series, find_series
from mribatch.report.audit.shortcuts import ShortcutFigures, measure_shortcuts
from mribatch.report.audit.table import AuditTable
from mribatch.report.metrics_file import RequirementResult
from mribatch.report.requirement import Requirement, parse_requirement_on

_NO_PART = "none"
_WORTH_A_NOTE = 500  # images whose comparison takes seconds
_EXAMPLE = "'leak_rate<=0.01' or 'shortcut_gain[size]@high<=0.05'"


@dataclass(frozen=True)
class Audit:
    """What was found and written."""

    out: Path
    file: AuditFile

    def check(self) -> None:
        """Raises RequirementNotMetError where a requirement is not met."""
        if self.file.unmet:
            raise RequirementNotMetError(
                f"requirement not met: {'; '.join(self.file.unmet)}",
                "correct the data set as audit.html shows, or change the requirement if the figure is good enough",
            )


def audit(
    inputs: Sequence[str | Path],
    out: str | Path,
    options: AuditOptions | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Look for what makes a data set unfit for training or for a published figure, and write what was found.

    Files of an earlier audit in `out` are replaced, other files are left alone. Nothing is written when an option is
    wrong; everything is written, and `AuditFile.unmet` filled, when a requirement fails.

    Args:
        inputs: Files, folders and patterns, as for `classify`.
        out: Folder for the results; made where it is missing.
        options: See AuditOptions.
        progress: Receives the progress; silent by default.

    Raises:
        MribatchError: An input or an option does not fit, there is no image, or the folder cannot be written to.
    """
    options = options if options is not None else AuditOptions()
    progress = progress if progress is not None else SilentProgress()
    requirements = [parse_requirement_on(figure_keys(), text, _EXAMPLE) for text in options.require]
    _check_paths(inputs, out)
    folder = Path(out)
    with (
        advising({WriteError: FIXES[WriteError]}),
        contextlib.closing(progress),
        list_images(inputs, folder, options, progress) as listed,
    ):
        images = read_images(listed, options, progress)
        table, file = examine(listed, images, options, progress)
        file = replace(file, requirements=_judge(requirements, file))
        _make_folder(folder)
        write_files(folder, table, file, [one.root for one in listed.inputs], listed.paths_file)
        if options.html:
            write_page(folder, table, file, listed, options)
        else:
            (folder / AUDIT_PAGE).unlink(missing_ok=True)  # of an earlier audit
        return Audit(folder, file)


def examine(
    listed: ListedFolder, images: AuditedImages, options: AuditOptions, progress: Progress
) -> tuple[AuditTable, AuditFile]:
    """Compare the images; the rows and the figures of the audit."""
    if len(images) >= _WORTH_A_NOTE:
        progress.note("Looking for duplicates and shortcuts ...")
    duplicates = find_duplicates(images)
    series = find_series(images, duplicates.groups)
    parts = find_parts(images, listed.inputs, hidden=options.anonymize_paths)
    patients = number([None if one.study is None else one.study.patient for one in images.files])
    patients = np.where(images.readable, patients, -1)
    ties = Ties(duplicates.pixels, duplicates.groups, series.numbers, patients)
    units = _join(len(images), (duplicates.groups, series.numbers, patients))
    table = AuditTable(
        images=images,
        duplicates=duplicates,
        series=series,
        parts=tuple(parts),
        leaked=find_leaked(parts, images.readable, ties),
        contradictory=_find_contradictory(images.labels, duplicates.groups),
    )
    threads = options.threads or usable_cores()
    without = find_no_tumor_class(listed.classes)
    shortcuts = measure_shortcuts(images, units, without, seed=options.seed, threads=threads)
    return table, _assemble(listed, table, ties, options, shortcuts)


def _assemble(
    listed: ListedFolder, table: AuditTable, ties: Ties, options: AuditOptions, shortcuts: tuple[ShortcutFigures, ...]
) -> AuditFile:
    images = table.images
    series_or_duplicates = _join(len(images), (ties.duplicates, ties.series))
    series_or_duplicates = np.where(images.readable, series_or_duplicates, -1)
    random_split = RandomSplit(
        test_share=RANDOM_TEST_SHARE,
        duplicates=expect_random_leak(ties.duplicates),
        series=expect_random_leak(series_or_duplicates),
    )
    file = AuditFile(
        schema_version=SCHEMA_VERSION,
        tool_version=__version__,
        research_notice=RESEARCH_NOTICE,
        inputs=() if options.anonymize_paths else tuple(one.text for one in listed.inputs),
        anonymized_paths=options.anonymize_paths,
        classes=_count_classes(table),
        files=_count_files(listed, table),
        duplicates=_count_duplicates(table.duplicates),
        contradictions=_count_contradictions(table),
        leaks=measure_leaks(table.parts, images.readable, ties),
        random_split=random_split,
        series=_count_series(table.series, ties.patients),
        shortcuts=shortcuts,
    )
    return replace(file, figures=list_figures(file), findings=list_findings(file))


def _judge(requirements: Sequence[Requirement], file: AuditFile) -> tuple[RequirementResult, ...]:
    return tuple(each.judge(file, None) for each in requirements)


def _check_paths(inputs: Sequence[str | Path], out: str | Path) -> None:
    if not inputs:
        raise OptionError("there is nothing to audit", "name a folder, files or a pattern")
    check_local(out, "--out")
    utf8_path(out, "--out")
    for item in inputs:
        check_local(item, "the input")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make {folder}: {error.strerror}", "name a folder that you may write to") from error


def _join(images: int, ties: Sequence[NDArray[int64]]) -> NDArray[int64]:
    """Number the units: images that share any of the ties."""
    edges: list[tuple[int, int]] = []
    for numbers in ties:
        first: dict[int, int] = {}
        for place, each in enumerate(numbers.tolist()):
            if each >= 0:
                edges.append((first.setdefault(each, place), place))
    return connect(images, edges)


def _find_contradictory(labels: NDArray[int64], groups: NDArray[int64]) -> NDArray[np.bool_]:
    """(n,): labelled images whose group has several labels."""
    known = (labels >= 0) & (groups >= 0)
    kinds = np.unique(np.stack([groups[known], labels[known]], axis=1), axis=0)
    several = np.flatnonzero(np.bincount(kinds[:, 0], minlength=1) > 1)
    return known & np.isin(groups, several)


def _count_files(listed: ListedFolder, table: AuditTable) -> AuditedFiles:
    images = table.images
    readable = images.readable.tolist()
    of_readable = [place for place, is_whole in enumerate(readable) if is_whole]
    by_status = Counter(one.status.value for one in images.verdicts)
    return AuditedFiles(
        files=listed.facts.files,
        images=len(images),
        readable=len(of_readable),
        blank=by_status[Status.BLANK.value],
        by_status=_sorted(by_status),
        labelled=int((images.labels >= 0).sum()),
        by_part=_sorted(Counter(table.parts[place] or _NO_PART for place in of_readable)),
        by_format=_sorted(Counter(images.verdicts[place].format or "unknown" for place in of_readable)),
        skipped_by_reason=_sorted(listed.facts.skipped_by_reason),
        unknown_labels=_sorted(listed.facts.unknown_labels),
    )


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: counts[name] for name in sorted(counts) if counts[name]}


def _count_classes(table: AuditTable) -> tuple[ClassCount, ...]:
    images = table.images
    found = []
    for position, name in enumerate(images.classes):
        members = np.flatnonzero(images.readable & (images.labels == position)).tolist()
        by_part = Counter(table.parts[place] or _NO_PART for place in members)
        ordered = {part: by_part[part] for part in (*PARTS, _NO_PART) if by_part[part]}
        found.append(ClassCount(name=name, images=len(members), by_part=ordered))
    return tuple(found)


def _count_duplicates(duplicates: AuditDuplicates) -> DuplicateCounts:
    sizes = np.bincount(duplicates.groups[duplicates.groups >= 0], minlength=0)
    readable = duplicates.pixels[duplicates.pixels >= 0]
    contents = set(zip(duplicates.groups.tolist(), duplicates.pixels.tolist(), strict=True))
    contents_of = Counter(group for group, _ in contents)
    near = [group >= 0 and contents_of[group] > 1 for group in duplicates.groups.tolist()]
    return DuplicateCounts(
        same_file=sum(pair.kind is PairKind.SAME_FILE for pair in duplicates.pairs),
        same_pixels=len(readable) - len(np.unique(readable)),
        near=sum(near),
        in_groups=int(sizes[sizes > 1].sum()),
        groups=int((sizes > 1).sum()),
        largest=int(sizes.max(initial=0)),
        distinct=len(sizes),
    )


def _count_contradictions(table: AuditTable) -> Contradictions:
    of_pixels = _find_contradictory(table.images.labels, table.duplicates.pixels)
    groups = table.duplicates.groups
    return Contradictions(
        groups=len(np.unique(groups[table.contradictory])),
        images=int(table.contradictory.sum()),
        same_pixels=len(np.unique(groups[of_pixels])),
    )


def _count_series(series: Series, patients: NDArray[int64]) -> SeriesCounts:
    known = np.unique(series.numbers[series.known])
    everything = series.numbers[series.numbers >= 0]
    named = patients[patients >= 0]
    return SeriesCounts(
        known=len(known),
        estimated=len(np.unique(everything)) - len(known),
        largest=int(np.bincount(everything, minlength=1).max()),
        patients=len(np.unique(named)) if len(named) else None,
    )
