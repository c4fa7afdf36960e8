"""Training from a folder of images to a proven bundle; `train` is the table of contents."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy import int64
from numpy.typing import NDArray

from mribatch import __version__
from mribatch.bundle import SPEC_FILE, load_bundle
from mribatch.errors import MribatchError
from mribatch.files import FolderLock, write_json
from mribatch.training import tables
from mribatch.training.card import CardFacts, model_card
from mribatch.training.classes import BRAIN_TUMORS, ClassList
from mribatch.training.data import DataSet, load
from mribatch.training.data_sheets import UNKNOWN, DataSheet
from mribatch.training.evaluate import Evaluation, evaluate, metric_facts, size_shortcuts
from mribatch.training.export import BundleFacts, check_replaceable, write_bundle
from mribatch.training.figures import draw_confusion, draw_training_curves
from mribatch.training.fit import FINGERPRINT_FILE, STATE_FILE, Echo, FitResult, Images, fit
from mribatch.training.frameworks import load_keras, versions
from mribatch.training.recipes import Recipe
from mribatch.training.split import (
    FRACTIONS,
    PARTS,
    Grouping,
    Leak,
    check_parts,
    group,
    grouped_split,
    leak,
    read_groups,
)

SUMMARY_FILE = "training.json"


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What `mribatch train` was asked for."""

    recipe: Recipe
    data: Path
    out: Path
    groups: Path | None = None
    classes: ClassList = BRAIN_TUMORS
    sheet: DataSheet = UNKNOWN
    weights_licence: str = "not stated"
    name: str | None = None  # of the bundle; its folder's name where not given
    epochs: int | None = None  # instead of the recipe's
    seed: int = 0  # of weights, order, augmentation and dropout
    split_seed: int = 0  # of the parts, apart, so that fits with other seeds share their test part
    work: Path | None = None  # OUT-work beside OUT where not given
    keep_work: bool = False
    overwrite: bool = False
    quiet: bool = False

    @property
    def work_folder(self) -> Path:
        """Where the fit is kept while it runs, and its tables and figures for good."""
        return self.work if self.work is not None else self.out.with_name(f"{self.out.name}-work")


@dataclass(frozen=True)
class TrainResult:
    """What came out; `facts` is the content of training.json."""

    out: Path
    work: Path
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class _Prepared:
    data: DataSet
    grouping: Grouping
    parts: NDArray[int64]  # (n,), indices into PARTS
    leak: Leak
    protocol: str
    fingerprint: Mapping[str, Any]

    def images(self, part: str) -> Images:
        chosen = self.parts == PARTS.index(part)
        return Images(self.data.pixels[chosen], self.data.labels[chosen])


def train(options: TrainOptions, echo: Echo = lambda _: None) -> TrainResult:
    """Read, split, fit, evaluate, export, prove.

    The same options after a kill go on at the next epoch, and after the end give the same result without any work.

    Raises:
        MribatchError: Bad data, an output that is not ours, another fit in the work folder, or a graph that does not
            agree with Keras.
    """
    recipe = replace(options.recipe, epochs=options.epochs) if options.epochs else options.recipe
    load_keras()
    check_replaceable(options.out)
    _make_folder(options.work_folder)
    with FolderLock(options.work_folder):
        prepared = _prepare(options, recipe, echo)
        finished = _finished(options, prepared)
        if finished is not None:
            echo(f"{options.out} already holds this fit")
            return finished
        fitted = fit(recipe, prepared.images("train"), prepared.images("validation"), len(options.classes.names),
                     options.seed, options.work_folder, prepared.fingerprint, echo, options.quiet)  # fmt: skip
        evaluation = _evaluate(options, prepared, fitted)
        _write_outputs(options, prepared, fitted, evaluation)
        result = _publish(options, recipe, prepared, fitted, evaluation, echo)
        if not options.keep_work:
            _remove_state(options.work_folder)
    return result


