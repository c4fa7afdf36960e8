"""Charts of a fit and of its results; none shows a slice, those are in slices.py.

Every function draws one picture from plain arrays and returns its two files. Arrays have one row per image: labels
int64 (n,), probabilities float32 (n, classes).
"""

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32, float64, int64
from numpy.typing import NDArray

from mribatch.core import tables
from mribatch.report.metrics import ECE_BINS, CalibrationBin, Metric, calibration, ece_bins, find
from mribatch.training.figures.page import BLUE, GREY, SKY, VERMILLION, format_class, format_percent, make_page
from mribatch.training.fit.history import Epoch

_MATRIX_WITH_TEXT = 12  # classes; above, the cells of a matrix are too small for numbers
_TICKS_AT_MOST = 40
_TABLE_ROWS = 14
_TABLE_BARS = 7  # rows; above, there is no room for bars under the numbers
_TABLE_COLUMNS = (
    ("sensitivity", "sensitivity\n(recall)"),
    ("specificity", "specificity"),
    ("precision", "precision\n(PPV)"),
    ("f1", "F1"),
    ("auroc", "AUROC"),
)
_COLUMN_STARTS = tuple(3.1 + 1.85 * place for place in range(len(_TABLE_COLUMNS)))  # inches


def draw_training_curves(
    history: Sequence[Epoch], best_epoch: int, *, title: str, folder: Path, watched: str = "validation"
) -> list[Path]:
    """Draw loss and accuracy of the training part and the watched part over the epochs; the kept epoch is marked.

    Epochs after which the watched part was not scored have no point; a line joins the others.

    Args:
        history: One row per epoch.
        best_epoch: From 1; the epoch whose weights were kept.
        title: Of the picture.
        folder: Of the files.
        watched: The part that was scored while the fit ran.
    """
    best = history[best_epoch - 1]
    unused = "" if watched == "validation" else f" The {watched} part was scored, but not used to choose anything."
    seconds = sum(row.seconds for row in history)
    lines = (
        f"{tables.count(len(history), 'epoch')} in {_format_duration(seconds)}; the weights of epoch {best_epoch} were "
        f"kept: {watched} loss {best.val_loss:.4f}, accuracy {format_percent(best.val_accuracy)}.",
        f"Training figures are of augmented images with dropout, as they were learned; {watched} figures are of clean "
        f"images.{unused}",
    )
    page = make_page(title, lines, height=6.4)
    for place, (what, unit) in enumerate((("loss", "cross-entropy (nats)"), ("accuracy", "accuracy"))):
        axes = page.figure.add_subplot(1, 2, place + 1)
        _draw_curve(axes, history, best, what=what, watched=watched)
        axes.set(xlabel="epoch", ylabel=unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if len(history) == 1:
            axes.set_xlim(0.5, 1.5)  # matplotlib would zoom into the one point
            axes.set_xticks([1])
        _simplify_axes(axes)
    axes.legend(frameon=False, loc="lower right")
    return page.save(folder, "training_curves")


def _draw_curve(axes: Any, history: Sequence[Epoch], best: Epoch, *, what: str, watched: str) -> None:
    scored = [row for row in history if not isnan(row.val_loss)]
    mark = "." if len(history) < 30 else None
    epochs = [row.epoch for row in history]
    axes.plot(epochs, [getattr(row, what) for row in history], color=BLUE, marker=mark, label="training")
    values = [getattr(row, f"val_{what}") for row in scored]
    axes.plot([row.epoch for row in scored], values, color=VERMILLION, marker=mark, linestyle="--", label=watched)
    axes.axvline(best.epoch, color=GREY, linestyle=":", linewidth=1)
    axes.plot(
        best.epoch,
        getattr(best, f"val_{what}"),
        marker="o",
        markersize=9,
        markerfacecolor="none",
        markeredgecolor=VERMILLION,
        markeredgewidth=1.8,
        linestyle="none",
        label=f"kept: epoch {best.epoch}",
    )


def draw_confusion(
    counts: NDArray[int64], classes: Sequence[str], *, title: str, folder: Path, protocol: str = ""
) -> list[Path]:
    """Draw the confusion matrix: counts and row percentages, shaded by share of the row.

    Args:
        counts: (labels, predictions).
        classes: Names.
        title: Of the picture.
        folder: Of the files.
        protocol: One sentence.
    """
    total, hits = int(counts.sum()), int(np.trace(counts))
    lines = (
        f"n = {total:,} images, {hits:,} right ({_format_share(hits, total)}). Rows are labels, columns predictions; "
        "a percentage is the share of its row.",
        protocol,
    )
    page = make_page(title, lines)
    axes = page.figure.add_subplot()
    sums = counts.sum(axis=1)
    shares = counts / np.maximum(sums[:, None], 1)
    shading = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if len(classes) <= _MATRIX_WITH_TEXT:
        _write_cells(axes, counts, shares)
    _label_matrix(axes, classes, sums)
    bar = page.figure.colorbar(shading, ax=axes, format=lambda share, _: f"{share:.0%}".replace("%", " %"), aspect=30)
    bar.set_label("share of the row")
    bar.outline.set_visible(False)
    return page.save(folder, "confusion_matrix")


def draw_class_table(
    metrics: Sequence[Metric], classes: Sequence[str], *, title: str, folder: Path, protocol: str = ""
) -> list[Path]:
    """Draw a table of each class against the others, with 95 % intervals as numbers and as bars.

    Args:
        metrics: From `report.metrics.headline`.
        classes: If there are too many for one screen, those with the lowest F1 are shown, and the picture says so.
        title: Of the picture.
        folder: Of the files.
        protocol: Of the metrics.
    """
    rows = sorted(classes, key=lambda name: _none_as_lowest(find(metrics, "f1", name).value))[:_TABLE_ROWS]
    rows = [name for name in classes if name in set(rows)]
    images = int(sum(find(metrics, "support", name).value or 0 for name in classes))
    fewer = f" The {len(rows)} of {len(classes)} classes with the lowest F1." if len(rows) < len(classes) else ""
    chosen = [find(metrics, metric, name) for name in [*rows, "macro"] for metric, _ in _TABLE_COLUMNS]
    lowest = min((row.low for row in chosen if row.low is not None), default=0.0)
    floor = int(10 * min(lowest, 0.99)) / 10 if len(rows) <= _TABLE_BARS else None
    bars = "" if floor is None else f"; the bars show both on a scale from {floor:g} to 1"
    bracket = f"Beside each value its 95 % interval{bars}."
    lines = (f"n = {images:,} images. {bracket}{fewer}", protocol)
    page = make_page(title, lines, height=min(8.0, 2.9 + 0.82 * (len(rows) + 1)))
    axes = page.canvas()
    step = min(0.95, (page.body_height - 0.75) / (len(rows) + 1))
    axes.text(2.75, 0.5, "images", size=12, weight="bold", ha="right", va="bottom")
    for start, (_, heading) in zip(_COLUMN_STARTS, _TABLE_COLUMNS, strict=True):
        axes.text(start, 0.5, heading, size=12, weight="bold", va="bottom")
    for place, name in enumerate([*rows, "macro"]):
        support = images if name == "macro" else int(find(metrics, "support", name).value or 0)
        upper = 0.65 + place * step
        _write_row(axes, name, support, upper=upper, step=step)
        for start, (metric, _) in zip(_COLUMN_STARTS, _TABLE_COLUMNS, strict=True):
            _write_metric(axes, find(metrics, metric, name), (start, upper), step=step, floor=floor)
    return page.save(folder, "class_table")


def _write_row(axes: Any, name: str, support: int, *, upper: float, step: float) -> None:
    """Write a class, or "macro" for the mean over classes, and its number of images."""
    is_mean = name == "macro"
    axes.hlines(upper, 0, 12.2, color="black" if is_mean else "0.85", linewidth=1)
    middle = upper + min(0.3, step / 2)
    axes.text(0, middle, "mean over classes" if is_mean else format_class(name), size=13, weight="bold", va="center")
    axes.text(2.75, middle, f"{support:,}", size=12, ha="right", va="center")


def draw_reliability(
    labels: NDArray[int64],
    probabilities: NDArray[float32],
    classes: Sequence[str],
    *,
    title: str,
    folder: Path,
    protocol: str = "",
) -> list[Path]:
    """Draw the reliability diagram of Guo et al. 2017: 15 bins of confidence, with accuracy and number of images."""
    bins = calibration(labels, probabilities, classes)
    total = len(labels)
    ece = sum(row.n * abs(row.accuracy - row.confidence) for row in bins) / max(total, 1)
    confidence = float(probabilities.max(axis=1).mean()) if total else 0.0
    hits = int((probabilities.argmax(axis=1) == labels).sum()) if total else 0
    lines = (
        f"n = {total:,} images in {ECE_BINS} bins of confidence. Expected calibration error {ece:.4f}; mean confidence "
        f"{format_percent(confidence)}, accuracy {_format_share(hits, total)}.",
        protocol,
    )
    page = make_page(title, lines)
    upper, lower = page.figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    _draw_bins(upper, bins)
    _draw_counts(lower, probabilities)
    for axes in (upper, lower):
        _simplify_axes(axes)
    return page.save(folder, "reliability")


def _draw_counts(axes: Any, probabilities: NDArray[float32]) -> None:
    """Draw the number of images in each bin of confidence."""
    total = len(probabilities)
    counts = np.bincount(ece_bins(probabilities.max(axis=1)), minlength=ECE_BINS) if total else np.zeros(ECE_BINS)
    middles = (np.arange(ECE_BINS) + 0.5) / ECE_BINS
    axes.bar(middles, counts, width=0.9 / ECE_BINS, color=GREY)
    for middle, count in zip(middles, counts.astype(int).tolist(), strict=True):
        if count:
            axes.annotate(f"{count:,}", (middle, count), (0, 2), textcoords="offset points", ha="center", size=10)
    axes.set(xlim=(0, 1), ylim=(0, 1.3 * max(1, counts.max())), xlabel="confidence (the largest probability)")
    axes.set_ylabel("images")


def _draw_bins(axes: Any, bins: Sequence[CalibrationBin]) -> None:
    """Draw accuracy as bars and the gap to the mean confidence hatched; the diagonal is perfect calibration."""
    middles = [(row.low + row.high) / 2 for row in bins]
    width = 0.9 / ECE_BINS
    accuracy = np.array([row.accuracy for row in bins], dtype=float64)
    confidence = np.array([row.confidence for row in bins], dtype=float64)
    axes.bar(middles, accuracy, width=width, color=SKY, label="accuracy")
    axes.bar(
        middles,
        confidence - accuracy,
        width=width,
        bottom=accuracy,
        facecolor="none",
        edgecolor=VERMILLION,
        hatch="////",
        linewidth=0.8,
        label="gap to the confidence",
    )
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="perfect calibration")
    axes.set(ylim=(0, 1.02), ylabel="accuracy in the bin")
    axes.legend(frameon=False, loc="upper left")


