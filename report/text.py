"""The content of metrics.json as a Markdown page and as a table for the console. Text only; computes nothing."""

import dataclasses
from collections.abc import Iterator, Sequence

from mribatch.core.errors import one_line
from mribatch.report.metrics import MACRO, WEIGHTED
from mribatch.report.metrics_file import (
    PATIENT_MEAN,
    FileCounts,
    Level,
    MetricRow,
    MetricsFile,
    PatientCounts,
    PredictedClasses,
    RequirementResult,
    UnreadableFile,
)
from mribatch.report.rows import format_counts

PATIENT_DEFINITION = (
    "Mean probability: the mean over a patient's slices. Worst slice: for each class, the highest probability in any "
    "slice, divided by the sum of these maxima."
)
FEW_UNITS = 30  # below, percentile intervals are known to be too narrow (Cameron, Gelbach and Miller 2008)

HEADLINE: tuple[tuple[str, str | None, str], ...] = (
    ("accuracy", None, "accuracy"),
    ("balanced_accuracy", None, "balanced accuracy"),
    ("f1", MACRO, "F1, macro"),
    ("sensitivity", MACRO, "sensitivity, macro"),
    ("auroc", MACRO, "AUROC, macro"),
    ("log_loss", None, "log loss"),
    ("brier", None, "Brier score"),
    ("ece", None, "ECE"),
)
_BY_CLASS = ("support", "precision", "sensitivity", "specificity", "f1", "auroc", "auprc")
_WITH_INTERVAL = frozenset({"sensitivity", "specificity"})
_HEADS = {"support": "n", "f1": "F1", "auroc": "AUROC", "auprc": "AUPRC"}
_WIDEST_MATRIX = {"page": 30, "console": 12}  # classes
_MOST_NOTES = 20  # on the page
_MOST_LINES = 5  # notes and files on the console
_UNDEFINED = "undefined"


def format_number(value: float | None) -> str:
    """Four digits after the point; "undefined" for None."""
    return _UNDEFINED if value is None else f"{value:.4f}"


def format_page(content: MetricsFile) -> str:
    """report.md: notices first, then the files that could not be read, then the figures and what they are worth."""
    run = content.run
    lines = [f"# Classification report: {_escape(run.name)}", ""]
    lines += [f"> **Notice: {_escape(notice)}.**\n>" for notice in content.notices]
    lines += [f"> {content.research_notice}", ""]
    how = f"{run.backend} ({run.precision}), decoder {run.decoder}, mribatch {run.tool_version}"
    lines += [f"Model {_quote_code(run.model)}, {how}. Input: {', '.join(map(_quote_code, run.inputs))}.", ""]
    lines += _files_section(content.files)
    if content.no_metrics:
        lines += ["## No accuracy", "", f"No accuracy could be computed: {_escape(content.no_metrics)}.", ""]
    for level in content.levels:
        lines += _level_section(run.classes, level, content.patients)
    lines += _predicted_section(content.predicted)
    lines += _requirements_section(content.requirements)
    lines += ["## What the numbers are worth", "", *(f"- {line}" for line in _caveats(content)), ""]
    return "\n".join(lines)


def format_table(content: MetricsFile) -> str:
    """The same for a terminal: files, headline figures, classes, confusion matrix, what the intervals rest on."""
    files = content.files
    lines = [f"NOTE: {one_line(notice)}." for notice in content.notices]
    if files.readable < files.total:
        named = files.not_readable[:_MOST_LINES]
        lines += [_unreadable_sentence(files)]
        lines += [f"  {one_line(file.path)}: {_reason(file)}" for file in named]
        lines += _count_others(files.total - files.readable, len(named))
    lines += [_scored_sentence(files), ""]
    if content.no_metrics:
        lines += [f"No accuracy: {one_line(content.no_metrics)}.", "", *_predicted_lines(content.predicted), ""]
    for level in content.levels:
        lines += [*_level_lines(content.run.classes, level), ""]
    if content.patients:
        lines += [*_patient_lines(content.patients), ""]
    for verdict in content.requirements:
        lines.append(f"Requirement {verdict.required}: {'met' if verdict.met else 'NOT MET'}, {verdict.found}")
    lines += [_protocol_sentence(content), content.research_notice]
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------- sections of the page


def _files_section(files: FileCounts) -> list[str]:
    lines = ["## Files", ""]
    if files.readable < files.total:
        lines += [_unreadable_sentence(files), ""]
        lines += [f"- {_quote_code(file.path)}: {_escape(_reason(file))}" for file in files.not_readable]
        lines += [*_count_others(files.total - files.readable, len(files.not_readable)), ""]
    lines += [_scored_sentence(files), "", "| status | files |", "| --- | ---: |"]
    lines += [f"| {status} | {count:,} |" for status, count in files.by_status.items()]
    return [*lines, ""]


