"""The grouped protocol: k fits that each leave one fold of units out, and then, on request, one fit on all images.

Every image is predicted once, by the network that saw nothing of its unit. These out-of-fold predictions give the
figures and the temperature; the network in the bundle is trained on everything and was scored on nothing.
"""

import math
import statistics
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32, int64
from numpy.typing import NDArray

from mribatch.core.about import __version__
from mribatch.core.errors import MribatchError
from mribatch.core.files import FolderLock, publishing, write_json
from mribatch.report.metrics import find
from mribatch.training.card.citations import SUMMARY_FILE, read_cited
from mribatch.training.card.model_card import CardFacts, model_card
from mribatch.training.data.images import DataSet
from mribatch.training.data.protocols import deal_folds, fold_parts
from mribatch.training.data.split import Grouping, Leak, leak
from mribatch.training.evaluation import Evaluation, Shortcut, metric_facts, score, size_shortcuts
from mribatch.training.export.bundle import BundleFacts, check_names, check_replaceable, write_bundle
from mribatch.training.figures import charts as figures
from mribatch.training.fit.loop import Echo, FitResult, Images, fit
from mribatch.training.fit.temperature import fit_temperature
from mribatch.training.frameworks import load_keras, versions
from mribatch.training.networks.build import predict_logits
from mribatch.training.options import (
    TrainOptions,
    TrainResult,
    digest,
    fit_fingerprint,
    images_of,
    make_folder,
    read_images,
    watched_images,
)
from mribatch.training.recipes.catalog import Recipe
from mribatch.training.train import ALREADY, finished_before, remove_state, save_network
from mribatch.training.work_folder import tables

FINISHED_FOLD = "held_out.npz"  # in the folder of each fold: its logits, best epoch and fingerprint
_ALL = "all"  # the folder of the fit on every image


@dataclass(frozen=True)
class _Folds:
    """What all fits share."""

    data: DataSet
    grouping: Grouping
    dealt: NDArray[int64]  # (n,): fold of each image, from 0
    protocol: str
    leak: Leak


@dataclass(frozen=True)
class _Pooled:
    """Out-of-fold results of every image."""

    logits: NDArray[float32]  # (n, classes)
    epochs: tuple[int, ...]  # best epoch of each fold
    seconds: float
    temperature: float
    before: Evaluation  # at temperature 1
    after: Evaluation


def train_folds(options: TrainOptions, echo: Echo = lambda _: None) -> TrainResult:
    """Read, deal folds, fit each, pool, calibrate; with `options.final` also fit all images, export and prove.

    Folds are fitted one by one; the same command after a kill goes on where it stopped, with the same result.

    Raises:
        MribatchError: Bad data, too few units for the folds, an output that is not ours, another fit in the work
            folder, or a graph that does not agree with Keras.
    """
    load_keras()
    read_cited(options.cite)  # before hours of training
    check_names(options.bundle_name if options.final else "folds", options.classes)
    if options.final:
        check_replaceable(options.out)
    if options.folds < 3 and options.recipe.keep == "best":
        problem = f"'{options.recipe.name}' chooses its epoch, so of 2 folds none is left to learn from"
        raise MribatchError(problem, "give --folds 3 or more, or --set keep=last")
    make_folder(options.work_folder)
    with FolderLock(options.work_folder):
        folds = _deal(options, echo)
        pooled = _pool(options, folds, echo)
        training = _training_facts(options, folds, pooled)
        state = options.work_folder / _ALL
        finished = finished_before(options, training["fit"], state) if options.final else None
        if finished is not None:
            echo(f"{options.out} {ALREADY}")
            return finished
        _write_outputs(options, folds, pooled)
        return (
            _final(options, folds, pooled, training, echo) if options.final else _told(options, folds, pooled, training)
        )


