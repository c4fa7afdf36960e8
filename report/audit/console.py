"""The content of audit.json as text for the console."""

from collections import Counter
from pathlib import Path

from mribatch.core import tables
from mribatch.core.text import one_line
from mribatch.pipeline.listing.label_advice import warn_of_unknown_labels
from mribatch.report.audit.audit_file import AuditFile
from mribatch.report.audit.findings import SHORTCUT_TITLES, TARGET_TITLES


def format_audit(file: AuditFile, out: Path, screen: tables.Screen = tables.PLAIN) -> str:
    """What was found, the tables of classes and shortcuts, and where to look next."""
    files = file.files
    lines = [_describe_files(file), ""]
    lines += ["Found:", *(f"  {one_line(text)}" for text in file.findings)] if file.findings else ["Nothing was found."]
    warning = warn_of_unknown_labels(files.unknown_labels, files.labelled, [each.name for each in file.classes])
    lines += ["", warning] if warning else []
    lines += ["", _format_classes(file, screen), "", _format_shortcuts(file, screen), ""]
    leak = file.random_split
    if leak.duplicates is not None and leak.series is not None:
        share = f"{leak.test_share:.0%} at random"
        lines.append(
            f"Testing {share} would leak {leak.duplicates:.1%} by duplicates, {leak.series:.1%} with estimated series."
        )
    for each in file.requirements:
        lines.append(f"Requirement {each.required}: {'met' if each.met else 'NOT MET'}, {each.found}")
    lines += [f"Written: {one_line(out)}", file.research_notice]
    return "\n".join(lines)


def _describe_files(file: AuditFile) -> str:
    files = file.files
    read = f"{tables.count(files.images, 'image')}, {files.readable:,} readable"
    reasons = ", ".join(f"{status} {number:,}" for status, number in files.by_status.items() if status != "ok")
    text = f"{read} ({reasons})" if reasons else read
    return f"{text}; {file.duplicates.distinct:,} different pictures in {_count_series(file)}."


def _count_series(file: AuditFile) -> str:
    kinds = ((file.series.known, "known"), (file.series.estimated, "estimated"))
    found = " and ".join(f"{number:,} {kind}" for number, kind in kinds if number)
    return f"{found or 'no'} series"


def _format_classes(file: AuditFile, screen: tables.Screen) -> str:
    parts = [part for part in ("train", "validation", "test", "none") if part in file.files.by_part]
    columns = [tables.Column("class"), tables.Column("images", "right")]
    columns += [tables.Column("no part" if part == "none" else part, "right") for part in parts]
    rows = [
        [each.name, f"{each.images:,}", *(f"{each.by_part.get(part, 0):,}" for part in parts)] for each in file.classes
    ]
    return tables.format_table(columns, rows, screen)


def _format_shortcuts(file: AuditFile, screen: tables.Screen) -> str:
    columns = [tables.Column("by the"), tables.Column("tells")]
    columns += [tables.Column(title, "right") for title in ("guessing", "accuracy", "95 % interval")]
    rows = []
    for each in file.shortcuts:
        figures = [each.majority, each.accuracy]
        interval = "" if each.low is None else f"{each.low:.1%} to {each.high:.1%}"
        shown = ["" if value is None else f"{value:.1%}" for value in figures]
        rows.append([SHORTCUT_TITLES[each.check], TARGET_TITLES[each.target], *shown, interval])
    notes = Counter(f"Not measured: {each.note}." for each in file.shortcuts if each.note)
    return "\n".join([tables.format_table(columns, rows, screen), *notes])
