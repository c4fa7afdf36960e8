"""What ships with the package is whole, trained, proven, and worth what its card says."""

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mribatch.core.bundle import CARD_FILE, DEFAULT_MODEL, ROLES, load_bundle, shipped_models
from mribatch.core.gate import ON_CPU, gate
from mribatch.pipeline.inference.onnxruntime import OnnxRuntimeClassifier
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.run import classify
from mribatch.report.measure import ReportOptions, report

MAX_BYTES = 30_000_000
OUT_OF_FOLD = "out_of_fold.parquet"  # of a model whose figures are those of folds


def test_the_default_is_one_of_them() -> None:
    assert DEFAULT_MODEL in shipped_models()


@pytest.mark.parametrize("name", list(shipped_models()))
def test_a_shipped_bundle_is_trained_and_reproduces_its_golden_answers(name: str) -> None:
    bundle = load_bundle(name)
    assert bundle.spec.trained and bundle.spec.name == name and len(bundle.golden.images) == 64
    with OnnxRuntimeClassifier(bundle, threads=2) as classifier:
        report = gate(classifier, bundle, batch_sizes=(24,), verified=ON_CPU)
    assert report.holds and report.max_difference < 1e-5
    assert sum(path.stat().st_size for path in bundle.folder.iterdir()) < MAX_BYTES


@pytest.mark.parametrize("name", [name for name in shipped_models() if load_bundle(name).has_int8])
def test_a_shipped_int8_graph_is_worth_having_and_does_what_it_did_when_it_was_made(name: str) -> None:
    bundle = load_bundle(name)
    with OnnxRuntimeClassifier(bundle, threads=2, precision="int8") as classifier:
        report = gate(classifier, bundle, batch_sizes=(24,), verified=ON_CPU)
    facts = bundle.spec.int8
    assert report.holds and report.max_difference == pytest.approx(facts["golden_max_difference"], abs=0.02)
    compared, speed = facts["comparison"], facts["speed"]
    assert compared["same_class"] >= 0.99 * compared["images"] and speed["fp32_ms"] > 1.3 * speed["int8_ms"]
    card = (bundle.folder / CARD_FILE).read_text(encoding="utf-8")
    assert f"the same class for {compared['same_class']}, " in card and "has not seen" in card


@pytest.mark.parametrize("name", ROLES)
def test_the_default_and_the_fast_model_have_an_int8_graph(name: str) -> None:
    assert load_bundle(name).has_int8


@pytest.mark.parametrize("name", list(shipped_models()))
def test_every_figure_has_its_protocol_and_leak_rate_and_stands_in_the_card(name: str) -> None:
    bundle = load_bundle(name)
    card = (bundle.folder / CARD_FILE).read_text(encoding="utf-8")
    assert "Research use only, not a medical device." in card and "Leak rate" in card
    assert bundle.spec.metrics
    for figure in bundle.spec.metrics:
        assert figure["protocol"] and figure["leak_rate"] is not None and figure["n"] > 0
    (accuracy,) = [figure for figure in bundle.spec.metrics if figure["metric"] == "accuracy"]
    assert f"{accuracy['value']:.4f} ({accuracy['low']:.4f} to {accuracy['high']:.4f})" in card


def test_no_image_of_the_data_set_ships(data_folder: Path) -> None:
    from mribatch.training.data.classes import BRAIN_TUMORS
    from mribatch.training.data.images import load

    for name in shipped_models():
        golden = load_bundle(name).golden.images
        data = load(data_folder / "brain-mri", BRAIN_TUMORS, golden.shape[1])
        known = {pixels.tobytes() for pixels in np.asarray(data.pixels)}
        assert not any(image.tobytes() in known for image in golden)


def with_out_of_fold() -> list[str]:
    return [name for name, folder in shipped_models().items() if (folder / OUT_OF_FOLD).is_file()]


def test_the_default_and_the_fast_model_were_measured_by_folds() -> None:
    assert set(ROLES.values()) <= set(with_out_of_fold())


@pytest.mark.parametrize("name", with_out_of_fold())
def test_out_of_fold_predictions_give_the_figures_of_the_bundle(name: str) -> None:
    bundle = load_bundle(name)
    table, classes, training = pq.read_table(bundle.folder / OUT_OF_FOLD), bundle.spec.classes, bundle.spec.training
    labels = np.array([classes.index(label) for label in table["label"].to_pylist()])
    logits, probabilities = (
        np.column_stack([table[f"{kind}_{one}"].to_numpy() for one in classes]).astype(np.float64)
        for kind in ("logit", "p")
    )
    units, folds = table["unit"].to_pylist(), table["fold"].to_numpy()
    assert len(set(table["path"].to_pylist())) == table.num_rows == training["images"]["out_of_fold"]
    assert len(set(units)) == len(set(zip(units, folds.tolist(), strict=True))), "no unit stands in two folds"
    scaled = np.exp(logits / bundle.spec.temperature)
    assert np.abs(scaled / scaled.sum(axis=1, keepdims=True) - probabilities).max() < 1e-5
    hits = probabilities.argmax(axis=1) == labels
    figures = {(figure["metric"], figure["class"]): figure["value"] for figure in bundle.spec.metrics}
    assert figures["accuracy", None] == pytest.approx(hits.mean(), abs=1e-6)
    assert figures["log_loss", None] == pytest.approx(
        -np.log(probabilities[np.arange(len(labels)), labels]).mean(), abs=1e-5
    )
    for fold, accuracy in enumerate(training["fold_accuracy"], start=1):
        assert hits[folds == fold].mean() == pytest.approx(accuracy)
    for place, one in enumerate(classes):
        assert figures["sensitivity", one] == pytest.approx(hits[labels == place].mean(), abs=1e-6)


def test_classify_and_report_give_the_cards_figures_to_four_digits(data_folder: Path, tmp_path: Path) -> None:
    from mribatch.training.data.classes import BRAIN_TUMORS
    from mribatch.training.data.images import load
    from mribatch.training.data.split import group, grouped_split, read_groups

    bundle = load_bundle("cnn")
    data = load(data_folder / "brain-mri", BRAIN_TUMORS, bundle.spec.height)
    grouping = group(data.paths, data.content_sha256, read_groups(data_folder / "groups.csv"))
    parts = grouped_split(data.labels, grouping, data.content_sha256, seed=bundle.spec.training["split_seed"])
    test = [path for path, part in zip(data.paths, parts.tolist(), strict=True) if part == 2]
    (tmp_path / "test.txt").write_text("".join(f"{data_folder / 'brain-mri' / path}\n" for path in test))
    options = ClassifyOptions(model="cnn", from_file=os.fspath(tmp_path / "test.txt"))
    assert classify([], tmp_path / "run", options).files == 416
    made = report(ReportOptions(run=tmp_path / "run", groups=os.fspath(data_folder / "groups.csv")))
    found = {(row["metric"], row["class"]): row for row in made.content["levels"][0]["metrics"]}
    assert len(bundle.spec.metrics) >= 20
    for figure in bundle.spec.metrics:
        row = found[(figure["metric"], figure["class"])]
        for bound in ("value", "low", "high"):
            assert row[bound] == pytest.approx(figure[bound], abs=5e-5), figure
