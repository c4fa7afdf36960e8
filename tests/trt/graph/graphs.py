"""Small ONNX graphs with the structures of the real networks, and bundles made of them in memory."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx
from numpy import float32, uint8
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mribatch.core.bundle import Bundle, Golden
from mribatch.core.model_spec import INPUT_NAME, OUTPUT_NAME, ModelSpec
from mribatch.core.synthetic import golden_slices
from mribatch.trt.graph.cpu_session import CpuSession

CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
SIDE = 32
OPSET = 17


class Graph:
    """Collects nodes and weights; a node's name is also that of its output."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.Generator(np.random.PCG64(seed))

    def add(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        output = name or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def weight(self, values: Any, name: str | None = None, dtype: Any = float32) -> str:
        name = name or f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, dtype=dtype), name))
        return name

    def normal(self, shape: Sequence[int], fan_in: int) -> str:
        return self.weight(self._random.normal(0, (2 / fan_in) ** 0.5, shape))

    def conv(self, x: str, inputs: int, outputs: int, size: int = 3, group: int = 1, stride: int = 1) -> str:
        kernel = self.normal((outputs, inputs // group, size, size), inputs // group * size * size)
        pads = [size // 2] * 4
        attributes: dict[str, Any] = {
            "kernel_shape": [size, size],
            "pads": pads,
            "group": group,
            "strides": [stride] * 2,
        }
        return self.add("Conv", x, kernel, self.weight(self._random.normal(0, 0.1, outputs)), **attributes)

    def swish(self, x: str) -> str:
        return self.add("Mul", x, self.add("Sigmoid", x))

    def pixels(self) -> str:
        """float (N, 3, side, side), about -1..1, from the grey uint8 input."""
        x = self.add("Cast", INPUT_NAME, to=TensorProto.FLOAT)
        x = self.add("Mul", self.add("Concat", x, x, x, axis=3), self.weight(1 / 255))
        x = self.add("Sub", x, self.weight([0.485, 0.456, 0.406]))
        return self.add("Transpose", self.add("Div", x, self.weight([0.229, 0.224, 0.225])), perm=[0, 3, 1, 2])

    def dense(self, x: str, inputs: int, name: str | None = None) -> str:
        kernel = self.normal((inputs, len(CLASSES)), inputs)
        return self.add("Gemm", x, kernel, self.weight(self._random.normal(0, 0.1, len(CLASSES))), name=name)

    def softmax(self, logits: str) -> str:
        return self.add("Softmax", logits, name=OUTPUT_NAME, axis=1)

    def proto(self, side: int = SIDE) -> onnx.ModelProto:
        inputs = [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", side, side, 1])]
        outputs = [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["N", len(CLASSES)])]
        graph = helper.make_graph(self.nodes, "test", inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model

    def model(self, side: int = SIDE) -> bytes:
        content: bytes = self.proto(side).SerializeToString(deterministic=True)
        return content


EFFICIENTNET_HEAD = {"pool", "flatten", "logits", OUTPUT_NAME}


def efficientnet_like() -> Graph:
    """Stem, inverted residual with squeeze and excitation, Clip, Resize with float scales, pooled head."""
    graph = Graph()
    x = stem = graph.swish(graph.conv(graph.pixels(), 3, 8, stride=2))
    x = graph.swish(graph.conv(x, 8, 16, size=1))
    x = graph.swish(graph.conv(x, 16, 16, group=16))
    squeezed = graph.add("GlobalAveragePool", x, name="squeeze")
    gate = graph.conv(graph.swish(graph.conv(squeezed, 16, 4, size=1)), 4, 16, size=1)
    x = graph.add("Mul", x, graph.add("Sigmoid", gate), name="excite")
    x = graph.add("Add", graph.conv(x, 16, 8, size=1), stem, name="residual")
    numbers = [graph.weight(np.full(8, value)) for value in (1.1, 0.1, 0.2, 0.9)]
    x = graph.add("BatchNormalization", x, *numbers)
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], dtype=float32))
    graph.nodes.append(helper.make_node("Constant", [], ["scales"], name="scales", value=scales))
    x = graph.add("Resize", x, "", "scales", name="resize", mode="linear")
    x = graph.add("Clip", graph.conv(x, 8, 16), graph.weight(0.0), graph.weight(6.0), name="relu6")
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x, name="pool"), name="flatten")
    graph.softmax(graph.dense(x, 16, name="logits"))
    return graph


def scaled_up_and_down(factor: float) -> Graph:
    """A small network whose values are `factor` times 0..255 between two nodes, `up` and `down`, and nowhere else."""
    graph = Graph(3)
    x = graph.add("Transpose", graph.add("Cast", INPUT_NAME, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    x = graph.add("Mul", x, graph.weight(factor), name="up")
    x = graph.add("Mul", x, graph.weight(1 / (255 * factor)), name="down")
    x = graph.add("MaxPool", graph.conv(x, 1, 8), kernel_shape=[2, 2], strides=[2, 2])
    x = graph.add("Relu", graph.conv(x, 8, 8))
    x = graph.add("Relu", graph.add("Mul", graph.conv(x, 8, 8), graph.weight(2.0)))
    graph.softmax(graph.dense(graph.add("Flatten", graph.add("GlobalAveragePool", x)), 8))
    return graph


def run_fp32(model: bytes, images: NDArray[uint8]) -> NDArray[float32]:
    """Probabilities of an ONNX graph, as ONNX Runtime computes them."""
    (probabilities,) = CpuSession(model).run([OUTPUT_NAME], images)
    return np.asarray(probabilities, dtype=float32)


def bundle_of(model: bytes, count: int = 10, side: int = SIDE) -> Bundle:
    """A bundle in memory whose golden answers are the graph's own."""
    images = golden_slices(count, side, side)
    golden = Golden(images, run_fp32(model, images))
    digest = "0" * 64
    spec = ModelSpec(
        name="test",
        classes=CLASSES,
        aliases={},
        height=side,
        width=side,
        model_sha256=digest,
        golden_sha256=digest,
        trained=False,
    )
    return Bundle(Path("test"), spec, digest, model, golden)


class GoldenClassifier:
    """Knows the golden answers by their pixels; `change` is what its backend gets wrong.

    change: (probabilities of a batch, the batch) -> what it answers instead.
    """

    name = "double"
    library_version = "1"
    calls_at_once = 1

    def __init__(
        self,
        bundle: Bundle,
        change: Callable[[NDArray[float32], NDArray[uint8]], Any] = lambda answers, images: answers,
        precision: str = "fp16",
    ) -> None:
        golden = bundle.golden
        self._answers = {image.tobytes(): row for image, row in zip(golden.images, golden.probabilities, strict=True)}
        self._change = change
        self.precision = precision
        self.batches: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __call__(self, images: NDArray[uint8]) -> NDArray[float32]:
        self.batches.append(len(images))
        answers = np.stack([self._answers[image.tobytes()] for image in images])
        changed: NDArray[float32] = self._change(answers, images)
        return changed
