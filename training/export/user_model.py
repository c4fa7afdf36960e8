"""A user's own classifier, Keras or ONNX -> a model bundle, in the steps of `export_model`."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mribatch.core.about import RESEARCH_NOTICE, __version__
from mribatch.core.agreement import Agreement
from mribatch.core.bundle import SPEC_FILE
from mribatch.core.errors import MribatchError
from mribatch.core.text import one_line
from mribatch.training.data.classes import ClassList
from mribatch.training.export.bundle import BundleFacts, Source, check_names, check_replaceable, publish_bundle
from mribatch.training.export.declarations import MeanAndStd, OutputKind, Scale
from mribatch.training.export.golden import COUNT, LEAST_SPREAD, ChosenGolden, choose_golden
from mribatch.training.export.keras_classifier import inspect_classifier
from mribatch.training.export.keras_file import load_network, read_file_facts
from mribatch.training.export.model_facts import ExportFacts, FileFacts, ModelFacts
from mribatch.training.export.onnx_classifier import inspect_graph
from mribatch.training.export.onnx_file import SUFFIX, load_graph, read_onnx_facts
from mribatch.training.export.outputs import Ending
from mribatch.training.export.pixels import PixelInput, Scaling

Echo = Callable[[str], None]

_SIGMOIDS = "sigmoid divided by the sum of all sigmoids"
_OUTPUTS = {
    Ending(OutputKind.PROBABILITIES): "its own softmax",
    Ending(OutputKind.LOGITS): "logits, to which the graph adds a softmax",
    Ending(OutputKind.SIGMOID): "sigmoids, each of which the graph divides by their sum",
    Ending(OutputKind.LOGITS, single=True): "one logit z; the graph gives 1 - sigmoid(z) and sigmoid(z)",
    Ending(OutputKind.SIGMOID, single=True): "one sigmoid p; the graph gives 1 - p and p",
}
_PROBABILITIES = {
    Ending(OutputKind.PROBABILITIES): "softmax",
    Ending(OutputKind.LOGITS): "softmax",
    Ending(OutputKind.SIGMOID): _SIGMOIDS,
    Ending(OutputKind.LOGITS, single=True): "1 - sigmoid and sigmoid of one logit",
    Ending(OutputKind.SIGMOID, single=True): "1 - p and p of one sigmoid p",
}
_SIGMOID_NOTE = """- The probabilities are p_i / (p_1 + … + p_k) of the model's sigmoids p, as in Keras' categorical
  cross-entropy during training; the largest sigmoid stays the largest. They say how the classes compare, not how
  likely any of them is: with four classes, sigmoids of 0.01 each and sigmoids of 0.99 each both become 0.25. A sigmoid
  under 2^-126 counts as 2^-126.
"""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What `mribatch export` was asked to do."""

    model: Path  # a .keras or an .onnx file
    out: Path
    classes: ClassList
    scale: Scaling | None = None  # None: layers of the model scale the pixels
    scale_twice: bool = False  # trained on images that were scaled outside as well as by the model's own layers
    outputs: OutputKind | None = None  # one of DECLARABLE; None: what the last layer says
    size: int | None = None  # height and width, pixels, for a model that takes any
    name: str | None = None  # of the bundle; None: the name of its folder
    licence: str = "not stated"  # of the weights
    untrained: bool = False  # the weights are random: the bundle says so
    overwrite: bool = False


@dataclass(frozen=True)
class ExportResult:
    """The bundle and how well its graph agrees with the model that it was made from."""

    out: Path
    agreement: Agreement
    reference: str  # what the graph was compared with
    facts: ExportFacts


@dataclass(frozen=True)
class UserModel:
    """A classifier that was loaded and inspected."""

    source: Source
    pixels: PixelInput
    ending: Ending
    framework: str  # "Keras" or "ONNX"
    weights: int
    origin: FileFacts


