"""What the bundle's graph looks like, and that a graph that differs from Keras never becomes a bundle."""

import errno
import os
from dataclasses import replace
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
from mribatch.core.onnx_graph import read_graph_facts
from mribatch.core.synthetic import golden_slices
from mribatch.training.data.classes import BRAIN_TUMORS
from mribatch.training.export.bundle import BundleFacts, publish_bundle, write_bundle
from mribatch.training.export.onnx_conversion import OPSET, Convertible, clean, make_convertible, to_onnx
from mribatch.training.networks.build import build, calibrate, logits_model, predict_logits
from mribatch.training.recipes.catalog import RECIPES

FACTS = BundleFacts(name="toy", classes=BRAIN_TUMORS, temperature=1.7, licences={"weights": "none"})


@pytest.fixture(scope="module")
def network() -> Any:
    """The real cnn recipe with random weights, and statistics that are not those of a fresh BatchNormalization."""
    made = build(RECIPES["cnn"], 4, seed=3)
    random = np.random.default_rng(0)
    for variable in made.weights:
        if "moving" in variable.path:
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
    return made


def ask(model: bytes, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["probabilities"], {"images": images})[0])


def test_the_cnn_has_the_references_layers(network: Any) -> None:
    assert network.count_params() == 330_062
    kinds = [type(layer).__name__ for layer in network.layers]
    block = ["Conv2D", "BatchNormalization", "MaxPooling2D"]
    assert kinds == [
        *("InputLayer", "Rescaling", *block, "Conv2D", "MaxPooling2D", *block, *block),
        *("Conv2D", "BatchNormalization", "Dropout", "MaxPooling2D", "GlobalAveragePooling2D"),
        *("Dense", "Dropout", "Dense", "Dropout", "Dense", "Activation"),
    ]
    convolutions = [layer for layer in network.layers if type(layer).__name__ == "Conv2D"]
    assert [layer.filters for layer in convolutions] == [16, 32, 64, 128, 128]
    assert [layer.activation.__name__ for layer in convolutions] == ["elu", "linear", "elu", "elu", "elu"]


def test_the_graph_has_the_bundles_input_and_output(network: Any) -> None:
    content = to_onnx(network, 1.0)
    model = onnx.load_from_string(content)
    assert [entry.domain for entry in model.opset_import] == [""] and model.opset_import[0].version == OPSET
    taken, given = model.graph.input[0], model.graph.output[0]
    shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (taken, given)]
    assert (taken.name, given.name, shapes) == ("images", "probabilities", [["N", 160, 160, 1], ["N", 4]])
    assert taken.type.tensor_type.elem_type == TensorProto.UINT8
    assert all(":" not in name and "/" not in name for node in model.graph.node for name in [*node.input, *node.output])
    facts = read_graph_facts(content)
    assert (len(facts.inputs), facts.external_tensors, facts.functions, facts.domains) == (1, 0, 0, {""})


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_onnx_runtime_gives_keras_probabilities_at_any_batch(network: Any, temperature: float) -> None:
    images = golden_slices(9)
    expected = calibrate(predict_logits(network, images), temperature)
    model = to_onnx(network, temperature)
    assert np.ptp(expected, axis=0).max() > 1e-3  # the slices are told apart at all
    for batch in (1, 4, 9):
        got = np.concatenate([ask(model, images[start : start + batch]) for start in range(0, 9, batch)])
        assert np.abs(got - expected).max() < 1e-5
    assert np.allclose(expected.sum(axis=1), 1)


def test_temperature_one_is_the_networks_own_softmax(network: Any) -> None:
    images = golden_slices(3)
    rgb = np.repeat(images.astype(np.float32), 3, axis=3)
    logits = predict_logits(network, images)
    assert np.abs(network.predict(rgb, verbose=0) - calibrate(logits, 1.0)).max() < 1e-6
    assert np.abs(logits_model(network).predict(rgb, verbose=0) - logits).max() < 1e-5


