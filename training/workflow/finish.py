"""The end of every training: tables, figures, model card, bundle and summary, from one record."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mribatch.core.bundle import SPEC_FILE, load_bundle
from mribatch.core.errors import BundleError, MribatchError, advising
from mribatch.core.training_images import TrainingImages
from mribatch.core.training_look import TrainingLook
from mribatch.training.card.citations import read_citations
from mribatch.training.card.model_card import CardFacts, Provenance, model_card
from mribatch.training.evaluation.results import DividedImages, FinalFit, Measurement
from mribatch.training.export.bundle import BundleFacts, write_bundle
from mribatch.training.export.int8_bundle import COMPARED_IMAGES, Slices, add_int8, divide_slices
from mribatch.training.export.quantization import CALIBRATION_IMAGES, choose_evenly
from mribatch.training.figures.draw_all import MeasuredFit, Subject, draw_all
from mribatch.training.fit.checkpoints import STATE_FILE, Checkpoints
from mribatch.training.fit.fingerprint import FitFingerprint
from mribatch.training.fit.loop import Echo
from mribatch.training.frameworks import versions
from mribatch.training.work_folder import tables
from mribatch.training.work_folder.summary import (
    SUMMARY_FILE,
    FoldsFacts,
    SplitFacts,
    TrainingSummary,
    select_metrics,
)
from mribatch.training.workflow.options import TrainOptions


@dataclass(frozen=True, kw_only=True)
class FinishedTraining:
    """A training that has been measured."""

    images: DividedImages
    measurement: Measurement
    facts: SplitFacts | FoldsFacts
    highlights: Mapping[str, str]  # title -> text, for people
    final: FinalFit | None  # None: no bundle was asked for


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training left."""

    out: Path
    work: Path
    summary: TrainingSummary


def find_finished(options: TrainOptions, fingerprint: FitFingerprint, checkpoints: Checkpoints) -> TrainResult | None:
    """Return what an earlier, completed run of this command left at `out`; None if something is left to do.

    Args:
        options: Of the command.
        fingerprint: Of the fit whose weights the bundle holds.
        checkpoints: Of that fit; they are removed when everything else is done.

    Raises:
        MribatchError: Something else is at `out` and --overwrite was not given.
    """
    if options.overwrite or not (options.out / SPEC_FILE).is_file():
        return None
    with advising({BundleError: "restore the bundle, choose another --out, or add --overwrite to write it again"}):
        spec = load_bundle(str(options.out)).spec
    if spec.training.get("fingerprint") != fingerprint.digest:
        problem = f"{options.out} holds another bundle, '{spec.name}'"
        raise MribatchError(problem, "choose another --out, or add --overwrite")
    summary = _read_summary(options.work_folder)
    if summary is not None and summary.has_bundle:
        return TrainResult(out=options.out, work=options.work_folder, summary=summary)
    if (checkpoints.folder / STATE_FILE).is_file():
        return None  # stopped between the bundle and its summary
    problem = f"{options.out} holds this fit, but {options.work_folder} has no {SUMMARY_FILE} of it"
    raise MribatchError(problem, "restore the work folder, choose another --out, or add --overwrite to fit again")


def report_finished(options: TrainOptions, echo: Echo) -> None:
    """Say that nothing had to be done."""
    echo(f"{options.out} already holds this fit; nothing was written (--overwrite rewrites bundle and model card)")


def write_results(
    options: TrainOptions, images: DividedImages, measurement: Measurement, measured_fit: MeasuredFit | None = None
) -> None:
    """Write the tables and figures that every training has into the work folder; they outlive the checkpoints.

    Args:
        options: Of the command.
        images: All images with their parts.
        measurement: Of the tested ones.
        measured_fit: The fit that was measured; None if there are several.
    """
    work, data, evaluation = options.work_folder, images.data, measurement.evaluation
    tables.write_parts(work, data, images.grouping, images.part_names)
    shares = (row for share in evaluation.shares for row in share.metrics)
    tables.write_metrics(work, [*evaluation.metrics, *shares])
    if not options.draw_figures:
        return
    subject = Subject(
        name=options.bundle_name,
        classes=data.classes.names,
        protocol=measurement.protocol,
        pixels=data.pixels,
        labels=data.labels,
        tested=measurement.tested,
        evaluation=evaluation,
        seed=options.seed,
    )
    draw_all(work / "figures", subject, measured_fit)


