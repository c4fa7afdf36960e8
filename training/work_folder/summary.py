"""training.json, the summary in the work folder: what was trained and how good it is."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from mribatch.core.files import write_json
from mribatch.report.metrics import Metric
from mribatch.training.fit.fingerprint import FitFingerprint

SUMMARY_FILE = "training.json"

_OVERALL = ("accuracy", "balanced_accuracy", "log_loss", "brier", "ece", "support")
_BY_CLASS = ("precision", "sensitivity", "specificity", "f1", "auroc", "support")
_NUMBER = (int, float)


@dataclass(frozen=True, kw_only=True)
class BundleMetric:
    """A metric as bundle.json and training.json hold it: with its leak rate."""

    metric: Metric  # without its note
    leak_rate: float

    def to_json(self) -> dict[str, Any]:
        """Return the metric as JSON."""
        row = self.metric
        figure = {"metric": row.metric, "class": row.class_, "value": row.value, "low": row.low, "high": row.high}
        return {**figure, "n": row.n, "protocol": row.protocol, "leak_rate": self.leak_rate}

    @classmethod
    def from_json(cls, content: object) -> Self:
        """Read a metric.

        Raises:
            ValueError: A field is missing or of the wrong type; names it.
        """
        row = _check_object(content, "metrics")
        class_ = None if row.get("class", "") is None else _take(row, "class", str)
        bounds = {
            key: None if row.get(key, "") is None else _take(row, key, *_NUMBER) for key in ("value", "low", "high")
        }
        metric = Metric(
            metric=_take(row, "metric", str),
            class_=class_,
            n=_take(row, "n", int),
            protocol=_take(row, "protocol", str),
            **bounds,
        )
        return cls(metric=metric, leak_rate=_take(row, "leak_rate", *_NUMBER))


def select_metrics(metrics: Iterable[Metric], leak_rate: float) -> tuple[BundleMetric, ...]:
    """Return the metrics that a bundle holds, each with the leak rate."""
    kept = [row for row in metrics if row.metric in (_OVERALL if row.class_ is None else _BY_CLASS)]
    return tuple(BundleMetric(metric=replace(row, note=None), leak_rate=leak_rate) for row in kept)


@dataclass(frozen=True, kw_only=True)
class OutsideFacts:
    """That mribatch measured the networks but did not fit them."""

    made_by: str  # libraries and precision, for people
    notes: tuple[str, ...]  # departures from the recipe

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON."""
        return {"made_by": self.made_by, "notes": list(self.notes)}

    @classmethod
    def from_json(cls, content: object) -> Self:
        """Read the facts.

        Raises:
            ValueError: A field is missing or of the wrong type; names it.
        """
        facts = _check_object(content, "fitted_elsewhere")
        return cls(made_by=_take(facts, "made_by", str), notes=_take_list(facts, "notes", str))


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """What every training says about itself; `training` of bundle.json and training.json."""

    recipe: str
    protocol: str  # one sentence
    leak_rate: float
    leak: str  # for people
    images: Mapping[str, int]  # part -> number of images
    left_out: int  # files that could not be used
    data: str  # title of the data sheet
    seconds: float
    split_seed: int
    mribatch: str  # version
    fit: FitFingerprint
    outside: OutsideFacts | None = None  # if the networks were fitted elsewhere

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON."""
        elsewhere = {} if self.outside is None else {"fitted_elsewhere": self.outside.to_json()}
        return {
            "recipe": self.recipe,
            **elsewhere,
            "protocol": self.protocol,
            "leak_rate": self.leak_rate,
            "leak": self.leak,
            "images": dict(self.images),
            "left_out": self.left_out,
            "data": self.data,
            **self._own_to_json(),
            "seconds": self.seconds,
            "split_seed": self.split_seed,
            "mribatch": self.mribatch,
            "fingerprint": self.fit.digest,
            "fit": self.fit.to_json(),
        }

    @classmethod
    def from_json(cls, content: object) -> Self:
        """Read the facts.

        Raises:
            ValueError: A field is missing or of the wrong type; names it.
        """
        facts = _check_object(content, "training")
        images = _take(facts, "images", dict)
        return cls(
            **{name: _take(facts, name, str) for name in ("recipe", "protocol", "leak", "data", "mribatch")},
            **{name: _take(facts, name, *_NUMBER) for name in ("leak_rate", "seconds")},
            **{name: _take(facts, name, int) for name in ("left_out", "split_seed")},
            images={part: _take(images, part, int) for part in images},
            fit=FitFingerprint.from_json(facts.get("fit")),
            outside=OutsideFacts.from_json(facts["fitted_elsewhere"]) if "fitted_elsewhere" in facts else None,
            **cls._own_from_json(facts),
        )

    def _own_to_json(self) -> dict[str, Any]:
        return {}

    @classmethod
    def _own_from_json(cls, facts: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG003
        return {}


@dataclass(frozen=True, kw_only=True)
class ValidationScore:
    """Figures of the validation part after the epoch that was kept."""

    loss: float  # mean cross-entropy, nats
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class SplitFacts(TrainingFacts):
    """Of one fit on one division into parts."""

    epochs: int
    epochs_at_most: int
    best_epoch: int  # from 1; the one that was kept
    validation: ValidationScore | None

    def _own_to_json(self) -> dict[str, Any]:
        scored = self.validation
        return {
            "epochs": self.epochs,
            "epochs_at_most": self.epochs_at_most,
            "best_epoch": self.best_epoch,
            "validation": None if scored is None else {"loss": scored.loss, "accuracy": scored.accuracy},
        }

    @classmethod
    def _own_from_json(cls, facts: Mapping[str, Any]) -> dict[str, Any]:
        own: dict[str, Any] = {name: _take(facts, name, int) for name in ("epochs", "epochs_at_most", "best_epoch")}
        scored = None if facts.get("validation", "") is None else _take(facts, "validation", dict)
        if scored is None:
            return own | {"validation": None}
        figures = {name: _take(scored, name, *_NUMBER) for name in ("loss", "accuracy")}
        return own | {"validation": ValidationScore(**figures)}


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A figure before and after the temperature."""

    before: float | None
    after: float | None

    def to_json(self) -> dict[str, Any]:
        """Return both as JSON."""
        return {"before": self.before, "after": self.after}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read both.

        Raises:
            ValueError: One is missing or not a number; names it.
        """
        names = ("before", "after")
        return cls(**{key: None if content.get(key, "") is None else _take(content, key, *_NUMBER) for key in names})


@dataclass(frozen=True, kw_only=True)
class FoldsFacts(TrainingFacts):
    """Of k folds and the fit on all images."""

    folds: int
    fold_names: tuple[str, ...]
    fold_accuracy: tuple[float, ...]
    best_epochs: tuple[int, ...]  # of each fold
    epochs: int  # of the fit on all images
    temperature: float
    ece: Calibration  # expected calibration error
    log_loss: Calibration  # nats

    def _own_to_json(self) -> dict[str, Any]:
        return {
            "folds": self.folds,
            "fold_names": list(self.fold_names),
            "fold_accuracy": list(self.fold_accuracy),
            "best_epochs": list(self.best_epochs),
            "epochs": self.epochs,
            "temperature": self.temperature,
            "ece": self.ece.to_json(),
            "log_loss": self.log_loss.to_json(),
        }

    @classmethod
    def _own_from_json(cls, facts: Mapping[str, Any]) -> dict[str, Any]:
        folds = _take(facts, "folds", int)
        numbered = tuple(f"fold {fold + 1}" for fold in range(folds))  # before there were folds of sources
        return {
            "folds": folds,
            "fold_names": _take_list(facts, "fold_names", str) if "fold_names" in facts else numbered,
            "fold_accuracy": _take_list(facts, "fold_accuracy", *_NUMBER),
            "best_epochs": _take_list(facts, "best_epochs", int),
            "epochs": _take(facts, "epochs", int),
            "temperature": _take(facts, "temperature", *_NUMBER),
            "ece": Calibration.from_json(_take(facts, "ece", dict)),
            "log_loss": Calibration.from_json(_take(facts, "log_loss", dict)),
        }


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """The content of training.json."""

    out: str  # folder of the bundle
    training: SplitFacts | FoldsFacts
    metrics: tuple[BundleMetric, ...]
    highlights: Mapping[str, str]  # title -> text, for people
    name: str | None = None  # of the bundle; None while there is none
    golden_max_difference: float | None = None  # ONNX Runtime against Keras; None while there is no bundle

    @property
    def has_bundle(self) -> bool:
        """True if a bundle was written and gated."""
        return self.golden_max_difference is not None

    def to_json(self) -> dict[str, Any]:
        """Return the content of training.json."""
        bundle = {"name": self.name, "golden_max_difference": self.golden_max_difference}
        return {
            "out": self.out,
            "training": self.training.to_json(),
            "metrics": [row.to_json() for row in self.metrics],
            "summary": dict(self.highlights),
            **(bundle if self.has_bundle else {}),
        }

    @classmethod
    def from_json(cls, content: object) -> Self:
        """Read the content of training.json.

        Raises:
            ValueError: A field is missing or of the wrong type; names it.
        """
        found = _check_object(content, "the whole")
        training = _take(found, "training", dict)
        highlights = _take(found, "summary", dict)
        bundle: dict[str, Any] = {}
        if "golden_max_difference" in found:
            difference = _take(found, "golden_max_difference", *_NUMBER)
            bundle = {"name": _take(found, "name", str), "golden_max_difference": difference}
        return cls(
            out=_take(found, "out", str),
            training=FoldsFacts.from_json(training) if "folds" in training else SplitFacts.from_json(training),
            metrics=tuple(BundleMetric.from_json(row) for row in _take(found, "metrics", list)),
            highlights={title: _take(highlights, title, str) for title in highlights},
            **bundle,
        )

    def write(self, work: Path) -> None:
        """Replace training.json in the work folder."""
        write_json(work / SUMMARY_FILE, self.to_json())

    @classmethod
    def read(cls, work: Path) -> Self:
        """Read training.json of a work folder.

        Raises:
            OSError: It cannot be read.
            ValueError: It is not JSON, or a field is missing or of the wrong type.
        """
        return cls.from_json(json.loads((work / SUMMARY_FILE).read_text(encoding="utf-8")))


def _check_object(content: object, name: str) -> Mapping[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"{name} is not a JSON object")
    return content


def _take(content: Mapping[str, Any], key: str, *kinds: type) -> Any:
    value = content.get(key)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"the field '{key}' is {'missing' if key not in content else f'{value!r:.80}'}")
    return value


def _take_list(content: Mapping[str, Any], key: str, *kinds: type) -> tuple[Any, ...]:
    values = _take(content, key, list)
    return tuple(_take({key: value}, key, *kinds) for value in values)
