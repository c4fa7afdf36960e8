"""A teacher's answers: of the same slices, softened; and a student that follows them against the labels."""

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

from mribatch.training.data.images import Images
from mribatch.training.fit.augment import augment
from mribatch.training.fit.losses import smoothed_cross_entropy, taught_cross_entropy
from mribatch.training.fit.teaching import Teacher, soften
from mribatch.training.fit.trainer import Trainer
from mribatch.training.networks.build import NETWORKS, predict_logits
from mribatch.training.recipes.augmentation import LIGHT
from tests.training.toy import tiny_network, tiny_recipe

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (24, 8, 8, 1)).astype(np.uint8)
LABELS = RANDOM.integers(0, 3, 24)


def test_softening_is_a_softmax_at_a_temperature() -> None:
    logits = RANDOM.normal(0, 3, (5, 3))
    powers = np.exp(logits)
    probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    assert np.abs(soften(probabilities, 1.0) - probabilities).max() < 1e-6
    softer = np.exp(logits / 3)
    assert np.abs(soften(probabilities, 3.0) - softer / softer.sum(axis=1, keepdims=True)).max() < 1e-5
    certain = soften(np.array([[1, 0, 0]], np.float32), 2.0)
    assert np.isfinite(certain).all() and certain[0, 0] > 0.99


def test_the_teacher_sees_what_the_student_sees() -> None:
    seen: list[np.ndarray] = []

    def answer(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return np.full((len(images), 3), 1 / 3, np.float32)

    recipe, chosen = tiny_recipe(augmentation=LIGHT, teacher_share=0.5), np.array([3, 20])
    teacher = Teacher(name="t", answer=answer, pixels=PIXELS)
    assert np.abs(teacher.teach(chosen, recipe, seed=4, epoch=2) - 1 / 3).max() < 1e-6
    assert (seen[0] == augment(PIXELS[chosen], chosen, LIGHT, seed=4, epoch=2)).all()


def test_the_loss_by_hand() -> None:
    logits = np.log(np.array([[0.5, 0.3, 0.2]], dtype=np.float32))
    truth, answers = np.array([[0, 1, 0]], np.float32), np.array([[0.2, 0.2, 0.6]], np.float32)
    own = smoothed_cross_entropy(0.1)(np.array([1]), logits).numpy()[0]
    halves = np.sqrt([0.5, 0.3, 0.2]) / np.sqrt([0.5, 0.3, 0.2]).sum()
    taught = -4 * (answers[0] * np.log(halves)).sum()
    assert taught_cross_entropy(0.1, 0.75, 2.0)(truth, answers, logits).numpy()[0] == pytest.approx(
        0.25 * own + 0.75 * taught, rel=1e-5
    )
    assert taught_cross_entropy(0.1, 0.0, 2.0)(truth, answers, logits).numpy()[0] == pytest.approx(own, rel=1e-5)


def test_a_student_follows_its_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher that always says the second class is believed, where its answers are all of the loss."""
    monkeypatch.setitem(NETWORKS, "tiny", tiny_network)
    recipe = tiny_recipe(epochs=6, keep="last", teacher_share=1.0, learning_rate=0.05)
    teacher = Teacher(
        name="t", answer=lambda x: np.tile(np.array([0.01, 0.98, 0.01], np.float32), (len(x), 1)), pixels=PIXELS
    )
    trainer = Trainer(recipe, 3, 0, teacher=teacher)
    for number in range(1, 7):
        trainer.run_epoch(number, Images(PIXELS, LABELS), Images(PIXELS[:0], LABELS[:0]))
    assert (predict_logits(trainer.network, PIXELS).argmax(axis=1) == 1).mean() > 0.9