def _prepare(options: TrainOptions, recipe: Recipe, echo: Echo) -> _Prepared:
    table = read_groups(options.groups) if options.groups is not None else None
    data = load(options.data, options.classes, recipe.size, options.quiet)
    _tell_left_out(data, echo)
    grouping = group(data.paths, data.pixel_sha256, table)
    if table is not None and grouping.listed < len(data.paths):
        echo(f"{len(data.paths) - grouping.listed} of {len(data.paths)} images are not in the groups file; "
             "each is a unit of its own")  # fmt: skip
    parts = grouped_split(data.labels, grouping, data.pixel_sha256, options.split_seed)
    check_parts(data.labels, parts, data.classes.names)
    leaked = leak(grouping.near_duplicates, parts == PARTS.index("train"), parts == PARTS.index("test"),
                  grouping.duplicates_basis)  # fmt: skip
    counts = ", ".join(f"{part} {int((parts == index).sum())}" for index, part in enumerate(PARTS))
    echo(f"{len(data.paths)} images in {len(set(grouping.units.tolist()))} units: {counts}; leak rate {leaked}")
    shares = "/".join(f"{fraction:.0%}".rstrip("%") for fraction in FRACTIONS)
    protocol = f"grouped holdout {shares} (units share {grouping.basis}), split seed {options.split_seed}"
    return _Prepared(data, grouping, parts, leaked, protocol, _fingerprint(options, recipe, data, parts))


def _fingerprint(options: TrainOptions, recipe: Recipe, data: DataSet, parts: NDArray[int64]) -> dict[str, Any]:
    """Everything that decides the weights after any epoch."""
    return {
        **recipe.facts(),
        "classes": list(data.classes.names),
        "data_sha256": data.fingerprint,
        "parts_sha256": sha256(parts.astype("<i8").tobytes()).hexdigest(),
        "seed": options.seed,
        **{f"version.{name}": version for name, version in versions().items()},
    }


def _finished(options: TrainOptions, prepared: _Prepared) -> TrainResult | None:
    """What an earlier, completed run of this command left at `out`; None where there is nothing.

    Raises:
        MribatchError: A bundle of something else stands there and --overwrite was not given.
    """
    if options.overwrite or not (options.out / SPEC_FILE).is_file():
        return None
    spec = load_bundle(str(options.out)).spec
    summary = options.work_folder / SUMMARY_FILE
    if spec.training.get("fingerprint") != _digest(prepared.fingerprint) or not summary.is_file():
        problem = f"{options.out} holds another bundle, '{spec.name}'"
        raise MribatchError(problem, "choose another --out, or --overwrite")
    return TrainResult(options.out, options.work_folder, json.loads(summary.read_text(encoding="utf-8")))


def _evaluate(options: TrainOptions, prepared: _Prepared, fitted: FitResult) -> Evaluation:
    test = prepared.images("test")
    units = prepared.grouping.units[prepared.parts == PARTS.index("test")]
    return evaluate(fitted.network, test.pixels, test.labels, options.classes.names, units, 1.0, prepared.protocol)


def _write_outputs(options: TrainOptions, prepared: _Prepared, fitted: FitResult, evaluation: Evaluation) -> None:
    """Tables and figures of the work folder; they stay when the checkpoints go."""
    work, data = options.work_folder, prepared.data
    tested = np.flatnonzero(prepared.parts == PARTS.index("test"))
    tables.write_parts(work, data, prepared.grouping, prepared.parts)
    tables.write_history(work, fitted.history)
    tables.write_test_predictions(work, data, tested, evaluation.probabilities)
    tables.write_test_files(work, [data.files[position] for position in tested])
    tables.write_metrics(work, evaluation.metrics)
    title = f"{options.recipe.name}: {len(fitted.history)} epochs"
    draw_training_curves(fitted.history, fitted.best_epoch, title, work / "figures")
    draw_confusion(evaluation.confusion, data.classes.names, f"{options.recipe.name}, test part", work / "figures")
    unfinished = work / ".model.tmp.keras"  # Keras wants this suffix
    fitted.network.save(unfinished)
    os.replace(unfinished, work / "model.keras")


