"""The protocols in folds: k fits that each hold out one fold of units, and then, on request, one fit on all images.

Every image is predicted once, by the network that was trained without its unit. These out-of-fold predictions give the
figures and the temperature; the network in the bundle is trained on all images and was not scored on any.
"""

import math
import statistics
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy import float32, int64
from numpy.typing import NDArray

from mribatch.core.about import __version__
from mribatch.core.errors import MribatchError, OptionError
from mribatch.core.files import publishing
from mribatch.report.metrics import find
from mribatch.training.card.citations import read_citations
from mribatch.training.data.images import DataSet, Images
from mribatch.training.data.protocols import Folds, divide_fold, divide_in_folds
from mribatch.training.data.split import Grouping, Leak, leak
from mribatch.training.data.split_names import GROUPED
from mribatch.training.evaluation.results import DividedImages, FinalFit, Measurement
from mribatch.training.evaluation.scores import Evaluation, TestSet, measure_size_shortcuts, score
from mribatch.training.export.bundle import check_names, check_replaceable
from mribatch.training.fit.checkpoints import Checkpoints
from mribatch.training.fit.fingerprint import FitFingerprint
from mribatch.training.fit.loop import Echo, FitInputs, FitResult, fit
from mribatch.training.fit.temperature import fit_temperature
from mribatch.training.frameworks import load_keras
from mribatch.training.networks.build import predict_logits
from mribatch.training.recipes.recipe import Recipe
from mribatch.training.work_folder import tables
from mribatch.training.work_folder.files import locked_work_folder, make_folder, save_network
from mribatch.training.work_folder.summary import Calibration, FoldsFacts
from mribatch.training.workflow.finish import (
    FinishedTraining,
    TrainResult,
    find_finished,
    publish,
    report_finished,
    write_results,
)
from mribatch.training.workflow.fold_bundles import check_fold_bundle, write_fold_bundle
from mribatch.training.workflow.inputs import make_fingerprint, read_images, select_part, select_watched
from mribatch.training.workflow.options import TrainOptions
from mribatch.training.workflow.outside import describe_outside, find_outside_fits, load_outside_fit
from mribatch.training.workflow.teachers import ALL as _ALL
from mribatch.training.workflow.teachers import Teachers, describe_unknown_teacher, find_teachers

FINISHED_FOLD = "held_out.npz"  # in the folder of each fold, see FinishedFold


@dataclass(frozen=True, kw_only=True)
class FinishedFold:
    """What is kept of a fold when its fit has ended; the content of held_out.npz."""

    logits: NDArray[float32]  # (held out, classes)
    best_epoch: int
    seconds: float

    def write(self, path: Path, fingerprint: FitFingerprint) -> None:
        """Replace the file; the fingerprint says which fit it is of."""
        with publishing(path) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream,
                logits=self.logits,
                epoch=np.array(self.best_epoch),
                seconds=np.array(self.seconds),
                fingerprint=np.array(fingerprint.digest),
            )

    @classmethod
    def read(cls, path: Path, fingerprint: FitFingerprint) -> "FinishedFold | None":
        """Return the fold; None if its fit has not ended.

        Raises:
            MribatchError: The file is damaged, or of another fit.
        """
        if not path.exists():
            return None
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            same = str(arrays["fingerprint"]) == fingerprint.digest
            fold = cls(
                logits=arrays["logits"].astype(float32),
                best_epoch=int(arrays["epoch"]),
                seconds=float(arrays["seconds"]),
            )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            fix = "delete its folder, or choose another --work folder"
            raise MribatchError(f"cannot read {path}: {error}", fix) from error
        if not same:
            problem = f"{path.parent} holds a fold of another fit"
            raise MribatchError(problem, "repeat the first command, or choose another --work folder")
        return fold


@dataclass(frozen=True, kw_only=True)
class _Folds:
    """What all fits share."""

    data: DataSet
    grouping: Grouping
    division: Folds
    leak: Leak
    teachers: Teachers | None
    taught: str  # what the teachers knew of the tested images; ends the protocol

    @property
    def dealt(self) -> NDArray[int64]:
        """(n,): the fold of each image, from 0."""
        return self.division.dealt

    @property
    def protocol(self) -> str:
        return f"{self.division.protocol}{self.taught}"

    @property
    def names(self) -> tuple[str, ...]:
        return self.division.names

    @property
    def images(self) -> DividedImages:
        names = tuple(self.names[fold] for fold in self.dealt)
        return DividedImages(data=self.data, grouping=self.grouping, part_names=names, keeps_units=True)


