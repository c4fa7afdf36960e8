"""INT8 is measured on folds that the networks have not seen, and a network that has seen its fold is refused."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

from benchmarks import int8_folds
from benchmarks.int8_folds import Divided, divide
from mribatch.core.bundle import load_bundle
from mribatch.core.training_images import TrainingImages
from mribatch.training.export.training_images import KnownImages, add_training_images
from tests.make_models import make_convolutional
from tests.training.toy import draw_sources

FOLDS = 2


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> Divided:
    data = draw_sources(tmp_path_factory.mktemp("data"), per_class=4)
    paths = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.png"))
    groups = data.parent / "groups.csv"
    groups.write_text("path,group_id\n" + "".join(f"{path},{number}\n" for number, path in enumerate(paths)))
    return divide(data, groups, 16, FOLDS)


def make_folds(folder: Path, divided: Divided, *, shifted: int = 0) -> Path:
    """A network for each fold that says it was fitted on the others; `shifted`, on the others of another fold."""
    for fold in range(FOLDS):
        seen = divided.folds.dealt != (fold + shifted) % FOLDS
        bundle = make_convolutional(folder / f"fold-{fold + 1}", seed=fold)
        add_training_images(bundle, KnownImages(TrainingImages.of_pixels(divided.data.pixels[seen])))
    return folder


def test_every_slice_is_answered_in_both_precisions_by_the_network_of_its_fold(
    tmp_path: Path, divided: Divided, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundles, model = make_folds(tmp_path / "folds", divided), make_convolutional(tmp_path / "model")
    data, results = divided.data.root, tmp_path / "results"
    options = ["--bundles", bundles, "--model", model, "--data", data, "--groups", data.parent / "groups.csv"]
    monkeypatch.setattr(sys, "argv", ["int8_folds", *map(str, options), "--results", str(results)])
    int8_folds.main()
    assert "the same class for" in capsys.readouterr().out
    content = json.loads((results / "int8_folds-convolutional-real-48images-cpu.json").read_text())
    assert content["model_sha256"] == load_bundle(str(model)).spec.model_sha256 and content["images"] == 48
    assert content["weights_sha256"] == int8_folds.hash_weights(load_bundle(str(model)).model)
    hits = 0
    for fold in range(FOLDS):
        held = divided.folds.dealt == fold
        answers = int8_folds.answer_fold(
            load_bundle(str(bundles / f"fold-{fold + 1}")), divided.data.pixels[~held], divided.data.pixels[held]
        )
        assert not np.array_equal(answers["fp32"], answers["int8"])
        hits += int((answers["int8"].argmax(axis=1) == divided.data.labels[held]).sum())
    assert content["int8"]["accuracy"]["value"] == pytest.approx(hits / 48)
    assert content["mean_difference"] > 0 and 0 < content["same_class"] <= 48


def test_a_network_that_has_seen_its_fold_is_refused(tmp_path: Path, divided: Divided) -> None:
    bundles = make_folds(tmp_path / "folds", divided, shifted=1)
    with pytest.raises(ValueError, match=r"fold-1 was fitted on \d+ of the 24 slices of its fold"):
        int8_folds.measure(bundles, divided, 1.0)
    unknown = load_bundle(str(make_convolutional(tmp_path / "unknown")))
    with pytest.raises(ValueError, match="does not say what it was fitted on"):
        int8_folds.answer_fold(unknown, divided.data.pixels, divided.data.pixels)
