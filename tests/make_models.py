"""Model bundles made from nothing: the shipped placeholder, a tiny one for fast tests, and every broken one.

    python -m tests.make_models tests/models/placeholder

writes the placeholder again, byte for byte. The golden answers come from a forward pass in NumPy, float64, that shares
the layers' weights with the ONNX graph and nothing else.
"""

import argparse
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy import float32, float64, uint8
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mribatch.core.bundle import CARD_FILE, GOLDEN_FILE, MODEL_FILE, SPEC_FILE
from mribatch.core.files import write_json
from mribatch.core.model_spec import INPUT_NAME, OUTPUT_NAME, ModelSpec
from mribatch.core.synthetic import golden_slices

OPSET, IR_VERSION = 17, 8  # ONNX 1.12
CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
PLACEHOLDER_SEED = 20
_PLACEHOLDER_SIDE = 160
_LOGIT_SPREAD = 1.5
_KERAS_EPSILON = 1e-3  # of keras.layers.BatchNormalization

# The folder names of the public brain tumour sets, and what people type instead. Matching ignores case, spaces and "-".
ALIASES = {
    **dict.fromkeys(("glioma", "gliomas", "glioma_tumour", "glioma_tumors", "glioma_tumours"), "glioma_tumor"),
    **dict.fromkeys(
        ("meningioma", "meningiomas", "meningioma_tumour", "meningioma_tumors", "meningioma_tumours"),
        "meningioma_tumor",
    ),
    **dict.fromkeys(
        ("no", "none", "notumor", "notumour", "no_tumour", "no_tumors", "no_tumours", "non_tumor", "non_tumour"),
        "no_tumor",
    ),
    **dict.fromkeys(
        ("nontumor", "nontumour", "without_tumor", "without_tumour", "normal", "healthy", "control"),
        "no_tumor",
    ),
    **dict.fromkeys(
        ("pituitary", "pituitary_tumour", "pituitary_tumors", "pituitary_tumours", "pituitary_adenoma"),
        "pituitary_tumor",
    ),
}

_CARD = """# placeholder

**This is no trained model.** Its weights are random numbers and its predictions mean nothing. It has the layers and the
cost of a small brain MRI classifier, so that the whole path from files to Parquet can be run, tested and timed before a
trained bundle is at hand. Research use only, not a medical device.

- Layers: five 3x3 convolutions (16, 32, 64, 128, 128 channels) with batch normalisation and 2x2 maximum pooling, global
  average pooling, dense layers of 500, 38 and 4.
- Input: `images`, uint8, (N, 160, 160, 1), grey. Output: `probabilities`, float32, (N, 4).
- Classes, in order: glioma_tumor, meningioma_tumor, no_tumor, pituitary_tumor.
- Data: none. The normalisation statistics and the last layer's scale were taken from synthetic drawings, so that the
  answers differ from one drawing to the next.
- Golden slices: 64 synthetic drawings, answered by a float64 forward pass in NumPy.
- Made by `python -m tests.make_models tests/models/placeholder`. Licence: Apache-2.0.
"""


# --- the layers, and what they do in NumPy --------------------------------------------------------


@dataclass(frozen=True)
class Conv:
    """3x3, same padding. kernel: float32 (3, 3, in, out). bias: float32 (out,)."""

    kernel: NDArray[float32]
    bias: NDArray[float32]
    elu: bool

    def __call__(self, x: NDArray[float64]) -> NDArray[float64]:
        windows = sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), axis=(1, 2))
        # windows: (n, height, width, in, 3, 3)
        y: NDArray[float64] = np.tensordot(windows, self.kernel.astype(float64), ((3, 4, 5), (2, 0, 1))) + self.bias
        return _elu(y) if self.elu else y


@dataclass(frozen=True)
class BatchNorm:
    """Each float32 (channels,)."""

    gamma: NDArray[float32]
    beta: NDArray[float32]
    mean: NDArray[float32]
    variance: NDArray[float32]

    def __call__(self, x: NDArray[float64]) -> NDArray[float64]:
        deviation = np.sqrt(self.variance.astype(float64) + _KERAS_EPSILON)
        return (x - self.mean) / deviation * self.gamma + self.beta


