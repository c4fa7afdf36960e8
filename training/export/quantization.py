"""A bundle's graph in 8 bits, for ONNX Runtime on the CPU: static quantization, QDQ, per channel, MinMax ranges.

Weights are int8 per output channel, activations uint8 with the range that they take over the calibration images.
Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.core.model_spec import INPUT_NAME
from mribatch.core.onnx_graph import STANDARD_DOMAINS

if TYPE_CHECKING:
    import onnx

CALIBRATION_IMAGES = 128
FEWEST_CALIBRATION_IMAGES = 16

# What has 8-bit kernels, or passes 8 bits on. The dense layers of the head stay in float32: they cost nothing.
_QUANTIZED = ("Conv", "Add", "Clip", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool")
_EXACT_CONVOLUTIONS, _DEEP = 3, 24  # of a network with so many convolutions or more; see the decision on INT8
_BATCH = 8


def choose_evenly(images: int, count: int) -> NDArray[np.int64]:
    """Positions of `count` of `images` images at even distances; all of them where there are no more."""
    if not images:
        return np.empty(0, np.int64)
    return np.unique(np.linspace(0, images - 1, min(count, images)).round().astype(np.int64))


def quantize(model: bytes, images: NDArray[uint8]) -> bytes:
    """Return the INT8 graph of a bundle's model.onnx; the same for the same arguments and versions.

    Args:
        model: Content of model.onnx.
        images: For the ranges of the activations, uint8 (n, height, width, 1).

    Raises:
        MribatchError: Too few images, or no layer that is quantized.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    if len(images) < FEWEST_CALIBRATION_IMAGES:
        problem = f"{len(images)} images are too few to find the ranges of activations"
        raise MribatchError(problem, f"name a folder with at least {FEWEST_CALIBRATION_IMAGES} readable images")
    with tempfile.TemporaryDirectory(prefix="mribatch-") as scratch:
        folded, made = Path(scratch) / "folded.onnx", Path(scratch) / "int8.onnx"
        onnx.save(_name_nodes(_fold(model, folded)), folded)
        with _without_warnings():
            quantize_static(
                folded,
                made,
                _make_reader(images),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=list(_QUANTIZED),
                nodes_to_exclude=_find_exact(onnx.load(folded)),
                calibrate_method=CalibrationMethod.MinMax,
            )
        graph = onnx.load(made)
    if not any(node.op_type == "Conv" for node in graph.graph.node):
        raise MribatchError("the model has no convolution, and only these gain from 8 bits", "use it as it is")
    return bytes(graph.SerializeToString(deterministic=True))


def _fold(model: bytes, path: Path) -> "onnx.ModelProto":
    """Fold batch normalization and constants with ONNX Runtime's basic level, which leaves standard operators only."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(path)
    standard = [each for each in graph.opset_import if each.domain in STANDARD_DOMAINS]
    del graph.opset_import[:]
    graph.opset_import.extend(standard)
    return graph


def _name_nodes(graph: "onnx.ModelProto") -> "onnx.ModelProto":
    """Give a name to every node that has none, so that it can be excluded."""
    for place, node in enumerate(graph.graph.node):
        node.name = node.name or f"{node.op_type}_{place}"
    return graph


def _find_exact(model: "onnx.ModelProto") -> list[str]:
    """Return the names of the nodes that stay in float32.

    They are those that no convolution comes before, which are scaling, and the frame with its positions: a position in
    pixels that is rounded to one of 256 levels moves the whole slice, and there is nothing to gain. In a deep network
    they are also its first convolutions, whose few channels cost the most answers and the least time.
    """
    learned: set[str] = set()  # tensors behind a convolution
    preparing, convolutions = [], []
    for node in model.graph.node:  # in topological order
        if node.op_type == "Conv":
            convolutions.append(node.name)
        if node.op_type == "Conv" or not learned.isdisjoint(node.input):
            learned.update(node.output)
        else:
            preparing.append(node.name)
    return preparing + (convolutions[:_EXACT_CONVOLUTIONS] if len(convolutions) >= _DEEP else [])


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """ONNX Runtime advises its own preprocessing, through the root logger, whatever was done before."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _make_reader(images: NDArray[uint8]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped
        def __init__(self) -> None:
            self._left = _in_batches(images)

        def get_next(self) -> dict[str, NDArray[uint8]] | None:
            batch = next(self._left, None)
            return None if batch is None else {INPUT_NAME: batch}

    return Reader()


def _in_batches(images: NDArray[uint8]) -> Iterator[NDArray[uint8]]:
    starts: Sequence[int] = range(0, len(images), _BATCH)
    for start in starts:
        yield images[start : start + _BATCH]
