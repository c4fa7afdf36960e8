"""Keras -> ONNX -> a model bundle that was proven equal to Keras before it got its name.

The graph takes `images`, uint8 (N, height, width, 1), and gives `probabilities`, float32 (N, classes). Cast, grey to
RGB, scaling and temperature are inside.
"""

import contextlib
import io
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.agreement import Agreement, compare
from mribatch.core.bundle import CARD_FILE, GOLDEN_FILE, MODEL_FILE, SPEC_FILE, Bundle, load_bundle
from mribatch.core.errors import MribatchError
from mribatch.core.files import write_json
from mribatch.core.model_spec import INPUT_NAME, OUTPUT_NAME, ModelSpec
from mribatch.core.synthetic import golden_slices
from mribatch.report.metrics import MACRO, WEIGHTED
from mribatch.training.data.classes import ClassList
from mribatch.training.frameworks import load_keras
from mribatch.training.networks.build import calibrated, grey_to_rgb, logits_model, predict_logits

OPSET = 17  # the parsers of TensorRT 10, 11 and RTX and ONNX Runtime since 1.12 all read it
_DATA_DOMAINS = {"", "ai.onnx"}


@dataclass(frozen=True, kw_only=True)
class BundleFacts:
    """What bundle.json says beyond shape and hashes; see ModelSpec for the fields."""

    name: str
    classes: ClassList
    temperature: float = 1.0
    activation: str = "softmax"  # what makes the graph's last numbers probabilities, for people
    description: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    licences: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Convertible:
    """What a bundle's graph is made of, and what it is proven against."""

    height: int  # pixels of the graph's input
    width: int
    graph: Callable[[Any], Any]  # tensor uint8 (N, height, width, 1) -> probabilities float32 (N, classes); is traced
    answers: Callable[[NDArray[uint8]], NDArray[float32]]  # the same from Keras, for the golden slices


def write_bundle(network: Any, facts: BundleFacts, card: str, out: Path) -> Agreement:
    """Export, prove, and only then give the folder its name.

    Args:
        network: keras.Model as `networks.build` makes it.
        facts: For bundle.json.
        card: MODEL_CARD.md.
        out: The bundle's folder. A bundle there is replaced as a whole; see `check_replaceable`.

    Returns:
        How well ONNX Runtime agrees with Keras on the golden slices.

    Raises:
        MribatchError: They do not agree; nothing was written at `out`.
    """
    return publish(_convertible(network, facts.temperature), facts, card, out)


def publish(source: Convertible, facts: BundleFacts, card: str, out: Path) -> Agreement:
    """As `write_bundle`, for any graph; `facts.temperature` is a record of what the graph does."""
    check_replaceable(out)
    images = golden_slices(height=source.height, width=source.width)
    probabilities = source.answers(images)
    with _publishing_folder(out) as folder:
        model = convert(source)
        golden = _npz(images, probabilities)
        (folder / MODEL_FILE).write_bytes(model)
        (folder / GOLDEN_FILE).write_bytes(golden)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
        content = _spec(facts, source, model, golden).to_json()
        content["output"]["activation"] = facts.activation
        write_json(folder / SPEC_FILE, content)
        return _prove(load_bundle(str(folder)))


def check_replaceable(out: Path) -> None:
    """Refuse to write over what is not a bundle.

    Raises:
        MribatchError: `out` exists and holds something else.
    """
    if out.exists() and not (out / SPEC_FILE).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise MribatchError(f"{out} exists and is no model bundle", "choose another --out")


def check_names(name: str, classes: ClassList) -> None:
    """Refuse the names of a model and its classes before the hours of a fit or the minutes of a conversion.

    Raises:
        MribatchError: A bundle or a report could not hold one of them; names it.
    """
    nothing = "0" * 64
    try:
        ModelSpec(
            name=name,
            classes=classes.names,
            aliases=dict(classes.aliases),
            height=1,
            width=1,
            model_sha256=nothing,
            golden_sha256=nothing,
            trained=True,
        )
    except MribatchError as error:
        fix = "names of models (--name, or the folder's) and of classes have letters, digits, '_', '.', '-', at most 64"
        raise MribatchError(error.problem, fix) from error
    if taken := {MACRO, WEIGHTED} & set(classes.names):
        problem = f"a class is called '{min(taken)}', which is the name of an average in every table of metrics"
        raise MribatchError(problem, "call the class something else")


def to_onnx(network: Any, temperature: float) -> bytes:
    """The network as an ONNX model with the bundle's input and output.

    Raises:
        ValueError: What the converter gave breaks a rule of the bundle; a bug.
    """
    return convert(_convertible(network, temperature))


def convert(source: Convertible) -> bytes:
    """The graph as an ONNX model with the bundle's input and output.

    Raises:
        ValueError: What the converter gave breaks a rule of the bundle.
    """
    import onnx

    tensorflow, _ = load_keras()
    images = tensorflow.TensorSpec((None, source.height, source.width, 1), tensorflow.uint8, name=INPUT_NAME)

    @tensorflow.function(input_signature=[images], autograph=False)  # type: ignore[untyped-decorator]
    def graph(images: Any) -> dict[str, Any]:
        return {OUTPUT_NAME: source.graph(images)}

    with _quiet_converter():
        import tf2onnx

        model, _ = tf2onnx.convert.from_function(graph, input_signature=[images], opset=OPSET)
    clean(model)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _convertible(network: Any, temperature: float) -> Convertible:
    tensorflow, _ = load_keras()
    inner = logits_model(network)

    def graph(images: Any) -> Any:
        return tensorflow.nn.softmax(inner(grey_to_rgb(images), training=False) / temperature)

    def answers(images: NDArray[uint8]) -> NDArray[float32]:
        return calibrated(predict_logits(network, images), temperature)

    _, height, width, _ = network.input.shape
    return Convertible(height=int(height), width=int(width), graph=graph, answers=answers)


