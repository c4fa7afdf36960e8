"""The content of metrics.json as a table for the console."""

from collections.abc import Sequence

from mribatch.core import tables
from mribatch.core.text import one_line
from mribatch.report.metrics_file import Level, MetricsFile, PredictedClasses
from mribatch.report.patient_table import PatientTable
from mribatch.report.text.patients import format_patients
from mribatch.report.text.sentences import (
    CLASS_TABLE,
    CLASS_TABLE_TITLES,
    HEADLINE,
    count_others,
    describe_calibration,
    describe_confidence,
    describe_intervals,
    describe_patients,
    describe_protocol,
    describe_reason,
    describe_scored,
    describe_training_images,
    describe_unlike_images,
    describe_unreadable,
    format_interval,
    format_number,
    list_class_cells,
    list_notes,
)

_WIDEST_MATRIX = 12  # classes
_MOST_LINES = 5  # notes and files


def format_table(
    content: MetricsFile, screen: tables.Screen = tables.PLAIN, patients: PatientTable | None = None
) -> str:
    """The text for a terminal: files, headline figures, classes, confusion matrix, how the intervals were made, and
    the first patients."""
    files = content.files
    lines = [f"NOTE: {one_line(notice)}." for notice in content.notices]
    if files.readable < files.total:
        named = files.not_readable[:_MOST_LINES]
        lines += [describe_unreadable(files)]
        lines += [f"  {one_line(file.path)}: {describe_reason(file)}" for file in named]
        lines += count_others(files.total - files.readable, len(named))
    lines += [describe_scored(files), *describe_training_images(content), *describe_unlike_images(content), ""]
    if content.no_metrics:
        lines += [
            f"No accuracy: {one_line(content.no_metrics)}.",
            "",
            *_write_predictions(content.predicted, screen),
            "",
        ]
    for level in content.levels:
        lines += [*_write_level(content.run.classes, level, screen), ""]
    if content.patients:
        lines += [*describe_patients(content.patients), ""]
    if patients is not None:
        lines += [*format_patients(patients, screen), ""]
    for verdict in content.requirements:
        lines.append(f"Requirement {verdict.required}: {'met' if verdict.met else 'NOT MET'}, {verdict.found}")
    lines += [describe_protocol(content)] if content.levels else []
    return "\n".join([*lines, content.research_notice])


def _write_level(classes: Sequence[str], level: Level, screen: tables.Screen) -> list[str]:
    lines = [f"Figures {level.title}, n = {level.n:,}"]
    rows = [(title, level.find(metric, class_)) for metric, class_, title in HEADLINE]
    headline = [(title, format_number(row.value), format_interval(row)) for title, row in rows]
    lines += _align([("", "value", "95 % interval"), *headline], screen)
    titles = ["class", *(CLASS_TABLE_TITLES.get(metric, metric) for metric in CLASS_TABLE)]
    lines += ["", *_align([titles, *list_class_cells(classes, level)], screen)]
    if len(classes) <= _WIDEST_MATRIX:
        cells = [
            (name, *(f"{count:,}" for count in counts)) for name, counts in zip(classes, level.confusion, strict=True)
        ]
        lines += ["", "Confusion matrix (rows: label, columns: predicted)", *_align([("", *classes), *cells], screen)]
    notes = list_notes(level)
    lines += [f"  {note}" for note in notes[:_MOST_LINES]]
    lines += count_others(len(notes), min(_MOST_LINES, len(notes)))
    return [*lines, describe_calibration(level), describe_intervals(level)]


def _write_predictions(predicted: PredictedClasses, screen: tables.Screen) -> list[str]:
    cells = [(name, f"{count:,}") for name, count in predicted.counts.items()]
    return [*_align([("class", "predicted"), *cells], screen), describe_confidence(predicted)]


def _align(rows: Sequence[Sequence[str]], screen: tables.Screen) -> list[str]:
    """Lay out rows whose first one has the headings; all columns but the first hold numbers."""
    first, *others = rows[0]
    columns = [tables.Column(first), *(tables.Column(title, "right", wraps=True) for title in others)]
    return [tables.format_table(columns, rows[1:], screen)]