def test_a_bundle_is_written_whole_and_replaced_whole(network: Any, tmp_path: Path) -> None:
    out = tmp_path / "models" / "toy"
    agreement = write_bundle(network, FACTS, "# card\n", out)
    bundle = load_bundle(str(out))
    assert agreement.holds and agreement.rows == 64
    assert (bundle.spec.temperature, bundle.spec.trained, bundle.spec.classes) == (1.7, True, BRAIN_TUMORS.names)
    assert (out / "MODEL_CARD.md").read_text() == "# card\n"
    (out / "leftover").touch()
    write_bundle(network, FACTS, "# other\n", out)
    assert sorted(path.name for path in out.iterdir()) == ["MODEL_CARD.md", "bundle.json", "golden.npz", "model.onnx"]
    assert [path.name for path in out.parent.iterdir()] == ["toy"]


def wrong_graph(network: Any) -> Convertible:
    """A graph that is exported at another temperature than Keras answers at."""
    return replace(make_convertible(network, 1.7), answers=make_convertible(network, 1.785).answers)


def test_a_graph_that_disagrees_with_keras_leaves_what_was_there(network: Any, tmp_path: Path) -> None:
    out = tmp_path / "toy"
    write_bundle(network, FACTS, "# first\n", out)
    with pytest.raises(
        MribatchError, match=r"does not give the probabilities of Keras on the golden slices: max \|Δp\|"
    ):
        publish_bundle(wrong_graph(network), FACTS, "# second\n", out)
    assert (out / "MODEL_CARD.md").read_text() == "# first\n" and [p.name for p in tmp_path.iterdir()] == ["toy"]


def test_a_bundle_survives_a_renaming_that_fails(network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "toy"
    write_bundle(network, FACTS, "# first\n", out)
    rename, calls = os.rename, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(MribatchError, match="could not write .*: Input/output error"):
        write_bundle(network, FACTS, "# second\n", out)
    assert (out / "MODEL_CARD.md").read_text() == "# first\n" and [p.name for p in tmp_path.iterdir()] == ["toy"]


def test_a_bundle_is_put_back_after_a_kill_between_the_renamings(network: Any, tmp_path: Path) -> None:
    out = tmp_path / "toy"
    write_bundle(network, FACTS, "# first\n", out)
    out.rename(tmp_path / ".toy.old")
    (tmp_path / ".toy.new").mkdir()
    with pytest.raises(MribatchError, match="does not give the probabilities of Keras"):
        publish_bundle(wrong_graph(network), FACTS, "# second\n", out)
    assert (out / "MODEL_CARD.md").read_text() == "# first\n" and [p.name for p in tmp_path.iterdir()] == ["toy"]


def test_a_folder_that_is_not_a_bundle_is_not_touched(network: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(MribatchError, match="exists and is not a model bundle"):
        write_bundle(network, FACTS, "", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def small_model(extra_input: str | None = None, used: bool = False, domain: str = "") -> onnx.ModelProto:
    """images -> probabilities by one Softmax, and what a converter may leave beside it."""
    images = helper.make_tensor_value_info("serving:0", TensorProto.FLOAT, ["unk__1", 4])
    given = helper.make_tensor_value_info("Identity:0", TensorProto.FLOAT, ["unk__2", 4])
    inputs = [images]
    nodes = [helper.make_node("Softmax", ["serving:0" if not used else "sum"], ["Identity:0"], domain=domain)]
    if extra_input is not None:
        inputs.insert(0, helper.make_tensor_value_info(extra_input, TensorProto.FLOAT, [1, 4]))
    if used:
        nodes.insert(0, helper.make_node("Add", ["serving:0", str(extra_input)], ["sum"]))
    graph = helper.make_graph(nodes, "tf2onnx", inputs, [given])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)])


def test_dangling_inputs_go_and_names_become_the_bundles() -> None:
    model = small_model("normalization/Sub/y:0")
    clean(model)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["images"]
    assert [(list(node.input), list(node.output)) for node in model.graph.node] == [(["images"], ["probabilities"])]
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in [*model.graph.input, *model.graph.output]} == {
        "N"
    }
    assert [entry.domain for entry in model.opset_import] == [""]


def test_a_second_input_that_is_used_is_refused() -> None:
    with pytest.raises(ValueError, match="2 inputs and 1 outputs are in use"):
        clean(small_model("more:0", used=True))


def test_operators_outside_onnx_are_refused() -> None:
    with pytest.raises(ValueError, match="operators outside ONNX: .*com.example"):
        clean(small_model(domain="com.example"))