def _label_matrix(axes: Any, classes: Sequence[str], sums: NDArray[int64]) -> None:
    every = max(1, -(-len(classes) // _TICKS_AT_MOST))
    places = range(0, len(classes), every)
    size = 12 if len(classes) <= _MATRIX_WITH_TEXT else 7
    turned: dict[str, Any] = {} if len(classes) <= 6 else {"rotation": 40, "ha": "right"}
    axes.set_xticks(places, [format_class(classes[place]) for place in places], size=size, **turned)
    axes.set_yticks(places, [f"{format_class(classes[place])}  (n = {sums[place]:,})" for place in places], size=size)
    axes.set_xlabel("predicted", size=12)
    axes.set_ylabel("label", size=12)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    edges = np.arange(1, len(classes)) - 0.5
    axes.hlines(edges, -0.5, len(classes) - 0.5, color="white", linewidth=2)
    axes.vlines(edges, -0.5, len(classes) - 0.5, color="white", linewidth=2)


def _write_cells(axes: Any, counts: NDArray[int64], shares: NDArray[float64]) -> None:
    size = 15 if len(counts) <= 6 else 11
    for row, column in np.ndindex(*counts.shape):
        colour = "white" if shares[row, column] > 0.5 else "black"
        if not counts[row, column]:
            if len(counts) > 6:
                continue
            colour = "0.6"
        axes.text(
            column,
            row - 0.03,
            f"{counts[row, column]:,}",
            ha="center",
            va="bottom",
            size=size,
            weight="bold",
            color=colour,
        )
        share = format_percent(float(shares[row, column]))
        axes.text(column, row + 0.05, share, ha="center", va="top", size=0.72 * size, color=colour)


def _write_metric(axes: Any, metric: Metric, corner: tuple[float, float], *, step: float, floor: float | None) -> None:
    """Write one cell: value and interval, and under them bars on a scale from floor to 1, if there is a floor."""
    (x, y), length = corner, 1.55
    middle = y + min(0.3, step / 2)
    if metric.value is None:
        axes.text(x, middle, "–", size=13, va="center", color=GREY)
        return
    axes.text(x, middle, f"{metric.value:.3f}", size=13, va="center")
    if metric.low is None or metric.high is None:
        return
    axes.text(x + 0.62, middle, f"{metric.low:.3f}–{metric.high:.3f}", size=9.5, va="center", color=GREY)
    if floor is not None:
        shares = (metric.low, metric.value, metric.high)
        low, value, high = (x + length * (share - floor) / (1 - floor) for share in shares)
        level = y + min(step - 0.16, 0.6)
        axes.hlines(level, x, x + length, color="0.88", linewidth=6)
        axes.hlines(level, low, high, color=SKY, linewidth=6)
        axes.vlines(value, level - 0.07, level + 0.07, color="black", linewidth=2)


def _simplify_axes(axes: Any) -> None:
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _format_share(part: int, whole: int) -> str:
    return format_percent(part / whole) if whole else "none"


def _none_as_lowest(value: float | None) -> float:
    return -1.0 if value is None else value


def _format_duration(seconds: float) -> str:
    for limit, unit, length in ((120, "s", 1), (7200, "min", 60)):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 3600:.1f} h"