def clean(model: Any) -> None:
    """Leave one input and one output, name the batch dimension N and every tensor by its operator; in place.

    Converters leave inputs that no node reads (Keras' EfficientNet: two), two different names for one batch dimension,
    and operator sets that no node uses.

    Raises:
        ValueError: More than one input or output is really used, or an operator is not standard ONNX.
    """
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    for dangling in [value for value in graph.input if value.name not in used]:
        graph.input.remove(dangling)
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise ValueError(f"{len(graph.input)} inputs and {len(graph.output)} outputs are in use")
    foreign = {node.domain for node in graph.node} - _DATA_DOMAINS
    if foreign or model.functions:
        raise ValueError(f"operators outside ONNX: {sorted(foreign)}, {len(model.functions)} functions")
    for value, name in ((graph.input[0], INPUT_NAME), (graph.output[0], OUTPUT_NAME)):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
        _rename(graph, {value.name: name})
    _rename(graph, _plain_names(graph))
    del graph.value_info[:]  # shapes under old names; the checker infers them again
    _order_weights(graph)
    for unused in [entry for entry in model.opset_import if entry.domain not in _DATA_DOMAINS]:
        model.opset_import.remove(unused)
    graph.name, graph.doc_string = "mribatch", ""


def _plain_names(graph: Any) -> dict[str, str]:
    """conv_3, conv_3_w, …: the operator, its place, and for weights which input they are."""
    names: dict[str, str] = {}
    kept = {INPUT_NAME, OUTPUT_NAME}
    weights = {tensor.name for tensor in graph.initializer}
    for place, node in enumerate(graph.node):
        node.name = f"{node.op_type.lower()}_{place}"
        for position, name in enumerate(node.input):
            if name in weights:
                names.setdefault(name, f"{node.name}_input_{position}")
        for position, name in enumerate(node.output):
            if name not in kept:
                names[name] = f"{node.name}_output" if len(node.output) == 1 else f"{node.name}_output_{position}"
    return names


def _order_weights(graph: Any) -> None:
    """Weights in the order of their use: the converter's order changes from run to run, and a bundle's hash with it."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    used = dict.fromkeys(name for node in graph.node for name in node.input if name in weights)
    del graph.initializer[:]
    graph.initializer.extend(weights[name] for name in used)


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    for node in graph.node:
        for tensors in (node.input, node.output):
            for position, name in enumerate(tensors):
                tensors[position] = names.get(name, name)
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names.get(value.name, value.name)


def _spec(facts: BundleFacts, source: Convertible, model: bytes, golden: bytes) -> ModelSpec:
    return ModelSpec(
        name=facts.name,
        classes=facts.classes.names,
        aliases=dict(facts.classes.aliases),
        height=source.height,
        width=source.width,
        model_sha256=sha256(model).hexdigest(),
        golden_sha256=sha256(golden).hexdigest(),
        trained=True,
        temperature=facts.temperature,
        description=facts.description,
        training=dict(facts.training),
        metrics=tuple(facts.metrics),
        licences=dict(facts.licences),
    )


def _prove(bundle: Bundle) -> Agreement:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(bundle.model, options, providers=["CPUExecutionProvider"])
    got = session.run([OUTPUT_NAME], {INPUT_NAME: bundle.golden.images})[0]
    agreement = compare(got, bundle.golden.probabilities, bundle.spec.tolerance)
    if not agreement.holds:
        raise MribatchError(
            f"the exported graph does not give Keras' probabilities on the golden slices: {agreement}",
            "report this with the versions of tensorflow, tf2onnx and onnxruntime; no bundle was written",
        )
    return agreement


def _npz(images: NDArray[uint8], probabilities: NDArray[float32]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, images=images, probabilities=probabilities)
    return stream.getvalue()


@contextlib.contextmanager
def _publishing_folder(out: Path) -> Iterator[Path]:
    """A dotted folder beside `out` that takes its name at the end; what stood there goes away only then.

    Where the process is stopped between the two renamings, the former bundle is put back by the next call.
    """
    out = Path(os.path.abspath(out))
    building, former = out.with_name(f".{out.name}.new"), out.with_name(f".{out.name}.old")
    try:
        _put_back(former, out)
        for leftover in (building, former):
            shutil.rmtree(leftover, ignore_errors=True)
        building.mkdir(parents=True)
        yield building
        if out.exists():
            os.rename(out, former)
        os.rename(building, out)
    except OSError as error:
        raise MribatchError(f"could not write {out}: {error.strerror or error}", "choose another --out") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
        with contextlib.suppress(OSError):  # where even this fails, `former` stays and the next call tries again
            _put_back(former, out)
            shutil.rmtree(former, ignore_errors=True)


def _put_back(former: Path, out: Path) -> None:
    if former.is_dir() and not out.exists():
        os.rename(former, out)


@contextlib.contextmanager
def _quiet_converter() -> Iterator[None]:
    """tf2onnx logs to the root of its own tree at import; keep that from the user's screen."""
    logger = logging.getLogger("tf2onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