def export_model(options: ExportOptions, echo: Echo) -> ExportResult:
    """Load, inspect, convert, gate, and only then give the bundle its name.

    Raises:
        MribatchError: Model, options or folder do not fit; nothing was written.
    """
    name = options.name or options.out.resolve().name
    check_names(name, options.classes)
    _check_out(options)
    known = _load_onnx(options) if options.model.suffix.lower() == SUFFIX else _load_keras(options)
    for line in (*_describe(known, options), *known.pixels.notes):
        echo(line)
    golden = _choose_golden(known, options)
    model = _describe_model(known, golden)
    facts = BundleFacts(
        name=name,
        classes=options.classes,
        trained=not options.untrained,
        activation=_SIGMOIDS if known.ending == Ending(OutputKind.SIGMOID) else "softmax",
        description=_describe_in_one_line(known),
        training=model.to_json(),
        licences={"weights": options.licence, "training_data": "not stated"},
    )
    card = write_user_card(name, options, known, model)
    agreement = _publish(known, facts, card, options.out, golden)
    if options.untrained:
        echo(f"NOTE: '{name}' is marked as not trained: its runs and reports say that its predictions mean nothing.")
    result = ExportFacts(
        name=name,
        out=str(options.out),
        model=model,
        trained=not options.untrained,
        golden_max_difference=agreement.max_difference,
    )
    return ExportResult(options.out, agreement, known.source.reference, result)


def _load_keras(options: ExportOptions) -> UserModel:
    model = load_network(options.model)
    known = inspect_classifier(
        model,
        len(options.classes.names),
        scale=options.scale,
        declared=options.outputs,
        size=options.size,
        scale_twice=options.scale_twice,
    )
    facts = read_file_facts(options.model)
    return UserModel(known.to_source(), known.pixels, known.ending, "Keras", model.count_params(), facts)


def _load_onnx(options: ExportOptions) -> UserModel:
    model = load_graph(options.model)
    known = inspect_graph(
        model,
        len(options.classes.names),
        scale=options.scale,
        declared=options.outputs,
        size=options.size,
        scale_twice=options.scale_twice,
    )
    weights = sum(math.prod(tensor.dims) for tensor in model.graph.initializer)
    facts = read_onnx_facts(options.model, model)
    return UserModel(known, known.pixels, known.ending, "ONNX", weights, facts)


def _choose_golden(known: UserModel, options: ExportOptions) -> ChosenGolden:
    """Refuse a model that gives every slice one answer, unless it is declared to be untrained."""
    chosen = choose_golden(known.source.height, known.source.width, known.source.answers)
    if not chosen.varies and not options.untrained:
        raise MribatchError(
            f"the model gives {COUNT} different slices, noise and plain areas the same answer (no class moves by more"
            f" than {chosen.spread:.1g}; {LEAST_SPREAD} is needed), so comparing the bundle with it proves nothing",
            "check --scale and that the trained weights were saved; for random weights, give --untrained, and every"
            " run of the bundle says that its predictions mean nothing",
        )
    return chosen


def write_user_card(name: str, options: ExportOptions, known: UserModel, facts: ModelFacts) -> str:
    """Return MODEL_CARD.md of a model of which only the file is known."""
    pixels, classes = known.pixels, ", ".join(options.classes.names)
    notes = "".join(f"- Note: {note}.\n" for note in pixels.notes)
    sigmoids = _SIGMOID_NOTE if known.ending == Ending(OutputKind.SIGMOID) else ""
    first, second = _describe(known, options)
    untrained = (
        "**Not trained: its weights are random and its predictions mean nothing.** " if options.untrained else ""
    )
    reference = known.source.reference
    return f"""# {name}

**{RESEARCH_NOTICE}**

{untrained}A user's own {known.framework} model, exported by mribatch {__version__}.
**How good it is is not known here**: mribatch did not train it and has only checked that the exported graph gives the
same probabilities as {reference} on {COUNT} golden slices, over which its answers vary by up to
{facts.golden_spread:.3f}. Measure it with
`mribatch classify` and `mribatch report` on labelled images that it was not trained on.

## Intended use

Research only, as its author decides. It must not be used to diagnose, to triage patients or to inform any decision
about a person. It assigns one of its own classes to every picture, even to a picture of something else.

## Input and output

- Classes, in the order of the outputs: {classes}. The order was declared by the user and cannot be checked here.
- Input: grey slices, 8 bit, stretched to {pixels.height} x {pixels.width} pixels (height x width; linear, no
  antialiasing), values 0 to 255. A model trained on images that were resized in another way (cropped, padded,
  antialiased) gives other figures here than in its training.
- {first}
- {second}
{sigmoids}{notes}
## Origin

- File: `{facts.origin.file}`, sha256 `{facts.origin.sha256}`, saved by {facts.origin.writer}.
- Weights: {known.weights:,}. Training data, protocol and figures: not stated.

## Licences

- Weights: {options.licence}.
- Training data: not stated.
"""


