import copy
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mribatch.core.errors import MribatchError
from mribatch.core.model_spec import ACTIVATIONS, NORMALISED_SIGMOID, ModelSpec, Tolerance, normalise_label
from tests.make_models import ALIASES, CLASSES

SPEC = ModelSpec(
    name="tiny",
    classes=CLASSES,
    aliases=ALIASES,
    height=160,
    width=128,
    trained=False,
    model_sha256="a" * 64,
    golden_sha256="b" * 64,
)

FIELD = "the model bundle's field '{}' does not fit: {}"

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
numbers = st.floats(1e-6, 0.49)
plain_json = st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()))


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    classes = tuple(draw(st.lists(names, min_size=2, max_size=6, unique_by=normalise_label)))
    taken = {normalise_label(name) for name in classes}
    spellings = draw(st.lists(st.text(min_size=1).filter(lambda text: normalise_label(text) not in taken), max_size=4))
    return ModelSpec(
        name=draw(names),
        classes=classes,
        aliases={spelling: draw(st.sampled_from(classes)) for spelling in spellings},
        height=draw(st.integers(1, 4096)),
        width=draw(st.integers(1, 4096)),
        model_sha256=draw(hashes),
        golden_sha256=draw(hashes),
        trained=draw(st.booleans()),
        activation=draw(st.sampled_from(ACTIVATIONS)),
        temperature=draw(st.floats(0.01, 100)),
        tolerance=Tolerance(fp32=draw(numbers), fp16=draw(numbers), margin=draw(numbers)),
        description=draw(st.text()),
        training=draw(plain_json),
        metrics=tuple(draw(st.lists(plain_json, max_size=2))),
        licences=draw(st.dictionaries(st.text(), st.text(), max_size=2)),
    )


@settings(max_examples=100, deadline=None)
@given(specs())
def test_json_gives_an_equal_spec_back(spec: ModelSpec) -> None:
    assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@settings(max_examples=100, deadline=None)
@given(specs(), st.data())
def test_a_class_is_found_in_any_case_and_with_any_separator(spec: ModelSpec, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(spec.classes))
    separator = data.draw(st.sampled_from(["_", "-", " ", " - ", "__"]))
    spelling = f" {separator.join(name.replace('-', '_').split('_'))} "
    assert spec.label_of(spelling) == name
    assert spec.label_of(spelling.upper()) == name


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("glioma_tumor", "glioma_tumor"),
        ("Glioma", "glioma_tumor"),
        ("GLIOMA TUMOUR", "glioma_tumor"),
        ("meningioma", "meningioma_tumor"),
        ("Meningioma-Tumors", "meningioma_tumor"),
        ("notumor", "no_tumor"),
        ("no", "no_tumor"),
        ("No Tumour", "no_tumor"),
        ("healthy", "no_tumor"),
        ("Normal", "no_tumor"),
        (" pituitary ", "pituitary_tumor"),
        ("pituitary tumor", "pituitary_tumor"),
        ("yes", None),
        ("tumor", None),
        ("Training", None),
        ("glioma_2", None),
        ("", None),
    ],
)
def test_labels_as_people_write_them(text: str, label: str | None) -> None:
    assert SPEC.label_of(text) == label


def test_an_untrained_model_says_so_and_a_trained_one_does_not() -> None:
    assert SPEC.notice == "'tiny' is not a trained model: its weights are random and its predictions mean nothing"
    trained = ModelSpec.from_json(SPEC.to_json() | {"trained": True})
    assert trained.notice is None


def test_the_contract_of_the_graph_stands_in_the_file() -> None:
    content = SPEC.to_json()
    assert content["input"] == {
        "name": "images",
        "dtype": "uint8",
        "layout": "NHWC",
        "height": 160,
        "width": 128,
        "colour": "grey",
        "resize": "linear",
        "antialias": False,
        "value_range": [0, 255],
    }
    assert content["output"] == {"name": "probabilities", "dtype": "float32", "activation": "softmax"}
    assert list(content) == [
        "format_version",
        "input",
        "output",
        "name",
        "classes",
        "aliases",
        "model_sha256",
        "golden_sha256",
        "trained",
        "temperature",
        "tolerance",
        "description",
        "training",
        "metrics",
        "licences",
    ], "the hash of bundle.json is a model's identity: its fields keep their order"