def _level_section(classes: Sequence[str], level: Level, patients: PatientCounts | None) -> list[str]:
    lines = [f"## Figures {level.title}", ""]
    if level.level == PATIENT_MEAN and patients:
        lines += [*(f"- {_escape(line)}" for line in _patient_lines(patients)), ""]
    lines += [
        _escape(_interval_sentence(level)),
        "",
        "| metric | value | 95 % interval | n |",
        "| --- | ---: | :---: | ---: |",
    ]
    for metric, class_, title in HEADLINE:
        row = level.find(metric, class_)
        lines.append(f"| {title} | {format_number(row.value)} | {_format_interval(row)} | {row.n:,} |")
    heads = [_HEADS.get(metric, metric) for metric in _BY_CLASS]
    lines += ["", f"| class | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(heads)}"]
    lines += [f"| {' | '.join(cells)} |" for cells in _class_cells(classes, level)]
    lines += ["", *_matrix_section(classes, level), _calibration_sentence(level), ""]
    notes = _collect_notes(level)
    lines += [f"- {_escape(note)}" for note in notes[:_MOST_NOTES]]
    lines += _count_others(len(notes), min(_MOST_NOTES, len(notes)))
    return [*lines, ""] if notes else lines


def _matrix_section(classes: Sequence[str], level: Level) -> list[str]:
    if len(classes) > _WIDEST_MATRIX["page"]:
        return [f"The confusion matrix of the {len(classes)} classes is in metrics.json.", ""]
    lines = ["Confusion matrix: rows are labels, columns are predictions.", ""]
    lines += [f"| label | {' | '.join(classes)} |", f"| --- |{' ---: |' * len(classes)}"]
    for name, counts in zip(classes, level.confusion, strict=True):
        lines.append(f"| {name} | {' | '.join(f'{count:,}' for count in counts)} |")
    return [*lines, ""]


def _predicted_section(predicted: PredictedClasses) -> list[str]:
    lines = ["## Predictions", "", "All readable files, with or without a label.", ""]
    lines += ["| class | predicted |", "| --- | ---: |"]
    lines += [f"| {name} | {count:,} |" for name, count in predicted.counts.items()]
    return [*lines, "", _confidence_sentence(predicted), ""]


def _requirements_section(verdicts: Sequence[RequirementResult]) -> list[str]:
    if not verdicts:
        return []
    lines = ["## Requirements", "", "| required | found | |", "| --- | --- | --- |"]
    for verdict in verdicts:
        met = "met" if verdict.met else "**not met**"
        lines.append(f"| {_quote_code(verdict.required)} | {_escape(verdict.found)} | {met} |")
    return [*lines, ""]


def _caveats(content: MetricsFile) -> Iterator[str]:
    yield _escape(_protocol_sentence(content))
    image = content.image_level
    if image is not None:
        intervals = image.intervals
        if intervals.unit == "image":
            yield (
                "The intervals treat every image as independent. Slices of one patient are not. If the run has several "
                "slices per patient, the intervals are too narrow: give --groups or --group-by."
            )
        if intervals.units < FEW_UNITS:
            yield (
                f"With only {intervals.units} {intervals.unit}s the intervals are approximate and tend to be too "
                f"narrow, as is known for fewer than {FEW_UNITS}."
            )
        yield (
            "Sensitivity and specificity apply to images like these only. If the classes come from different sources, "
            "a model can tell them apart by image size or borders instead of content."
        )
    if not content.run.trained:
        yield "The model was never trained: the figures test the software, not a model."
    yield content.research_notice


# ---------------------------------------------------------------------------------------------- lines of the console


def _level_lines(classes: Sequence[str], level: Level) -> list[str]:
    lines = [f"Figures {level.title}, n = {level.n:,}"]
    rows = [(title, level.find(metric, class_)) for metric, class_, title in HEADLINE]
    headline = [(title, format_number(row.value), _format_interval(row)) for title, row in rows]
    lines += _align([("", "value", "95 % interval"), *headline])
    lines += ["", *_align([("class", *(_HEADS.get(m, m) for m in _BY_CLASS)), *_class_cells(classes, level)])]
    if len(classes) <= _WIDEST_MATRIX["console"]:
        cells = [
            (name, *(f"{count:,}" for count in counts)) for name, counts in zip(classes, level.confusion, strict=True)
        ]
        lines += ["", "Confusion matrix (rows: label, columns: predicted)", *_align([("", *classes), *cells])]
    notes = _collect_notes(level)
    lines += [f"  {note}" for note in notes[:_MOST_LINES]]
    lines += _count_others(len(notes), min(_MOST_LINES, len(notes)))
    return [*lines, _calibration_sentence(level), _interval_sentence(level)]


def _predicted_lines(predicted: PredictedClasses) -> list[str]:
    cells = [(name, f"{count:,}") for name, count in predicted.counts.items()]
    return [*_align([("class", "predicted"), *cells]), _confidence_sentence(predicted)]


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


# ---------------------------------------------------------------------------------------------- sentences


