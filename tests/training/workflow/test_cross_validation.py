"""Grouped folds: every image predicted once by a network that did not know it, and no work lost when it is stopped."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

from mribatch.core.bundle import load_bundle
from mribatch.core.errors import MribatchError
from mribatch.report.metrics import find, headline
from mribatch.training.fit.loop import FitInputs, FitResult, fit
from mribatch.training.fit.temperature import fit_temperature
from mribatch.training.networks.build import NETWORKS, predict_logits
from mribatch.training.recipes.catalog import RECIPES
from mribatch.training.work_folder.summary import FoldsFacts, TrainingSummary
from mribatch.training.workflow import cross_validation
from mribatch.training.workflow.cross_validation import FINISHED_FOLD, cross_validate, make_final_recipe
from mribatch.training.workflow.finish import TrainResult
from mribatch.training.workflow.options import TrainOptions
from tests.training.toy import DyingEcho, Killed, draw_sources, tiny_network, tiny_recipe

FOLDS, EPOCHS = 3, 2


@pytest.fixture(autouse=True, scope="module")
def _tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "tiny", tiny_network)
        yield


def options(data: Path, out: Path, **changes: Any) -> TrainOptions:
    recipe = changes.pop("recipe", tiny_recipe(epochs=EPOCHS, keep="last", schedule="one_cycle", weights_average=0.9))
    settings: dict[str, Any] = {
        "recipe": recipe,
        "data": data,
        "out": out,
        "split": "grouped",
        "folds": FOLDS,
        "final": True,
    }
    return TrainOptions(**settings | {"draw_figures": False} | changes)


@pytest.fixture(scope="module")
def whole(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """Three folds and the fit on all images, without interruption; tests only read it."""
    return cross_validate(options(toy_data, tmp_path_factory.mktemp("folds") / "model"))


def rows(result: TrainResult) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = pq.read_table(result.work / "out_of_fold.parquet").to_pylist()
    return table


def folds_facts(result: TrainResult) -> FoldsFacts:
    facts = result.summary.training
    assert isinstance(facts, FoldsFacts)
    return facts


def test_every_image_is_predicted_once_and_the_figures_are_theirs(whole: TrainResult) -> None:
    table, names = rows(whole), load_bundle(str(whole.out)).spec.classes
    assert len({row["path"] for row in table}) == len(table) == 48
    assert sorted({row["fold"] for row in table}) == [1, 2, 3]
    logits = np.array([[row[f"logit_{name}"] for name in names] for row in table], dtype=np.float32)
    labels = np.array([names.index(row["label"]) for row in table])
    temperature = fit_temperature(logits, labels)
    facts = folds_facts(whole)
    assert facts.temperature == temperature == load_bundle(str(whole.out)).spec.temperature
    probabilities = np.array([[row[f"p_{name}"] for name in names] for row in table], dtype=np.float32)
    powers = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    assert np.abs(probabilities - powers / powers.sum(axis=1, keepdims=True)).max() < 1e-5
    accuracy = next(row for row in whole.summary.metrics if row.metric.metric == "accuracy")
    assert accuracy.metric.value == np.mean([row["label"] == row["predicted"] for row in table])
    assert accuracy.leak_rate == 0 and "grouped 3-fold" in accuracy.metric.protocol
    scored = headline(labels, probabilities, names)
    assert facts.ece.after == pytest.approx(find(scored, "ece").value, abs=1e-6)
    assert facts.log_loss.before is not None and facts.log_loss.after is not None
    assert facts.log_loss.after <= facts.log_loss.before


def test_folds_divide_no_unit(whole: TrainResult) -> None:
    parts = pq.read_table(whole.work / "parts.parquet").to_pylist()
    assert {row["part"] for row in parts} == {"fold 1", "fold 2", "fold 3"}
    homes: dict[int, set[str]] = {}
    for row in parts:
        homes.setdefault(row["unit"], set()).add(row["part"])
    assert all(len(home) == 1 for home in homes.values())


def test_the_card_tells_the_folds_and_the_calibration(whole: TrainResult) -> None:
    card = (whole.out / "MODEL_CARD.md").read_text()
    for text in (
        "| fold 3 | 4 | 4 | 4 | 4 | 16 |",
        "grouped 3-fold cross-validation",
        "Calibration, fitted on the pooled",
        "expected calibration error",
        "Accuracy of the individual folds: ",
        "standard deviation 0.",
        "0.0% (0 of 48 test images",
        "no image was used to choose it",
    ):
        assert text in card
    assert f"temperature {folds_facts(whole).temperature:g}, inside the graph" in card


def test_the_same_command_again_does_nothing(whole: TrainResult, toy_data: Path) -> None:
    lines: list[str] = []
    again = cross_validate(options(toy_data, whole.out), lines.append)
    assert "already holds this fit" in lines[-1] and not any(line.startswith("epoch") for line in lines)
    assert again.summary == whole.summary


@pytest.mark.parametrize(
    ("line", "count"),
    [
        *(pytest.param("epoch", count, marks=pytest.mark.slow) for count in (1, 2, 5, 8)),
        pytest.param("fold 2:", 1, marks=pytest.mark.slow),
        ("epoch", 3),
    ],
)
def test_stopped_anywhere_it_resumes_with_the_same_result(
    whole: TrainResult, toy_data: Path, tmp_path: Path, line: str, count: int
) -> None:
    with pytest.raises(Killed):
        cross_validate(options(toy_data, tmp_path / "model"), DyingEcho(line, count))
    lines: list[str] = []
    resumed = cross_validate(options(toy_data, tmp_path / "model"), lines.append)
    assert rows(resumed) == rows(whole)
    assert load_bundle(str(resumed.out)).spec.model_sha256 == load_bundle(str(whole.out)).spec.model_sha256
    assert sum(line.startswith("epoch ") for line in lines) < EPOCHS * (FOLDS + 1)


def test_no_network_learned_from_the_fold_that_it_predicts(
    whole: TrainResult, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each fit is given, and what it is asked about, share no picture. Without --final there is no bundle."""
    given: list[set[bytes]] = []
    asked: list[set[bytes]] = []
    real_fit, real_predict = fit, predict_logits

    def spied_fit(inputs: FitInputs, *rest: Any, **options: Any) -> FitResult:
        given.append({row.tobytes() for row in inputs.train.pixels})
        return real_fit(inputs, *rest, **options)

    def spied_predict(network: Any, images: np.ndarray) -> np.ndarray:
        asked.append({row.tobytes() for row in images})
        return real_predict(network, images)

    monkeypatch.setattr(cross_validation, "fit", spied_fit)
    monkeypatch.setattr(cross_validation, "predict_logits", spied_predict)
    result = cross_validate(options(toy_data, tmp_path / "model", final=False))
    assert len(given) == len(asked) == FOLDS and all(asked)
    assert not any(learned & tested for learned, tested in zip(given, asked, strict=True))
    assert len(set.union(*asked)) == sum(map(len, asked))
    assert rows(result) == rows(whole) and not (tmp_path / "model").exists()
    assert not list(result.work.rglob("state.npz")) and "bundle" not in result.summary.highlights

    with pytest.raises(MribatchError, match="fold-1 holds a fold of another fit"):
        cross_validate(options(toy_data, tmp_path / "model", final=False, seed=5))
    path = tmp_path / "model-work" / "fold-2" / FINISHED_FOLD
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(MribatchError, match=r"cannot read .*held_out\.npz"):
        cross_validate(options(toy_data, tmp_path / "model", final=False))


