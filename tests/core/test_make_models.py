"""The bundles that tests and the first run rest on: right answers, the same bytes each time, inputs that matter."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.agreement import compare
from mribatch.core.bundle import CARD_FILE, GOLDEN_FILE, MODEL_FILE, SPEC_FILE, Bundle, load_bundle
from mribatch.core.synthetic import golden_slices
from tests.make_models import make_placeholder, make_tiny

PLACEHOLDER = Path(__file__).parents[1] / "models" / "placeholder"
FILES = (SPEC_FILE, MODEL_FILE, GOLDEN_FILE, CARD_FILE)


def _answers(bundle: Bundle, images: NDArray[uint8]) -> NDArray[float32]:
    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"images": images})
    return np.asarray(probabilities)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_placeholder(tmp_path_factory.mktemp("made"))


def test_the_committed_placeholder_is_what_the_script_makes(made: Path) -> None:
    assert sorted(path.name for path in PLACEHOLDER.iterdir()) == sorted(FILES)
    for name in (MODEL_FILE, CARD_FILE):
        assert (PLACEHOLDER / name).read_bytes() == (made / name).read_bytes(), name
    # another zlib packs the same arrays differently, so the content counts
    old, new = load_bundle(str(PLACEHOLDER)), load_bundle(str(made))
    assert (old.golden.images == new.golden.images).all()
    assert np.abs(old.golden.probabilities - new.golden.probabilities).max() < 1e-6
    assert old.spec.to_json() | {"golden_sha256": ""} == new.spec.to_json() | {"golden_sha256": ""}


def test_making_a_bundle_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = make_tiny(tmp_path / "first"), make_tiny(tmp_path / "second")
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_onnx_runtime_agrees_with_the_numpy_forward_pass() -> None:
    bundle = load_bundle(str(PLACEHOLDER))
    assert (bundle.golden.images == golden_slices(64, 160, 160)).all()
    agreement = compare(_answers(bundle, bundle.golden.images), bundle.golden.probabilities, bundle.spec.tolerance)
    assert agreement.holds, agreement
    assert agreement.max_difference < 2e-5


def test_the_placeholder_is_no_constant_and_says_what_it_is() -> None:
    bundle = load_bundle(str(PLACEHOLDER))
    counts = np.bincount(bundle.golden.probabilities.argmax(axis=1), minlength=4)
    assert counts.min() >= 5
    assert not bundle.spec.trained
    assert "no trained model" in (bundle.folder / CARD_FILE).read_text(encoding="utf-8")
    assert sum((bundle.folder / name).stat().st_size for name in FILES) < 3_000_000


@pytest.mark.parametrize(("classes", "size"), [(("a", "b"), 8), (("x", "y", "z"), 16), (tuple("abcdefg"), 24)])
def test_tiny_models_agree_with_numpy_and_look_at_their_pixels(
    tmp_path: Path, classes: tuple[str, ...], size: int
) -> None:
    bundle = load_bundle(str(make_tiny(tmp_path, classes, size)))
    assert bundle.spec.classes == classes
    answers = _answers(bundle, bundle.golden.images)
    assert compare(answers, bundle.golden.probabilities, bundle.spec.tolerance).holds
    assert np.ptp(answers, axis=0).max() > 0.1
    corner = np.zeros((4, size, size, 1), dtype=uint8)
    for position, (row, column) in enumerate([(0, 0), (0, -1), (-1, 0), (-1, -1)]):
        corner[position, row, column] = 255
    assert len(np.unique(_answers(bundle, corner), axis=0)) == 4
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 16_000


def test_a_tiny_model_can_answer_nan_for_white_and_only_for_white(tmp_path: Path) -> None:
    bundle = load_bundle(str(make_tiny(tmp_path / "nan", nan_on_white=True)))
    plain = load_bundle(str(make_tiny(tmp_path / "plain")))
    images = np.full((3, 8, 8, 1), 255, dtype=uint8)
    images[1, 4, 4] = 254
    images[2] = 0
    answers = _answers(bundle, images)
    assert np.isnan(answers[0]).all()
    assert np.isfinite(answers[1:]).all()
    assert (_answers(bundle, bundle.golden.images) == _answers(plain, plain.golden.images)).all()
