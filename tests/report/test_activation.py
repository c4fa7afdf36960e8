"""Where the model looked: exact for the shipped default, by occlusion for the others."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import load_from_string, numpy_helper

from mribatch.core.bundle import load_bundle
from mribatch.core.frame import find_box
from mribatch.core.synthetic import draw_slice
from mribatch.report.activation import MapMaker, MapMethod, place_in_slice
from mribatch.report.overlay import draw_overlay
from mribatch.training.data.classes import BRAIN_TUMORS
from mribatch.training.export.bundle import BundleFacts, write_bundle

CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
SLICE = draw_slice(5, 160, 160, lesion=True)[..., None]


@pytest.fixture(scope="module")
def maker() -> MapMaker:
    return MapMaker(load_bundle("efficientnet-lite2"), threads=1)


def test_the_softmax_of_the_maps_means_is_the_answer(maker: MapMaker) -> None:
    with maker:
        maps = [maker.make_map(SLICE, name) for name in CLASSES]
    logits = np.array([each.values.mean() for each in maps])
    exponents = np.exp(logits - logits.max())
    np.testing.assert_allclose(maps[0].probabilities, exponents / exponents.sum(), atol=1e-5)
    assert {each.method for each in maps} == {MapMethod.CLASS_ACTIVATION}


def test_without_a_class_the_predicted_one_is_explained(maker: MapMaker) -> None:
    with maker:
        found = maker.make_map(SLICE)
    assert found.class_name == CLASSES[int(found.probabilities.argmax())]


def test_another_head_gives_another_map(maker: MapMaker) -> None:
    """A map that did not depend on the weights would be an edge detector (Adebayo et al. 2018)."""
    bundle = load_bundle("efficientnet-lite2")
    model = load_from_string(bundle.model)
    weights = next(each for each in model.graph.initializer if list(each.dims) == [1280, 4])
    shuffled = np.random.default_rng(0).permutation(numpy_helper.to_array(weights))
    weights.CopyFrom(numpy_helper.from_array(shuffled, weights.name))
    with maker, MapMaker(replace(bundle, model=model.SerializeToString()), threads=1) as other:
        first, second = maker.make_map(SLICE, "glioma_tumor"), other.make_map(SLICE, "glioma_tumor")
    assert abs(np.corrcoef(first.values.ravel(), second.values.ravel())[0, 1]) < 0.9


def test_a_network_with_more_layers_is_explained_by_occlusion(tiny_model: Path) -> None:
    bundle = load_bundle(str(tiny_model))
    pixels = draw_slice(1, bundle.spec.height, bundle.spec.width)[..., None]
    with MapMaker(bundle, threads=1) as tiny:
        found = tiny.make_map(pixels)
    assert found.method is MapMethod.OCCLUSION
    assert found.values.shape == (15, 15)
    assert np.abs(found.values).max() <= 1


def test_an_overlay_colours_what_the_map_names() -> None:
    grey = np.full((40, 60), 100, np.uint8)
    values = np.zeros((2, 3), np.float32)
    values[0, 2] = 4
    picture = draw_overlay(grey, values)
    assert picture.shape == (40, 60, 3)
    assert (picture[-1, 0] == 100).all()
    assert np.ptp(picture[2, -3]) > 50


def test_a_map_without_a_positive_value_leaves_the_image_grey() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert (draw_overlay(grey, np.full((2, 2), -1, np.float32)) == grey[..., None]).all()


def test_the_map_is_keras_own_feature_map_times_its_weights(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras", reason="needs the extra 'train'")
    network = build_pooling_network(keras)
    facts = BundleFacts(name="pooling", classes=BRAIN_TUMORS, temperature=1.5)
    write_bundle(network, facts, "# pooling", tmp_path / "bundle")
    pixels = draw_slice(5, 48, 48, lesion=True)[..., None]
    features = keras.Model(network.input, network.get_layer("last").output).predict(
        np.repeat(pixels[None], 3, axis=-1), verbose=0
    )[0]
    weights, bias = network.get_layer("logits").get_weights()
    with MapMaker(load_bundle(str(tmp_path / "bundle")), threads=1) as maker:
        assert maker.method is MapMethod.CLASS_ACTIVATION
        for position, name in enumerate(CLASSES):
            expected = (features @ weights[:, position] + bias[position]) / 1.5
            np.testing.assert_allclose(maker.make_map(pixels, name).values, expected, atol=1e-4)
    assert np.abs(expected).max() > 0.05


def build_pooling_network(keras: Any) -> Any:
    """Two convolutions, global average pooling, one dense layer; random weights."""
    keras.utils.set_random_seed(7)
    layers = keras.layers
    inputs = keras.Input((48, 48, 3))  # grey, three times, as our exporter gives it
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = layers.Conv2D(16, 3, strides=2, activation="relu", name="last")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(len(CLASSES), name="logits")(x)
    network = keras.Model(inputs, layers.Activation("softmax")(x))
    weights, bias = network.get_layer("logits").get_weights()
    network.get_layer("logits").set_weights([weights * 3, np.random.default_rng(1).normal(size=bias.shape)])
    return network


def test_a_map_in_a_frame_is_placed_where_the_network_saw_it() -> None:
    values = np.array([[0, 0], [0, 4]], np.float32)
    placed = place_in_slice(values, (40, 120, 80, 144), (160, 160))
    assert placed.shape == (20, 20)
    row, column = np.unravel_index(placed.argmax(), placed.shape)
    assert placed.max() == 4 and 80 <= 8 * row < 120 and 112 <= 8 * column < 144
    assert not placed[:5].any() and not placed[15:].any() and not placed[:, :10].any() and not placed[:, 18:].any()
    whole = place_in_slice(np.full((5, 5), 2, np.float32), (0, 160, 0, 160), (160, 160))
    assert (whole == 2).all()


def test_a_bundle_with_a_frame_has_its_maps_inside_the_box(maker: MapMaker) -> None:
    image = np.zeros((160, 160, 1), np.uint8)
    image[48:112, 64:160, 0] = draw_slice(5, 64, 96, lesion=True)
    spec = load_bundle("efficientnet-lite2").spec
    framed = replace(spec, training={**spec.training, "fit": {**spec.training["fit"], "recipe.frame": 160}})
    with MapMaker(replace(load_bundle("efficientnet-lite2"), spec=framed), threads=1) as other:
        found = other.make_map(image, "glioma_tumor")
    top, bottom, left, right = find_box(image[..., 0])
    around = np.ones((20, 20), bool)
    around[top // 8 : -(-bottom // 8), left // 8 : -(-right // 8)] = False
    assert around.any() and not found.values[around].any() and found.values[~around].any()
