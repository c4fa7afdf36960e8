"""training.json: written and read back without loss, and refused by field where it is damaged."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mribatch.report.metrics import Metric
from mribatch.training.fit.fingerprint import FitFingerprint
from mribatch.training.work_folder.summary import (
    Calibration,
    FoldsFacts,
    SplitFacts,
    TrainingSummary,
    ValidationScore,
    select_metrics,
)

FINGERPRINT = FitFingerprint(
    recipe={"recipe.name": "cnn", "recipe.batch": 9},
    classes=("a", "b"),
    data_sha256="d",
    parts_sha256="p",
    seed=3,
    versions={"keras": "3.15"},
)
COMMON: dict[str, Any] = {
    "recipe": "cnn",
    "protocol": "grouped holdout",
    "leak_rate": 0.25,
    "leak": "25.0% (1 of 4 test images)",
    "left_out": 1,
    "data": "not stated",
    "seconds": 1.5,
    "split_seed": 2,
    "mribatch": "0.1.0",
    "fit": FINGERPRINT,
}
SPLIT = SplitFacts(
    **COMMON,
    images={"train": 8, "validation": 2, "test": 4},
    epochs=3,
    epochs_at_most=5,
    best_epoch=2,
    validation=ValidationScore(loss=0.5, accuracy=0.75),
)
FOLDS = FoldsFacts(
    **COMMON,
    images={"out_of_fold": 14},
    folds=2,
    fold_names=("fold 1", "fold 2"),
    fold_accuracy=(0.5, 0.75),
    best_epochs=(1, 2),
    epochs=2,
    temperature=1.25,
    ece=Calibration(before=0.2, after=0.1),
    log_loss=Calibration(before=None, after=None),
)
METRICS = select_metrics(
    [
        Metric("accuracy", None, 0.5, 0.25, 0.75, 4, "grouped holdout"),
        Metric("auroc", "a", None, None, None, 0, "grouped holdout", "only one class occurs"),
        Metric("auprc", "a", 0.5, None, None, 4, "grouped holdout"),
    ],
    0.25,
)
SUMMARY = TrainingSummary(
    out="model", training=SPLIT, metrics=METRICS, highlights={"leak rate": "25.0%"}, name="m", golden_max_difference=0.0
)


@pytest.mark.parametrize(
    "summary",
    [
        SUMMARY,
        replace(SUMMARY, training=replace(SPLIT, validation=None)),
        replace(SUMMARY, training=FOLDS, name=None, golden_max_difference=None),
    ],
)
def test_it_is_read_back_as_it_was_written(summary: TrainingSummary, tmp_path: Path) -> None:
    summary.write(tmp_path)
    assert TrainingSummary.read(tmp_path) == summary
    assert summary.has_bundle == ("golden_max_difference" in summary.to_json())


def test_the_keys_are_those_of_the_format() -> None:
    content = SUMMARY.to_json()
    assert set(content) == {"name", "out", "training", "metrics", "summary", "golden_max_difference"}
    common = ["recipe", "protocol", "leak_rate", "leak", "images", "left_out", "data"]
    last = ["seconds", "split_seed", "mribatch", "fingerprint", "fit"]
    assert list(content["training"]) == [*common, "epochs", "epochs_at_most", "best_epoch", "validation", *last]
    own = ["folds", "fold_names", "fold_accuracy", "best_epochs", "epochs", "temperature", "ece", "log_loss"]
    assert list(FOLDS.to_json()) == [*common, *own, *last]
    assert [list(row) for row in content["metrics"]] == [
        ["metric", "class", "value", "low", "high", "n", "protocol", "leak_rate"]
    ] * 2
    assert content["training"]["fingerprint"] == FINGERPRINT.digest


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("out", 3, "out"),
        ("training", [], "training"),
        ("training.leak", None, "leak"),
        ("training.images.test", "4", "test"),
        ("training.best_epoch", True, "best_epoch"),
        ("training.validation", {"loss": 0.5}, "accuracy"),
        ("training.fit", {}, "classes"),
        ("metrics.0.n", 0.5, "n"),
        ("metrics.0.value", "high", "value"),
        ("summary.leak rate", 0, "leak rate"),
        ("golden_max_difference", "small", "golden_max_difference"),
    ],
)
def test_another_content_is_refused_by_field(path: str, value: object, field: str) -> None:
    content = json.loads(json.dumps(SUMMARY.to_json()))
    *outer, last = path.split(".")
    place = content
    for key in outer:
        place = place[int(key) if isinstance(place, list) else key]
    place[last] = value
    with pytest.raises(ValueError, match=field):
        TrainingSummary.from_json(content)


@pytest.mark.parametrize("content", [None, [], "text", {}])
def test_what_is_not_a_summary_is_refused(content: object) -> None:
    with pytest.raises(ValueError, match=r"is not a JSON object|is missing"):
        TrainingSummary.from_json(content)
