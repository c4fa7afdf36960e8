"""A user's own Keras classifier -> a model bundle, in the steps of `export_keras`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mribatch.core.about import RESEARCH_NOTICE, __version__
from mribatch.core.agreement import Agreement
from mribatch.core.bundle import SPEC_FILE
from mribatch.core.errors import MribatchError
from mribatch.training.data.classes import ClassList
from mribatch.training.export.bundle import BundleFacts, check_names, check_replaceable, publish_bundle
from mribatch.training.export.declarations import OutputKind, Scale
from mribatch.training.export.keras_classifier import KerasClassifier, inspect_classifier
from mribatch.training.export.keras_file import load_network, read_file_facts

Echo = Callable[[str], None]

_OUTPUTS = {
    OutputKind.PROBABILITIES: "its own softmax",
    OutputKind.LOGITS: "logits, to which the graph adds a softmax",
    OutputKind.SIGMOID: "sigmoids, each of which the graph divides by their sum",
}
_ACTIVATIONS = {
    OutputKind.PROBABILITIES: "softmax",
    OutputKind.LOGITS: "softmax",
    OutputKind.SIGMOID: "sigmoid divided by the sum of all sigmoids",
}
_SUFFIXES = {OutputKind.SIGMOID: "; its sigmoids are divided by their sum"}
_SIGMOID_NOTE = """- The probabilities are p_i / (p_1 + … + p_k) of the model's sigmoids p, as in Keras' categorical
  cross-entropy during training; the largest sigmoid stays the largest. They say how the classes compare, not how
  likely any of them is: with four classes, sigmoids of 0.01 each and sigmoids of 0.99 each both become 0.25. A sigmoid
  under 2^-126 counts as 2^-126.
"""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What `mribatch export` was asked to do."""

    model: Path  # a .keras file
    out: Path
    classes: ClassList
    scale: Scale | None = None  # None: layers of the model scale the pixels
    outputs: OutputKind | None = None  # one of DECLARABLE; None: what the last layer says
    size: int | None = None  # height and width, pixels, for a model that takes any
    name: str | None = None  # of the bundle; None: the name of its folder
    licence: str = "not stated"  # of the weights
    overwrite: bool = False


@dataclass(frozen=True)
class ExportResult:
    """The bundle and how well its graph agrees with Keras."""

    out: Path
    agreement: Agreement
    facts: Mapping[str, Any] = field(default_factory=dict)  # for people and for --json


def export_keras(options: ExportOptions, echo: Echo) -> ExportResult:
    """Load, inspect, convert, gate, and only then give the bundle its name.

    Raises:
        MribatchError: Model, options or folder do not fit; nothing was written.
    """
    name = options.name or options.out.resolve().name
    check_names(name, options.classes)
    _check_out(options)
    model = load_network(options.model)
    known = inspect_classifier(
        model, len(options.classes.names), scale=options.scale, declared=options.outputs, size=options.size
    )
    for line in (*_describe(known), *known.pixels.notes):
        echo(line)
    training = {
        "source": "a user's own Keras model",
        **read_file_facts(options.model),
        **_collect_facts(known),
        "mribatch": __version__,
    }
    facts = BundleFacts(
        name=name,
        classes=options.classes,
        activation=_ACTIVATIONS[known.output],
        description=f"a user's own Keras model, {model.count_params():,} weights{_SUFFIXES.get(known.output, '')}",
        training=training,
        licences={"weights": options.licence, "training_data": "not stated"},
    )
    agreement = _publish(known, facts, write_user_card(name, options, known, training), options.out)
    return ExportResult(
        options.out,
        agreement,
        {"name": name, "out": str(options.out), **training, "golden_max_difference": agreement.max_difference},
    )


def write_user_card(name: str, options: ExportOptions, known: KerasClassifier, facts: Mapping[str, Any]) -> str:
    """Return MODEL_CARD.md of a model of which only the file is known."""
    pixels, classes = known.pixels, ", ".join(options.classes.names)
    notes = "".join(f"- Note: {note}.\n" for note in pixels.notes)
    return f"""# {name}

**{RESEARCH_NOTICE}**

A user's own Keras model, exported by mribatch {__version__}. **How good it is is not known here**: mribatch did not
train it and has only checked that the exported graph gives the same probabilities as Keras. Measure it with
`mribatch classify` and `mribatch report` on labelled images that it was not trained on.

## Intended use

Research only, as its author decides. It must not be used to diagnose, to triage patients or to inform any decision
about a person. It assigns one of its own classes to every picture, even to a picture of something else.

## Input and output

- Classes, in the order of the outputs: {classes}. The order was declared by the user and cannot be checked here.
- Input: grey slices, 8 bit, stretched to {pixels.height} x {pixels.width} pixels (height x width; linear, no
  antialiasing), values 0 to 255. A model trained on images that were resized in another way (cropped, padded,
  antialiased) gives other figures here than in its training.
- {_describe(known)[0]}
- {_describe(known)[1]}
{_SIGMOID_NOTE if known.output is OutputKind.SIGMOID else ""}{notes}
## Origin

- File: `{facts["file"]}`, sha256 `{facts["sha256"]}`, saved by Keras {facts["saved_by_keras"]}.
- Weights: {known.model.count_params():,}. Training data, protocol and figures: not stated.

## Licences

- Weights: {options.licence}.
- Training data: not stated.
"""


def _check_out(options: ExportOptions) -> None:
    check_replaceable(options.out)
    if (options.out / SPEC_FILE).is_file() and not options.overwrite:
        raise MribatchError(f"{options.out} already holds a bundle", "choose another --out, or add --overwrite")


def _describe(known: KerasClassifier) -> tuple[str, str]:
    pixels = known.pixels
    grey = "grey as stored" if pixels.channels == 1 else "grey repeated to three channels"
    if pixels.scaling_layers:
        scaling = f"scaled by the model's own {', '.join(pixels.scaling_layers)}"
    elif pixels.scale is Scale.NONE:
        scaling = "not scaled (--scale none)"
    else:
        scaling = f"scaled by the graph (--scale {pixels.scale})"
    return (
        f"Pixels: {pixels.height} x {pixels.width}, {grey}, {scaling}.",
        f"Output: {known.classes} classes; the model ends in {_OUTPUTS[known.output]}.",
    )


def _collect_facts(known: KerasClassifier) -> dict[str, Any]:
    pixels = known.pixels
    return {
        "weights": known.model.count_params(),
        "channels": pixels.channels,
        "scale": str(pixels.scale),
        "scaled_by_layers": list(pixels.scaling_layers),
        "ends_in": str(known.output),
        "probabilities": _ACTIVATIONS[known.output],
    }


def _publish(known: KerasClassifier, facts: BundleFacts, card: str, out: Path) -> Agreement:
    import onnx
    from onnx.shape_inference import InferenceError

    try:
        return publish_bundle(known.to_convertible(), facts, card, out)
    except (ValueError, TypeError, NotImplementedError, onnx.checker.ValidationError, InferenceError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise MribatchError(
            f"the model cannot be written as a graph of standard ONNX operators: {reason[:200]}",
            "replace the layer named above, or report this with the versions of keras and tf2onnx",
        ) from error