def _unreadable_sentence(files: FileCounts) -> str:
    missing = {status: count for status, count in files.by_status.items() if status != "ok"}
    return (
        f"{files.total - files.readable:,} of {files.total:,} files could not be classified and are in no metric: "
        f"{format_counts(missing)}. Labelled files among them: {files.unreadable_with_label:,}."
    )


def _scored_sentence(files: FileCounts) -> str:
    text = f"{files.readable:,} of {files.total:,} files are readable, and {files.scored:,} of these have a label"
    if files.readable_without_label and files.scored:
        return (
            f"{text}; the metrics cover the labelled ones. Readable files without a label: "
            f"{files.readable_without_label:,}."
        )
    return f"{text}."


def _interval_sentence(level: Level) -> str:
    facts = level.intervals
    over = f"{facts.units:,} {facts.unit}s"
    if facts.unit == "group":
        over += f" ({facts.source}; the largest has {facts.largest:,} images)"
    text = f"Intervals: 95 %, {facts.method}, {facts.resamples:,} resamples of {over}, seed {facts.seed}."
    if facts.without_group:
        text += f" Images without a group, each treated as a group of its own: {facts.without_group:,}."
    return one_line(text)


def _calibration_sentence(level: Level) -> str:
    facts = level.calibration
    gap = facts.mean_confidence - facts.accuracy
    verdict = "over-confident" if gap > 0 else "under-confident"
    return (
        f"Calibration: mean confidence {format_number(facts.mean_confidence)}, accuracy "
        f"{format_number(facts.accuracy)} ({verdict} by {format_number(abs(gap))}); ECE "
        f"{format_number(level.find('ece').value)} over 15 bins."
    )


def _confidence_sentence(predicted: PredictedClasses) -> str:
    if predicted.confidence is None:
        return "Confidence: no file was classified."
    spread = dataclasses.asdict(predicted.confidence)
    return "Confidence: " + ", ".join(f"{name} {format_number(value)}" for name, value in spread.items()) + "."


def _protocol_sentence(content: MetricsFile) -> str:
    if content.protocol:
        return f"Protocol, as given and not checked: {one_line(content.protocol)}."
    return (
        "Protocol: not given. It is not known whether these images, copies of them or neighbouring slices were in the "
        "training data. If they were, the figures are too optimistic. State the protocol with --protocol."
    )


def _patient_lines(counts: PatientCounts) -> list[str]:
    lines = [
        f"{counts.scored:,} of {counts.patients:,} patients ({one_line(counts.source)}) have figures.",
        PATIENT_DEFINITION,
    ]
    mixed = counts.several_labels
    if mixed.count:
        named = ", ".join(f"{one_line(each.patient)} ({', '.join(each.labels)})" for each in mixed.named)
        others = mixed.count - len(mixed.named)
        more = f" and {others:,} more" if others else ""
        lines.append(f"Left out because their slices have different labels: {named}{more}.")
    for count, text in (
        (counts.nothing_to_score, "Patients left out because no readable slice has a label"),
        (counts.with_unreadable_slices, "Patients with unreadable slices, whose other slices are used"),
        (counts.slices_without_patient, "Slices left out because they have no patient"),
    ):
        if count:
            lines.append(f"{text}: {count:,}.")
    return lines


# ---------------------------------------------------------------------------------------------- cells


def _class_cells(classes: Sequence[str], level: Level) -> Iterator[tuple[str, ...]]:
    rows = {(row.metric, row.class_): row for row in level.metrics}
    for name in (*classes, MACRO, WEIGHTED):
        yield (name, *(_class_cell(rows.get((metric, name)), level.n) for metric in _BY_CLASS))


def _class_cell(row: MetricRow | None, n: int) -> str:
    """One cell of the table of classes; averages have no support of their own, theirs is `n`."""
    if row is None:
        return f"{n:,}"
    if row.metric == "support":
        return f"{row.value:,.0f}"
    bounded = row.metric in _WITH_INTERVAL and row.low is not None
    return f"{format_number(row.value)} ({_format_interval(row)})" if bounded else format_number(row.value)


def _format_interval(row: MetricRow) -> str:
    return "none" if row.low is None else f"{format_number(row.low)} to {format_number(row.high)}"


def _collect_notes(level: Level) -> list[str]:
    """Why values or intervals are missing; rows with the same reason share a line."""
    by_reason: dict[str, list[str]] = {}
    for row in level.metrics:
        if row.note:
            by_reason.setdefault(row.note, []).append(row.name)
    return [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]


def _reason(file: UnreadableFile) -> str:
    return f"{file.status}, {one_line(file.error)}" if file.error else file.status


def _count_others(total: int, named: int) -> list[str]:
    return [f"- and {total - named:,} more"] if total > named else []


def _escape(text: str) -> str:
    """Text that Markdown shows as it is, in a paragraph or a table cell."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in one_line(text))


def _quote_code(text: str | None) -> str:
    """A code span; a path with a backtick gets a longer fence, as CommonMark asks (section 6.1)."""
    code = one_line(str(text)).replace("|", "\\|")
    return f"`` {code} ``" if "`" in code else f"`{code}`"
