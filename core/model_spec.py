"""ModelSpec: how a model's pixels are made and what its outputs mean. Travels with the weights as bundle.json.

Training writes it; every other part only reads it. No other place knows class order, image size or scaling.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Self

from mribatch.core.errors import BundleError

FORMAT_VERSION = 1
INPUT_NAME = "images"
OUTPUT_NAME = "probabilities"

FP32, FP16, INT8 = "fp32", "fp16", "int8"
"""Precision of a backend's weights and activations."""

SOFTMAX = "softmax"
NORMALISED_SIGMOID = "sigmoid divided by the sum of all sigmoids"
ACTIVATIONS = (SOFTMAX, NORMALISED_SIGMOID)
"""What turns the graph's last numbers into probabilities; a record for people, the graph has it inside."""

MAX_SIDE = 4096
MAX_CLASSES = 1000
_CLASS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIX = "export the model again"

# The spellings that public sets of brain tumour slices use for their folders, lower case, "tumor" for "tumour", and
# without spaces, hyphens and underscores.
_TUMOR_KINDS = (
    frozenset({"glioma", "gliomas", "gliomatumor", "gliomatumors", "brainglioma"}),
    frozenset({"meningioma", "meningiomas", "meningiomatumor", "meningiomatumors", "brainmenin", "brainmeningioma"}),
    frozenset({"pituitary", "pituitarytumor", "pituitarytumors"}),
)
_ANY_TUMOR = frozenset({"tumor", "tumors", "braintumor", "braintumors", "yes"})
_NO_TUMOR = frozenset({"notumor", "notumors", "no", "none", "normal", "healthy"})
_NOT_ABOUT_TUMORS = frozenset({"yes", "no", "none", "normal", "healthy"})  # alone, they could answer any question


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a backend may be from Keras on the golden slices.

    `fp32`, `fp16` and `int8` bound |Δp| of any class; where the golden margin (best minus second probability) exceeds
    `margin`, for int8 `int8_margin`, the predicted class must be the same. The last two are None in a bundle without an
    INT8 graph.
    """

    fp32: float = 1e-4
    fp16: float = 0.01
    margin: float = 0.02
    int8: float | None = None
    int8_margin: float | None = None

    def limit(self, precision: str) -> float:
        """The bound on |Δp| for "fp32", "fp16" or "int8".

        Raises:
            ValueError: It is "int8", and the bundle has no INT8 graph.
        """
        if precision == INT8:
            return _known(self.int8)
        return self.fp16 if precision == FP16 else self.fp32

    def clear_margin(self, precision: str) -> float:
        """The golden margin above which the class must be the same; raises as `limit`."""
        return _known(self.int8_margin) if precision == INT8 else self.margin


def _known(limit: float | None) -> float:
    if limit is None:
        raise ValueError("the bundle has no INT8 graph")
    return limit


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The contract of one model bundle. Immutable; checked on construction.

    Raises:
        BundleError: A field is missing, of the wrong type, or outside its range; names the field and its value.
    """

    name: str
    classes: tuple[str, ...]  # in the order of the output columns
    aliases: Mapping[str, str]  # other spelling -> class name; used for labels only, never for outputs
    height: int  # pixels of the graph's input
    width: int  # pixels of the graph's input
    model_sha256: str  # hex, of model.onnx
    golden_sha256: str  # hex, of golden.npz
    training_images_sha256: str | None = None  # hex, of training_images.npz; None where the bundle has none
    training_look_sha256: str | None = None  # hex, of training_look.npz; None where the bundle has none
    int8_sha256: str | None = None  # hex, of model.int8.onnx; None where the bundle has none
    trained: bool  # False: random weights, every output must say so
    activation: str = SOFTMAX  # one of ACTIVATIONS
    temperature: float = 1.0  # record of what the graph already divides its logits by
    tolerance: Tolerance = field(default_factory=Tolerance)
    colour: str = "grey"  # one channel in; an RGB network repeats it inside the graph
    resize: str = "linear"  # stretched to height x width, no antialiasing
    value_range: tuple[int, int] = (0, 255)  # of the uint8 input; normalisation is inside the graph
    description: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)  # recipe, data fingerprint, protocol
    metrics: tuple[Mapping[str, Any], ...] = ()  # each with its protocol and leak rate
    licences: Mapping[str, str] = field(default_factory=dict)  # of weights and of training data
    int8: Mapping[str, Any] = field(default_factory=dict)  # how the INT8 graph was made, and how it agrees; a record

    def __post_init__(self) -> None:
        _check(bool(_CLASS_NAME.fullmatch(self.name)), "name", self.name)
        _check(2 <= len(self.classes) <= MAX_CLASSES, "classes", f"{len(self.classes)} of them")
        wrong = next((name for name in self.classes if not _CLASS_NAME.fullmatch(name)), None)
        _check(wrong is None, "classes", wrong)
        _check(are_class_names(self.classes), "classes", self.classes)
        classes, spelled = set(self.classes), set(map(normalise_label, self.classes))  # a table may have many aliases
        for alias, target in self.aliases.items():
            fits = target in classes and normalise_label(alias) not in spelled
            _check(fits, "aliases", f"{alias} -> {target}")
        _check(1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE, "input", f"{self.height}x{self.width}")
        _check(bool(_SHA256.fullmatch(self.model_sha256)), "model_sha256", self.model_sha256)
        _check(bool(_SHA256.fullmatch(self.golden_sha256)), "golden_sha256", self.golden_sha256)
        for name in ("training_images_sha256", "training_look_sha256", "int8_sha256"):
            digest = getattr(self, name)
            _check(digest is None or bool(_SHA256.fullmatch(digest)), name, digest)
        _check(self.activation in ACTIVATIONS, "activation", self.activation)
        _check(0.01 <= self.temperature <= 100, "temperature", self.temperature)
        for limit in (self.tolerance.fp32, self.tolerance.fp16, self.tolerance.margin):
            _check(0 < limit < 0.5, "tolerance", limit)
        for extra in (self.tolerance.int8, self.tolerance.int8_margin):
            _check((extra is None) == (self.int8_sha256 is None), "tolerance", extra)
            _check(extra is None or 0 < extra < 1, "tolerance", extra)
        _check(self.colour == "grey", "colour", self.colour)
        _check(self.resize == "linear", "resize", self.resize)
        _check(self.value_range == (0, 255), "value_range", self.value_range)

    def label_of(self, text: str) -> str | None:
        """The class that a folder name or a label in a table means, or None. Case, spaces and hyphens do not matter.

        The classes come first, then the aliases of the bundle, then the spellings that public sets use.
        """
        found = self._names.get(normalise_label(text))
        return found if found is not None else self._known_spellings.get(_fold_spelling(text))

    @cached_property
    def _names(self) -> Mapping[str, str]:
        names = {normalise_label(name): name for name in self.classes}
        for alias, name in self.aliases.items():
            names.setdefault(normalise_label(alias), name)
        return names

    @cached_property
    def _known_spellings(self) -> Mapping[str, str]:
        return known_spellings(self.classes)

    @property
    def notice(self) -> str | None:
        """What every output must say about this model beside its results; None for a trained one."""
        if self.trained:
            return None
        return f"'{self.name}' is not a trained model: its weights are random and its predictions mean nothing"

    def to_json(self) -> dict[str, Any]:
        """The content of bundle.json; `from_json` gives an equal spec back."""
        content = asdict(self)
        for name in ("training_images_sha256", "training_look_sha256"):
            if content[name] is None:
                del content[name]
        if self.int8_sha256 is None:
            del content["int8_sha256"], content["int8"]
            del content["tolerance"]["int8"], content["tolerance"]["int8_margin"]
        size = {"name": INPUT_NAME, "dtype": "uint8", "layout": "NHWC", "height": content.pop("height")}
        size |= {"width": content.pop("width"), "colour": content.pop("colour"), "resize": content.pop("resize")}
        size |= {"antialias": False, "value_range": list(content.pop("value_range"))}
        output = {"name": OUTPUT_NAME, "dtype": "float32", "activation": content.pop("activation")}
        content |= {"classes": list(self.classes), "metrics": list(self.metrics)}
        return {"format_version": FORMAT_VERSION, "input": size, "output": output} | content

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Read the content of a bundle.json.

        Raises:
            BundleError: Not our format, a newer format, or a field that does not fit.
        """
        _check(isinstance(content, dict), "bundle.json", "not a JSON object")
        version = content.get("format_version")
        if version != FORMAT_VERSION:
            raise BundleError(
                f"the model bundle has format version {version!r}, this mribatch reads {FORMAT_VERSION}", _FIX
            )
        shape, output = _take(content, "input", dict), _take(content, "output", dict)
        _check(shape.get("name") == INPUT_NAME and shape.get("dtype") == "uint8", "input", shape)
        _check(shape.get("layout") == "NHWC" and shape.get("antialias") is False, "input", shape)
        _check(output.get("name") == OUTPUT_NAME and output.get("dtype") == "float32", "output", output)
        classes = _take(content, "classes", list)
        tolerance = _take(content, "tolerance", dict)
        return cls(
            name=_take(content, "name", str),
            classes=tuple(str(name) for name in classes),
            aliases={str(alias): str(name) for alias, name in _take(content, "aliases", dict).items()},
            height=_take(shape, "height", int),
            width=_take(shape, "width", int),
            colour=_take(shape, "colour", str),
            resize=_take(shape, "resize", str),
            value_range=_pair(shape, "value_range"),
            model_sha256=_take(content, "model_sha256", str),
            golden_sha256=_take(content, "golden_sha256", str),
            training_images_sha256=_take_optional(content, "training_images_sha256", str),
            training_look_sha256=_take_optional(content, "training_look_sha256", str),
            int8_sha256=_take_optional(content, "int8_sha256", str),
            trained=_take(content, "trained", bool),
            activation=output.get("activation", SOFTMAX),  # bundles of earlier versions may lack it
            temperature=_number(content, "temperature"),
            tolerance=_read_tolerance(tolerance),
            description=str(content.get("description", "")),
            training=_take(content, "training", dict),
            metrics=tuple(_take(content, "metrics", list)),
            licences=_take(content, "licences", dict),
            int8=_take_optional(content, "int8", dict) or {},
        )


def are_class_names(names: Sequence[str]) -> bool:
    """Whether a bundle may have these classes: distinct, and of letters, digits and `_.-` alone."""
    return len(set(map(normalise_label, names))) == len(names) and all(map(_CLASS_NAME.fullmatch, names))


def normalise_label(text: str) -> str:
    """Lower case, with every run of spaces, hyphens and underscores as one underscore, and none at the ends."""
    return re.sub(r"[\s_-]+", "_", text.casefold()).strip("_")


def known_spellings(classes: Sequence[str]) -> dict[str, str]:
    """How public sets of brain tumour slices spell the folders of these classes.

    Empty for a model of something else: at least one class must be named after a tumor. A spelling that fits two
    classes is left out, and "tumor" or "yes" means a class only where none is named after a kind of tumor.

    Returns:
        Spelling -> class; spelled in lower case, with "tumor" for "tumour", without spaces, hyphens and underscores.
    """
    folded = {name: _fold_spelling(name) for name in classes}
    kinds_named = any(spelling in kind for spelling in folded.values() for kind in _TUMOR_KINDS)
    groups = (*_TUMOR_KINDS, _NO_TUMOR) if kinds_named else (_ANY_TUMOR, _NO_TUMOR)
    about_tumors = frozenset().union(*groups) - _NOT_ABOUT_TUMORS
    if about_tumors.isdisjoint(folded.values()):
        return {}
    found: dict[str, str] = {}
    for group in groups:
        members = [name for name, spelling in folded.items() if spelling in group]
        if len(members) == 1:
            found |= dict.fromkeys(sorted(group), members[0])
    return found


def find_known_spelling(text: str, classes: Sequence[str]) -> str | None:
    """The class that a folder's name means by `known_spellings`, or None."""
    return known_spellings(classes).get(_fold_spelling(text))