@dataclass(frozen=True, kw_only=True)
class _Pooled:
    """Out-of-fold results of all images."""

    logits: NDArray[float32]  # (n, classes)
    fold_accuracy: tuple[float, ...]
    best_epochs: tuple[int, ...]  # of each fold
    seconds: float
    temperature: float
    uncalibrated: Evaluation  # at temperature 1
    calibrated: Evaluation

    def calibration(self, metric: str) -> Calibration:
        before, after = (find(each.metrics, metric).value for each in (self.uncalibrated, self.calibrated))
        return Calibration(before=before, after=after)


def cross_validate(options: TrainOptions, echo: Echo = lambda _: None) -> TrainResult:
    """Read, deal folds, fit each, pool, calibrate; with `options.final` also fit all images and export.

    Folds are fitted one by one; after a kill the same command resumes, with the same result.

    Raises:
        MribatchError: Bad data, too few units for the folds, an output that is not a bundle, another fit in the work
            folder, or a graph that does not agree with Keras.
    """
    load_keras()
    _check_options(options)
    checkpoints = Checkpoints(options.work_folder / _ALL)
    with locked_work_folder(options.work_folder):
        folds = _deal(options, echo)
        pooled = _pool(options, folds, echo)
        facts = _collect_facts(options, folds, pooled)
        finished = find_finished(options, facts.fit, checkpoints) if options.final else None
        if finished is not None:
            report_finished(options, echo)
            return finished
        measurement = _measure(folds, pooled)
        _write_work_folder(options, folds, pooled, measurement)
        training = FinishedTraining(
            images=folds.images,
            measurement=measurement,
            facts=facts,
            highlights=_select_highlights(options, folds, pooled),
            final=_fit_all(options, folds, pooled, checkpoints=checkpoints, echo=echo) if options.final else None,
        )
        result = publish(options, training, echo)
        if options.final and not options.keep_work:
            checkpoints.remove()
        return result


def make_final_recipe(recipe: Recipe, epochs: Sequence[int]) -> Recipe:
    """Return the recipe for all images, of which none is left to choose an epoch: the median of the folds' epochs."""
    if recipe.keep == "last":
        return recipe
    median = math.ceil(statistics.median(epochs))
    return replace(recipe, epochs=median, patience=median, keep="last")


def _check_options(options: TrainOptions) -> None:
    read_citations(options.cite)  # before hours of training
    check_names(options.bundle_name if options.final else "folds", options.classes)
    if options.final:
        check_replaceable(options.out)
    find_outside_fits(options)
    find_teachers(options)
    if options.split == GROUPED and options.folds < 3 and options.recipe.keep == "best":
        problem = f"'{options.recipe.name}' chooses its epoch on one fold, so with 2 folds none is left to train on"
        raise OptionError(problem, "give --folds 3 or more, or --set keep=last")


def _deal(options: TrainOptions, echo: Echo) -> _Folds:
    data, grouping = read_images(options, echo)
    division = divide_in_folds(options.split, data, grouping, options.folds, options.split_seed)
    dealt, near, basis = division.dealt, grouping.near_duplicates, grouping.duplicates_basis
    leaks = [leak(near, dealt != fold, dealt == fold, basis) for fold in range(len(division.names))]
    leaked = Leak(len(dealt), sum(each.leaked for each in leaks), basis)
    counts = ", ".join(f"{name} {count}" for name, count in zip(division.names, np.bincount(dealt), strict=True))
    units = len(set(grouping.units.tolist()))
    echo(f"{len(dealt)} images in {units} units: {counts}; leak rate {leaked}")
    teachers = find_teachers(options)
    taught = describe_unknown_teacher(options) if teachers is None else _describe_teachers(teachers, division)
    return _Folds(data=data, grouping=grouping, division=division, leak=leaked, teachers=teachers, taught=taught)


def _describe_teachers(teachers: Teachers, division: Folds) -> str:
    folds = range(len(division.names))
    seen = [teachers.count_seen(f"fold-{fold + 1}", np.equal(division.dealt, fold)) for fold in folds]
    return teachers.describe(seen, len(division.dealt))


