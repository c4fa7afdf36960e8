"""Framing: the layers do what the rule says, at constant shapes, and survive the export."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

from mribatch.core.bundle import load_bundle
from mribatch.core.synthetic import draw_slice
from mribatch.training.data.classes import BRAIN_TUMORS
from mribatch.training.data.images import Images
from mribatch.training.export.bundle import BundleFacts, write_bundle
from mribatch.training.fit.trainer import Trainer
from mribatch.training.networks.build import NETWORKS, build, grey_to_rgb, learning_model_of_any_size
from mribatch.training.networks.frame import FRAMED, add_frame, frame_slices
from mribatch.training.recipes.catalog import find_recipe
from tests.training.toy import tiny_network, tiny_recipe


def slices(side: int = 48) -> np.ndarray:
    """Slices with margins of several widths, a plain one, an empty one, and one with a speck."""
    drawn = []
    for seed, margin in enumerate((0, 5, 11)):
        image = np.zeros((side, side), np.uint8)
        inner = side - 2 * margin
        image[margin : side - margin, margin : side - margin] = draw_slice(seed, inner, inner)
        drawn.append(image)
    speck = np.zeros((side, side), np.uint8)
    speck[20:23, 20:23] = 255
    return np.stack([*drawn, np.full((side, side), 90, np.uint8), np.zeros((side, side), np.uint8), speck])[..., None]


def framed_by_layers(pixels: np.ndarray, side: int) -> np.ndarray:
    import keras

    inputs = keras.Input((*pixels.shape[1:3], 3))
    return np.asarray(keras.Model(inputs, add_frame(inputs, side))(grey_to_rgb(pixels)))


@pytest.mark.parametrize("side", [24, 48, 60])
def test_the_layers_do_what_the_rule_says(side: int) -> None:
    pixels = slices()
    got, expected = framed_by_layers(pixels, side), frame_slices(pixels, side)
    assert got.shape == (len(pixels), side, side, 3) and (got[..., 0] == got[..., 2]).all()
    assert np.abs(got[..., :1] - expected).max() <= 1.01  # OpenCV rounds


def test_a_slice_is_framed_whatever_its_neighbours() -> None:
    pixels = slices()
    assert np.abs(framed_by_layers(pixels[1:2], 24)[0] - framed_by_layers(pixels, 24)[1]).max() < 1e-3


def test_it_is_trained_on_framed_slices_and_exported_with_the_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETWORKS, "tiny", tiny_network)
    recipe = tiny_recipe(size=48, frame=24, epochs=1, keep="last")
    trainer = Trainer(recipe, 4, 0)
    step, seen = trainer.step, []

    def spied(pixels: Any, *rest: Any) -> Any:
        seen.append(pixels.shape[1:])
        return step(pixels, *rest)

    trainer.step = spied
    pixels = slices()
    trainer.run_epoch(1, Images(pixels, np.arange(6) % 4), Images(pixels[:0], np.arange(0)))
    assert set(seen) == {(24, 24, 1)}
    agreement = write_bundle(trainer.network, BundleFacts(name="framed", classes=BRAIN_TUMORS), "card", tmp_path / "b")
    assert agreement.holds and load_bundle(str(tmp_path / "b")).spec.height == 48
    assert any(layer.name == FRAMED for layer in build(recipe, 4, 0).layers)
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "b" / "model.onnx").graph.node)
    assert operators["Slice"] == 0, "the frame reads the slice, not the first of its copies"


def test_early_epochs_see_smaller_slices_and_the_same_weights_learn() -> None:
    recipe = replace(
        find_recipe("fast"), weights="none", size=48, frame=40, early_epochs=1, early_frame=24, epochs=2, batch=4
    )
    trainer = Trainer(recipe, 4, 0)
    learned = learning_model_of_any_size(trainer.network).trainable_variables
    assert all(one is other for one, other in zip(learned, trainer.network.trainable_variables, strict=True))
    step, seen = trainer.step, []

    def spied(pixels: Any, *rest: Any) -> Any:
        before = learned[0].numpy()
        result = step(pixels, *rest)
        seen.append((pixels.shape[1], bool((before != learned[0].numpy()).any())))
        return result

    trainer.step = spied
    pixels = slices()
    images, none = Images(pixels, np.arange(6) % 4), Images(pixels[:0], np.arange(0))
    losses = [trainer.run_epoch(number, images, none).loss for number in (1, 2)]
    assert seen == [(24, True)] * 2 + [(40, True)] * 2 and np.isfinite(losses).all()
