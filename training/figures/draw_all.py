"""Every figure of a training; the other modules draw one picture each from plain arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import float32, int64, uint8
from numpy.typing import NDArray

from mribatch.training.evaluation.scores import Evaluation
from mribatch.training.figures import charts, feature_maps, slices
from mribatch.training.fit.loop import FitResult


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the figures show. Arrays have one row per image."""

    name: str  # in every title: the model's name
    classes: Sequence[str]  # in the order of the probabilities' columns
    protocol: str  # one sentence; on every picture of results
    pixels: NDArray[uint8]  # (n, height, width, 1), grey, all images
    labels: NDArray[int64]  # (n,)
    tested: NDArray[np.bool_]  # (n,), which images the evaluation is of
    evaluation: Evaluation
    seed: int = 0  # decides which images are shown


@dataclass(frozen=True, kw_only=True)
class MeasuredFit:
    """The one fit that was evaluated."""

    fit: FitResult
    watched: str = "validation"  # the part that was scored while the fit ran


def draw_all(folder: Path, subject: Subject, measured_fit: MeasuredFit | None = None) -> list[Path]:
    """Draw every picture that is possible, each as PNG and SVG.

    Without slices: training_curves, confusion_matrix, class_table, reliability. With slices, never to be published:
    data_images, test_images, test_errors (if there are errors), features_overview. Training curves and feature maps
    need `measured_fit`.

    Args:
        folder: Made if it is missing.
        subject: Images and their evaluation.
        measured_fit: Of the fit; None if several fits were evaluated.

    Returns:
        The files.
    """
    paths = _draw_results(folder, subject) + _draw_slices(folder, subject)
    if measured_fit is not None:
        fit = measured_fit.fit
        paths += charts.draw_training_curves(
            fit.history, fit.best_epoch, title=f"{subject.name}: training", folder=folder, watched=measured_fit.watched
        )
        paths += _draw_feature_maps(folder, subject, fit)
    return paths


def _draw_results(folder: Path, subject: Subject) -> list[Path]:
    name, classes, protocol, evaluation = subject.name, subject.classes, subject.protocol, subject.evaluation
    labels, table_title = subject.labels[subject.tested], f"{name}: each class against the others"
    return [
        *charts.draw_confusion(
            evaluation.confusion, classes, title=f"{name}: confusion matrix", folder=folder, protocol=protocol
        ),
        *charts.draw_class_table(
            evaluation.metrics,
            classes,
            title=table_title,
            folder=folder,
            protocol=protocol,
        ),
        *charts.draw_reliability(
            labels, evaluation.probabilities, classes, title=f"{name}: reliability", folder=folder, protocol=protocol
        ),
    ]


def _draw_slices(folder: Path, subject: Subject) -> list[Path]:
    everything = slices.SliceSet(pixels=subject.pixels, labels=subject.labels, classes=subject.classes)
    paths = slices.draw_data_images(everything, "The data, by class", folder, subject.seed)
    tested = slices.PredictedSlices(
        pixels=subject.pixels[subject.tested],
        labels=subject.labels[subject.tested],
        classes=subject.classes,
        probabilities=subject.evaluation.probabilities,
        protocol=subject.protocol,
    )
    if len(tested.labels):
        paths += slices.draw_test_images(tested, f"{subject.name}: test images", folder, subject.seed)
        paths += slices.draw_test_errors(tested, f"{subject.name}: errors", folder)
    return paths


def _draw_feature_maps(folder: Path, subject: Subject, fit: FitResult) -> list[Path]:
    pixels = subject.pixels[subject.tested]
    if not len(pixels):
        return []
    recorded = feature_maps.record_maps(fit.network, np.repeat(pixels[:1].astype(float32), 3, axis=3))
    return feature_maps.draw_overview(recorded, pixels[0, :, :, 0], f"{subject.name}: feature maps", folder)
