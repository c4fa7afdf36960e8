"""What 8 bits cost on images that a network has not seen: python -m benchmarks.int8_folds --help

The network of each grouped fold (`mribatch train ... --split grouped --fold-bundles FOLDER`) is quantized with slices
that it was fitted on, and both graphs answer the slices of its fold. Every slice is so predicted once, by a network
that has seen nothing of its unit, in 32 and in 8 bits; both are scored as the folds are.
"""

import argparse
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32, float64, uint8
from numpy.typing import NDArray

from benchmarks.conditions import RESULTS, conditions
from mribatch.core.bundle import Bundle, load_bundle
from mribatch.core.cores import usable_cores
from mribatch.core.files import write_json
from mribatch.core.model_spec import INT8
from mribatch.core.training_images import TrainingMatch
from mribatch.pipeline.inference.onnxruntime import OnnxRuntimeClassifier
from mribatch.training.data.classes import BRAIN_TUMORS
from mribatch.training.data.images import DataSet, load
from mribatch.training.data.protocols import Folds, divide_in_folds
from mribatch.training.data.split import Grouping, group, read_groups
from mribatch.training.data.split_names import GROUPED
from mribatch.training.evaluation.scores import TestSet, score
from mribatch.training.export.quantization import CALIBRATION_IMAGES, choose_evenly, quantize

PRECISIONS = ("fp32", INT8)
_SMALLEST = 1e-12  # of a probability, so that its logarithm is finite
_SHOWN = (("accuracy", None), ("f1", "macro"), ("log_loss", None), ("ece", None))


@dataclass(frozen=True, kw_only=True)
class Divided:
    """A data set at the size of the networks, with its units and folds."""

    data: DataSet
    grouping: Grouping
    folds: Folds


def divide(root: Path, groups: Path, size: int, folds: int) -> Divided:
    """Read the slices and deal them as `mribatch train --split grouped` does with split seed 0."""
    data = load(root, BRAIN_TUMORS, size)
    grouping = group(data.paths, data.content_sha256, read_groups(groups), root)
    return Divided(data=data, grouping=grouping, folds=divide_in_folds(GROUPED, data, grouping, folds, 0))


def answer_fold(bundle: Bundle, seen: NDArray[uint8], held: NDArray[uint8]) -> dict[str, NDArray[float32]]:
    """Quantize the network of a fold with slices that it has seen; both graphs' answers about those that it has not.

    Raises:
        ValueError: The bundle says that it was fitted on slices of its fold, or does not say on which.
    """
    known = bundle.training_images
    if known is None:
        raise ValueError(f"{bundle.folder} does not say what it was fitted on")
    leaked = sum(match is TrainingMatch.EXACT for match in known.find(held))
    if leaked:
        raise ValueError(f"{bundle.folder} was fitted on {leaked} of the {len(held)} slices of its fold")
    graph = quantize(bundle.model, seen[choose_evenly(len(seen), CALIBRATION_IMAGES)])
    both, answers = replace(bundle, int8=graph), {}
    for precision in PRECISIONS:
        with OnnxRuntimeClassifier(both, usable_cores(), precision) as classifier:
            answers[precision] = classifier(held)
    return answers


def measure(bundles: Path, divided: Divided, temperature: float) -> dict[str, Any]:
    """Pool the answers of all folds and score them.

    Args:
        bundles: Folder with a bundle for each fold, fold-1 and so on.
        divided: The slices.
        temperature: By which the calibrated model divides the logits; the bundles of the folds do not.
    """
    data, dealt = divided.data, divided.folds.dealt
    pooled = {each: np.empty((len(data.labels), len(data.classes.names)), float32) for each in PRECISIONS}
    for fold in range(len(divided.folds.names)):
        held = np.equal(dealt, fold)
        answers = answer_fold(load_bundle(str(bundles / f"fold-{fold + 1}")), data.pixels[~held], data.pixels[held])
        for precision, probabilities in answers.items():
            pooled[precision][held] = probabilities
    test = TestSet(
        classes=data.classes.names,
        labels=data.labels,
        units=divided.grouping.units,
        protocol=divided.folds.protocol,
    )
    calibrated, scores = dict[str, NDArray[float64]](), dict[str, Any]()
    for precision, probabilities in pooled.items():
        logits = np.log(np.maximum(probabilities.astype(float64), _SMALLEST)).astype(float32)
        evaluation = score(logits, test, temperature)
        calibrated[precision] = evaluation.probabilities.astype(float64)
        found = {(metric.metric, metric.class_): metric for metric in evaluation.metrics}
        scores[precision] = {
            name: {"value": found[name, of].value, "low": found[name, of].low, "high": found[name, of].high}
            for name, of in _SHOWN
        }
    exact, small = (calibrated[precision] for precision in PRECISIONS)
    largest = np.abs(exact - small).max(axis=1)
    return {
        "protocol": test.protocol,
        "images": len(largest),
        "temperature": temperature,
        "calibration_images": CALIBRATION_IMAGES,
        **scores,
        "same_class": int((exact.argmax(axis=1) == small.argmax(axis=1)).sum()),
        "mean_difference": float(np.abs(exact - small).mean()),
        "p99_difference": float(np.quantile(largest, 0.99)),
        "max_difference": float(largest.max()),
    }


def hash_weights(graph: bytes) -> str:
    """SHA-256 of all weights of an ONNX graph, hex: the same however its other nodes are written."""
    import onnx

    weights = (onnx.numpy_helper.to_array(one) for one in onnx.load_from_string(graph).graph.initializer)
    found = hashlib.sha256()
    for values in weights:
        if values.size > 1 and values.dtype == float32:
            found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, required=True, help="folder of --fold-bundles")
    parser.add_argument("--model", required=True, help="the bundle that was made with them, for name and temperature")
    parser.add_argument("--data", type=Path, required=True, help="folder of the slices")
    parser.add_argument("--groups", type=Path, required=True, help="groups table of the slices")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    facts, bundle = conditions(), load_bundle(options.model)
    spec = bundle.spec
    folds = len([path for path in options.bundles.glob("fold-*") if path.is_dir()])
    divided = divide(options.data, options.groups, spec.height, folds)
    result = measure(options.bundles, divided, spec.temperature)
    name = f"int8_folds-{spec.name}-real-{result['images']}images-cpu.json"
    options.results.mkdir(parents=True, exist_ok=True)
    head = {"conditions": facts, "data": "real", "model": spec.name, "model_sha256": spec.model_sha256}
    head["weights_sha256"] = hash_weights(bundle.model)
    write_json(options.results / name, head | result)
    for precision in PRECISIONS:
        print(precision, {key: f"{figure['value']:.4f}" for key, figure in result[precision].items()})
    print(f"the same class for {result['same_class']} of {result['images']}; |Δp| {result['mean_difference']:.4f}")
    print(f"written: {options.results / name}")


if __name__ == "__main__":
    main()