def find_no_tumor_class(classes: Sequence[str]) -> str | None:
    """The class that means that there is no tumor, by the spellings of public sets; None where there is none or two."""
    found = [name for name in classes if _fold_spelling(name) in _NO_TUMOR]
    return found[0] if len(found) == 1 else None


def _fold_spelling(text: str) -> str:
    return normalise_label(text).replace("_", "").replace("tumour", "tumor")


def _take(content: Mapping[str, Any], key: str, kind: type) -> Any:
    value = content.get(key)
    _check(isinstance(value, kind) and not (kind is int and isinstance(value, bool)), key, value)
    return value


def _take_optional(content: Mapping[str, Any], key: str, kind: type) -> Any:
    return _take(content, key, kind) if key in content else None


def _read_tolerance(content: Mapping[str, Any]) -> Tolerance:
    given = [key for key in ("int8", "int8_margin") if key in content]  # only in a bundle with an INT8 graph
    return Tolerance(**{key: _number(content, key) for key in ("fp32", "fp16", "margin", *given)})


def _pair(content: Mapping[str, Any], key: str) -> tuple[int, int]:
    value = _take(content, key, list)
    _check(len(value) == 2 and all(isinstance(item, int) for item in value), key, value)
    return value[0], value[1]


def _number(content: Mapping[str, Any], key: str) -> float:
    value: Any = content.get(key)
    _check(isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9, key, value)
    return float(value)  # without the bound, an integer of 400 digits would overflow here


def _check(holds: bool, field_name: str, value: object) -> None:
    if not holds:
        raise BundleError(f"the model bundle's field '{field_name}' does not fit: {str(value)[:200]}", _FIX)