def test_stopped_between_the_bundle_and_its_summary_it_resumes(
    whole: TrainResult, toy_data: Path, tmp_path: Path
) -> None:
    """Also where the folds alone had been run before and left a summary of their own."""
    cross_validate(options(toy_data, tmp_path / "model", final=False))

    with pytest.raises(Killed):
        cross_validate(options(toy_data, tmp_path / "model"), DyingEcho("ONNX Runtime against Keras"))
    lines: list[str] = []
    result = cross_validate(options(toy_data, tmp_path / "model"), lines.append)
    assert result.summary.has_bundle and not any(line.startswith("epoch ") for line in lines)
    assert load_bundle(str(result.out)).spec.model_sha256 == load_bundle(str(whole.out)).spec.model_sha256


def test_two_folds_leave_nothing_to_learn_from_where_one_of_them_chooses(toy_data: Path, tmp_path: Path) -> None:
    with pytest.raises(MribatchError, match="with 2 folds none is left to train on. Fix: give --folds 3 or more"):
        cross_validate(options(toy_data, tmp_path / "model", folds=2, recipe=tiny_recipe(epochs=1)))
    assert list(tmp_path.iterdir()) == []


def test_where_epochs_are_chosen_all_images_are_trained_for_their_median() -> None:
    recipe = make_final_recipe(RECIPES["efficientnetb3"], [12, 7, 30, 9, 8])
    assert (recipe.epochs, recipe.keep, recipe.patience) == (9, "last", 9)
    assert make_final_recipe(RECIPES["efficientnetb3"], [4, 7]).epochs == 6
    assert make_final_recipe(RECIPES["efficientnet_lite0"], [12] * 5) == RECIPES["efficientnet_lite0"]


def test_a_recipe_that_chooses_is_told_apart(toy_data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(epochs=3)
    result = cross_validate(options(toy_data, tmp_path / "model", recipe=recipe))
    card = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    best = ", ".join(map(str, folds_facts(result).best_epochs))
    assert "no image was used to choose it" not in card
    assert (
        f"the number of epochs is the median of the folds' best epochs ({best}), chosen on images of other folds."
        in card
    )
    facts = folds_facts(result)
    assert len(facts.best_epochs) == FOLDS and facts.epochs == int(np.ceil(np.median(facts.best_epochs)))
    for fold in range(FOLDS):
        history = pq.read_table(result.work / f"fold-{fold + 1}" / "history.parquet").to_pylist()
        assert min(history, key=lambda row: row["val_loss"])["epoch"] == facts.best_epochs[fold]


def test_each_source_is_held_out_once(tmp_path: Path) -> None:
    """Folder Testing and two sizes: three folds by name, in tables, card and summary."""
    data = draw_sources(tmp_path / "brain")
    result = cross_validate(options(data, tmp_path / "model", split="sources"))
    facts = folds_facts(result)
    assert facts.fold_names == ("96 x 96", "other sizes", "Testing") and facts.folds == 3
    assert facts.leak_rate == 0 and facts.protocol.startswith(
        "each source held out once (96 x 96, other sizes, Testing)"
    )
    parts = pq.read_table(result.work / "parts.parquet").to_pylist()
    assert all((row["part"] == "Testing") == row["path"].startswith("Testing/") for row in parts)
    card = (result.out / "MODEL_CARD.md").read_text()
    assert "| Testing | 3 | 3 | 3 | 3 | 12 | 12 |" in card and "Accuracy of the individual folds: 96 x 96 0." in card
    assert TrainingSummary.from_json(result.summary.to_json()) == result.summary


def test_a_recipe_that_chooses_does_so_on_units_of_the_other_sources(tmp_path: Path) -> None:
    data = draw_sources(tmp_path / "brain")
    lines: list[str] = []
    recipe = tiny_recipe(epochs=1)
    cross_validate(options(data, tmp_path / "model", split="sources", final=False, recipe=recipe), lines.append)
    assert sum("validation loss" in line for line in lines) == 3