def _check_out(options: ExportOptions) -> None:
    check_replaceable(options.out)
    if (options.out / SPEC_FILE).is_file() and not options.overwrite:
        raise MribatchError(f"{options.out} already holds a bundle", "choose another --out, or add --overwrite")


def _describe(known: UserModel, options: ExportOptions) -> tuple[str, str]:
    pixels = known.pixels
    grey = "grey as stored" if pixels.channels == 1 else "grey repeated to three channels"
    inside = f"by the model's own {', '.join(pixels.scaling_layers)}"
    given = f"--{pixels.scale}" if isinstance(pixels.scale, MeanAndStd) else f"--scale {pixels.scale}"
    if pixels.scaling_layers and pixels.scale is not Scale.NONE:
        scaling = f"scaled by the graph ({given}) and once more {inside}"
    elif pixels.scaling_layers:
        scaling = f"scaled {inside}"
    elif pixels.scale is Scale.NONE:
        scaling = "not scaled (--scale none)"
    else:
        scaling = f"scaled by the graph ({given})"
    ending = _OUTPUTS[known.ending]
    if known.ending.single:
        ending += f", for {' and '.join(options.classes.names)} in this order"
    return (
        f"Pixels: {pixels.height} x {pixels.width}, {grey}, {scaling}.",
        f"Output: {len(options.classes.names)} classes; the model ends in {ending}.",
    )


def _describe_in_one_line(known: UserModel) -> str:
    text = f"a user's own {known.framework} model, {known.weights:,} weights"
    if known.ending.kind is not OutputKind.SIGMOID:
        return text
    ending = "one sigmoid, for the second class" if known.ending.single else "its sigmoids are divided by their sum"
    return f"{text}; {ending}"


def _describe_model(known: UserModel, golden: ChosenGolden) -> ModelFacts:
    return ModelFacts(
        source=f"a user's own {known.framework} model",
        origin=known.origin,
        weights=known.weights,
        channels=known.pixels.channels,
        scale=str(known.pixels.scale),
        scaled_by_layers=tuple(known.pixels.scaling_layers),
        ends_in=f"one {known.ending.kind}" if known.ending.single else str(known.ending.kind),
        probabilities=_PROBABILITIES[known.ending],
        golden_spread=round(golden.spread, 6),
    )


def _publish(known: UserModel, facts: BundleFacts, card: str, out: Path, golden: ChosenGolden) -> Agreement:
    import onnx
    from onnx.shape_inference import InferenceError

    try:
        return publish_bundle(known.source, facts, card, out, golden.golden)
    except (ValueError, TypeError, NotImplementedError, onnx.checker.ValidationError, InferenceError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        fix = "replace the layer named above, or report this with the versions of keras and tf2onnx"
        if known.framework == "ONNX":
            fix = "export it with a dynamic batch and opset 17: torch.onnx.export(…, opset_version=17, dynamic_axes=…)"
        raise MribatchError(
            f"the model cannot be written as a graph of standard ONNX operators: {one_line(reason)[:200]}", fix
        ) from error
