"""Answers that do not vary prove nothing, and are refused or marked as untrained."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

import keras

from mribatch.core.bundle import load_bundle
from mribatch.core.errors import MribatchError
from mribatch.core.synthetic import golden_slices
from mribatch.training.data.classes import ClassList
from mribatch.training.export.golden import COUNT, LEAST_SPREAD, choose_golden, draw_patterns
from mribatch.training.export.user_model import ExportOptions, export_model
from tests.training import keras_models as models

FOUR = ClassList(("a", "b", "c", "d"))


def random_network() -> Any:
    """A network as Keras initialises it: every slice gets about 0.25 for each class."""
    keras.utils.set_random_seed(0)
    start = keras.initializers.RandomNormal(stddev=0.001)
    body = [
        keras.layers.Conv2D(8, 3, activation="relu", kernel_initializer=start),
        keras.layers.GlobalAveragePooling2D(),
    ]
    head = keras.layers.Dense(4, activation="softmax", kernel_initializer=start)
    return keras.Sequential([keras.Input((24, 24, 3)), models.rescaling(), *body, head])


def options(folder: Path, **changes: Any) -> ExportOptions:
    path = models.saved(random_network(), folder / "mine.keras")
    given: dict[str, Any] = {"model": path, "out": folder / "bundle", "classes": FOUR}
    return ExportOptions(**given | changes)


def test_a_network_with_random_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MribatchError, match="the same answer .*proves nothing") as caught:
        export_model(options(tmp_path), print)
    assert "--untrained" in caught.value.fix and "--scale" in caught.value.fix and "\n" not in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_it_is_marked_untrained_on_demand_and_told(tmp_path: Path) -> None:
    lines: list[str] = []
    result = export_model(options(tmp_path, untrained=True), lines.append)
    spec = load_bundle(str(result.out)).spec
    assert not spec.trained and "predictions mean nothing" in (spec.notice or "")
    assert any("is marked as not trained" in line for line in lines)
    assert result.facts.trained is False and result.facts.model.golden_spread < LEAST_SPREAD
    assert "**Not trained" in (result.out / "MODEL_CARD.md").read_text()


def test_slices_are_kept_where_the_answers_vary() -> None:
    chosen = choose_golden(24, 24, lambda images: images.mean(axis=(1, 2)) / np.float32(255))
    assert chosen.varies and (chosen.golden.images == golden_slices(COUNT, 24, 24)).all()


def test_patterns_tell_apart_what_drawings_do_not() -> None:
    """A model that is sure of one class for every drawing of a head."""

    def answers(images: np.ndarray) -> np.ndarray:
        bright = (images.mean(axis=(1, 2)) > 200).astype(np.float32)
        return np.concatenate([bright, 1 - bright], axis=1)

    chosen = choose_golden(24, 24, answers)
    assert chosen.varies and len(chosen.golden.images) == COUNT
    assert (chosen.golden.images[: COUNT // 2] == golden_slices(COUNT // 2, 24, 24)).all()


def test_patterns_differ_and_are_the_same_every_time() -> None:
    first = draw_patterns(32, 20, 30)
    assert first.shape == (32, 20, 30, 1) and first.dtype == np.uint8
    assert len({image.tobytes() for image in first}) >= 28 and (first == draw_patterns(32, 20, 30)).all()


def test_what_varies_is_recorded(tmp_path: Path) -> None:
    path = models.saved(models.small(models.rescaling()), tmp_path / "mine.keras")
    out = export_model(
        ExportOptions(model=path, out=tmp_path / "bundle", classes=ClassList(("a", "b", "c"))), print
    ).out
    content = json.loads((out / "bundle.json").read_text())
    golden = load_bundle(str(out)).golden.probabilities
    assert content["trained"] and content["training"]["golden_spread"] == pytest.approx(
        np.ptp(golden, axis=0).max(), abs=1e-5
    )
