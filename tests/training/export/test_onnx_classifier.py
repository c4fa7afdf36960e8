"""ONNX models of other frameworks: what is accepted, what is refused, and that the bundle is the user's model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

import onnx
import onnxruntime
from onnx import TensorProto, helper

from mribatch.core.bundle import load_bundle
from mribatch.core.errors import MribatchError
from mribatch.core.synthetic import golden_slices
from mribatch.training.data.classes import ClassList
from mribatch.training.export.declarations import MeanAndStd, OutputKind, Scale
from mribatch.training.export.user_model import ExportOptions, ExportResult, export_model
from tests.training import onnx_models as models
from tests.training.onnx_models import SIDE, classifier

NAMES, TWO = ClassList(("a", "b", "c")), ClassList(("negative", "positive"))


def export(model: Any, folder: Path, **changes: Any) -> ExportResult:
    path = models.saved(model, folder / "mine.onnx") if not isinstance(model, Path) else model
    options: dict[str, Any] = {"model": path, "out": folder / "bundle", "classes": NAMES, "scale": Scale.UNIT} | changes
    return export_model(ExportOptions(**options), print)


def refused(model: Any, folder: Path, **changes: Any) -> MribatchError:
    with pytest.raises(MribatchError) as caught:
        export(model, folder, **changes)
    assert "\n" not in str(caught.value) and not (folder / "bundle").exists()
    return caught.value


def ask(out: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(load_bundle(str(out)).model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["probabilities"], {"images": images})[0])


def by_hand(model: Any, images: np.ndarray, scaled: Any, *, channels: int, layout: str, kind: Any) -> np.ndarray:
    """What a user gets from the model alone, one image after the other."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    array = scaled(np.repeat(images.astype(np.float32), channels, axis=3)).astype(kind)
    array = array.transpose(0, 3, 1, 2) if layout == "NCHW" else array
    rows = [session.run(None, {model.graph.input[0].name: np.ascontiguousarray(row[None])})[0] for row in array]
    return np.asarray(np.concatenate(rows), dtype=np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def same(outputs: np.ndarray) -> np.ndarray:
    return outputs


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits)))


IMAGENET = (np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32))
# how the model is built, how it is exported, what a user divides by hand, what becomes of the outputs
ACCEPTED: dict[str, tuple[dict[str, Any], dict[str, Any], Any, Any]] = {
    "NCHW, 3 channels, logits": ({}, {}, lambda x: x / 255, softmax),
    "NHWC, 1 channel, softmax": ({"layout": "NHWC", "channels": 1, "end": "Softmax"}, {}, lambda x: x / 255, same),
    "uint8 NHWC, scaled inside": ({"layout": "NHWC", "kind": TensorProto.UINT8}, {"scale": None}, same, softmax),
    "float16": ({"kind": TensorProto.FLOAT16}, {}, lambda x: x / 255, softmax),
    "imagenet, batch of 1, Reshape": (
        {"batch": 1, "flatten": "Reshape"},
        {"scale": Scale.IMAGENET},
        lambda x: (x / 255 - IMAGENET[0]) / IMAGENET[1],
        softmax,
    ),
    "mean and std, opset 20": (
        {"opset": 20},
        {"scale": MeanAndStd((0.5,), (0.25,))},
        lambda x: (x / 255 - 0.5) / 0.25,
        softmax,
    ),
    "any size, opset 12": ({"side": "s", "opset": 12}, {"size": SIDE}, lambda x: x / 255, softmax),
    "sigmoids": (
        {"end": "Sigmoid"},
        {"outputs": OutputKind.SIGMOID},
        lambda x: x / 255,
        lambda p: p / p.sum(axis=1, keepdims=True),
    ),
    "one sigmoid": (
        {"outputs": 1, "end": "Sigmoid", "spread": 1.0},
        {"classes": TWO},
        lambda x: x / 255,
        lambda p: np.hstack([1 - p, p]),
    ),
    "one logit": (
        {"outputs": 1, "spread": 1.0},
        {"classes": TWO, "outputs": OutputKind.LOGITS},
        lambda x: x / 255,
        lambda z: np.hstack([1 - sigmoid(z), sigmoid(z)]),
    ),
    "log-softmax, -1..1": ({"end": "LogSoftmax"}, {"scale": Scale.SYMMETRIC}, lambda x: x / 127.5 - 1, np.exp),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_bundle_gives_what_the_user_gets_by_hand(name: str, tmp_path: Path) -> None:
    made, exported, scaled, ending = ACCEPTED[name]
    model = classifier(**made)
    out = export(model, tmp_path, **exported).out
    images = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 1), dtype=np.uint8)
    images = np.concatenate([images, golden_slices(5, SIDE, SIDE)])
    kinds = {TensorProto.UINT8: np.uint8, TensorProto.FLOAT16: np.float16}
    shape: dict[str, Any] = {"channels": made.get("channels", 3), "layout": made.get("layout", "NCHW")}
    outputs = by_hand(model, images, scaled, kind=kinds.get(made.get("kind", 0), np.float32), **shape)
    got = ask(out, images)
    assert np.abs(got - ending(outputs)).max() < 1e-4 * (10 if name == "float16" else 1)
    assert np.ptp(got, axis=0).max() > 0.01 and np.allclose(got.sum(axis=1), 1, atol=1e-5)
    graph = onnx.load_from_string((out / "model.onnx").read_bytes())
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 17)]
    assert b"secret" not in (out / "model.onnx").read_bytes()


