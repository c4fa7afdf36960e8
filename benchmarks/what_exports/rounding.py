"""Whether what a graph differs from Keras by is rounding: both against Keras in float64.

    python -m benchmarks.what_exports.rounding NETWORK [--head SPREAD]

builds a network of keras.applications as the walk does, and answers the golden slices three times: Keras in float32,
the converted graph in ONNX Runtime, and the same weights by Keras in float64. An error of the conversion would make the
graph's distance from float64 much larger than that of Keras in float32; rounding makes them alike. The line is added to
benchmarks/results/what-exports-rounding.json.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy import float64
from numpy.typing import NDArray

from benchmarks.what_exports.keras_cases import DEEP_LOGIT_SPREAD, build_application
from benchmarks.what_exports.page import ROUNDING
from mribatch.core.synthetic import golden_slices
from mribatch.training.export.golden import COUNT
from mribatch.training.export.keras_classifier import inspect_classifier

_BATCH = 8


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Compare Keras and the graph with Keras in float64.")
    parser.add_argument("network", help="Of keras.applications.")
    parser.add_argument("--head", type=float, default=DEEP_LOGIT_SPREAD, help="Deviation of the logits.")
    options = parser.parse_args(arguments)
    row = measure(options.network, options.head)
    print(row, flush=True)
    known = json.loads(ROUNDING.read_text(encoding="utf-8")) if ROUNDING.exists() else []
    others = [one for one in known if (one["network"], one["head"]) != (row["network"], row["head"])]
    ROUNDING.write_text(
        json.dumps(sorted([*others, row], key=lambda one: (one["network"], one["head"])), indent=1) + "\n"
    )


def measure(network: str, head: float) -> dict[str, Any]:
    """Largest |Δp| between the three over the golden slices, and how many slices change class."""
    import keras

    keras.utils.set_random_seed(0)
    model = build_application(network, head)
    known = inspect_classifier(model, 4, scale=None, declared=None, size=None)
    images = golden_slices(COUNT, known.pixels.height, known.pixels.width)
    single = known.to_source().answers(images).astype(float64)
    graph = _run_graph(known.to_source().to_onnx(), images)
    double = _answer_in_float64(model, images)
    return {
        "network": network,
        "head": head,
        "spread": _short(np.ptp(double, axis=0).max()),
        "graph_to_keras": _short(np.abs(graph - single).max()),
        "keras_to_float64": _short(np.abs(single - double).max()),
        "graph_to_float64": _short(np.abs(graph - double).max()),
        "other_class": int((graph.argmax(axis=1) != double.argmax(axis=1)).sum()),
    }


def _run_graph(model: bytes, images: NDArray[np.uint8]) -> NDArray[float64]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: images[i : i + _BATCH]})[0] for i in range(0, len(images), _BATCH)]
    return np.concatenate(parts).astype(float64)


def _answer_in_float64(model: Any, images: NDArray[np.uint8]) -> NDArray[float64]:
    """The same model with the same weights, every layer in float64."""
    import keras

    content = json.loads(json.dumps(model.get_config()).replace('"float32"', '"float64"'))
    double = keras.Model.from_config(content)
    double.set_weights([np.asarray(value) for value in model.get_weights()])
    pixels = np.repeat(images.astype(float64), 3, axis=3)
    parts = [np.asarray(double(pixels[i : i + _BATCH], training=False)) for i in range(0, len(images), _BATCH)]
    answers = np.concatenate(parts)
    assert answers.dtype == float64, answers.dtype
    return answers


def _short(value: Any) -> float:
    return float(f"{value:.2g}")


if __name__ == "__main__":
    main()
