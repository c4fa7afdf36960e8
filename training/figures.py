"""Pictures of a fit, as PNG and SVG, readable on one screen. None of them shows a slice."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy import int64
from numpy.typing import NDArray

from mribatch.files import publishing
from mribatch.training.fit import Epoch

_TRAINING, _VALIDATION = "#1f77b4", "#d62728"


def draw_training_curves(history: Sequence[Epoch], best_epoch: int, title: str, folder: Path) -> list[Path]:
    """Loss and accuracy of the training and validation parts over the epochs; the chosen epoch is marked."""
    figure = _figure(9.0, 3.8)
    epochs = [row.epoch for row in history]
    for place, (what, unit) in enumerate((("loss", "cross-entropy (nats)"), ("accuracy", "accuracy"))):
        axes = figure.add_subplot(1, 2, place + 1)
        axes.plot(epochs, [getattr(row, what) for row in history], color=_TRAINING, label="training (augmented)")
        axes.plot(epochs, [getattr(row, f"val_{what}") for row in history], color=_VALIDATION, label="validation")
        axes.axvline(best_epoch, color="0.5", linestyle="--", label=f"best epoch: {best_epoch}")
        axes.set(xlabel="epoch", ylabel=unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.suptitle(title)
    return _save(figure, folder, "training_curves")


def draw_confusion(counts: NDArray[int64], classes: Sequence[str], title: str, folder: Path) -> list[Path]:
    """The confusion matrix: counts, shaded by share of the row. `counts`: (labels, predictions)."""
    side = 2.6 + 0.8 * len(classes)
    figure = _figure(side + 0.6, side)
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        colour = "white" if shares[row, column] > 0.5 else "black"
        text = f"{counts[row, column]}\n{shares[row, column]:.0%}"
        axes.text(column, row, text, ha="center", va="center", color=colour)
    places = range(len(classes))
    axes.set_xticks(places, classes, rotation=30, ha="right")
    axes.set_yticks(places, classes)
    axes.set(xlabel="predicted", ylabel="label", title=title)
    return _save(figure, folder, "confusion_matrix")


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, folder: Path, name: str) -> list[Path]:
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, metadata in (("png", {}), ("svg", {"Date": None})):
        path = folder / f"{name}.{suffix}"
        with publishing(path) as temporary, rc_context({"svg.hashsalt": name}):  # the same picture, the same file
            figure.savefig(temporary, format=suffix, dpi=150, metadata=metadata)
        paths.append(path)
    return paths
