"""Running statistics that are measured: exact, without dropout, and without any influence on training."""

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

from mribatch.training.data.images import Images
from mribatch.training.fit.batch_statistics import BATCH_SIZE, BATCHES, compile_measurement
from mribatch.training.fit.trainer import Trainer
from mribatch.training.networks.build import NETWORKS, build
from tests.training.toy import tiny_network, tiny_recipe

PIXELS = np.random.default_rng(0).integers(0, 256, (150, 8, 8, 1), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "tiny", tiny_network)


def test_means_and_variances_are_those_of_the_batches() -> None:
    network = build(tiny_recipe(), 3, seed=0)
    dense, normalisation = network.get_layer(index=3), network.get_layer(index=4)
    kernel, bias = (variable.numpy() for variable in dense.weights)
    hidden = np.maximum(np.repeat(PIXELS / 255, 3, axis=3).reshape(150, -1) @ kernel + bias, 0)
    batches = np.array_split(np.random.default_rng(7).permutation(150), 2)

    compile_measurement(network)(PIXELS, np.random.default_rng(7))
    mean = np.mean([hidden[batch].mean(axis=0) for batch in batches], axis=0)
    variance = np.mean([hidden[batch].var(axis=0) for batch in batches], axis=0)
    assert np.allclose(normalisation.moving_mean.numpy(), mean, atol=1e-5)
    assert np.allclose(normalisation.moving_variance.numpy(), variance, atol=1e-5)
    assert normalisation.momentum == 0.99 and network.get_layer(index=5).rate == 0.3


def test_at_most_so_many_images_are_run() -> None:
    network = build(tiny_recipe(), 3, seed=0)
    many = np.concatenate([np.zeros((BATCHES * BATCH_SIZE, 8, 8, 1), np.uint8), np.full((500, 8, 8, 1), 255, np.uint8)])

    class InOrder:
        def permutation(self, count: int) -> np.ndarray:
            return np.arange(count)

    compile_measurement(network)(many, InOrder())  # type: ignore[arg-type]
    assert np.allclose(network.get_layer(index=4).moving_variance.numpy(), 0)


def test_dropout_before_a_normalisation_is_off() -> None:
    import keras

    pixels = keras.Input((8, 8, 3))
    features = keras.layers.Dropout(0.9)(keras.layers.Flatten()(pixels))
    features = keras.layers.BatchNormalization()(features)
    network = keras.Model(pixels, keras.layers.Dense(3, name="logits")(features))
    white = np.full((64, 8, 8, 1), 255, dtype=np.uint8)
    compile_measurement(network)(white, np.random.default_rng(0))
    assert np.allclose(network.get_layer(index=3).moving_mean.numpy(), 255)
    assert np.allclose(network.get_layer(index=3).moving_variance.numpy(), 0)


def test_training_is_the_same_with_and_without() -> None:
    part = Images(PIXELS, np.arange(150) % 3)
    results = []
    for clean in (True, False):
        trainer = Trainer(tiny_recipe(clean_statistics=clean, epochs=3), 3, 0)
        results.append([trainer.run_epoch(number, part, part) for number in (1, 2, 3)])
    first, second = results
    assert [row.loss for row in first] == [row.loss for row in second]
    assert [row.val_loss for row in first] != [row.val_loss for row in second]