def _pool(options: TrainOptions, folds: _Folds, echo: Echo) -> _Pooled:
    data = folds.data
    logits = np.empty((len(data.labels), len(data.classes.names)), dtype=float32)
    finished = [_finish_fold(options, folds, fold, echo) for fold in range(len(folds.names))]
    for place, fold in enumerate(finished):
        logits[folds.dealt == place] = fold.logits
    hits = logits.argmax(axis=1) == data.labels
    temperature = fit_temperature(logits, data.labels)
    test = TestSet(classes=data.classes.names, labels=data.labels, units=folds.grouping.units, protocol=folds.protocol)
    return _Pooled(
        logits=logits,
        fold_accuracy=tuple(float(hits[folds.dealt == fold].mean()) for fold in range(len(finished))),
        best_epochs=tuple(fold.best_epoch for fold in finished),
        seconds=sum(fold.seconds for fold in finished),
        temperature=temperature,
        uncalibrated=score(logits, test, 1.0),
        calibrated=score(logits, test, temperature),
    )


def _finish_fold(options: TrainOptions, folds: _Folds, fold: int, echo: Echo) -> FinishedFold:
    """Fit one fold, or read its file if that was done before."""
    recipe, data, work = options.chosen_recipe, folds.data, options.work_folder / f"fold-{fold + 1}"
    parts = divide_fold(
        options.split,
        folds.division,
        fold,
        data,
        folds.grouping,
        seed=options.split_seed,
        chooses=recipe.keep == "best",
    )
    fingerprint = make_fingerprint(options, recipe, data, parts, folds.teachers)
    make_folder(work)
    if (known := FinishedFold.read(work / FINISHED_FOLD, fingerprint)) is not None:
        check_fold_bundle(options, work)
        return known
    named = "" if options.split == GROUPED else f": {folds.names[fold]}"
    echo(f"fold {fold + 1} of {len(folds.names)}{named}")
    inputs = FitInputs(
        recipe=recipe,
        train=select_part(data, parts, "train"),
        watched=select_watched(data, parts),
        classes=len(data.classes.names),
        seed=options.seed,
        fingerprint=fingerprint,
    )
    checkpoints = Checkpoints(work)
    fitted = _obtain_fit(options, folds, inputs, name=work.name, parts=parts, checkpoints=checkpoints, echo=echo)
    tested = select_part(data, parts, "test")
    logits = predict_logits(fitted.network, tested.pixels)
    accuracy = float((logits.argmax(axis=1) == tested.labels).mean())
    echo(f"{folds.names[fold]}: accuracy {accuracy:.4f} on {len(tested.labels)} held-out images")
    tables.write_history(work, fitted.history)
    finished = FinishedFold(
        logits=logits, best_epoch=fitted.best_epoch, seconds=sum(row.seconds for row in fitted.history)
    )
    finished.write(work / FINISHED_FOLD, fingerprint)
    if not options.keep_work:
        checkpoints.remove()
    return finished


def _obtain_fit(
    options: TrainOptions,
    folds: _Folds,
    inputs: FitInputs,
    *,
    name: str,
    parts: NDArray[int64],
    checkpoints: Checkpoints,
    echo: Echo,
) -> FitResult:
    """Fit, or load the fit of that name from --fitted; then write its bundle, if it is to be a teacher."""
    outside = find_outside_fits(options)
    if outside is None:
        with _teaching(folds, name, parts, inputs) as taught:
            fitted = fit(taught, checkpoints, echo, quiet=options.quiet)
    else:
        fitted = load_outside_fit(outside, name, inputs, folds.data, parts)
    if options.fold_bundles is not None:
        write_fold_bundle(options, folds.protocol, fitted, inputs, options.fold_bundles / name)
    return fitted


@contextmanager
def _teaching(folds: _Folds, name: str, parts: NDArray[int64], inputs: FitInputs) -> Iterator[FitInputs]:
    """Yield the inputs of a fit with its teacher, if there are teachers."""
    if folds.teachers is None:
        yield inputs
        return
    with folds.teachers.open(name, parts) as teacher:
        yield replace(inputs, teacher=teacher)


def _fit_all(
    options: TrainOptions, folds: _Folds, pooled: _Pooled, *, checkpoints: Checkpoints, echo: Echo
) -> FinalFit:
    data, recipe = folds.data, make_final_recipe(options.chosen_recipe, pooled.best_epochs)
    outside, parts = find_outside_fits(options), np.zeros(len(data.labels), dtype=int64)
    make_folder(checkpoints.folder)
    echo(f"all {len(data.labels)} images, {recipe.epochs} epochs")
    inputs = FitInputs(
        recipe=recipe,
        train=Images(data.pixels, data.labels),
        watched=Images(data.pixels[:0], data.labels[:0], "none"),
        classes=len(data.classes.names),
        seed=options.seed,
        fingerprint=make_fingerprint(options, recipe, data, parts, folds.teachers),
    )
    fitted = _obtain_fit(options, folds, inputs, name=_ALL, parts=parts, checkpoints=checkpoints, echo=echo)
    tables.write_history(checkpoints.folder, fitted.history)
    save_network(fitted.network, options.work_folder)
    if options.recipe.keep == "last":
        return FinalFit(recipe=recipe, result=fitted, outside=None if outside is None else outside.content)
    best = ", ".join(map(str, pooled.best_epochs))
    reason = f"the number of epochs is the median of the folds' best epochs ({best}), chosen on images of other folds"
    return FinalFit(recipe=recipe, result=fitted, last_epoch_reason=reason)