def _deal(options: TrainOptions, echo: Echo) -> _Folds:
    data, grouping = read_images(options, echo)
    dealt = deal_folds(data, grouping, options.folds, options.split_seed)
    near, counts = grouping.near_duplicates, np.bincount(dealt)
    leaks = [leak(near, dealt != fold, dealt == fold, grouping.duplicates_basis) for fold in range(options.folds)]
    leaked = Leak(len(dealt), sum(each.leaked for each in leaks), grouping.duplicates_basis)
    protocol = (
        f"grouped {options.folds}-fold cross-validation (units share {grouping.basis}), "
        f"out-of-fold predictions pooled, split seed {options.split_seed}"
    )
    units = len(set(grouping.units.tolist()))
    echo(f"{len(dealt)} images in {units} units, folds of {', '.join(map(str, counts))}; leak rate {leaked}")
    return _Folds(data, grouping, dealt, protocol, leaked)


def _pool(options: TrainOptions, folds: _Folds, echo: Echo) -> _Pooled:
    data = folds.data
    logits = np.empty((len(data.labels), len(data.classes.names)), dtype=float32)
    epochs, seconds = [], 0.0
    for fold in range(options.folds):
        held_out, epoch, took = _one_fold(options, folds, fold, echo)
        logits[folds.dealt == fold] = held_out
        epochs.append(epoch)
        seconds += took
    temperature = fit_temperature(logits, data.labels)
    scored = [
        score(logits, data.labels, data.classes.names, folds.grouping.units, each, folds.protocol)
        for each in (1.0, temperature)
    ]
    return _Pooled(logits, tuple(epochs), seconds, temperature, scored[0], scored[1])


def _one_fold(options: TrainOptions, folds: _Folds, fold: int, echo: Echo) -> tuple[NDArray[float32], int, float]:
    """Logits of the fold's images, its best epoch and its seconds; from its file where the fold was done before."""
    recipe, data = options.chosen_recipe, folds.data
    work = options.work_folder / f"fold-{fold + 1}"
    parts = fold_parts(folds.dealt, fold, chooses=recipe.keep == "best")
    fingerprint = fit_fingerprint(options, recipe, data, parts)
    make_folder(work)
    known = _finished_fold(work / FINISHED_FOLD, fingerprint)
    if known is not None:
        return known
    echo(f"fold {fold + 1} of {options.folds}")
    fitted = fit(
        recipe,
        images_of(data, parts, "train"),
        watched_images(data, parts),
        len(data.classes.names),
        options.seed,
        work,
        fingerprint,
        echo,
        options.quiet,
    )
    tested = images_of(data, parts, "test")
    logits = predict_logits(fitted.network, tested.pixels)
    accuracy = float((logits.argmax(axis=1) == tested.labels).mean())
    echo(f"fold {fold + 1}: accuracy {accuracy:.4f} on {len(tested.labels)} images held out")
    tables.write_history(work, fitted.history)
    seconds = sum(row.seconds for row in fitted.history)
    with publishing(work / FINISHED_FOLD) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            logits=logits,
            epoch=np.array(fitted.best_epoch),
            seconds=np.array(seconds),
            fingerprint=np.array(digest(fingerprint)),
        )
    if not options.keep_work:
        remove_state(work)
    return logits, fitted.best_epoch, seconds


