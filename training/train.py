"""Training from a folder of images to a proven bundle, for one division into parts; `train` tells the steps."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy import int64
from numpy.typing import NDArray

from mribatch.core.about import __version__
from mribatch.core.bundle import SPEC_FILE, load_bundle
from mribatch.core.errors import MribatchError
from mribatch.core.files import FolderLock, write_json
from mribatch.training.card.citations import SUMMARY_FILE, read_cited
from mribatch.training.card.model_card import CardFacts, interval, model_card
from mribatch.training.data.images import DataSet
from mribatch.training.data.protocols import Division, divide
from mribatch.training.data.split import PARTS, Grouping, Leak, check_parts, leak
from mribatch.training.evaluation import Evaluation, evaluate, metric_facts, score_apart, size_shortcuts
from mribatch.training.export.bundle import BundleFacts, check_names, check_replaceable, write_bundle
from mribatch.training.figures import charts as figures
from mribatch.training.fit.loop import FINGERPRINT_FILE, STATE_FILE, Echo, FitResult, fit
from mribatch.training.frameworks import load_keras, versions
from mribatch.training.options import (
    TrainOptions,
    TrainResult,
    digest,
    fit_fingerprint,
    images_of,
    make_folder,
    part_counts,
    read_images,
    watched_images,
)
from mribatch.training.work_folder import tables

ALREADY = "already holds this fit; nothing was written (--overwrite would write bundle and card anew)"
_PROOF = "golden_max_difference"  # in the summary: a bundle was written and proven


@dataclass(frozen=True)
class _Prepared:
    data: DataSet
    grouping: Grouping
    division: Division
    leak: Leak
    fingerprint: Mapping[str, Any]

    @property
    def parts(self) -> NDArray[int64]:
        return self.division.parts

    @property
    def protocol(self) -> str:
        return self.division.protocol

    @property
    def tested(self) -> NDArray[np.bool_]:
        return np.equal(self.parts, PARTS.index("test"))

    @property
    def leaked(self) -> NDArray[np.bool_]:
        """(tested,): which test images have a near-duplicate among all others."""
        near = self.grouping.near_duplicates
        return np.isin(near[self.tested], near[~self.tested])

    @property
    def trained(self) -> NDArray[np.bool_]:
        return np.equal(self.parts, PARTS.index("train"))


def train(options: TrainOptions, echo: Echo = lambda _: None) -> TrainResult:
    """Read, split, fit, evaluate, export, prove.

    The same options after a kill go on at the next epoch, and after the end give the same result without any work.

    Raises:
        MribatchError: Bad data, an output that is not ours, another fit in the work folder, or a graph that does not
            agree with Keras.
    """
    load_keras()
    check_names(options.bundle_name, options.classes)
    check_replaceable(options.out)
    read_cited(options.cite)  # before hours of training
    make_folder(options.work_folder)
    with FolderLock(options.work_folder):
        prepared = _prepare(options, echo)
        finished = finished_before(options, prepared.fingerprint, options.work_folder)
        if finished is not None:
            echo(f"{options.out} {ALREADY}")
            return finished
        fitted = fit(
            options.chosen_recipe,
            images_of(prepared.data, prepared.parts, "train"),
            watched_images(prepared.data, prepared.parts),
            len(options.classes.names),
            options.seed,
            options.work_folder,
            prepared.fingerprint,
            echo,
            options.quiet,
        )
        evaluation = _evaluate(options, prepared, fitted)
        _write_outputs(options, prepared, fitted, evaluation)
        result = _publish(options, prepared, fitted, evaluation, echo)
        if not options.keep_work:
            remove_state(options.work_folder)
    return result


def finished_before(options: TrainOptions, fingerprint: Mapping[str, Any], state: Path) -> TrainResult | None:
    """What an earlier, completed run of this command left at `out`; None where there is something left to do.

    Args:
        options: As the command was given.
        fingerprint: Of the fit whose weights the bundle holds.
        state: The folder with that fit's checkpoints; they go when all else is done.

    Raises:
        MribatchError: A bundle of something else stands there and --overwrite was not given.
    """
    if options.overwrite or not (options.out / SPEC_FILE).is_file():
        return None
    spec = load_bundle(str(options.out)).spec
    if spec.training.get("fingerprint") != digest(fingerprint):
        problem = f"{options.out} holds another bundle, '{spec.name}'"
        raise MribatchError(problem, "choose another --out, or --overwrite")
    path = options.work_folder / SUMMARY_FILE
    facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if _PROOF in facts:
        return TrainResult(options.out, options.work_folder, facts)
    if (state / STATE_FILE).is_file():
        return None  # stopped between the bundle and its summary
    problem = f"{options.out} holds this fit, but {options.work_folder} has no {SUMMARY_FILE} of it"
    raise MribatchError(problem, "bring the work folder back, choose another --out, or --overwrite to fit again")


def save_network(network: Any, work: Path) -> None:
    """model.keras in the work folder, whole or not at all."""
    unfinished = work / ".model.tmp.keras"  # Keras wants this suffix
    network.save(unfinished)
    os.replace(unfinished, work / "model.keras")


def remove_state(work: Path) -> None:
    """Delete a fit's checkpoints; its tables and figures stay."""
    for path in (work / STATE_FILE, work / FINGERPRINT_FILE, *work.glob("best-*.npz")):
        path.unlink(missing_ok=True)