@dataclass(frozen=True)
class MaxPool:
    """2x2, stride 2, on even sides."""

    def __call__(self, x: NDArray[float64]) -> NDArray[float64]:
        count, height, width, channels = x.shape
        pooled: NDArray[float64] = x.reshape(count, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
        return pooled


@dataclass(frozen=True)
class GlobalAveragePool:
    """Mean over rows and columns."""

    def __call__(self, x: NDArray[float64]) -> NDArray[float64]:
        mean: NDArray[float64] = x.mean(axis=(1, 2))
        return mean


@dataclass(frozen=True)
class Dense:
    """kernel: float32 (in, out). bias: float32 (out,)."""

    kernel: NDArray[float32]
    bias: NDArray[float32]
    elu: bool

    def __call__(self, x: NDArray[float64]) -> NDArray[float64]:
        y: NDArray[float64] = x @ self.kernel.astype(float64) + self.bias
        return _elu(y) if self.elu else y


Layer = Conv | BatchNorm | MaxPool | GlobalAveragePool | Dense


def forward(layers: Sequence[Layer], images: NDArray[uint8]) -> NDArray[float32]:
    """Probabilities, float32 (n, classes), of uint8 (n, height, width, 1), computed in float64, eight at a time."""
    parts = [_probabilities(layers, images[start : start + 8]) for start in range(0, len(images), 8)]
    return np.concatenate(parts).astype(float32)


def _probabilities(layers: Sequence[Layer], images: NDArray[uint8]) -> NDArray[float64]:
    x = _as_colour(images)
    for layer in layers:
        x = layer(x)
    return _softmax(x)


def _as_colour(images: NDArray[uint8]) -> NDArray[float64]:
    return np.repeat(images.astype(float64) / 255, 3, axis=3)


def _elu(x: NDArray[float64]) -> NDArray[float64]:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def _softmax(logits: NDArray[float64]) -> NDArray[float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[float64] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


# --- the placeholder ------------------------------------------------------------------------------


def make_placeholder(folder: Path, seed: int = PLACEHOLDER_SEED) -> Path:
    """Write the bundle of the reference network's layers with random weights. Returns `folder`.

    The layers are those of the CNN that the project trains; the weights are random numbers.
    """
    images = golden_slices(64, _PLACEHOLDER_SIDE, _PLACEHOLDER_SIDE)
    layers = placeholder_layers(images[:16], seed)
    details: dict[str, Any] = {
        "name": "placeholder",
        "aliases": ALIASES,
        "description": "The layers of a small brain MRI classifier with random weights, for trying the tool.",
        "training": {"recipe": "none: random weights"},
        "licences": {"weights": "Apache-2.0", "data": "none: synthetic drawings"},
    }
    return write_bundle(folder, placeholder_model(layers), images, forward(layers, images), CLASSES, _CARD, details)


def placeholder_layers(images: NDArray[uint8], seed: int = PLACEHOLDER_SEED) -> list[Layer]:
    """Random weights. Normalisation and last layer are fitted to `images`, so that no class wins every time."""
    random = np.random.Generator(np.random.PCG64(seed))
    layers: list[Layer] = []
    x = _as_colour(images)
    for inputs, outputs, full in ((3, 16, True), (16, 32, False), (32, 64, True), (64, 128, True), (128, 128, True)):
        block: list[Layer] = [Conv(_kernel(random, (3, 3, inputs, outputs)), _uniform(random, (outputs,), 0.05), full)]
        x = block[0](x)
        if full:
            block.append(_batch_norm(random, x))
            x = block[1](x)
        block.append(MaxPool())
        x = block[-1](x)
        layers += block
    head: list[Layer] = [GlobalAveragePool()]
    for inputs, outputs in ((128, 500), (500, 38)):
        head.append(Dense(_kernel(random, (inputs, outputs)), _uniform(random, (outputs,), 0.05), True))
    for layer in head:
        x = layer(x)
    return [*layers, *head, _last_dense(random, x)]


def _uniform(random: np.random.Generator, shape: tuple[int, ...], limit: float) -> NDArray[float32]:
    return (random.random(shape, dtype=float32) * 2 - 1) * limit  # uniform: no libm, the same bits everywhere


def _kernel(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[float32]:
    fan_in = int(np.prod(shape[:-1]))
    return _uniform(random, shape, sqrt(6 / fan_in))  # He et al. 2015, arXiv:1502.01852


def _rounded(values: NDArray[float64]) -> NDArray[float32]:
    """To a grid, so that another BLAS's last bits do not change the file."""
    return (np.rint(values * 4096) / 4096).astype(float32)


def _batch_norm(random: np.random.Generator, x: NDArray[float64]) -> BatchNorm:
    channels = (x.shape[-1],)
    gamma, beta = 1 + _uniform(random, channels, 0.2), _uniform(random, channels, 0.2)
    return BatchNorm(gamma, beta, _rounded(x.mean(axis=(0, 1, 2))), _rounded(x.var(axis=(0, 1, 2))))


def _last_dense(random: np.random.Generator, x: NDArray[float64]) -> Dense:
    kernel = _kernel(random, (x.shape[1], len(CLASSES)))
    logits = x @ kernel
    scale = _LOGIT_SPREAD / logits.std(axis=0)
    return Dense(_rounded(kernel * scale), _rounded(-logits.mean(axis=0) * scale), False)


def placeholder_model(layers: Sequence[Layer]) -> bytes:
    """model.onnx of the layers: everything from uint8 pixels to probabilities."""
    graph = _Graph()
    x = graph.add("Cast", [INPUT_NAME], to=TensorProto.FLOAT)
    x = graph.add("Concat", [x, x, x], axis=3)
    x = graph.add("Div", [x, graph.constant(np.array(255, dtype=float32))])
    x = graph.add("Transpose", [x], perm=[0, 3, 1, 2])
    for layer in layers:
        x = _add_layer(graph, x, layer)
    graph.add("Softmax", [x], output=OUTPUT_NAME, axis=1)
    return graph.model(_PLACEHOLDER_SIDE, len(CLASSES))


def _add_layer(graph: "_Graph", x: str, layer: Layer) -> str:
    match layer:
        case Conv():
            kernel = graph.constant(layer.kernel.transpose(3, 2, 0, 1))  # OIHW
            x = graph.add("Conv", [x, kernel, graph.constant(layer.bias)], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
            return graph.add("Elu", [x]) if layer.elu else x
        case BatchNorm():
            numbers = [graph.constant(n) for n in (layer.gamma, layer.beta, layer.mean, layer.variance)]
            return graph.add("BatchNormalization", [x, *numbers], epsilon=_KERAS_EPSILON)
        case MaxPool():
            return graph.add("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
        case GlobalAveragePool():
            return graph.add("Flatten", [graph.add("GlobalAveragePool", [x])])
        case Dense():
            x = graph.add("Gemm", [x, graph.constant(layer.kernel), graph.constant(layer.bias)])
            return graph.add("Elu", [x]) if layer.elu else x


class _Graph:
    """Collects nodes and weights under counted names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, operator: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        name = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, values: NDArray[Any]) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def model(self, side: int, classes: int) -> bytes:
        inputs = [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", side, side, 1])]
        outputs = [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["N", classes])]
        graph = helper.make_graph(self.nodes, "mribatch", inputs, outputs, self.weights)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="mribatch tests.make_models",
        )
        onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString(deterministic=True)
        return content


# --- writing a bundle -----------------------------------------------------------------------------


def write_bundle(
    folder: Path,
    model: bytes,
    images: NDArray[uint8],
    probabilities: NDArray[float32],
    classes: Sequence[str],
    card: str,
    details: Mapping[str, Any],
) -> Path:
    """Write the four files of a bundle of untrained weights. `details`: further fields of ModelSpec."""
    folder.mkdir(parents=True, exist_ok=True)
    golden = packed({"images": images, "probabilities": probabilities})
    spec = ModelSpec(
        classes=tuple(classes),
        height=images.shape[1],
        width=images.shape[2],
        model_sha256=sha256(model).hexdigest(),
        golden_sha256=sha256(golden).hexdigest(),
        **({"trained": False} | dict(details)),
    )
    (folder / MODEL_FILE).write_bytes(model)
    (folder / GOLDEN_FILE).write_bytes(golden)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    write_json(folder / SPEC_FILE, spec.to_json())
    return folder


def packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """An .npz whose bytes depend on its content alone; numpy.savez writes the time of day into it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, values in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            content = io.BytesIO()
            np.save(content, values, allow_pickle=True)
            archive.writestr(entry, content.getvalue(), compresslevel=9)
    return stream.getvalue()


# --- a tiny classifier for fast tests -------------------------------------------------------------


def make_tiny(
    folder: Path,
    classes: Sequence[str] = CLASSES,
    size: int = 8,
    *,
    seed: int = 1,
    nan_on_white: bool = False,
    **details: Any,
) -> Path:
    """A bundle of a few KB: means of the four quadrants -> linear -> softmax. Returns `folder`.

    Args:
        folder: Is made where it is missing.
        classes: Any list of class names; the public sets' aliases come along where it is the usual four.
        size: Side of the input in pixels, even, 8 or more.
        seed: Chooses the weights.
        nan_on_white: The model answers NaN for an image whose every pixel is 255, and as ever for all others.
        details: Further fields of ModelSpec: name, aliases, trained, temperature …
    """
    kernel, bias = _tiny_weights(len(classes), seed)
    images = golden_slices(8, size, size)
    quadrants = images.reshape(8, 2, size // 2, 2, size // 2).astype(float64).mean(axis=(2, 4)).reshape(8, 4) / 255
    probabilities = _softmax(quadrants @ kernel + bias).astype(float32)
    aliases = ALIASES if tuple(classes) == CLASSES else {}
    fields = {"name": "tiny", "aliases": aliases, "description": "Four means, for tests."} | details
    model = tiny_model(len(classes), size, seed, nan_on_white=nan_on_white)
    return write_bundle(folder, model, images, probabilities, classes, "# tiny\n\nNo trained model.\n", fields)


def tiny_model(classes: int, size: int = 8, seed: int = 1, *, nan_on_white: bool = False) -> bytes:
    """model.onnx of `make_tiny`."""
    kernel, bias = _tiny_weights(classes, seed)
    graph = _Graph()
    x = graph.add("Cast", [INPUT_NAME], to=TensorProto.FLOAT)
    x = graph.add("Div", [x, graph.constant(np.array(255, dtype=float32))])
    x = pixels = graph.add("Transpose", [x], perm=[0, 3, 1, 2])
    x = graph.add("AveragePool", [x], kernel_shape=[size // 2, size // 2], strides=[size // 2, size // 2])
    x = graph.add("Gemm", [graph.add("Flatten", [x]), graph.constant(kernel), graph.constant(bias)])
    if nan_on_white:  # 0 / (1 - darkest pixel) is 0, and NaN where even the darkest pixel is white
        one, zero = (graph.constant(np.array(number, dtype=float32)) for number in (1, 0))
        darkest = graph.add("ReduceMin", [pixels], axes=[1, 2, 3], keepdims=1)
        quotient = graph.add("Div", [zero, graph.add("Sub", [one, darkest])])
        x = graph.add("Add", [x, graph.add("Flatten", [quotient])])
    graph.add("Softmax", [x], output=OUTPUT_NAME, axis=1)
    return graph.model(size, classes)


def _tiny_weights(classes: int, seed: int) -> tuple[NDArray[float32], NDArray[float32]]:
    random = np.random.Generator(np.random.PCG64(seed))
    kernel = _uniform(random, (4, classes), 40)
    kernel -= kernel.mean(axis=0)  # a brighter image alone changes nothing; where it is bright does
    return kernel, _uniform(random, (classes,), 0.5)


# --- a small network that can be quantized --------------------------------------------------------


def make_convolutional(folder: Path, *, size: int = 16, seed: int = 3) -> Path:
    """A bundle of two convolutions with ReLU6 and a dense layer, random weights; ONNX Runtime gives its golden answers.

    Returns `folder`.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    graph = _Graph()
    x = graph.add(
        "Div", [graph.add("Cast", [INPUT_NAME], to=TensorProto.FLOAT), graph.constant(np.array(255, dtype=float32))]
    )
    x = graph.add("Transpose", [x], perm=[0, 3, 1, 2])
    low, high = (graph.constant(np.array(limit, dtype=float32)) for limit in (0, 6))
    for inputs, outputs in ((1, 16), (16, 32)):
        kernel = _kernel(random, (3, 3, inputs, outputs)).transpose(3, 2, 0, 1)
        bias = graph.constant(_uniform(random, (outputs,), 0.05))
        x = graph.add("Conv", [x, graph.constant(kernel), bias], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        x = graph.add("Clip", [x, low, high])
    x = graph.add("Flatten", [graph.add("GlobalAveragePool", [x])])
    x = graph.add("Gemm", [x, graph.constant(_uniform(random, (32, 4), 3)), graph.constant(_uniform(random, (4,), 1))])
    graph.add("Softmax", [x], output=OUTPUT_NAME, axis=1)
    model, images = graph.model(size, 4), golden_slices(16, size, size)
    details = {"name": "convolutional", "trained": True, "aliases": ALIASES}
    card = "# convolutional\n\n## Licences\n\nNone.\n"
    return write_bundle(folder, model, images, run_graph(model, images), CLASSES, card, details)


def run_graph(model: bytes, images: NDArray[uint8]) -> NDArray[float32]:
    """What ONNX Runtime answers, float32 (n, classes)."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: images})[0], float32)


# --- broken bundles -------------------------------------------------------------------------------


def make_bad(folder: Path, kind: str) -> Path:
    """A tiny bundle broken in the one way that `kind`, a key of BAD_BUNDLES, names. Returns `folder`."""
    BAD_BUNDLES[kind](make_tiny(folder))
    return folder


def set_model(folder: Path, model: bytes) -> None:
    """Replace model.onnx and its hash in bundle.json."""
    (folder / MODEL_FILE).write_bytes(model)
    edit_spec(folder, model_sha256=sha256(model).hexdigest())


def set_golden(folder: Path, golden: bytes) -> None:
    """Replace golden.npz and its hash in bundle.json."""
    (folder / GOLDEN_FILE).write_bytes(golden)
    edit_spec(folder, golden_sha256=sha256(golden).hexdigest())


def edit_spec(folder: Path, **fields: Any) -> None:
    """Replace top-level fields of bundle.json."""
    content = json.loads((folder / SPEC_FILE).read_text(encoding="utf-8"))
    write_json(folder / SPEC_FILE, content | fields)


def _with_model(change: Callable[[onnx.ModelProto], object]) -> Callable[[Path], None]:
    def break_it(folder: Path) -> None:
        model = onnx.load_model_from_string((folder / MODEL_FILE).read_bytes())
        change(model)
        set_model(folder, model.SerializeToString(deterministic=True))

    return break_it


def _with_golden(change: Callable[[dict[str, NDArray[Any]]], object]) -> Callable[[Path], None]:
    def break_it(folder: Path) -> None:
        with np.load(folder / GOLDEN_FILE) as archive:
            arrays = {name: archive[name].copy() for name in archive.files}
        change(arrays)
        set_golden(folder, packed(arrays))

    return break_it


def _make_external(tensor: onnx.TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/hostname")


def _external_constant(name: str) -> onnx.NodeProto:
    tensor = numpy_helper.from_array(np.zeros(4, dtype=float32), f"{name}_value")
    _make_external(tensor)
    return helper.make_node("Constant", [], [name], value=tensor)


def _external_in_subgraph(model: onnx.ModelProto) -> None:
    weight = numpy_helper.from_array(np.zeros(4, dtype=float32), "hidden")
    _make_external(weight)
    result = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, [4])
    branch = helper.make_graph([helper.make_node("Identity", ["hidden"], ["chosen"])], "branch", [], [result], [weight])
    condition = helper.make_node("Constant", [], ["always"], value=numpy_helper.from_array(np.array(True)))
    choice = helper.make_node("If", ["always"], ["unused"], then_branch=branch, else_branch=branch)
    model.graph.node.extend([condition, choice])


def _custom_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def _local_function(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Identity", ["a"], ["b"])]
    model.functions.append(
        helper.make_function("com.example", "Same", ["a"], ["b"], body, [helper.make_opsetid("", OPSET)])
    )


def _second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.UINT8, ["N"]))


def _second_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4]))


def _fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def _float_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def _rank_3_input(model: onnx.ModelProto) -> None:
    del model.graph.input[0].type.tensor_type.shape.dim[3]


def _nan_golden(arrays: dict[str, NDArray[Any]]) -> None:
    arrays["probabilities"][3, 1] = np.nan


def _object_golden(arrays: dict[str, NDArray[Any]]) -> None:
    arrays["images"] = np.array([{"a": 1}], dtype=object)


def _zip_bomb(folder: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("images", "probabilities"):
            with archive.open(f"{name}.npy", "w") as entry:
                for _ in range(160):
                    entry.write(bytes(1 << 20))
    set_golden(folder, stream.getvalue())


def _huge_array_golden(folder: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 60,)})
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("images.npy", header.getvalue())
        archive.writestr("probabilities.npy", header.getvalue())
    set_golden(folder, stream.getvalue())


def _damaged_deflate(folder: Path) -> None:
    content = bytearray((folder / GOLDEN_FILE).read_bytes())
    content[60:70] = bytes(10 * [0xFF])
    set_golden(folder, bytes(content))


def _spec_text(text: str) -> Callable[[Path], None]:
    def break_it(folder: Path) -> None:
        (folder / SPEC_FILE).write_text(text, encoding="utf-8")

    return break_it


# name -> what breaks a good tiny bundle of 4 classes and 8x8 pixels in this one way
BAD_BUNDLES: dict[str, Callable[[Path], None]] = {
    "spec_not_json": _spec_text("{"),
    "spec_deeply_nested": _spec_text("[" * 100_000),
    "spec_not_an_object": _spec_text("[]"),
    "newer_format_version": lambda folder: edit_spec(folder, format_version=2),
    "missing_classes": lambda folder: edit_spec(folder, classes=None),
    "class_name_with_line_break": lambda folder: edit_spec(folder, classes=["a\nb", "c"]),
    "huge_temperature": lambda folder: edit_spec(folder, temperature=10**400),
    "no_model_file": lambda folder: (folder / MODEL_FILE).unlink(),
    "no_golden_file": lambda folder: (folder / GOLDEN_FILE).unlink(),
    "wrong_model_hash": lambda folder: edit_spec(folder, model_sha256="0" * 64),
    "wrong_golden_hash": lambda folder: edit_spec(folder, golden_sha256="0" * 64),
    "model_not_onnx": lambda folder: set_model(folder, b"this is text, no model"),
    "empty_model": lambda folder: set_model(folder, b""),
    "two_inputs": _with_model(_second_input),
    "two_outputs": _with_model(_second_output),
    "wrong_rank": _with_model(_rank_3_input),
    "float_input": _with_model(_float_input),
    "fixed_batch": _with_model(_fixed_batch),
    "wrong_size": lambda folder: set_model(folder, tiny_model(len(CLASSES), 16)),
    "wrong_class_count": lambda folder: set_model(folder, tiny_model(3)),
    "custom_operator": _with_model(_custom_operator),
    "local_function": _with_model(_local_function),
    "external_data": _with_model(lambda model: _make_external(model.graph.initializer[1])),
    "external_data_in_attribute": _with_model(lambda model: model.graph.node.append(_external_constant("unused"))),
    "external_data_in_subgraph": _with_model(_external_in_subgraph),
    "nan_golden": _with_golden(_nan_golden),
    "golden_of_other_size": _with_golden(lambda arrays: arrays.update(images=arrays["images"][:, :4])),
    "golden_without_probabilities": _with_golden(lambda arrays: arrays.pop("probabilities")),
    "golden_with_pickle": _with_golden(_object_golden),
    "scalar_golden": _with_golden(lambda arrays: arrays.update(images=np.array(1, dtype=uint8))),
    "golden_not_zip": lambda folder: set_golden(folder, b"PK no zip"),
    "golden_zip_bomb": _zip_bomb,
    "golden_of_huge_array": _huge_array_golden,
    "golden_damaged": _damaged_deflate,
}


def main() -> None:
    """Write the placeholder bundle to the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Write the placeholder bundle.")
    parser.add_argument("folder", type=Path)
    folder = make_placeholder(parser.parse_args().folder)
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size:>9} {path}")


if __name__ == "__main__":
    main()