def _finished_fold(path: Path, fingerprint: Mapping[str, Any]) -> tuple[NDArray[float32], int, float] | None:
    if not path.exists():
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            known = {name: archive[name] for name in archive.files}
        same = str(known["fingerprint"]) == digest(fingerprint)
        found = (known["logits"].astype(float32), int(known["epoch"]), float(known["seconds"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise MribatchError(f"cannot read {path}: {error}", "delete its folder, or choose another --work") from error
    if not same:
        problem = f"{path.parent} holds a fold of another fit"
        raise MribatchError(problem, "repeat the first command, or choose another --work folder")
    return found


def _write_outputs(options: TrainOptions, folds: _Folds, pooled: _Pooled) -> None:
    work, data = options.work_folder, folds.data
    tables.write_parts(work, data, folds.grouping, _fold_names(folds))
    tables.write_out_of_fold(work, data, folds.grouping, folds.dealt, pooled.logits, pooled.after.probabilities)
    tables.write_metrics(work, pooled.after.metrics)
    tested = figures.Tested(
        labels=data.labels, probabilities=pooled.after.probabilities, pixels=data.pixels, metrics=pooled.after.metrics
    )
    figures.write_all(
        work / "figures",
        name=options.recipe.name,
        classes=data.classes.names,
        protocol=folds.protocol,
        tested=tested,
        data=(data.pixels, data.labels),
        seed=options.seed,
    )


def _final(
    options: TrainOptions, folds: _Folds, pooled: _Pooled, training: Mapping[str, Any], echo: Echo
) -> TrainResult:
    data, recipe, work = folds.data, final_recipe(options.chosen_recipe, pooled.epochs), options.work_folder / _ALL
    make_folder(work)
    echo(f"all {len(data.labels)} images, {recipe.epochs} epochs")
    everything = Images(data.pixels, data.labels)
    nothing = Images(data.pixels[:0], data.labels[:0], "none")
    fingerprint = fit_fingerprint(options, recipe, data, np.zeros(len(data.labels), dtype=int64))
    fitted = fit(
        recipe, everything, nothing, len(data.classes.names), options.seed, work, fingerprint, echo, options.quiet
    )
    tables.write_history(work, fitted.history)
    save_network(fitted.network, options.work_folder)
    metrics = metric_facts(pooled.after.metrics, folds.leak.rate)
    name = options.bundle_name
    bundle = BundleFacts(
        name=name,
        classes=options.classes,
        temperature=pooled.temperature,
        description=f"{recipe.name}: {recipe.description}",
        training=training,
        metrics=metrics,
        licences={"weights": options.weights_licence, "training_data": options.sheet.licence},
    )
    card = _card(options, folds, pooled, fitted, recipe, name)
    agreement = write_bundle(fitted.network, bundle, card, options.out)
    echo(f"ONNX Runtime against Keras on the golden slices: {agreement}")
    result = _told(options, folds, pooled, training, name=name, golden_max_difference=agreement.max_difference)
    if not options.keep_work:
        remove_state(work)
    return result


def final_recipe(recipe: Recipe, epochs: Sequence[int]) -> Recipe:
    """The recipe for all images, where nothing is left to choose an epoch: the folds' median, the last one kept."""
    if recipe.keep == "last":
        return recipe
    median = math.ceil(statistics.median(epochs))
    return replace(recipe, epochs=median, patience=median, keep="last")


def _told(
    options: TrainOptions, folds: _Folds, pooled: _Pooled, training: Mapping[str, Any], **more: Any
) -> TrainResult:
    metrics = metric_facts(pooled.after.metrics, folds.leak.rate)
    shares = training["fold_accuracy"]
    summary = {
        "images": f"{len(folds.dealt)}; {folds.protocol}",
        "leak rate": str(folds.leak),
        "folds": f"accuracy {', '.join(f'{share:.4f}' for share in shares)}; mean {statistics.mean(shares):.4f}",
        "calibration": _calibration(pooled),
        "tables": str(options.work_folder),
    }
    if options.final:
        summary["bundle"] = str(options.out)
    facts = {"out": str(options.out), "training": dict(training), "metrics": metrics, "summary": summary, **more}
    write_json(options.work_folder / SUMMARY_FILE, facts)
    return TrainResult(options.out, options.work_folder, facts)


def _training_facts(options: TrainOptions, folds: _Folds, pooled: _Pooled) -> dict[str, Any]:
    recipe = final_recipe(options.chosen_recipe, pooled.epochs)
    fingerprint = fit_fingerprint(options, recipe, folds.data, folds.dealt)
    before, after = (find(each.metrics, "ece").value for each in (pooled.before, pooled.after))
    losses = [find(each.metrics, "log_loss").value for each in (pooled.before, pooled.after)]
    return {
        "recipe": options.recipe.name,
        "protocol": folds.protocol,
        "leak_rate": folds.leak.rate,
        "leak": str(folds.leak),
        "images": {"out_of_fold": len(folds.dealt)},
        "left_out": len(folds.data.left_out),
        "data": options.sheet.title,
        "folds": options.folds,
        "fold_accuracy": _fold_accuracies(folds, pooled),
        "best_epochs": list(pooled.epochs),
        "epochs": recipe.epochs,
        "temperature": pooled.temperature,
        "ece": {"before": before, "after": after},
        "log_loss": {"before": losses[0], "after": losses[1]},
        "seconds": round(pooled.seconds, 1),
        "split_seed": options.split_seed,
        "mribatch": __version__,
        "fingerprint": digest(fingerprint),
        "fit": fingerprint,
    }


def _fold_accuracies(folds: _Folds, pooled: _Pooled) -> list[float]:
    hits = pooled.logits.argmax(axis=1) == folds.data.labels
    return [float(hits[folds.dealt == fold].mean()) for fold in range(int(folds.dealt.max()) + 1)]


def _calibration(pooled: _Pooled) -> str:
    told = []
    for name, title in (("ece", "expected calibration error"), ("log_loss", "log loss")):
        before, after = (find(each.metrics, name).value or 0.0 for each in (pooled.before, pooled.after))
        told.append(f"{title} {before:.4f} before, {after:.4f} after")
    return f"temperature {pooled.temperature:.4f}; {'; '.join(told)}"


def _card(options: TrainOptions, folds: _Folds, pooled: _Pooled, fitted: FitResult, recipe: Recipe, name: str) -> str:
    data, everything = folds.data, np.ones(len(folds.dealt), dtype=np.bool_)
    shares = _fold_accuracies(folds, pooled)
    epochs_from = "no image chose them"
    if options.recipe.keep == "best":
        best = ", ".join(map(str, pooled.epochs))
        epochs_from = f"their number is the median of the folds' best epochs ({best}), chosen by other folds' images"
    notes = (
        f"Accuracy of the folds one by one: {', '.join(f'{share:.4f}' for share in shares)}; mean "
        f"{statistics.mean(shares):.4f}, standard deviation {statistics.stdev(shares):.4f}.",
        f"Calibration, fitted on the pooled out-of-fold logits: {_calibration(pooled)}. One number fitted on "
        f"{len(everything)} images cannot flatter itself by much, but a little it does.",
        "The weights in this bundle come from one more fit on all images. No image is left to score it on; its figures "
        "are the folds', whose networks saw a part of the images each.",
    )
    facts = CardFacts(
        name=name,
        recipe=recipe,
        data=data,
        sheet=options.sheet,
        grouping=folds.grouping,
        parts=_fold_names(folds),
        keeps_units=True,
        tested=everything,
        fit=fitted,
        evaluation=pooled.after,
        leak=folds.leak,
        shortcuts=_shortcuts(folds),
        shortcuts_of="learned on the other folds, measured on the first",
        epochs_from=epochs_from,
        protocol=folds.protocol,
        measured="each once, by the network of the fold that left it out",
        notes=notes,
        cited=read_cited(options.cite),
        seed=options.seed,
        split_seed=options.split_seed,
        temperature=pooled.temperature,
        weights_licence=options.weights_licence,
        versions=versions(),
    )
    return model_card(facts)


def _shortcuts(folds: _Folds) -> list[Shortcut]:
    data, first = folds.data, folds.dealt == 0
    return size_shortcuts(data.stored_sizes, data.labels, ~first, first, data.classes.names)


def _fold_names(folds: _Folds) -> tuple[str, ...]:
    return tuple(f"fold {fold + 1}" for fold in folds.dealt)