def _publish(
    options: TrainOptions, recipe: Recipe, prepared: _Prepared, fitted: FitResult, evaluation: Evaluation, echo: Echo
) -> TrainResult:
    name = options.name or options.out.name
    training = _training_facts(options, recipe, prepared, fitted)
    metrics = metric_facts(evaluation.metrics, prepared.leak.rate)
    bundle = BundleFacts(
        name=name,
        classes=options.classes,
        description=f"{recipe.name}: {recipe.description}",
        training=training,
        metrics=metrics,
        licences={"weights": options.weights_licence, "training_data": options.sheet.licence},
    )
    card = _card(options, recipe, prepared, fitted, evaluation, name)
    agreement = write_bundle(fitted.network, bundle, card, options.out)
    echo(f"ONNX Runtime against Keras on the golden slices: {agreement}")
    facts = {"name": name, "out": str(options.out), "training": training, "metrics": metrics,
             "golden_max_difference": agreement.max_difference}  # fmt: skip
    write_json(options.work_folder / SUMMARY_FILE, facts)
    return TrainResult(options.out, options.work_folder, facts)


def _card(
    options: TrainOptions, recipe: Recipe, prepared: _Prepared, fitted: FitResult, evaluation: Evaluation, name: str
) -> str:
    data, parts = prepared.data, prepared.parts
    trained, tested = parts == PARTS.index("train"), parts == PARTS.index("test")
    facts = CardFacts(
        name=name,
        recipe=recipe,
        data=data,
        sheet=options.sheet,
        grouping=prepared.grouping,
        parts=parts,
        fit=fitted,
        evaluation=evaluation,
        leak=prepared.leak,
        shortcuts=size_shortcuts(data.stored_sizes, data.labels, trained, tested, data.classes.names),
        protocol=prepared.protocol,
        seed=options.seed,
        split_seed=options.split_seed,
        temperature=1.0,
        weights_licence=options.weights_licence,
        versions=versions(),
    )
    return model_card(facts)


def _training_facts(options: TrainOptions, recipe: Recipe, prepared: _Prepared, fitted: FitResult) -> dict[str, Any]:
    best = fitted.history[fitted.best_epoch - 1]
    return {
        "recipe": recipe.name,
        "protocol": prepared.protocol,
        "leak_rate": prepared.leak.rate,
        "leak": str(prepared.leak),
        "images": {part: int((prepared.parts == index).sum()) for index, part in enumerate(PARTS)},
        "left_out": len(prepared.data.left_out),
        "data": options.sheet.title,
        "epochs": len(fitted.history),
        "epochs_at_most": recipe.epochs,
        "best_epoch": fitted.best_epoch,
        "validation": {"loss": best.val_loss, "accuracy": best.val_accuracy},
        "seconds": round(sum(row.seconds for row in fitted.history), 1),
        "split_seed": options.split_seed,
        "mribatch": __version__,
        "fingerprint": _digest(prepared.fingerprint),
        "fit": dict(prepared.fingerprint),
    }


def _digest(fingerprint: Mapping[str, Any]) -> str:
    return sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()


def _tell_left_out(data: DataSet, echo: Echo) -> None:
    for item in data.left_out[:20]:
        echo(f"left out: {item.path}: {item.status.value}: {item.error}")
    if len(data.left_out) > 20:
        echo(f"left out: {len(data.left_out) - 20} more; parts.parquet lists all")
    if data.other_folders:
        names = ", ".join(f"{name} ({count})" for name, count in sorted(data.other_folders.items())[:20])
        echo(f"not used, because their folders are no class: {names}")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot make the work folder {folder}: {error.strerror}"
        raise MribatchError(problem, "choose another --work") from error


def _remove_state(work: Path) -> None:
    for path in (work / STATE_FILE, work / FINGERPRINT_FILE, *work.glob("best-*.npz")):
        path.unlink(missing_ok=True)