def test_the_bundle_says_where_it_comes_from(tmp_path: Path) -> None:
    out = export(classifier(), tmp_path, licence="MIT").out
    content = json.loads((out / "bundle.json").read_text())
    assert content["training"]["source"] == "a user's own ONNX model" and content["training"]["opset"] == "17"
    assert content["trained"] is True and content["output"]["activation"] == "softmax"
    card = (out / "MODEL_CARD.md").read_text()
    assert "same probabilities as the ONNX model alone on 64 golden slices" in card and "Weights: MIT." in card


def test_weights_in_a_file_beside_the_model_travel_inside_the_bundle(tmp_path: Path) -> None:
    whole = export(classifier(), tmp_path, out=tmp_path / "whole").out
    model = classifier()
    (tmp_path / "mine.data").write_bytes(b"x" * 64 + model.graph.initializer[0].raw_data)
    path = models.saved_outside(model, tmp_path / "outside.onnx", "mine.data", offset=64)
    folded = export(path, tmp_path).out
    assert (folded / "model.onnx").read_bytes() == (whole / "model.onnx").read_bytes()


def test_weights_outside_the_models_folder_are_not_read(tmp_path: Path) -> None:
    """They would put what lies on this machine into a bundle that is passed on."""
    home, secret = tmp_path / "home", tmp_path / "secret"
    home.mkdir()
    secret.write_bytes(bytes(10_000))
    (home / "link").symlink_to(secret)
    (home / "folder").mkdir()
    for location in ("../secret", str(secret), "link", "folder", "a/../../secret", "", "..\\secret"):
        path = models.saved_outside(classifier(), home / "mine.onnx", location)
        assert "outside the model's folder" in refused(path, tmp_path).problem
    path = models.saved_outside(classifier(), home / "mine.onnx", "none.data")
    assert "cannot be read" in refused(path, tmp_path).problem


@pytest.mark.parametrize("entries", [{"length": 10**15}, {"offset": -4}, {"offset": 10**9}, {"length": "many"}])
def test_weights_that_their_file_cannot_hold_are_refused(entries: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "mine.data").write_bytes(bytes(10_000))
    path = models.saved_outside(classifier(), tmp_path / "mine.onnx", "mine.data", **entries)
    assert "cannot be read" in refused(path, tmp_path).problem


def two_inputs() -> Any:
    model = models.with_node("Add", inputs=("given", "extra"))
    model.graph.input.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, [1]))
    return model


def two_outputs() -> Any:
    model = classifier()
    model.graph.output.append(helper.make_tensor_value_info("t2", TensorProto.FLOAT, [None, 5, 1, 1]))
    return model


def double() -> Any:
    model = classifier()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    model.graph.node.insert(0, helper.make_node("Cast", ["images"], ["cast"], to=TensorProto.FLOAT))
    model.graph.node[1].input[0] = "cast"
    return model


def terabytes() -> Any:
    """A few bytes that ask for 4 TiB."""
    model = models.with_node("Add", inputs=("given", "huge"))
    sides = onnx.numpy_helper.from_array(np.array([1 << 20, 1 << 20], np.int64), "sides")
    model.graph.initializer.append(sides)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["sides"], ["huge"]))
    return model


