"""A user's own Keras classifier -> a model bundle; `export_keras` is the table of contents."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mribatch.core.about import RESEARCH_NOTICE, __version__
from mribatch.core.agreement import Agreement
from mribatch.core.bundle import SPEC_FILE
from mribatch.core.errors import MribatchError
from mribatch.training.data.classes import ClassList
from mribatch.training.export.bundle import BundleFacts, check_names, check_replaceable, publish
from mribatch.training.export.keras_classifier import End, KerasClassifier, Scale, understand
from mribatch.training.export.keras_file import file_facts, load_network

Echo = Callable[[str], None]

_ENDS = {
    End.PROBABILITIES: "its own softmax",
    End.LOGITS: "logits, to which the graph adds a softmax",
    End.SIGMOID: "sigmoids, each of which the graph divides by their sum",
}
_ACTIVATIONS = {
    End.PROBABILITIES: "softmax",
    End.LOGITS: "softmax",
    End.SIGMOID: "sigmoid divided by the sum of all sigmoids",
}
_SUFFIXES = {End.SIGMOID: "; its sigmoids are divided by their sum"}
_SIGMOID_NOTE = """- The probabilities are p_i / (p_1 + … + p_k) of the model's sigmoids p, as Keras' categorical
  cross-entropy has them in training; the largest sigmoid stays the largest. They say how the classes compare, not how
  likely any of them is: with four classes, sigmoids of 0.01 each and sigmoids of 0.99 each both become 0.25. A sigmoid
  under 2^-126 counts as 2^-126.
"""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What `mribatch export` was asked for."""

    model: Path  # a .keras file
    out: Path
    classes: ClassList
    scale: Scale | None = None  # None: layers of the model scale
    outputs: End | None = None  # one of DECLARABLE; None: the last layer says what they are
    size: int | None = None  # pixels, for a model that takes any
    name: str | None = None  # of the bundle; its folder's name where not given
    licence: str = "not stated"  # of the weights
    overwrite: bool = False


@dataclass(frozen=True)
class ExportResult:
    """What came out."""

    out: Path
    agreement: Agreement
    facts: Mapping[str, Any] = field(default_factory=dict)  # for people and for --json


def export_keras(options: ExportOptions, echo: Echo) -> ExportResult:
    """Load, understand, convert, prove, and only then give the bundle its name.

    Raises:
        MribatchError: Something about the model, the options or the folder does not fit; nothing was written.
    """
    name = options.name or options.out.resolve().name
    check_names(name, options.classes)
    _check_out(options)
    model = load_network(options.model)
    known = understand(model, len(options.classes.names), options.scale, options.outputs, options.size)
    for line in (*_told(known), *known.pixels.notes):
        echo(line)
    training = {
        "source": "a user's own Keras model",
        **file_facts(options.model),
        **_facts(known),
        "mribatch": __version__,
    }
    facts = BundleFacts(
        name=name,
        classes=options.classes,
        activation=_ACTIVATIONS[known.end],
        description=f"a user's own Keras model, {model.count_params():,} weights{_SUFFIXES.get(known.end, '')}",
        training=training,
        licences={"weights": options.licence, "training_data": "not stated"},
    )
    agreement = _published(known, facts, model_card(name, options, known, training), options.out)
    return ExportResult(
        options.out,
        agreement,
        {"name": name, "out": str(options.out), **training, "golden_max_difference": agreement.max_difference},
    )


def model_card(name: str, options: ExportOptions, known: KerasClassifier, facts: Mapping[str, Any]) -> str:
    """MODEL_CARD.md of a model of which only the file is known."""
    pixels, classes = known.pixels, ", ".join(options.classes.names)
    notes = "".join(f"- Note: {note}.\n" for note in pixels.notes)
    return f"""# {name}

**{RESEARCH_NOTICE}**

A user's own Keras model, exported by mribatch {__version__}. **Nothing is known here about how good it is**: mribatch
did not train it and has measured nothing but that the exported graph gives the same probabilities as Keras. Measure it
with `mribatch classify` and `mribatch report` on labelled images that it was not trained on.

## Intended use

Research only, as its author decides. It must not be used to diagnose, to triage patients or to inform any decision
about a person. It gives every picture one of its own classes, also a picture that shows something else.

## Input and output

- Classes, in the order of the outputs: {classes}. The order is the user's statement and cannot be checked here.
- Input: grey slices, 8 bit, stretched to {pixels.height} x {pixels.width} pixels (height x width; linear, no
  antialiasing), values 0 to 255. A model trained on images that were resized otherwise (cropped, padded, antialiased)
  gives other figures here than in its training.
- {_told(known)[0]}
- {_told(known)[1]}
{_SIGMOID_NOTE if known.end is End.SIGMOID else ""}{notes}
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
        raise MribatchError(f"{options.out} already holds a bundle", "choose another --out, or --overwrite")


def _told(known: KerasClassifier) -> tuple[str, str]:
    pixels = known.pixels
    grey = "grey as it is" if pixels.channels == 1 else "grey repeated to three channels"
    if pixels.inside:
        scaling = f"scaled by the model's own {', '.join(pixels.inside)}"
    elif pixels.scale is Scale.NONE:
        scaling = "not scaled (--scale none)"
    else:
        scaling = f"scaled by the graph (--scale {pixels.scale})"
    return (
        f"Pixels: {pixels.height} x {pixels.width}, {grey}, {scaling}.",
        f"Output: {known.classes} classes; the model ends in {_ENDS[known.end]}.",
    )


def _facts(known: KerasClassifier) -> dict[str, Any]:
    pixels = known.pixels
    return {
        "weights": known.model.count_params(),
        "channels": pixels.channels,
        "scale": str(pixels.scale),
        "scaled_by_layers": list(pixels.inside),
        "ends_in": str(known.end),
        "probabilities": _ACTIVATIONS[known.end],
    }


def _published(known: KerasClassifier, facts: BundleFacts, card: str, out: Path) -> Agreement:
    import onnx
    from onnx.shape_inference import InferenceError

    try:
        return publish(known.convertible(), facts, card, out)
    except (ValueError, TypeError, NotImplementedError, onnx.checker.ValidationError, InferenceError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise MribatchError(
            f"the model cannot be written as a graph of standard ONNX operators: {reason[:200]}",
            "replace the layer that is named, or report this with the versions of keras and tf2onnx",
        ) from error
