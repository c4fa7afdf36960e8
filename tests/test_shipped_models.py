"""What ships with the package is whole, trained, proven, and worth what its card says."""

import os
from pathlib import Path

import pytest

from mribatch.bundle import CARD_FILE, DEFAULT_MODEL, load_bundle, shipped_models
from mribatch.pipeline.classify_here import prove
from mribatch.pipeline.infer_onnxruntime import OnnxRuntimeClassifier
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.report import ReportOptions, report
from mribatch.pipeline.run import classify

MAX_BYTES = 25_000_000


def test_the_default_is_one_of_them() -> None:
    assert DEFAULT_MODEL in shipped_models()


@pytest.mark.parametrize("name", list(shipped_models()))
def test_a_shipped_bundle_is_trained_and_reproduces_its_golden_answers(name: str) -> None:
    bundle = load_bundle(name)
    assert bundle.spec.trained and bundle.spec.name == name and len(bundle.golden.images) == 64
    with OnnxRuntimeClassifier(bundle, threads=2) as classifier:
        assert prove(classifier, bundle, batch_size=24).max_difference < 1e-5
    assert sum(path.stat().st_size for path in bundle.folder.iterdir()) < MAX_BYTES


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
    import numpy as np

    from mribatch.training.classes import BRAIN_TUMORS
    from mribatch.training.data import load

    for name in shipped_models():
        golden = load_bundle(name).golden.images
        data = load(data_folder / "brain-mri", BRAIN_TUMORS, golden.shape[1])
        known = {pixels.tobytes() for pixels in np.asarray(data.pixels)}
        assert not any(image.tobytes() in known for image in golden)


def test_classify_and_report_give_the_cards_figures_to_four_digits(data_folder: Path, tmp_path: Path) -> None:
    from mribatch.training.classes import BRAIN_TUMORS
    from mribatch.training.data import load
    from mribatch.training.split import group, grouped_split, read_groups

    bundle = load_bundle("cnn")
    data = load(data_folder / "brain-mri", BRAIN_TUMORS, bundle.spec.height)
    grouping = group(data.paths, data.pixel_sha256, read_groups(data_folder / "groups.csv"))
    parts = grouped_split(data.labels, grouping, data.pixel_sha256, seed=bundle.spec.training["split_seed"])
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
