"""Keras -> ONNX.

The graph takes `images`, uint8 (N, height, width, 1), and gives `probabilities`, float32 (N, classes). Cast, grey to
RGB, scaling and temperature are inside.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.model_spec import INPUT_NAME, OUTPUT_NAME
from mribatch.training.export.decomposition import make_handlers
from mribatch.training.export.grey_channels import read_grey_directly
from mribatch.training.frameworks import load_keras
from mribatch.training.networks.build import calibrate, grey_to_rgb, logits_model, predict_logits

OPSET = 17  # the parsers of TensorRT 10, 11 and RTX and ONNX Runtime since 1.12 all read it
_STANDARD_DOMAINS = {"", "ai.onnx"}


@dataclass(frozen=True, kw_only=True)
class Convertible:
    """What a bundle's graph is converted from, and what it is compared with."""

    height: int  # pixels of the graph's input
    width: int
    graph: Callable[[Any], Any]  # tensor uint8 (N, height, width, 1) -> probabilities float32 (N, classes); traced
    answers: Callable[[NDArray[uint8]], NDArray[float32]]  # the same from Keras, for the golden slices
    reference: str = "Keras"  # what gives the answers, for people

    def to_onnx(self) -> bytes:
        """Return the bundle's model.onnx."""
        return convert(self)


def make_convertible(network: Any, temperature: float) -> Convertible:
    """Return a network of `networks.build` with its temperature as a graph that can be converted."""
    tensorflow, _ = load_keras()
    inner = logits_model(network)

    def graph(images: Any) -> Any:
        return tensorflow.nn.softmax(inner(grey_to_rgb(images), training=False) / temperature)

    def answers(images: NDArray[uint8]) -> NDArray[float32]:
        return calibrate(predict_logits(network, images), temperature)

    _, height, width, _ = network.input.shape
    return Convertible(height=int(height), width=int(width), graph=graph, answers=answers)


def to_onnx(network: Any, temperature: float) -> bytes:
    """Convert the network to an ONNX model with the bundle's input and output.

    Raises:
        ValueError: The converter's result breaks a rule of the bundle; a bug.
    """
    return convert(make_convertible(network, temperature))


def convert(source: Convertible) -> bytes:
    """Convert the graph to an ONNX model with the bundle's input and output.

    Raises:
        ValueError: The converter's result breaks a rule of the bundle.
    """
    import onnx

    tensorflow, _ = load_keras()
    images = tensorflow.TensorSpec((None, source.height, source.width, 1), tensorflow.uint8, name=INPUT_NAME)

    @tensorflow.function(input_signature=[images], autograph=False)  # type: ignore[untyped-decorator]
    def graph(images: Any) -> dict[str, Any]:
        return {OUTPUT_NAME: source.graph(images)}

    with _silence_converter():
        model = _convert_traced(graph.get_concrete_function())
    read_grey_directly(model)
    clean(model)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _convert_traced(traced: Any) -> Any:
    """Return tf2onnx's model of a traced function in which nothing is left but the images and constants.

    tf2onnx itself makes an input of every tensor that is neither variable nor argument, such as the mean of an adapted
    Normalization, and cannot read calls that are to be compiled by XLA, such as Keras' grouped convolutions.
    """
    import tf2onnx
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(traced, lower_control_flow=False, aggressive_inlining=True)
    definition = frozen.graph.as_graph_def(add_shapes=True)
    captured = _find_captured(traced)
    _set_constants(definition, captured)
    _allow_inlining(definition)
    model, _ = tf2onnx.convert.from_graph_def(
        definition,
        name=traced.name,
        input_names=[tensor.name for tensor in frozen.inputs if tensor.op.name not in captured],
        output_names=[tensor.name for tensor in frozen.outputs],
        opset=OPSET,
        custom_op_handlers=make_handlers(),
    )
    return model


def _find_captured(traced: Any) -> dict[str, Any]:
    """Map the placeholder's name of each captured tensor that is not a variable to its value."""
    tensorflow, _ = load_keras()
    pairs = traced.graph.captures
    return {inside.op.name: outside for outside, inside in pairs if outside.dtype != tensorflow.resource}


def _set_constants(definition: Any, values: Mapping[str, Any]) -> None:
    tensorflow, _ = load_keras()
    for node in definition.node:
        if node.name in values:
            value = values[node.name]
            node.op = "Const"
            node.attr.clear()
            node.attr["dtype"].type = value.dtype.as_datatype_enum
            node.attr["value"].tensor.CopyFrom(tensorflow.make_tensor_proto(value.numpy()))


