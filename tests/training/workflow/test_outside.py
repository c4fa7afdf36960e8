"""Networks that were fitted elsewhere: measured as own ones are, said to be so, and refused where they do not fit."""

import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

from mribatch.core.bundle import load_bundle
from mribatch.core.errors import MribatchError
from mribatch.training.data.classes import BRAIN_TUMORS
from mribatch.training.data.images import DataSet, load
from mribatch.training.data.protocols import deal_folds, parts_by_folder
from mribatch.training.data.split import group
from mribatch.training.networks.build import NETWORKS, build, predict_logits
from mribatch.training.recipes.recipe import Recipe
from mribatch.training.work_folder.summary import TrainingSummary
from mribatch.training.workflow.cross_validation import cross_validate
from mribatch.training.workflow.options import TrainOptions
from mribatch.training.workflow.train import train
from tests.training.toy import draw_sources, tiny_recipe

RECIPE = tiny_recipe(epochs=1, keep="last")
MADE_BY = "another library in bfloat16"


def named_network(pixels: Any, recipe: Recipe) -> Any:
    """Layers with names, by which an .npz file finds them."""
    import keras

    features = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    features = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(16, name="features")(features))
    return keras.layers.Dropout(recipe.options["dropout"])(features)


@pytest.fixture(autouse=True, scope="module")
def _tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "tiny", named_network)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_sources(tmp_path_factory.mktemp("outside") / "brain")


@pytest.fixture(scope="module")
def data(folder: Path) -> DataSet:
    return load(folder, BRAIN_TUMORS, RECIPE.size)


def write_fits(folder: Path, held_out: dict[str, list[str]], suffix: str = ".npz") -> Path:
    """One network per fit, drawn with the position as its seed."""
    fits = {}
    folder.mkdir()
    for seed, (name, paths) in enumerate(held_out.items()):
        network, path = build(RECIPE, 4, seed), folder / f"{name}{suffix}"
        if suffix == ".npz":
            weights = {
                f"{layer.name}/{place}": variable.numpy()
                for layer in network.layers
                for place, variable in enumerate(layer.weights)
                if "seed_generator" not in variable.path
            }
            np.savez(path, **weights)
        else:
            network.save(path)
        history = [{"epoch": 1, "loss": 1.5, "accuracy": 0.25, "seconds": 2.0}]
        digest = sha256(path.read_bytes()).hexdigest()
        fits[name] = {"file": path.name, "sha256": digest, "held_out": paths, "history": history}
    content = {"made_by": MADE_BY, "notes": ["No dropout."], "versions": {"other": "1.2"}, "fits": fits}
    (folder / "fits.json").write_text(json.dumps(content))
    return folder


def held_out_folds(data: DataSet) -> dict[str, list[str]]:
    dealt = deal_folds(data, group(data.paths, data.content_sha256, None), 2, 0)
    held = {f"fold-{fold + 1}": [data.paths[place] for place in np.flatnonzero(dealt == fold)] for fold in range(2)}
    return held | {"all": []}


def options(folder: Path, out: Path, fitted: Path, **changes: Any) -> TrainOptions:
    settings: dict[str, Any] = {"split": "grouped", "folds": 2, "final": True, "draw_figures": False, "recipe": RECIPE}
    return TrainOptions(data=folder, out=out, fitted=fitted, **settings | changes)


def test_the_folds_are_predicted_by_their_networks_and_the_card_says_who_fitted_them(
    folder: Path, data: DataSet, tmp_path: Path
) -> None:
    fitted = write_fits(tmp_path / "fitted", held_out_folds(data))
    result = cross_validate(options(folder, tmp_path / "model", fitted))
    rows = pq.read_table(result.work / "out_of_fold.parquet").to_pylist()
    for seed in range(2):
        expected = predict_logits(build(RECIPE, 4, seed), data.pixels)
        for place, row in enumerate(rows):
            if row["fold"] == seed + 1:
                got = [row[f"logit_{name}"] for name in BRAIN_TUMORS.names]
                assert np.abs(expected[place] - got).max() < 1e-4
    card = (result.out / "MODEL_CARD.md").read_text()
    assert f"**The networks were fitted outside mribatch**, with {MADE_BY} (other 1.2)" in card
    assert "- No dropout." in card and "1 epochs" in card
    training = load_bundle(str(result.out)).spec.training
    assert training["fitted_elsewhere"] == {"made_by": MADE_BY, "notes": ["No dropout."]}
    assert training["fit"]["version.other"] == "1.2" and len(training["fit"]["fitted_sha256"]) == 64
    assert TrainingSummary.from_json(result.summary.to_json()) == result.summary

    taught = cross_validate(
        options(folder, tmp_path / "taught", fitted, final=False, recipe=replace(RECIPE, teacher_share=0.5))
    )
    assert taught.summary.training.protocol.endswith("by a teacher whose training images cannot be checked here")

    lines: list[str] = []
    cross_validate(options(folder, tmp_path / "model", fitted), lines.append)
    assert "already holds this fit" in lines[-1]


def test_one_split_from_a_keras_file(folder: Path, data: DataSet, tmp_path: Path) -> None:
    tested = parts_by_folder(data.paths, official=True) == 2
    held = {"split": [path for path, test in zip(data.paths, tested, strict=True) if test]}
    fitted = write_fits(tmp_path / "fitted", held, ".keras")
    result = train(options(folder, tmp_path / "model", fitted, split="official", final=False))
    logits = predict_logits(build(RECIPE, 4, 0), data.pixels[tested])
    (accuracy,) = [row.metric for row in result.summary.metrics if row.metric.name == "accuracy"]
    assert accuracy.value == pytest.approx((logits.argmax(axis=1) == data.labels[tested]).mean())


def test_networks_that_do_not_fit_are_refused(folder: Path, data: DataSet, tmp_path: Path) -> None:
    held = held_out_folds(data)
    swapped = {"fold-1": held["fold-2"], "fold-2": held["fold-1"], "all": []}

    def refused(fitted: Path, message: str, **changes: Any) -> None:
        with pytest.raises(MribatchError, match=message):
            cross_validate(options(folder, tmp_path / f"model-{fitted.name}", fitted, **changes))

    refused(write_fits(tmp_path / "swapped", swapped), "held out 16 images, 0 of them among the 20")
    refused(write_fits(tmp_path / "less", {"fold-1": held["fold-1"]}), "has no fit 'fold-2'; it has: fold-1")
    longer = write_fits(tmp_path / "longer", held)
    refused(longer, "has 1 epochs, the recipe 3. Fix: give --epochs 1", epochs=3)
    refused(longer, "chooses its epoch", recipe=tiny_recipe(epochs=1))
    other = write_fits(tmp_path / "other", held)
    np.savez(other / "fold-1.npz", features=np.zeros(3))
    refused(other, "is not the file whose sha256 is in fits.json")
    content = json.loads((other / "fits.json").read_text())
    content["fits"]["fold-1"]["sha256"] = sha256((other / "fold-1.npz").read_bytes()).hexdigest()
    (other / "fits.json").write_text(json.dumps(content))
    refused(other, "belongs to another network")
    (other / "fits.json").write_text("{}")
    refused(other, "fits.json does not describe fits: 'made_by' is missing")
    refused(tmp_path / "none", "cannot read .*fits.json")
