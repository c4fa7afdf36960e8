"""Charts of a level's figures, drawn by matplotlib as SVG, each in a light and a dark version."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import float32, float64, int64
from numpy.typing import NDArray

from mribatch.report.metrics_file import Level

_FOREST = ("sensitivity", "specificity", "precision", "f1")
_TITLES = {"precision": "PPV (precision)", "f1": "F1"}
_LINES = ("#4c78a8", "#e45756", "#54a24b", "#b279a2", "#f58518", "#72b7b2", "#9d755d", "#eeca3b")
_MOST_CURVES = len(_LINES)
_COVERAGES = (0.8, 0.9, 0.95)
_TUMOR_SENSITIVITY = 0.99


@dataclass(frozen=True)
class Chart:
    """One picture. light, dark: data URIs of SVG images; text: what it shows, for those who cannot see it."""

    title: str
    text: str
    light: str
    dark: str


@dataclass(frozen=True)
class _Theme:
    ink: str
    faint: str


_LIGHT, _DARK = _Theme("#1d2733", "#c3ccd6"), _Theme("#e6edf3", "#4a5663")

Draw = Callable[[Any, _Theme], None]


@dataclass(frozen=True)
class SelectiveFigures:
    """What leaving images to a person would give; None where it is not defined."""

    accuracy_at: dict[float, float]  # share of images that are kept, the most confident first -> accuracy of these
    referral: float | None  # share of images that must be looked at so that 99 % of the tumors are among them
    referral_specificity: float | None  # share of the images without a tumor that need not be looked at


def measure_selective(labels: NDArray[int64], probabilities: NDArray[float32], without: int | None) -> SelectiveFigures:
    """Accuracy by coverage (El-Yaniv and Wiener 2010) and the referral rate at a sensitivity of 99 % for any tumor.

    Args:
        labels: int64 (n,), positions of classes.
        probabilities: float32 (n, classes).
        without: Position of the class that means that there is no tumor, or None.
    """
    hits = (probabilities.argmax(axis=1) == labels)[np.argsort(-probabilities.max(axis=1), kind="stable")]
    kept = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    accuracy = {share: float(kept[max(1, round(share * len(hits))) - 1]) for share in _COVERAGES}
    referral = specificity = None
    if without is not None and (labels != without).any():
        suspicion = 1 - probabilities[:, without].astype(float64)
        tumors = np.sort(suspicion[labels != without])[::-1]
        threshold = tumors[int(np.ceil(_TUMOR_SENSITIVITY * len(tumors))) - 1]
        referral = float((suspicion >= threshold).mean())
        healthy = suspicion[labels == without]
        specificity = float((healthy < threshold).mean()) if len(healthy) else None
    return SelectiveFigures(accuracy, referral, specificity)


def draw_forest(classes: Sequence[str], level: Level) -> Chart:
    """Sensitivity, specificity, PPV and F1 of every class with their intervals."""

    def draw(figure: Any, theme: _Theme) -> None:
        for column, metric in enumerate(_FOREST):
            axes = figure.add_subplot(1, len(_FOREST), column + 1)
            for row, name in enumerate(classes):
                found = level.find(metric, name)
                if found.value is None:
                    axes.text(0.5, row, "–", ha="center", va="center", color=theme.ink)
                    continue
                if found.low is not None and found.high is not None:
                    axes.plot([found.low, found.high], [row, row], color=_LINES[0], linewidth=2.2)
                axes.plot([found.value], [row], "o", color=_LINES[0], markersize=5)
            axes.set_title(_TITLES.get(metric, metric), fontsize=9, color=theme.ink)
            axes.set_ylim(len(classes) - 0.5, -0.5)
            axes.set_xlim(0, 1.02)
            axes.set_yticks(range(len(classes)), classes if column == 0 else [""] * len(classes), fontsize=8)
            axes.grid(axis="x", color=theme.faint, linewidth=0.5)
            _style(axes, theme)

    height = 0.7 + 0.38 * len(classes)
    return _draw("Figures of each class", "The table of classes has the same figures.", draw, (9.0, height))


def draw_curves(classes: Sequence[str], labels: NDArray[int64], probabilities: NDArray[float32]) -> Chart:
    """ROC and precision-recall curves, one class against all others."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    shown = [c for c in range(len(classes)) if (labels == c).any() and (labels != c).any()][:_MOST_CURVES]

    def draw(figure: Any, theme: _Theme) -> None:
        left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
        for line, c in enumerate(shown):
            false_alarms, found, _ = roc_curve(labels == c, probabilities[:, c])
            precision, recall, _ = precision_recall_curve(labels == c, probabilities[:, c])
            left.step(false_alarms, found, color=_LINES[line], linewidth=1.6, where="post", label=classes[c])
            right.step(recall, precision, color=_LINES[line], linewidth=1.6, where="post", label=classes[c])
        _name(left, theme, "ROC", "1 - specificity", "sensitivity")
        _name(right, theme, "Precision and recall", "recall (sensitivity)", "precision (PPV)")
        if shown:
            left.legend(fontsize=8, frameon=False, labelcolor=theme.ink, loc="lower right")

    text = "Curves of each class against all others; AUROC and AUPRC are in the table."
    return _draw("ROC and precision-recall", text, draw, (9.0, 3.6))