def _allow_inlining(definition: Any) -> None:
    """Drop the marks by which TensorFlow keeps a function that XLA should compile as a call."""
    inner = (node for function in definition.library.function for node in function.node_def)
    for part in (*definition.node, *definition.library.function, *inner):
        for mark in ("_XlaMustCompile", "_noinline"):
            part.attr.pop(mark, None)


def clean(model: Any) -> None:
    """Keep one input and one output, name the batch dimension N and every tensor by its operator; in place.

    Converters leave inputs that no node reads (Keras' EfficientNet: two), two different names for one batch dimension,
    and operator sets that no node uses.

    Raises:
        ValueError: More than one input or output is in use, or an operator is not standard ONNX.
    """
    graph = model.graph
    used = set(_iterate_inputs(graph))
    for dangling in [value for value in graph.input if value.name not in used]:
        graph.input.remove(dangling)
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise ValueError(f"{len(graph.input)} inputs and {len(graph.output)} outputs are in use")
    foreign = {node.domain for node in graph.node} - _STANDARD_DOMAINS
    if foreign or model.functions:
        raise ValueError(f"operators outside ONNX: {sorted(foreign)}, {len(model.functions)} functions")
    for value, name in ((graph.input[0], INPUT_NAME), (graph.output[0], OUTPUT_NAME)):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
        _rename(graph, {value.name: name})
    _write_padding_of_transposed(graph)
    _rename(graph, _name_by_operator(graph))
    del graph.value_info[:]  # shapes under old names; the checker infers them again
    _sort_weights(graph)
    for unused in [entry for entry in model.opset_import if entry.domain not in _STANDARD_DOMAINS]:
        model.opset_import.remove(unused)
    graph.name, graph.doc_string = "mribatch", ""


def _write_padding_of_transposed(graph: Any) -> None:
    """Write a transposed convolution's negative padding at the end, which ONNX forbids, as output_padding."""
    from onnx import helper

    for node in graph.node:
        pads = next((item for item in node.attribute if item.name == "pads"), None)
        if node.op_type != "ConvTranspose" or pads is None or min(pads.ints) >= 0:
            continue
        half = len(pads.ints) // 2
        more = [max(0, -pad) for pad in pads.ints[half:]]
        kept = [*pads.ints[:half], *(max(0, pad) for pad in pads.ints[half:])]
        others = [item for item in node.attribute if item.name not in ("pads", "output_padding")]
        del node.attribute[:]
        added = (helper.make_attribute("pads", kept), helper.make_attribute("output_padding", more))
        node.attribute.extend([*others, *added])


def _name_by_operator(graph: Any) -> dict[str, str]:
    """Name tensors conv_3_output, conv_3_input_1, …: operator, position, and for weights which input they are."""
    names: dict[str, str] = {}
    kept = {INPUT_NAME, OUTPUT_NAME}
    weights = {tensor.name for tensor in graph.initializer}
    for place, node in enumerate(graph.node):
        node.name = f"{node.op_type.lower()}_{place}"
        for position, name in enumerate(node.input):
            if name in weights:
                names.setdefault(name, f"{node.name}_input_{position}")
        for position, name in enumerate(node.output):
            if name and name not in kept:  # an optional output that is not wanted has no name
                names[name] = f"{node.name}_output" if len(node.output) == 1 else f"{node.name}_output_{position}"
    return names


def _sort_weights(graph: Any) -> None:
    """Sort weights by their use: the converter's order changes from run to run, and a bundle's hash with it."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    used = dict.fromkeys(name for name in _iterate_inputs(graph) if name in weights)
    del graph.initializer[:]
    graph.initializer.extend(weights[name] for name in used)


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    for node in graph.node:
        for tensors in (node.input, node.output):
            for position, name in enumerate(tensors):
                tensors[position] = names.get(name, name)
        for inner in _subgraphs(node):
            own = {value.name for value in (*inner.input, *inner.initializer)}
            own |= {name for inside in inner.node for name in inside.output}
            _rename(inner, {name: new for name, new in names.items() if name not in own})
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names.get(value.name, value.name)


def _subgraphs(node: Any) -> Iterator[Any]:
    """Yield the bodies of a loop or a branch."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _iterate_inputs(graph: Any) -> Iterator[str]:
    """Yield the names that nodes take, in order, those in loops and branches included."""
    for node in graph.node:
        yield from node.input
        for inner in _subgraphs(node):
            yield from _iterate_inputs(inner)
            yield from (value.name for value in inner.output)


@contextlib.contextmanager
def _silence_converter() -> Iterator[None]:
    """Hide what tf2onnx logs at import from the user."""
    logger = logging.getLogger("tf2onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