def test_the_activation_survives_the_round_trip_and_is_softmax_where_it_is_missing() -> None:
    content = SPEC.to_json()
    content["output"]["activation"] = NORMALISED_SIGMOID
    sigmoid = ModelSpec.from_json(content)
    assert sigmoid.activation == NORMALISED_SIGMOID and sigmoid.to_json() == content
    del content["output"]["activation"]
    assert ModelSpec.from_json(content) == SPEC


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        ("format_version", 2, "the model bundle has format version 2, this mribatch reads 1"),
        ("format_version", None, "the model bundle has format version None, this mribatch reads 1"),
        ("name", "../etc", FIELD.format("name", "../etc")),
        ("name", 7, FIELD.format("name", "7")),
        ("classes", ["one"], FIELD.format("classes", "1 of them")),
        ("classes", ["a", "a"], FIELD.format("classes", "('a', 'a')")),
        ("classes", ["no-tumor", "No_Tumor"], FIELD.format("classes", ("no-tumor", "No_Tumor"))),
        ("classes", ["a", "b/c"], FIELD.format("classes", "b/c")),
        ("classes", [str(n) for n in range(1001)], FIELD.format("classes", "1001 of them")),
        ("aliases", {"x": "unknown"}, FIELD.format("aliases", "x -> unknown")),
        ("aliases", {"No Tumor": "glioma_tumor"}, FIELD.format("aliases", "No Tumor -> glioma_tumor")),
        ("input.height", 0, FIELD.format("input", "0x128")),
        ("input.width", 5000, FIELD.format("input", "160x5000")),
        ("input.height", True, FIELD.format("height", "True")),
        ("output.activation", "relu", FIELD.format("activation", "relu")),
        ("output.activation", None, FIELD.format("activation", "None")),
        ("input.colour", "rgb", FIELD.format("colour", "rgb")),
        ("input.resize", "area", FIELD.format("resize", "area")),
        ("input.value_range", [0, 1], FIELD.format("value_range", "(0, 1)")),
        ("model_sha256", "A" * 64, FIELD.format("model_sha256", "A" * 64)),
        ("temperature", 0, FIELD.format("temperature", "0.0")),
        ("temperature", float("nan"), FIELD.format("temperature", "nan")),
        ("temperature", "1", FIELD.format("temperature", "1")),
        ("trained", 1, FIELD.format("trained", "1")),
        ("tolerance.fp32", 0.5, FIELD.format("tolerance", "0.5")),
        ("tolerance.margin", None, FIELD.format("margin", "None")),
    ],
)
def test_a_field_that_does_not_fit_is_named_with_its_value(place: str, value: object, problem: str) -> None:
    content: dict[str, Any] = copy.deepcopy(SPEC.to_json())
    *parents, key = place.split(".")
    target = content
    for parent in parents:
        target = target[parent]
    target[key] = value
    with pytest.raises(MribatchError) as caught:
        ModelSpec.from_json(content)
    assert caught.value.problem == problem


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.data(), any_json | st.just(10**400) | st.just(-(10**400)))
def test_any_json_in_any_place_is_read_or_refused_in_one_line(data: st.DataObject, value: object) -> None:
    content: Any = copy.deepcopy(SPEC.to_json())
    target = content
    while True:
        key = data.draw(st.sampled_from(sorted(target)))
        if not isinstance(target[key], dict) or not target[key] or data.draw(st.booleans()):
            break
        target = target[key]
    target[key] = value
    try:
        ModelSpec.from_json(content)
    except MribatchError as error:
        assert len(str(error).splitlines()) == 1


# ------------------------------------------------------------------------------------------ spellings of public sets


def spec_of(*classes: str) -> ModelSpec:
    return dataclasses.replace(SPEC, classes=classes, aliases={})


@pytest.mark.parametrize(
    "classes",
    [
        ("glioma", "meningioma", "no_tumor", "pituitary"),
        ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor"),
        ("Glioma", "Meningioma", "notumor", "Pituitary"),
        ("Glioma-Tumour", "Meningioma-Tumour", "healthy", "Pituitary-Tumour"),
    ],
)
def test_folders_of_public_sets_match_the_classes_in_any_spelling(classes: tuple[str, ...]) -> None:
    spec = spec_of(*classes)
    for number, folders in enumerate(
        (
            ("glioma", "glioma_tumor", "Glioma Tumour", "brain_glioma"),
            ("meningioma", "meningioma_tumor", "MENINGIOMA", "brain_menin"),
            ("no_tumor", "notumor", "no tumor", "No-Tumour", "healthy", "normal", "no", "none"),
            ("pituitary", "pituitary_tumor", "Pituitary Tumor"),
        )
    ):
        assert [spec.label_of(folder) for folder in folders] == [classes[number]] * len(folders)
    assert spec.label_of("yes") is spec.label_of("tumor") is spec.label_of("images") is None


def test_two_classes_of_a_tumor_or_none_have_their_spellings() -> None:
    spec = spec_of("tumor", "no_tumor")
    assert [spec.label_of(name) for name in ("yes", "Brain Tumor", "no", "healthy", "glioma")] == [
        "tumor",
        "tumor",
        "no_tumor",
        "no_tumor",
        None,
    ]


@pytest.mark.parametrize(
    ("classes", "folder"),
    [
        (("yes", "no"), "healthy"),  # of what, nobody knows
        (("benign", "malignant"), "tumor"),
        (("normal", "pneumonia"), "no"),
        (("no_tumor", "normal", "glioma"), "healthy"),  # could be either
    ],
)
def test_a_spelling_that_could_mean_something_else_matches_nothing(classes: tuple[str, ...], folder: str) -> None:
    assert spec_of(*classes).label_of(folder) is None


def test_a_class_and_an_alias_of_the_bundle_come_before_a_usual_spelling() -> None:
    spec = dataclasses.replace(SPEC, classes=("glioma", "no_tumor", "other"), aliases={"healthy": "other"})
    assert [spec.label_of(name) for name in ("healthy", "normal")] == ["other", "no_tumor"]
