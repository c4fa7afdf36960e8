"""Pictures of a fit and of what it is worth. None here shows a slice: those are in slice_figures.py.

`write_all` is what training calls; every other function draws one picture from plain arrays and returns its two files.
Arrays have one row per image: labels int64 (n,), probabilities float32 (n, classes), pixels uint8, grey,
(n, height, width, 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import float32, float64, int64, uint8
from numpy.typing import NDArray

from mribatch.report.metrics import ECE_BINS, CalibrationBin, Metric, calibration, confusion, ece_bins, find
from mribatch.training.figures.page import BLUE, GREY, SKY, VERMILLION, page, percent, shown

if TYPE_CHECKING:
    from mribatch.training.fit.loop import Epoch

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


@dataclass(frozen=True, kw_only=True)
class Tested:
    """The part that figures are of, as `write_all` takes it."""

    labels: NDArray[int64]  # (n,)
    probabilities: NDArray[float32]  # (n, classes)
    pixels: NDArray[uint8]  # (n, height, width, 1)
    metrics: Sequence[Metric]  # of `pipeline.metrics.headline`, for the intervals


def write_all(
    folder: Path,
    *,
    name: str,
    classes: Sequence[str],
    protocol: str,
    tested: Tested,
    history: Sequence["Epoch"] = (),
    best_epoch: int = 0,
    watched: str = "validation",
    data: tuple[NDArray[uint8], NDArray[int64]] | None = None,
    network: Any = None,
    seed: int = 0,
) -> list[Path]:
    """Every picture that can be made of what is given, each as PNG and SVG.

    Without slices: training_curves, confusion_matrix, class_table, reliability. With slices, never to be published:
    data_images, test_images, test_errors (where there are errors), features_overview.

    Args:
        folder: Made where it is missing.
        name: Stands in every title, e.g. the recipe's or the bundle's name.
        classes: In the order of the probabilities' columns.
        protocol: What the test part is, in one sentence with its split; stands on every picture of results.
        tested: The test part and its results.
        history: Of the fit; no curves where it is empty.
        best_epoch: From 1; the epoch whose weights were kept.
        watched: The part that was scored while the fit ran.
        data: Pixels and labels of all images; no picture of the data where None.
        network: keras.Model as `networks.build` makes it (RGB 0..255 in); no feature maps where None.
        seed: Which images are shown.

    Returns:
        The files.
    """
    from mribatch.training.figures import feature_maps
    from mribatch.training.figures import slices as slice_figures

    labels, probabilities, pixels = tested.labels, tested.probabilities, tested.pixels
    counts = confusion(labels, probabilities, classes)
    paths = []
    if history:
        paths += draw_training_curves(history, best_epoch, f"{name}: training", folder, watched)
    paths += draw_confusion(counts, classes, f"{name}: confusion matrix", folder, protocol)
    paths += draw_class_table(tested.metrics, classes, f"{name}: each class against the others", folder, protocol)
    paths += draw_reliability(labels, probabilities, classes, f"{name}: reliability", folder, protocol)
    if data is not None:
        paths += slice_figures.draw_data_images(*data, classes, "The data, by class", folder, seed)
    if len(labels):
        made = (pixels, labels, probabilities, classes)
        paths += slice_figures.draw_test_images(*made, f"{name}: test images", folder, protocol, seed)
        paths += slice_figures.draw_test_errors(*made, f"{name}: errors", folder, protocol)
    if network is not None and len(pixels):
        taken = feature_maps.record_maps(network, np.repeat(pixels[:1].astype(float32), 3, axis=3))
        paths += feature_maps.draw_overview(taken, pixels[0, :, :, 0], f"{name}: feature maps", folder)
    return paths


def draw_training_curves(
    history: Sequence["Epoch"], best_epoch: int, title: str, folder: Path, watched: str = "validation"
) -> list[Path]:
    """Loss and accuracy of the training part and the watched part over the epochs; the kept epoch is marked.

    Epochs after which the watched part was not scored have no point; a line joins the others.
    """
    best = history[best_epoch - 1]
    seconds = sum(row.seconds for row in history)
    lines = (
        f"{len(history)} epochs in {_duration(seconds)}; the weights of epoch {best_epoch} were kept: "
        f"{watched} loss {best.val_loss:.4f}, accuracy {percent(best.val_accuracy)}.",
        f"Training figures are of augmented images with dropout, as they were learned; {watched} figures are of clean "
        f"images.{'' if watched == 'validation' else f' The {watched} part was looked at and chose nothing.'}",
    )
    made = page(title, lines, height=6.4)
    epochs = [row.epoch for row in history]
    scored = [row for row in history if not isnan(row.val_loss)]
    for place, (what, unit) in enumerate((("loss", "cross-entropy (nats)"), ("accuracy", "accuracy"))):
        axes = made.figure.add_subplot(1, 2, place + 1)
        mark = "." if len(history) < 30 else None
        axes.plot(epochs, [getattr(row, what) for row in history], color=BLUE, marker=mark, label="training")
        values = [getattr(row, f"val_{what}") for row in scored]
        axes.plot([row.epoch for row in scored], values, color=VERMILLION, marker=mark, linestyle="--", label=watched)
        axes.axvline(best_epoch, color=GREY, linestyle=":", linewidth=1)
        axes.plot(
            best_epoch,
            getattr(best, f"val_{what}"),
            marker="o",
            markersize=9,
            markerfacecolor="none",
            markeredgecolor=VERMILLION,
            markeredgewidth=1.8,
            linestyle="none",
            label=f"kept: epoch {best_epoch}",
        )
        axes.set(xlabel="epoch", ylabel=unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _plain_axes(axes)
    axes.legend(frameon=False, loc="lower right")
    return made.save(folder, "training_curves")


def draw_confusion(
    counts: NDArray[int64], classes: Sequence[str], title: str, folder: Path, protocol: str = ""
) -> list[Path]:
    """The confusion matrix: counts and row percentages, shaded by share of the row. `counts`: (labels, predictions)."""
    total, hits = int(counts.sum()), int(np.trace(counts))
    lines = (
        f"n = {total:,} images, {hits:,} right ({_share(hits, total)}). Rows are labels, columns predictions; "
        "a percentage is the share of its row.",
        protocol,
    )
    made = page(title, lines)
    axes = made.figure.add_subplot()
    sums = counts.sum(axis=1)
    shares = counts / np.maximum(sums[:, None], 1)
    shading = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if len(classes) <= _MATRIX_WITH_TEXT:
        _write_cells(axes, counts, shares)
    every = max(1, -(-len(classes) // _TICKS_AT_MOST))
    places = range(0, len(classes), every)
    size = 12 if len(classes) <= _MATRIX_WITH_TEXT else 7
    turned: dict[str, Any] = {} if len(classes) <= 6 else {"rotation": 40, "ha": "right"}
    axes.set_xticks(places, [shown(classes[place]) for place in places], size=size, **turned)
    axes.set_yticks(places, [f"{shown(classes[place])}  (n = {sums[place]:,})" for place in places], size=size)
    axes.set_xlabel("predicted", size=12)
    axes.set_ylabel("label", size=12)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    edges = np.arange(1, len(classes)) - 0.5
    axes.hlines(edges, -0.5, len(classes) - 0.5, color="white", linewidth=2)
    axes.vlines(edges, -0.5, len(classes) - 0.5, color="white", linewidth=2)
    bar = made.figure.colorbar(shading, ax=axes, format=lambda share, _: f"{share:.0%}".replace("%", " %"), aspect=30)
    bar.set_label("share of the row")
    bar.outline.set_visible(False)
    return made.save(folder, "confusion_matrix")


def draw_class_table(
    metrics: Sequence[Metric], classes: Sequence[str], title: str, folder: Path, protocol: str = ""
) -> list[Path]:
    """A table of each class against the others, with 95 % intervals as numbers and as bars on a scale from 0 to 1.

    Args:
        metrics: Of `pipeline.metrics.headline`.
        classes: Where there are too many for one screen, those with the lowest F1 are shown, and the picture says so.
        title: Of the picture.
        folder: Where it goes.
        protocol: Of the metrics.
    """
    rows = sorted(classes, key=lambda name: _or_nothing(find(metrics, "f1", name).value))[:_TABLE_ROWS]
    rows = [name for name in classes if name in set(rows)]
    images = int(sum(find(metrics, "support", name).value or 0 for name in classes))
    fewer = f" The {len(rows)} of {len(classes)} classes with the lowest F1." if len(rows) < len(classes) else ""
    chosen = [find(metrics, metric, name) for name in [*rows, "macro"] for metric, _ in _TABLE_COLUMNS]
    lowest = min((row.low for row in chosen if row.low is not None), default=0.0)
    floor = int(10 * min(lowest, 0.99)) / 10 if len(rows) <= _TABLE_BARS else None
    bars = "" if floor is None else f"; the bars show both on a scale from {floor:g} to 1"
    bracket = f"Beside each value its 95 % interval{bars}."
    lines = (f"n = {images:,} images. {bracket}{fewer}", protocol)
    made = page(title, lines, height=min(8.0, 2.9 + 0.82 * (len(rows) + 1)))
    axes = made.canvas()
    step = min(0.95, (made.body_height - 0.75) / (len(rows) + 1))
    starts = [3.1 + 1.85 * place for place in range(len(_TABLE_COLUMNS))]
    axes.text(2.75, 0.5, "images", size=12, weight="bold", ha="right", va="bottom")
    for start, (_, heading) in zip(starts, _TABLE_COLUMNS, strict=True):
        axes.text(start, 0.5, heading, size=12, weight="bold", va="bottom")
    for place, name in enumerate([*rows, "macro"]):
        upper = 0.65 + place * step
        axes.hlines(upper, 0, 12.2, color="black" if name == "macro" else "0.85", linewidth=1)
        label = "mean over classes" if name == "macro" else shown(name)
        support = images if name == "macro" else int(find(metrics, "support", name).value or 0)
        middle = upper + min(0.3, step / 2)
        axes.text(0, middle, label, size=13, weight="bold", va="center")
        axes.text(2.75, middle, f"{support:,}", size=12, ha="right", va="center")
        for start, (metric, _) in zip(starts, _TABLE_COLUMNS, strict=True):
            _write_metric(axes, find(metrics, metric, name), start, upper, step, floor)
    return made.save(folder, "class_table")


def draw_reliability(
    labels: NDArray[int64],
    probabilities: NDArray[float32],
    classes: Sequence[str],
    title: str,
    folder: Path,
    protocol: str = "",
) -> list[Path]:
    """The reliability diagram of Guo et al. 2017: 15 bins of confidence, the accuracy in each, and its images."""
    bins = calibration(labels, probabilities, classes)
    total = len(labels)
    ece = sum(row.n * abs(row.accuracy - row.confidence) for row in bins) / max(total, 1)
    confidence = float(probabilities.max(axis=1).mean()) if total else 0.0
    hits = int((probabilities.argmax(axis=1) == labels).sum()) if total else 0
    lines = (
        f"n = {total:,} images in {ECE_BINS} bins of confidence. Expected calibration error {ece:.4f}; mean confidence "
        f"{percent(confidence)}, accuracy {_share(hits, total)}.",
        protocol,
    )
    made = page(title, lines)
    upper, lower = made.figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    _draw_bins(upper, bins)
    counts = np.bincount(ece_bins(probabilities.max(axis=1)), minlength=ECE_BINS) if total else np.zeros(ECE_BINS)
    middles = (np.arange(ECE_BINS) + 0.5) / ECE_BINS
    lower.bar(middles, counts, width=0.9 / ECE_BINS, color=GREY)
    for middle, count in zip(middles, counts.astype(int).tolist(), strict=True):
        if count:
            lower.annotate(f"{count:,}", (middle, count), (0, 2), textcoords="offset points", ha="center", size=10)
    lower.set(xlim=(0, 1), ylim=(0, 1.3 * max(1, counts.max())), xlabel="confidence (the largest probability)")
    lower.set_ylabel("images")
    for axes in (upper, lower):
        _plain_axes(axes)
    return made.save(folder, "reliability")


def _draw_bins(axes: Any, bins: Sequence[CalibrationBin]) -> None:
    """Accuracy as bars, mean confidence as marks, the gap between them hatched; the diagonal is perfect calibration."""
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
        share = percent(float(shares[row, column]))
        axes.text(column, row + 0.05, share, ha="center", va="top", size=0.72 * size, color=colour)


def _write_metric(axes: Any, metric: Metric, x: float, y: float, step: float, floor: float | None) -> None:
    """One cell: the value, its interval, and under them both on a scale from floor to 1, where one is given."""
    middle, length = y + min(0.3, step / 2), 1.55
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


def _plain_axes(axes: Any) -> None:
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _share(part: int, whole: int) -> str:
    return percent(part / whole) if whole else "none"


def _or_nothing(value: float | None) -> float:
    return -1.0 if value is None else value


def _duration(seconds: float) -> str:
    for limit, unit, length in ((120, "s", 1), (7200, "min", 60)):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 3600:.1f} h"