def publish(options: TrainOptions, finished: FinishedTraining, echo: Echo) -> TrainResult:
    """Write the bundle, if there is a final fit, and the summary.

    Raises:
        MribatchError: The exported graph does not agree with Keras.
    """
    measurement, final = finished.measurement, finished.final
    metrics = select_metrics(measurement.evaluation.metrics, measurement.leak.rate)
    for share in measurement.evaluation.shares:
        metrics += select_metrics(share.metrics, share.leak_rate)
    difference = None
    if final is not None:
        bundle = BundleFacts(
            name=options.bundle_name,
            classes=options.classes,
            temperature=measurement.temperature,
            description=f"{final.recipe.name}: {final.recipe.description}",
            training=finished.facts.to_json(),
            metrics=[row.to_json() for row in metrics],
            training_images=hash_used_images(finished.images),
            training_look=describe_used_images(finished.images),
            licences={"weights": options.weights_licence, "training_data": options.sheet.licence},
        )
        agreement = write_bundle(final.result.network, bundle, _write_card(options, finished, final), options.out)
        echo(f"ONNX Runtime against Keras on the golden slices: {agreement}")
        difference = agreement.max_difference
        if options.int8:
            _quantize(options.out, finished.images, echo)
    summary = TrainingSummary(
        out=str(options.out),
        training=finished.facts,
        metrics=metrics,
        highlights=finished.highlights,
        name=options.bundle_name if final is not None else None,
        golden_max_difference=difference,
    )
    summary.write(options.work_folder)
    return TrainResult(out=options.out, work=options.work_folder, summary=summary)


def hash_used_images(images: DividedImages) -> TrainingImages:
    """Hash all images but those of a test part: the model was fitted on them, or its epoch was chosen by them."""
    return TrainingImages.of_pixels(images.data.pixels[_find_used(images)])


def describe_used_images(images: DividedImages) -> TrainingLook | None:
    """Describe what the images that `hash_used_images` hashes look like; None where they are too few."""
    used = _find_used(images)
    sizes = [size for size, chosen in zip(images.data.stored_sizes, used, strict=True) if chosen]
    return TrainingLook.of_images(images.data.pixels[used], sizes, images.grouping.units[used])


def _find_used(images: DividedImages) -> NDArray[np.bool_]:
    return np.array([part != "test" for part in images.part_names], dtype=np.bool_)


def _quantize(out: Path, images: DividedImages, echo: Echo) -> None:
    """Add an INT8 graph to the new bundle, compared on images of the test part where there is one."""
    pixels, used = images.data.pixels, _find_used(images)
    slices = divide_slices(pixels)
    if not used.all():
        rest = pixels[~used]
        slices = Slices(
            calibration=pixels[used][choose_evenly(int(used.sum()), CALIBRATION_IMAGES)],
            compared=rest[choose_evenly(len(rest), COMPARED_IMAGES)],
        )
    try:
        compared = add_int8(out, slices, out).comparison
        echo(f"INT8 against FP32: the same class for {compared.same_class} of {compared.images} images")
    except MribatchError as error:  # hours of training are not lost to this
        echo(f"no INT8 graph: {error.problem}")


def _write_card(options: TrainOptions, finished: FinishedTraining, final: FinalFit) -> str:
    provenance = Provenance(
        sheet=options.sheet,
        citations=read_citations(options.cite),
        seed=options.seed,
        split_seed=options.split_seed,
        weights_licence=options.weights_licence,
        versions=versions(),
    )
    facts = CardFacts(
        name=options.bundle_name,
        images=finished.images,
        measurement=finished.measurement,
        fit=final,
        provenance=provenance,
    )
    return model_card(facts)


def _read_summary(work: Path) -> TrainingSummary | None:
    if not (work / SUMMARY_FILE).is_file():
        return None
    try:
        return TrainingSummary.read(work)
    except (OSError, ValueError) as error:
        raise MribatchError(f"cannot read {work / SUMMARY_FILE}: {error}", "choose another --work folder") from error
