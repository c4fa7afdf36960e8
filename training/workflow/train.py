"""Train on one division into parts: read, split, fit, evaluate, export."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy import int64
from numpy.typing import NDArray

from mribatch.core.about import __version__
from mribatch.training.card.citations import read_citations
from mribatch.training.card.model_card import describe_interval
from mribatch.training.data.images import DataSet
from mribatch.training.data.protocols import Division, divide
from mribatch.training.data.split import PARTS, Grouping, Leak, check_parts, leak
from mribatch.training.evaluation.results import DividedImages, FinalFit, Measurement
from mribatch.training.evaluation.scores import Evaluation, TestSet, measure_size_shortcuts, score, score_shares
from mribatch.training.export.bundle import check_names, check_replaceable
from mribatch.training.figures.draw_all import MeasuredFit
from mribatch.training.fit.checkpoints import Checkpoints
from mribatch.training.fit.fingerprint import FitFingerprint
from mribatch.training.fit.loop import Echo, FitInputs, FitResult, fit
from mribatch.training.frameworks import load_keras
from mribatch.training.networks.build import predict_logits
from mribatch.training.work_folder import tables
from mribatch.training.work_folder.files import locked_work_folder, save_network
from mribatch.training.work_folder.summary import SplitFacts, ValidationScore
from mribatch.training.workflow.finish import (
    FinishedTraining,
    TrainResult,
    find_finished,
    publish,
    report_finished,
    write_results,
)
from mribatch.training.workflow.inputs import describe_parts, make_fingerprint, read_images, select_part, select_watched
from mribatch.training.workflow.options import TrainOptions
from mribatch.training.workflow.outside import describe_outside, find_outside_fits, load_outside_fit
from mribatch.training.workflow.teachers import Teachers, describe_unknown_teacher, find_teachers

_SPLIT = "split"  # the name of the one fit, for fits and teachers from elsewhere


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    data: DataSet
    grouping: Grouping
    division: Division
    leak: Leak
    fingerprint: FitFingerprint

    @property
    def parts(self) -> NDArray[int64]:
        return self.division.parts

    @property
    def tested(self) -> NDArray[np.bool_]:
        return np.equal(self.parts, PARTS.index("test"))

    @property
    def trained(self) -> NDArray[np.bool_]:
        return np.equal(self.parts, PARTS.index("train"))

    @property
    def leaked(self) -> NDArray[np.bool_]:
        """(tested,): which test images have a near-duplicate among all others."""
        near = self.grouping.near_duplicates
        return np.isin(near[self.tested], near[~self.tested])

    @property
    def images(self) -> DividedImages:
        return DividedImages(
            data=self.data,
            grouping=self.grouping,
            part_names=tuple(PARTS[part] for part in self.parts),
            keeps_units=self.division.keeps_units,
        )


def train(options: TrainOptions, echo: Echo = lambda _: None) -> TrainResult:
    """Read, split, fit, evaluate, export, and gate the exported graph.

    After a kill the same options resume at the next epoch; after the end they give the same result without any work.

    Raises:
        MribatchError: Bad data, an output that is not a bundle, another fit in the work folder, or a graph that does
            not agree with Keras.
    """
    load_keras()
    check_names(options.bundle_name, options.classes)
    check_replaceable(options.out)
    read_citations(options.cite)  # before hours of training
    outside, teachers = find_outside_fits(options), find_teachers(options)
    checkpoints = Checkpoints(options.work_folder)
    with locked_work_folder(options.work_folder):
        prepared = _prepare(options, teachers, echo)
        finished = find_finished(options, prepared.fingerprint, checkpoints)
        if finished is not None:
            report_finished(options, echo)
            return finished
        fitted = _obtain_fit(options, prepared, teachers, checkpoints, echo)
        measurement = _measure(options, prepared, fitted)
        _write_work_folder(options, prepared, fitted, measurement)
        training = FinishedTraining(
            images=prepared.images,
            measurement=measurement,
            facts=_collect_facts(options, prepared, fitted),
            highlights=_select_highlights(options, measurement, fitted),
            final=FinalFit(
                recipe=options.chosen_recipe, result=fitted, outside=None if outside is None else outside.content
            ),
        )
        result = publish(options, training, echo)
        if not options.keep_work:
            checkpoints.remove()
    return result


def _obtain_fit(
    options: TrainOptions, prepared: _Prepared, teachers: Teachers | None, checkpoints: Checkpoints, echo: Echo
) -> FitResult:
    """Fit, with a teacher if there is one, or load the fit from --fitted."""
    inputs, outside = _fit_inputs(options, prepared), find_outside_fits(options)
    if outside is not None:
        return load_outside_fit(outside, _SPLIT, inputs, prepared.data, prepared.parts)
    if teachers is None:
        return fit(inputs, checkpoints, echo, quiet=options.quiet)
    with teachers.open(_SPLIT, prepared.parts) as teacher:
        return fit(replace(inputs, teacher=teacher), checkpoints, echo, quiet=options.quiet)


def _prepare(options: TrainOptions, teachers: Teachers | None, echo: Echo) -> _Prepared:
    recipe = options.chosen_recipe
    data, grouping = read_images(options, echo)
    division = divide(options.split, data, grouping, options.split_seed, chooses=recipe.keep == "best")
    parts = division.parts
    check_parts(data.labels, parts, data.classes.names)
    tested = parts == PARTS.index("test")
    leaked = leak(grouping.near_duplicates, ~tested, tested, grouping.duplicates_basis)
    units = len(set(grouping.units.tolist()))
    echo(f"{len(data.paths)} images in {units} units: {describe_parts(parts)}; leak rate {leaked}")
    taught = describe_unknown_teacher(options)
    if teachers is not None:
        taught = teachers.describe([teachers.count_seen(_SPLIT, tested)], int(tested.sum()))
    division = replace(division, protocol=f"{division.protocol}{taught}")
    fingerprint = make_fingerprint(options, recipe, data, parts, teachers)
    return _Prepared(data=data, grouping=grouping, division=division, leak=leaked, fingerprint=fingerprint)


def _fit_inputs(options: TrainOptions, prepared: _Prepared) -> FitInputs:
    return FitInputs(
        recipe=options.chosen_recipe,
        train=select_part(prepared.data, prepared.parts, "train"),
        watched=select_watched(prepared.data, prepared.parts),
        classes=len(options.classes.names),
        seed=options.seed,
        fingerprint=prepared.fingerprint,
    )


def _evaluate(options: TrainOptions, prepared: _Prepared, fitted: FitResult) -> Evaluation:
    part = select_part(prepared.data, prepared.parts, "test")
    test = TestSet(
        classes=options.classes.names,
        labels=part.labels,
        units=prepared.grouping.units[prepared.tested],
        protocol=prepared.division.protocol,
    )
    whole = score(predict_logits(fitted.network, part.pixels), test, 1.0)
    return replace(whole, shares=score_shares(whole.probabilities, test, prepared.leaked))


def _measure(options: TrainOptions, prepared: _Prepared, fitted: FitResult) -> Measurement:
    weights = "of the last epoch; no epoch was chosen"
    if options.recipe.keep == "best":
        weights = "of the epoch that was chosen on the validation part"
    return Measurement(
        protocol=prepared.division.protocol,
        tested=prepared.tested,
        leak=prepared.leak,
        evaluation=_evaluate(options, prepared, fitted),
        conditions=f"on the test part, once, with the weights {weights}",
        shortcuts=measure_size_shortcuts(prepared.data, trained=prepared.trained, tested=prepared.tested),
        shortcuts_basis="learned on the training part, measured on the test part",
    )


def _write_work_folder(options: TrainOptions, prepared: _Prepared, fitted: FitResult, measurement: Measurement) -> None:
    work, data = options.work_folder, prepared.data
    tested = np.flatnonzero(prepared.tested)
    tables.write_history(work, fitted.history)
    tables.write_test_predictions(work, data, tested, measurement.evaluation.probabilities)
    tables.write_test_files(work, [data.files[position] for position in tested])
    watched = select_watched(data, prepared.parts).name
    write_results(options, prepared.images, measurement, MeasuredFit(fit=fitted, watched=watched))
    save_network(fitted.network, work)


def _collect_facts(options: TrainOptions, prepared: _Prepared, fitted: FitResult) -> SplitFacts:
    best = fitted.history[fitted.best_epoch - 1]
    counts = {part: int((prepared.parts == index).sum()) for index, part in enumerate(PARTS)}
    validated = counts["validation"] > 0 and not math.isnan(best.val_loss)
    return SplitFacts(
        recipe=options.recipe.name,
        protocol=prepared.division.protocol,
        leak_rate=prepared.leak.rate,
        leak=str(prepared.leak),
        images=counts,
        left_out=len(prepared.data.left_out),
        data=options.sheet.title,
        epochs=len(fitted.history),
        epochs_at_most=options.chosen_recipe.epochs,
        best_epoch=fitted.best_epoch,
        validation=ValidationScore(loss=best.val_loss, accuracy=best.val_accuracy) if validated else None,
        seconds=round(sum(row.seconds for row in fitted.history), 1),
        split_seed=options.split_seed,
        mribatch=__version__,
        fit=prepared.fingerprint,
        outside=describe_outside(options),
    )


def _select_highlights(options: TrainOptions, measurement: Measurement, fitted: FitResult) -> Mapping[str, str]:
    return {
        "test part": f"{measurement.leak.tested} images; {measurement.protocol}",
        "leak rate": str(measurement.leak),
        **{
            share.name: f"accuracy {describe_interval(share.metrics[0])} of {share.images} test images"
            if share.metrics
            else f"{share.images} test images, too few for a figure"
            for share in measurement.evaluation.shares
        },
        "epoch kept": f"{fitted.best_epoch} of {len(fitted.history)}",
        "bundle": str(options.out),
        "tables": str(options.work_folder),
    }