def _prepare(options: TrainOptions, echo: Echo) -> _Prepared:
    recipe = options.chosen_recipe
    data, grouping = read_images(options, echo)
    division = divide(options.split, data, grouping, options.split_seed, chooses=recipe.keep == "best")
    parts = division.parts
    check_parts(data.labels, parts, data.classes.names)
    tested = parts == PARTS.index("test")
    leaked = leak(grouping.near_duplicates, ~tested, tested, grouping.duplicates_basis)
    units = len(set(grouping.units.tolist()))
    echo(f"{len(data.paths)} images in {units} units: {part_counts(parts)}; leak rate {leaked}")
    return _Prepared(data, grouping, division, leaked, fit_fingerprint(options, recipe, data, parts))


def _evaluate(options: TrainOptions, prepared: _Prepared, fitted: FitResult) -> Evaluation:
    test = images_of(prepared.data, prepared.parts, "test")
    units, classes, protocol = prepared.grouping.units[prepared.tested], options.classes.names, prepared.protocol
    whole = evaluate(fitted.network, test.pixels, test.labels, classes, units, 1.0, protocol)
    apart = score_apart(whole.probabilities, test.labels, prepared.leaked, units, classes, protocol)
    return replace(whole, apart=apart)


def _write_outputs(options: TrainOptions, prepared: _Prepared, fitted: FitResult, evaluation: Evaluation) -> None:
    """Tables and figures of the work folder; they stay when the checkpoints go."""
    work, data = options.work_folder, prepared.data
    tested = np.flatnonzero(prepared.tested)
    tables.write_parts(work, data, prepared.grouping, [PARTS[part] for part in prepared.parts])
    tables.write_history(work, fitted.history)
    tables.write_test_predictions(work, data, tested, evaluation.probabilities)
    tables.write_test_files(work, [data.files[position] for position in tested])
    shares = (row for share in evaluation.apart for row in share.metrics)
    tables.write_metrics(work, [*evaluation.metrics, *shares])
    figures.write_all(
        work / "figures",
        name=options.recipe.name,
        classes=data.classes.names,
        protocol=prepared.protocol,
        tested=figures.Tested(
            labels=data.labels[tested],
            probabilities=evaluation.probabilities,
            pixels=data.pixels[tested],
            metrics=evaluation.metrics,
        ),
        history=fitted.history,
        best_epoch=fitted.best_epoch,
        data=(data.pixels, data.labels),
        watched=watched_images(data, prepared.parts).name,
        network=fitted.network,
        seed=options.seed,
    )
    save_network(fitted.network, work)


