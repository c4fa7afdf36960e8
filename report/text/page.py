"""report.md: the content of metrics.json as a Markdown page."""

from collections.abc import Iterator, Sequence

from mribatch.core.text import one_line
from mribatch.report.metrics_file import (
    PATIENT_MEAN,
    FileCounts,
    Level,
    MetricsFile,
    PatientCounts,
    PredictedClasses,
    RequirementResult,
)
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

FEW_UNITS = 30  # below, percentile intervals are known to be too narrow (Cameron, Gelbach and Miller 2008)
_WIDEST_MATRIX = 30  # classes
_MOST_NOTES = 20


def format_page(content: MetricsFile) -> str:
    """report.md: notices first, then the files that could not be read, then the figures and what they are worth."""
    run = content.run
    lines = [f"# Classification report: {_escape(run.name)}", ""]
    lines += [f"> **Notice: {_escape(notice)}.**\n>" for notice in content.notices]
    lines += [f"> {content.research_notice}", ""]
    how = f"{run.backend} ({run.precision}), decoder {run.decoder}, mribatch {run.tool_version}"
    lines += [f"Model {_quote_code(run.model)}, {how}. Input: {', '.join(map(_quote_code, run.inputs))}.", ""]
    lines += _write_files(content.files)
    if content.no_metrics:
        lines += ["## No accuracy", "", f"No accuracy could be computed: {_escape(content.no_metrics)}.", ""]
    about_training = (*describe_training_images(content), *describe_unlike_images(content))
    lines += [line for text in about_training for line in (f"**{_escape(text)}**", "")]
    for level in content.levels:
        lines += _write_level(run.classes, level, content.patients)
    lines += _write_patients(content)
    lines += _write_predictions(content.predicted)
    lines += _write_requirements(content.requirements)
    lines += ["## What the numbers are worth", "", *(f"- {line}" for line in _list_caveats(content)), ""]
    return "\n".join(lines)


def _write_files(files: FileCounts) -> list[str]:
    lines = ["## Files", ""]
    if files.readable < files.total:
        lines += [describe_unreadable(files), ""]
        lines += [f"- {_quote_code(file.path)}: {_escape(describe_reason(file))}" for file in files.not_readable]
        lines += [*count_others(files.total - files.readable, len(files.not_readable)), ""]
    lines += [describe_scored(files), "", "| status | files |", "| --- | ---: |"]
    lines += [f"| {status} | {count:,} |" for status, count in files.by_status.items()]
    return [*lines, ""]


def _write_level(classes: Sequence[str], level: Level, patients: PatientCounts | None) -> list[str]:
    lines = [f"## Figures {level.title}", ""]
    if level.level == PATIENT_MEAN and patients:
        lines += [*(f"- {_escape(line)}" for line in describe_patients(patients)), ""]
    lines += [
        _escape(describe_intervals(level)),
        "",
        "| metric | value | 95 % interval | n |",
        "| --- | ---: | :---: | ---: |",
    ]
    for metric, class_, title in HEADLINE:
        row = level.find(metric, class_)
        lines.append(f"| {title} | {format_number(row.value)} | {format_interval(row)} | {row.n:,} |")
    heads = [CLASS_TABLE_TITLES.get(metric, metric) for metric in CLASS_TABLE]
    lines += ["", f"| class | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(heads)}"]
    lines += [f"| {' | '.join(cells)} |" for cells in list_class_cells(classes, level)]
    lines += ["", *_write_matrix(classes, level), describe_calibration(level), ""]
    notes = list_notes(level)
    lines += [f"- {_escape(note)}" for note in notes[:_MOST_NOTES]]
    lines += count_others(len(notes), min(_MOST_NOTES, len(notes)))
    return [*lines, ""] if notes else lines


def _write_patients(content: MetricsFile) -> list[str]:
    """Where each patient is; who was left out stands beside the figures, if there are any."""
    if content.patients is None:
        return []
    left_out = [] if content.levels else [f"- {_escape(line)}" for line in describe_patients(content.patients)]
    text = "One row per patient is in patients.csv and patients.parquet, with or without a label."
    return ["## Patients", "", text, "", *left_out, *([""] if left_out else [])]


def _write_matrix(classes: Sequence[str], level: Level) -> list[str]:
    if len(classes) > _WIDEST_MATRIX:
        return [f"The confusion matrix of the {len(classes)} classes is in metrics.json.", ""]
    lines = ["Confusion matrix: rows are labels, columns are predictions.", ""]
    lines += [f"| label | {' | '.join(classes)} |", f"| --- |{' ---: |' * len(classes)}"]
    for name, counts in zip(classes, level.confusion, strict=True):
        lines.append(f"| {name} | {' | '.join(f'{count:,}' for count in counts)} |")
    return [*lines, ""]


def _write_predictions(predicted: PredictedClasses) -> list[str]:
    lines = ["## Predictions", "", "All readable files, with or without a label.", ""]
    lines += ["| class | predicted |", "| --- | ---: |"]
    lines += [f"| {name} | {count:,} |" for name, count in predicted.counts.items()]
    return [*lines, "", describe_confidence(predicted), ""]


def _write_requirements(verdicts: Sequence[RequirementResult]) -> list[str]:
    if not verdicts:
        return []
    lines = ["## Requirements", "", "| required | found | |", "| --- | --- | --- |"]
    for verdict in verdicts:
        met = "met" if verdict.met else "**not met**"
        lines.append(f"| {_quote_code(verdict.required)} | {_escape(verdict.found)} | {met} |")
    return [*lines, ""]


def _list_caveats(content: MetricsFile) -> Iterator[str]:
    if content.levels:
        yield _escape(describe_protocol(content))
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


def _escape(text: str) -> str:
    """Text that Markdown shows as it is, in a paragraph or a table cell."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in one_line(text))


def _quote_code(text: str | None) -> str:
    """A code span; a path with a backtick gets a longer fence, as CommonMark asks (section 6.1)."""
    code = one_line(str(text)).replace("|", "\\|")
    return f"`` {code} ``" if "`" in code else f"`{code}`"