def _write_work_folder(options: TrainOptions, folds: _Folds, pooled: _Pooled, measurement: Measurement) -> None:
    tables.write_out_of_fold(
        options.work_folder,
        folds.data,
        folds.grouping,
        dealt=folds.dealt,
        logits=pooled.logits,
        probabilities=pooled.calibrated.probabilities,
    )
    write_results(options, folds.images, measurement)


def _collect_facts(options: TrainOptions, folds: _Folds, pooled: _Pooled) -> FoldsFacts:
    recipe = make_final_recipe(options.chosen_recipe, pooled.best_epochs)
    return FoldsFacts(
        recipe=options.recipe.name,
        protocol=folds.protocol,
        leak_rate=folds.leak.rate,
        leak=str(folds.leak),
        images={"out_of_fold": len(folds.dealt)},
        left_out=len(folds.data.left_out),
        data=options.sheet.title,
        folds=len(folds.names),
        fold_names=folds.names,
        fold_accuracy=pooled.fold_accuracy,
        best_epochs=pooled.best_epochs,
        epochs=recipe.epochs,
        temperature=pooled.temperature,
        ece=pooled.calibration("ece"),
        log_loss=pooled.calibration("log_loss"),
        seconds=round(pooled.seconds, 1),
        split_seed=options.split_seed,
        mribatch=__version__,
        fit=make_fingerprint(options, recipe, folds.data, folds.dealt, folds.teachers),
        outside=describe_outside(options),
    )


def _measure(folds: _Folds, pooled: _Pooled) -> Measurement:
    shares, first = pooled.fold_accuracy, folds.dealt == 0
    notes = (
        f"Accuracy of the individual folds: {_list_accuracies(folds, pooled)}, standard deviation "
        f"{statistics.stdev(shares):.4f}.",
        f"Calibration, fitted on the pooled out-of-fold logits: {_describe_calibration(pooled)}. Fitting one number "
        f"on the same {len(folds.dealt)} images introduces a small optimistic bias.",
        "The weights in this bundle come from one more fit on all images, so no images are left to score it on. The "
        "figures are those of the folds, whose networks were each trained on a part of the images.",
    )
    return Measurement(
        protocol=folds.protocol,
        tested=np.ones(len(folds.dealt), dtype=np.bool_),
        leak=folds.leak,
        evaluation=pooled.calibrated,
        temperature=pooled.temperature,
        conditions="each once, by the network of the fold that held it out",
        notes=notes,
        shortcuts=measure_size_shortcuts(folds.data, trained=~first, tested=first),
        shortcuts_basis="learned on the other folds, measured on the first",
    )


def _select_highlights(options: TrainOptions, folds: _Folds, pooled: _Pooled) -> Mapping[str, str]:
    highlights = {
        "images": f"{len(folds.dealt)}; {folds.protocol}",
        "leak rate": str(folds.leak),
        "folds": f"accuracy {_list_accuracies(folds, pooled)}",
        "calibration": _describe_calibration(pooled),
        "tables": str(options.work_folder),
    }
    return highlights | ({"bundle": str(options.out)} if options.final else {})


def _list_accuracies(folds: _Folds, pooled: _Pooled) -> str:
    shares = pooled.fold_accuracy
    each = (f"{name} {share:.4f}" for name, share in zip(folds.names, shares, strict=True))
    return f"{', '.join(each)}; mean {statistics.mean(shares):.4f}"


def _describe_calibration(pooled: _Pooled) -> str:
    changes = []
    for metric, title in (("ece", "expected calibration error"), ("log_loss", "log loss")):
        figure = pooled.calibration(metric)
        changes.append(f"{title} {figure.before or 0.0:.4f} before, {figure.after or 0.0:.4f} after")
    return f"temperature {pooled.temperature:.4f}; {'; '.join(changes)}"
