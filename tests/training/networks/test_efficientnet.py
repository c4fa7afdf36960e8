"""The reference's EfficientNets: their heads, their weights' two sources, and the same numbers in ONNX as in Keras."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

from mribatch.core.errors import MribatchError
from mribatch.training.export.onnx_conversion import to_onnx
from mribatch.training.fit.batch_statistics import compile_measurement
from mribatch.training.frameworks import load_keras
from mribatch.training.networks import efficientnet
from mribatch.training.networks.build import build, calibrate, find_weights, predict_logits
from mribatch.training.recipes.catalog import RECIPES
from mribatch.training.recipes.recipe import NO_WEIGHTS

SIZE = 64  # small, so that a test takes seconds; the graph is the same


def untrained(name: str) -> Any:
    """The recipe's network with random weights, and statistics measured so that signals neither die nor explode."""
    network = build(replace(RECIPES[name], size=SIZE, weights=NO_WEIGHTS), 4, seed=1)
    random = np.random.default_rng(0)
    compile_measurement(network)(random.integers(0, 256, (64, SIZE, SIZE, 1), dtype=np.uint8), random)
    return network


def check_export(name: str) -> None:
    network = untrained(name)
    images = np.random.default_rng(5).integers(0, 256, (6, SIZE, SIZE, 1), dtype=np.uint8)
    expected = calibrate(predict_logits(network, images), 1.3)
    session = onnxruntime.InferenceSession(to_onnx(network, 1.3), providers=["CPUExecutionProvider"])
    got = session.run(["probabilities"], {"images": images})[0]
    assert np.ptp(expected, axis=0).max() > 1e-3
    assert np.abs(got - expected).max() <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"),
        *("efficientnetb2", "efficientnetb3", "efficientnetb6"),
    ],
)
def test_in_onnx_they_give_keras_probabilities(name: str) -> None:
    check_export(name)


def test_the_head_of_b3(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = []

    def few_maps(name: str, pixels: Any, weights: Path | str | None) -> Any:
        _, keras = load_keras()
        maps.append((name, weights))
        return keras.layers.Conv2D(8, 3)(pixels)

    monkeypatch.setattr("mribatch.training.networks.build.build_maps", few_maps)
    network = build(replace(RECIPES["efficientnetb3"], size=SIZE), 4, seed=1)
    assert maps == [("efficientnetb3", "imagenet")]
    kinds = [type(layer).__name__ for layer in network.layers[2:]]
    assert kinds == ["GlobalAveragePooling2D", "Dropout", "Dense", "Dropout", "Dense", "Activation"]
    rates = [layer.rate for layer in network.layers if type(layer).__name__ == "Dropout"]
    dense = network.get_layer("dense")
    assert rates == [0.55, 0.35] and dense.units == 60 and dense.activation.__name__ == "elu"
    assert type(dense.kernel_initializer).__name__ == "GlorotNormal"
    build(replace(RECIPES["efficientnetb2"], size=SIZE, weights=NO_WEIGHTS), 4, seed=1)
    assert maps[-1] == ("efficientnetb2", None)
    assert find_weights(RECIPES["efficientnetb2"]) is None


def test_where_the_weights_cannot_be_downloaded_the_fix_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _, keras = load_keras()

    def offline(**_: Any) -> None:
        raise Exception("URL fetch failure on https://storage.googleapis.com/x: None -- no route\nmore")

    monkeypatch.setattr(keras.applications, "EfficientNetB2", offline)
    with pytest.raises(MribatchError) as caught:
        efficientnet.build_maps("efficientnetb2", None, "imagenet")
    assert caught.value.problem.startswith("the ImageNet weights of efficientnetb2 cannot be downloaded (URL fetch")
    assert caught.value.fix.startswith(
        "download https://storage.googleapis.com/keras-applications/efficientnetb2_notop.h5 elsewhere and give "
        "--weights efficientnetb2_notop.h5"
    )


def test_a_file_of_weights_gives_what_imagenet_would_have_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """keras.applications divides once more with "imagenet" than with the same file; both ways must see the same."""
    _, keras = load_keras()
    from keras.src.applications import efficientnet as theirs
    from keras.src.legacy.saving import legacy_h5_format

    def small(weights: Path | str | None, input_tensor: Any, include_top: bool) -> Any:
        """B0 without the division where weights is a file: what keras.applications does, with its own code."""
        blocks = [{**theirs.DEFAULT_BLOCKS_ARGS[0]}]
        return theirs.EfficientNet(
            1.0,
            1.0,
            224,
            blocks_args=blocks,
            weights=weights,
            input_tensor=input_tensor,
            include_top=include_top,
            name="efficientnetb0",
            weights_name="b0",
        )

    monkeypatch.setattr(keras.applications, "EfficientNetB2", small)
    pixels = keras.Input((SIZE, SIZE, 3))
    source = small(None, pixels, False)
    random = np.random.default_rng(3)
    for variable in source.weights:
        if "count" not in variable.path:
            variable.assign(random.uniform(0.2, 0.8, variable.shape))
    file = tmp_path / "efficientnetb2_notop.h5"
    import h5py

    with h5py.File(file, "w") as stream:
        legacy_h5_format.save_weights_to_hdf5_group(stream, source)
    monkeypatch.setattr(theirs.file_utils, "get_file", lambda *_, **__: str(file))
    images = random.uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    seen = []
    for weights in ("imagenet", file):
        inputs = keras.Input((SIZE, SIZE, 3))
        maps = efficientnet.build_maps("efficientnetb2", inputs, weights)
        seen.append(keras.Model(inputs, maps)(images, training=False).numpy())
    assert np.abs(seen[0]).max() > 0.1
    assert np.abs(seen[0] - seen[1]).max() < 1e-4 * np.abs(seen[0]).max()

    with pytest.raises(MribatchError, match=r"none\.h5 is not a NAME_notop\.h5"):
        efficientnet.build_maps("efficientnetb2", pixels, tmp_path / "none.h5")
    file.write_bytes(b"nothing")
    with pytest.raises(MribatchError, match=r"the weights in .* do not fit"):
        efficientnet.build_maps("efficientnetb2", keras.Input((SIZE, SIZE, 3)), file)
