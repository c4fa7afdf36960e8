"""Sentences and cells that the page and the console share. Text only; computes nothing."""

import dataclasses
from collections.abc import Iterator, Sequence

from mribatch.core.text import one_line
from mribatch.report.metrics import MACRO, WEIGHTED
from mribatch.report.metrics_file import (
    FileCounts,
    Level,
    MetricRow,
    MetricsFile,
    PatientCounts,
    PredictedClasses,
    UnreadableFile,
)
from mribatch.report.rows import format_counts

PATIENT_DEFINITION = (
    "Mean probability: the mean over a patient's slices. Worst slice: for each class, the highest probability in any "
    "slice, divided by the sum of these maxima."
)
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
CLASS_TABLE = ("support", "precision", "sensitivity", "specificity", "f1", "auroc", "auprc")
CLASS_TABLE_TITLES = {"support": "n", "f1": "F1", "auroc": "AUROC", "auprc": "AUPRC"}
_WITH_INTERVAL = frozenset({"sensitivity", "specificity"})
_UNDEFINED = "undefined"


def format_number(value: float | None) -> str:
    """Four digits after the point; "undefined" for None."""
    return _UNDEFINED if value is None else f"{value:.4f}"


def format_interval(row: MetricRow) -> str:
    """E.g. "0.6250 to 1.0000"; "none" where there is no interval."""
    return "none" if row.low is None else f"{format_number(row.low)} to {format_number(row.high)}"


def describe_unreadable(files: FileCounts) -> str:
    """How many files have no prediction, by status."""
    missing = {status: count for status, count in files.by_status.items() if status != "ok"}
    return (
        f"{files.total - files.readable:,} of {files.total:,} files could not be classified and are not part of any "
        f"metric: {format_counts(missing)}. Labelled files among them: {files.unreadable_with_label:,}."
    )


def describe_scored(files: FileCounts) -> str:
    """How many files the metrics cover."""
    text = f"{files.readable:,} of {files.total:,} files are readable, and {files.scored:,} of these have a label"
    if files.readable_without_label and files.scored:
        return (
            f"{text}; the metrics cover the labelled ones. Readable files without a label: "
            f"{files.readable_without_label:,}."
        )
    return f"{text}."


def describe_intervals(level: Level) -> str:
    """How the intervals were made, and of what."""
    facts = level.intervals
    over = f"{facts.units:,} {facts.unit}s"
    if facts.unit == "group":
        over += f" ({facts.source}; the largest has {facts.largest:,} images)"
    text = f"Intervals: 95 %, {facts.method}, {facts.resamples:,} resamples of {over}, seed {facts.seed}."
    if facts.without_group:
        text += f" Images without a group, each treated as a group of its own: {facts.without_group:,}."
    return one_line(text)


def describe_calibration(level: Level) -> str:
    """The mean confidence against the accuracy."""
    facts = level.calibration
    gap = facts.mean_confidence - facts.accuracy
    verdict = "over-confident" if gap > 0 else "under-confident"
    return (
        f"Calibration: mean confidence {format_number(facts.mean_confidence)}, accuracy "
        f"{format_number(facts.accuracy)} ({verdict} by {format_number(abs(gap))}); ECE "
        f"{format_number(level.find('ece').value)} over 15 bins."
    )


def describe_confidence(predicted: PredictedClasses) -> str:
    """Quantiles of the confidence."""
    if predicted.confidence is None:
        return "Confidence: no file was classified."
    spread = dataclasses.asdict(predicted.confidence)
    return "Confidence: " + ", ".join(f"{name} {format_number(value)}" for name, value in spread.items()) + "."


def describe_training_images(content: MetricsFile) -> list[str]:
    """How many images were in training, and the accuracy with and without them; nothing where none was."""
    seen, all_images, others = content.seen_in_training, content.image_level, content.new_image_level
    if seen is None or not seen.images:
        return []
    text = (
        f"{seen.images:,} of {seen.readable:,} were training images (exact {seen.exact:,}, near {seen.near:,}): "
        "the model has learned their answers."
    )
    if all_images is None:
        return [text]
    accuracy = f"Accuracy {format_number(all_images.find('accuracy').value)} of all {all_images.n:,} labelled images"
    if others is None:
        return [f"{text} {accuracy}; without them no labelled image is left."]
    new = others.find("accuracy")
    without = f"{format_number(new.value)} ({format_interval(new)}) of the {others.n:,} that were not in training"
    return [f"{text} {accuracy}, {without}."]


def describe_unlike_images(content: MetricsFile) -> list[str]:
    """How many images the model knows nothing like; nothing where there are none, or it cannot tell."""
    unlike = content.unlike_training
    if unlike is None or not unlike.images:
        return []
    return [
        f"{unlike.images:,} of {unlike.readable:,} look unlike the training images (flag unlike_training), so their "
        f"answers mean little. False alarms: {unlike.false_alarms:.1%} of training images that were left out have it."
    ]


def describe_protocol(content: MetricsFile) -> str:
    """How test and training images were kept apart, or that it is not known."""
    if content.protocol:
        return f"Protocol, as given and not checked: {one_line(content.protocol)}."
    if content.seen_in_training is not None:
        return (
            f"Protocol: not given. By their hashes, {content.seen_in_training.images:,} of these images were in the "
            "training data. Neighbouring slices of the same patients are not recognised; if some were in training, the "
            "figures are too optimistic. State the protocol with --protocol."
        )
    return (
        "Protocol: not given. It is not known whether these images, copies of them or neighbouring slices were in the "
        "training data. If they were, the figures are too optimistic. State the protocol with --protocol."
    )


def describe_patients(counts: PatientCounts) -> list[str]:
    """How many patients have figures, and who was left out; one sentence per line."""
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


def list_class_cells(classes: Sequence[str], level: Level) -> Iterator[tuple[str, ...]]:
    """One row per class and average; columns as in CLASS_TABLE."""
    rows = {(row.metric, row.class_): row for row in level.metrics}
    for name in (*classes, MACRO, WEIGHTED):
        yield (name, *(_format_class_cell(rows.get((metric, name)), level.n) for metric in CLASS_TABLE))


def _format_class_cell(row: MetricRow | None, n: int) -> str:
    """One cell of the table of classes; averages have no support of their own, theirs is `n`."""
    if row is None:
        return f"{n:,}"
    if row.metric == "support":
        return f"{row.value:,.0f}"
    bounded = row.metric in _WITH_INTERVAL and row.low is not None
    return f"{format_number(row.value)} ({format_interval(row)})" if bounded else format_number(row.value)


def list_notes(level: Level) -> list[str]:
    """Why values or intervals are missing; rows with the same reason share a line."""
    by_reason: dict[str, list[str]] = {}
    for row in level.metrics:
        if row.note:
            by_reason.setdefault(row.note, []).append(row.name)
    return [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]


def describe_reason(file: UnreadableFile) -> str:
    """Why a file has no prediction, e.g. "truncated, ends early"."""
    return f"{file.status}, {one_line(file.error)}" if file.error else file.status


def count_others(total: int, named: int) -> list[str]:
    """A line that counts what was not named; nothing where all were."""
    return [f"- and {total - named:,} more"] if total > named else []