def with_function() -> Any:
    model = classifier()
    body = [helper.make_node("Identity", ["a"], ["b"])]
    made = helper.make_function("lab", "Same", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    model.functions.append(made)
    return model


@pytest.mark.parametrize(
    ("build", "options", "problem"),
    [
        (lambda: models.with_node("Mine", "com.example"), {}, "uses operators outside ONNX, of com.example"),
        (with_function, {}, "defines 1 functions"),
        (lambda: models.with_node("If", **models.branch()), {}, "has a node 'If'"),
        (lambda: models.with_node("RandomNormalLike"), {}, "has a node 'RandomNormalLike'"),
        (lambda: models.with_node("NoSuchOperator"), {}, "is not a valid ONNX model"),
        (terabytes, {}, "makes a tensor of 1048576 x 1048576 numbers"),
        (two_inputs, {}, "takes 2 inputs"),
        (two_outputs, {}, "gives 2 outputs: given, t2"),
        (lambda: classifier(opset=7), {}, "is of opset 7; 11 to"),
        (lambda: classifier(channels=4), {}, "which side counts 1 or 3 channels cannot be seen"),
        (double, {}, "the model takes double"),
        (lambda: classifier(side="s"), {}, "takes images of any size"),
        (classifier, {"size": 99}, "--size says 99"),
        (classifier, {"scale": None}, "the range that it was trained on is unknown"),
        (lambda: classifier(scaled=True), {}, "would scale them twice"),
        (classifier, {"classes": TWO}, "gives 3 numbers per image, --classes names 2"),
        (lambda: classifier(end="Sigmoid"), {}, "the model ends in 'sigmoid'"),
        (lambda: classifier(end="Tanh"), {}, "the model ends in 'tanh'"),
        (lambda: classifier(end="Softmax"), {"outputs": OutputKind.LOGITS}, "would add a second softmax"),
        (lambda: classifier(outputs=1), {"classes": TWO}, "whether it is a logit of the second class cannot be seen"),
        (lambda: classifier(spread=float("nan")), {}, "gives NaN or infinity"),
        (lambda: classifier(spread=0.0), {}, "the same answer"),
        (classifier, {"scale": MeanAndStd((0.1, 0.2), (1.0,))}, "--mean has 2 numbers"),
        (classifier, {"scale": MeanAndStd((0.1,), (0.0,))}, "does not scale pixels"),
    ],
)
def test_what_cannot_be_known_or_run_is_refused(
    build: Any, options: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    assert problem in refused(build(), tmp_path, **options).problem


def test_files_that_are_not_models_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"hello", b"\x08\x07", b"\xff" * 100, classifier().SerializeToString()[:200]):
        (tmp_path / "mine.onnx").write_bytes(content)
        assert "not an ONNX model" in refused(tmp_path / "mine.onnx", tmp_path).problem
    (tmp_path / "folder.onnx").mkdir()
    assert "is a folder" in refused(tmp_path / "folder.onnx", tmp_path).problem
    assert "cannot read" in refused(tmp_path / "none.onnx", tmp_path).problem


@pytest.mark.parametrize("place", range(12))
def test_damaged_bytes_are_refused_or_exported_but_never_a_traceback(place: int, tmp_path: Path) -> None:
    content = bytearray(classifier().SerializeToString())
    start = len(content) * place // 12
    content[start : start + 6] = bytes(255 - byte for byte in content[start : start + 6])
    (tmp_path / "mine.onnx").write_bytes(content)
    try:
        export(tmp_path / "mine.onnx", tmp_path)
    except MribatchError as error:
        assert "\n" not in str(error)


def test_scaling_inside_is_used_and_named(tmp_path: Path) -> None:
    result = export(classifier(scaled=True), tmp_path, scale=None)
    assert result.facts.model.scaled_by_layers == ("n0",) and result.facts.model.scale == "none"


def test_a_model_for_one_image_that_cannot_take_more_is_refused_with_the_way_out(tmp_path: Path) -> None:
    model = classifier(batch=1)
    model.graph.node[3].op_type = "Identity"  # mean of the convolution, (1, 5, 1, 1); Gemm wants two sides
    del model.graph.node[3].attribute[:]
    assert refused(model, tmp_path).fix