def _publish(
    options: TrainOptions, prepared: _Prepared, fitted: FitResult, evaluation: Evaluation, echo: Echo
) -> TrainResult:
    recipe, name = options.chosen_recipe, options.bundle_name
    training = _training_facts(options, prepared, fitted)
    metrics = metric_facts(evaluation.metrics, prepared.leak.rate)
    for share in evaluation.apart:
        metrics += metric_facts(share.metrics, share.leak_rate)
    bundle = BundleFacts(
        name=name,
        classes=options.classes,
        description=f"{recipe.name}: {recipe.description}",
        training=training,
        metrics=metrics,
        licences={"weights": options.weights_licence, "training_data": options.sheet.licence},
    )
    agreement = write_bundle(fitted.network, bundle, _card(options, prepared, fitted, evaluation, name), options.out)
    echo(f"ONNX Runtime against Keras on the golden slices: {agreement}")
    summary = {
        "test part": f"{prepared.leak.tested} images; {prepared.protocol}",
        "leak rate": str(prepared.leak),
        **_shares(evaluation),
        "epoch kept": f"{fitted.best_epoch} of {len(fitted.history)}",
        "bundle": str(options.out),
        "tables": str(options.work_folder),
    }
    facts = {
        "name": name,
        "out": str(options.out),
        "training": training,
        "metrics": metrics,
        "summary": summary,
        _PROOF: agreement.max_difference,
    }
    write_json(options.work_folder / SUMMARY_FILE, facts)
    return TrainResult(options.out, options.work_folder, facts)


def _shares(evaluation: Evaluation) -> dict[str, str]:
    """For people: "leaked": "accuracy 0.9909 (0.9700 to 1.0000) of 110 test images"."""
    return {
        share.name: f"accuracy {interval(share.metrics[0])} of {share.images} test images"
        if share.metrics
        else f"{share.images} test images, too few for a figure"
        for share in evaluation.apart
    }


def _card(options: TrainOptions, prepared: _Prepared, fitted: FitResult, evaluation: Evaluation, name: str) -> str:
    data = prepared.data
    shortcuts = size_shortcuts(data.stored_sizes, data.labels, prepared.trained, prepared.tested, data.classes.names)
    measured = "on the test part, once, with the weights of the epoch that "
    measured += "the validation part chose" if options.recipe.keep == "best" else "came last: none was chosen"
    facts = CardFacts(
        name=name,
        recipe=options.chosen_recipe,
        data=data,
        sheet=options.sheet,
        grouping=prepared.grouping,
        parts=tuple(PARTS[part] for part in prepared.parts),
        keeps_units=prepared.division.keeps_units,
        tested=prepared.tested,
        fit=fitted,
        evaluation=evaluation,
        leak=prepared.leak,
        shortcuts=shortcuts,
        shortcuts_of="learned on the training part, measured on the test part",
        protocol=prepared.protocol,
        measured=measured,
        cited=read_cited(options.cite),
        seed=options.seed,
        split_seed=options.split_seed,
        temperature=1.0,
        weights_licence=options.weights_licence,
        versions=versions(),
    )
    return model_card(facts)


def _training_facts(options: TrainOptions, prepared: _Prepared, fitted: FitResult) -> dict[str, Any]:
    best = fitted.history[fitted.best_epoch - 1]
    validated = bool((prepared.parts == PARTS.index("validation")).any()) and not math.isnan(best.val_loss)
    return {
        "recipe": options.recipe.name,
        "protocol": prepared.protocol,
        "leak_rate": prepared.leak.rate,
        "leak": str(prepared.leak),
        "images": {part: int((prepared.parts == index).sum()) for index, part in enumerate(PARTS)},
        "left_out": len(prepared.data.left_out),
        "data": options.sheet.title,
        "epochs": len(fitted.history),
        "epochs_at_most": options.chosen_recipe.epochs,
        "best_epoch": fitted.best_epoch,
        "validation": {"loss": best.val_loss, "accuracy": best.val_accuracy} if validated else None,
        "seconds": round(sum(row.seconds for row in fitted.history), 1),
        "split_seed": options.split_seed,
        "mribatch": __version__,
        "fingerprint": digest(prepared.fingerprint),
        "fit": dict(prepared.fingerprint),
    }
