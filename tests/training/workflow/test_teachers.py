"""Teachers: found, asked, counted for what they know of the tested images, and made from folds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

from mribatch.core.bundle import Bundle, load_bundle
from mribatch.core.errors import MribatchError
from mribatch.pipeline.inference.onnxruntime import OnnxRuntimeClassifier
from mribatch.training.networks.build import NETWORKS
from mribatch.training.workflow.cross_validation import cross_validate
from mribatch.training.workflow.options import Teaching, TrainOptions
from mribatch.training.workflow.train import train
from tests.training.toy import draw_sources, tiny_network, tiny_recipe

STUDENT = tiny_recipe(epochs=1, keep="last", teacher_share=0.5)
TEACHER = tiny_recipe(size=12, epochs=1, keep="last")


@pytest.fixture(autouse=True, scope="module")
def _tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "tiny", tiny_network)
        yield


def options(data: Path, out: Path, **changes: Any) -> TrainOptions:
    settings: dict[str, Any] = {"split": "grouped", "folds": 2, "final": True, "draw_figures": False}
    return TrainOptions(data=data, out=out, **settings | changes)


def teaching(model: Path) -> Teaching:
    def open_classifier(bundle: Bundle) -> OnnxRuntimeClassifier:
        return OnnxRuntimeClassifier(bundle, threads=1)

    return Teaching(str(model), open_classifier)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_sources(tmp_path_factory.mktemp("taught") / "brain")


@pytest.fixture(scope="module")
def teachers(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher trained on all images, `model`, and those of its folds, `folds`; tests only read them."""
    folder = tmp_path_factory.mktemp("teachers")
    cross_validate(options(data, folder / "model", recipe=TEACHER, fold_bundles=folder / "folds"))
    return folder


def test_the_networks_of_folds_become_teachers_that_know_their_images(teachers: Path) -> None:
    known = {path.name: load_bundle(str(path)).training_images for path in sorted((teachers / "folds").iterdir())}
    counts = {name: len(images) for name, images in known.items() if images is not None}
    assert sorted(counts) == ["all", "fold-1", "fold-2"] and counts["fold-1"] + counts["fold-2"] == counts["all"] == 36


def test_a_student_of_fold_teachers_owes_nothing_to_what_it_is_tested_on(
    data: Path, teachers: Path, tmp_path: Path
) -> None:
    result = cross_validate(options(data, tmp_path / "m", recipe=STUDENT, teaching=teaching(teachers / "folds")))
    protocol = result.summary.training.protocol
    assert protocol.endswith("taught by models of the same folds, trained on none of the tested images")
    fit = load_bundle(str(result.out)).spec.training["fit"]
    assert len(fit["teacher_sha256"]) == 64 and fit["recipe.teacher_share"] == 0.5


def test_a_teacher_that_knows_the_tested_images_is_in_every_figure(data: Path, teachers: Path, tmp_path: Path) -> None:
    chosen = options(data, tmp_path / "m", recipe=STUDENT, teaching=teaching(teachers / "model"), split="official")
    result = train(chosen)
    assert all(
        "taught by model, trained on 12 of the 12 tested images" in row.metric.protocol
        for row in result.summary.metrics
    )
    assert "taught by model, trained on 12 of the 12" in (result.out / "MODEL_CARD.md").read_text()


def test_a_teacher_and_a_recipe_that_do_not_fit_are_refused(data: Path, teachers: Path, tmp_path: Path) -> None:
    with pytest.raises(MribatchError, match="'tiny' learns from a teacher, and there is none. Fix: give --teacher"):
        cross_validate(options(data, tmp_path / "m", recipe=STUDENT))
    with pytest.raises(MribatchError, match="'tiny' learns from labels alone. Fix: omit --teacher"):
        cross_validate(options(data, tmp_path / "m", recipe=TEACHER, teaching=teaching(teachers / "model")))
    with pytest.raises(MribatchError, match="has no teacher for 'split'; it has: all, fold-1, fold-2"):
        train(options(data, tmp_path / "m", recipe=STUDENT, teaching=teaching(teachers / "folds"), split="official"))
    with pytest.raises(MribatchError, match="no model bundle at 'nobody'"):
        cross_validate(options(data, tmp_path / "m", recipe=STUDENT, teaching=teaching(Path("nobody"))))