def draw_calibration(level: Level, labels: NDArray[int64], probabilities: NDArray[float32]) -> Chart:
    """A reliability diagram (DeGroot and Fienberg 1983), and the accuracy against the share of images that is kept."""
    bins = level.calibration.bins
    hits = (probabilities.argmax(axis=1) == labels)[np.argsort(-probabilities.max(axis=1), kind="stable")]
    kept = np.cumsum(hits) / np.arange(1, len(hits) + 1)

    def draw(figure: Any, theme: _Theme) -> None:
        left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
        left.plot([0, 1], [0, 1], color=theme.faint, linewidth=1)
        largest = max(each.n for each in bins)
        for each in bins:
            left.plot([each.confidence], [each.accuracy], "o", color=_LINES[0], markersize=3 + 9 * each.n / largest)
        _name(left, theme, "Reliability", "mean confidence of a bin", "accuracy of the bin")
        right.plot(np.arange(1, len(hits) + 1) / len(hits), kept, color=_LINES[0], linewidth=1.8)
        _name(right, theme, "Accuracy by coverage", "share kept, most confident first", "accuracy of the share")
        right.set_ylim(max(0.0, float(kept.min()) - 0.05), 1.005)

    return _draw("Calibration and coverage", "Larger points stand for more images.", draw, (9.0, 3.4))


def draw_differences(differences: NDArray[float32]) -> Chart:
    """How many images changed by how much. differences: float32 (n,), largest |Δp| of each image, n at least 1."""
    edges = np.logspace(-7, 0, 29)
    counts = np.histogram(differences.clip(edges[0], 1), edges)[0]

    def draw(figure: Any, theme: _Theme) -> None:
        axes = figure.add_subplot(1, 1, 1)
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=_LINES[0])
        axes.set_xscale("log")
        axes.set_xlim(edges[0], 1)
        axes.set_xlabel(
            "largest difference of a probability; the first bar has all below 0.0000002", fontsize=8, color=theme.ink
        )
        axes.set_ylabel("images", fontsize=8, color=theme.ink)
        axes.grid(axis="y", color=theme.faint, linewidth=0.5)
        _style(axes, theme)

    text = f"{len(differences):,} images; median {float(np.median(differences)):.2g}."
    return _draw("How much the probabilities changed", text, draw, (9.0, 2.8))


def _name(axes: Any, theme: _Theme, title: str, across: str, up: str) -> None:
    axes.set_title(title, fontsize=10, color=theme.ink)
    axes.set_xlabel(across, fontsize=8, color=theme.ink)
    axes.set_ylabel(up, fontsize=8, color=theme.ink)
    axes.set_xlim(0, 1.005)
    axes.set_ylim(0, 1.005)
    axes.grid(color=theme.faint, linewidth=0.5)
    _style(axes, theme)


def _style(axes: Any, theme: _Theme) -> None:
    axes.set_facecolor("none")
    axes.tick_params(colors=theme.ink, labelsize=8, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.faint)


def _draw(title: str, text: str, draw: Draw, size: tuple[float, float]) -> Chart:
    return Chart(title, text, *(_to_svg(draw, theme, size) for theme in (_LIGHT, _DARK)))


def _to_svg(draw: Draw, theme: _Theme, size: tuple[float, float]) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mribatch", "font.family": "sans-serif"}):
        figure = Figure(figsize=size, layout="tight")
        figure.patch.set_alpha(0)
        draw(figure, theme)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(stream.getvalue()).decode()}"
