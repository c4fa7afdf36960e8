"""`mribatch train` under each split: the parts that are trained on and tested, and what the bundle then says of them."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

from mribatch.cli.train import describe_result
from mribatch.core.bundle import load_bundle
from mribatch.core.errors import MribatchError
from mribatch.core.synthetic import draw_slice
from mribatch.report.metrics import find
from mribatch.training.card.citations import read_citations
from mribatch.training.data.classes import BRAIN_TUMORS
from mribatch.training.data.data_sheets import BRAIN_TUMOR_CLASSIFICATION_MRI
from mribatch.training.data.images import load
from mribatch.training.evaluation.scores import FEWEST_APART, TestSet, score_shares
from mribatch.training.networks.build import NETWORKS
from mribatch.training.recipes.catalog import RECIPES
from mribatch.training.workflow.inputs import make_fingerprint
from mribatch.training.workflow.options import TrainOptions
from mribatch.training.workflow.train import train
from tests.training.toy import tiny_network, tiny_recipe


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "tiny", tiny_network)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 images of each class in Training and 12 in Testing, of which the first six are Training's over again."""
    root = tmp_path_factory.mktemp("published") / "brain"
    for label, name in enumerate(BRAIN_TUMORS.names):
        for part, first in (("Training", 0), ("Testing", 6)):
            (root / part / name).mkdir(parents=True)
            for number in range(first, first + 12):
                pixels = draw_slice(100 * label + number, 60, 60, lesion=name != "no_tumor")
                cv2.imwrite(str(root / part / name / f"{number}.png"), pixels)
    return root


def options(data: Path, out: Path, split: str, **changes: Any) -> TrainOptions:
    recipe = tiny_recipe(epochs=2, keep="last", schedule="cosine")
    settings: dict[str, Any] = {"recipe": recipe, "data": data, "out": out, "split": split, "draw_figures": False}
    return TrainOptions(**settings | changes)


def test_official_tells_leaked_and_clean_images_apart(published: Path, tmp_path: Path) -> None:
    result = train(options(published, tmp_path / "model", "official", sheet=BRAIN_TUMOR_CLASSIFICATION_MRI))
    parts = {row["path"]: row["part"] for row in pq.read_table(result.work / "parts.parquet").to_pylist()}
    assert all(part == ("test" if path.startswith("Testing") else "train") for path, part in parts.items())
    spec = load_bundle(str(tmp_path / "model")).spec
    assert spec.training["leak_rate"] == 0.5 and spec.training["images"] == {"train": 48, "validation": 0, "test": 48}
    accuracies = [row for row in spec.metrics if row["metric"] == "accuracy"]
    assert [row["n"] for row in accuracies] == [48, 24, 24]
    assert [row["leak_rate"] for row in accuracies] == [0.5, 1.0, 0.0]
    whole, leaked, clean = (row["value"] for row in accuracies)
    assert whole == pytest.approx((leaked + clean) / 2)
    assert all(row["low"] <= row["value"] <= row["high"] for row in accuracies if row["low"] is not None)
    assert spec.training["validation"] is None  # the test part was looked at, and is no validation part
    card = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    for text in (
        "official split",
        "50.0% (24 of 48 test images",
        "with the weights of the last epoch; no epoch was chosen",
        "drawn at random",
        "this protocol divides units between parts",
        "Specificity, negative predictive value and every figure of no_tumor measured here have no clinical meaning.",
        "There are no patient identities.",
        "At least 20 of the images are CT, not MRI.",
        "figshare part is CC BY 4.0",
        "see Limits before quoting",
        "Research use only",
        "must not be used to diagnose",
    ):
        assert text in card
    summary = result.summary.highlights
    for name, images, row in zip(("all", "leaked only", "clean only"), (48, 24, 24), accuracies, strict=True):
        assert f"| {name} | {images} | {row['value']:.4f} (" in card
        if name != "all":
            assert summary[name.split()[0]].startswith(f"accuracy {row['value']:.4f} (")
            assert summary[name.split()[0]].endswith("of 24 test images")
    table = [row for row in pq.read_table(result.work / "metrics.parquet").to_pylist() if row["metric"] == "accuracy"]
    assert [(row["value"], row["n"], row["low"], row["protocol"]) for row in table] == [
        (row["value"], row["n"], row["low"], row["protocol"]) for row in accuracies
    ]
    lines = describe_result(result).splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith("accuracy")] == [
        "accuracy",
        "accuracy (leaked test images only)",
        "accuracy (clean test images only)",
    ]


def test_what_chose_the_epoch_counts_as_seen(published: Path, tmp_path: Path) -> None:
    """Twins of test images that went into the validation part have left the training part, and leak all the same."""
    lines: list[str] = []
    result = train(options(published, tmp_path / "model", "official", recipe=tiny_recipe(epochs=1)), lines.append)
    assert result.summary.training.images["validation"] > 0 and result.summary.training.leak_rate == 0.5
    assert any("; validation loss " in line for line in lines)


def test_the_part_that_is_looked_at_is_called_what_it_is(published: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    train(options(published, tmp_path / "model", "official"), lines.append)
    scored = [line for line in lines if line.startswith("epoch 2/2")]
    assert len(scored) == 1 and "; test loss " in scored[0] and "validation" not in scored[0]


def test_few_leaked_images_get_no_figure_and_the_others_do() -> None:
    labels = np.arange(40) % 4
    probabilities = np.eye(4, dtype=np.float32)[labels]
    leaked = np.arange(40) < FEWEST_APART - 1
    test = TestSet(classes=BRAIN_TUMORS.names, labels=labels, units=np.arange(40), protocol="p")
    seen, clean = score_shares(probabilities, test, leaked)
    assert (seen.images, seen.metrics, clean.images) == (19, (), 21)
    assert [(row.name, row.value, row.n) for row in clean.metrics] == [("accuracy", 1, 21), ("f1[macro]", 1, 21)]
    assert {row.protocol for row in clean.metrics} == {"p; clean test images only"}
    for everything in (np.zeros(40, dtype=bool), np.ones(40, dtype=bool)):
        assert score_shares(probabilities, test, everything) == ()


def test_the_card_cites_other_runs_from_their_own_tables(published: Path, tmp_path: Path) -> None:
    first = train(options(published, tmp_path / "first", "official"))
    train(options(published, tmp_path / "second", "reference", cite=(first.work,)))
    accuracies = [row.metric for row in first.summary.metrics if row.metric.metric == "accuracy"]
    card = (tmp_path / "second" / "MODEL_CARD.md").read_text().splitlines()
    (line,) = [line for line in card if "| first-work |" in line]
    assert "official split" in line and "| 50.0% (24 of 48 test images; " in line
    assert f"| 48 | {accuracies[0].value:.4f} (" in line
    for share in ("leaked", "clean"):
        (row,) = [row for row in accuracies if f"; {share} test" in row.protocol]
        (line,) = [line for line in card if f"| first-work, {share} images |" in line]
        assert f"| 24 | {row.value:.4f} (" in line and "–" in line
    with pytest.raises(MribatchError, match=r"cannot read .*metrics\.parquet"):
        train(options(published, tmp_path / "third", "reference", cite=(tmp_path,)))


def test_a_report_is_cited_without_a_leak_rate(published: Path, tmp_path: Path) -> None:
    first = train(options(published, tmp_path / "first", "official"))
    (tmp_path / "report").mkdir()
    shutil.copy(first.work / "metrics.parquet", tmp_path / "report")
    (run,) = read_citations([tmp_path / "report"])
    assert (run.name, run.leak, run.shares) == ("report", "not known to a report", ())
    assert find(run.metrics, "accuracy").value == first.summary.metrics[0].metric.value
    (tmp_path / "report" / "training.json").write_text('{"metrics": [{}]}')
    with pytest.raises(MribatchError, match=r"cannot read .*training\.json: the field .training. is missing"):
        read_citations([tmp_path / "report"])


def test_reference_tests_15_in_100_and_a_recipe_that_chooses_gets_its_own_images(
    published: Path, tmp_path: Path
) -> None:
    chooses = tiny_recipe(epochs=2)
    result = train(options(published, tmp_path / "model", "reference", recipe=chooses))
    images = result.summary.training.images
    assert images["test"] == 15 and images["validation"] > 0 and sum(images.values()) == 96
    described = result.summary.highlights["test part"]
    assert "reference split" in described
    assert "drawn from 96 images instead of the reference's 3,264, so the test images differ" in described
    assert "that was chosen on the validation part" in (tmp_path / "model" / "MODEL_CARD.md").read_text()


def test_a_part_without_a_class_is_refused(toy_data: Path, tmp_path: Path) -> None:
    """The toy set's Testing holds two of the four classes."""
    with pytest.raises(MribatchError, match="none of them in the (train|test) part"):
        train(options(toy_data, tmp_path / "model", "official"))


def test_weights_from_a_file_are_part_of_the_fit(published: Path, tmp_path: Path) -> None:
    data = load(published, BRAIN_TUMORS, 8)
    lite = replace(RECIPES["efficientnet_lite0"], weights=str(tmp_path / "net.pth"))
    asked = options(published, tmp_path / "model", "official", recipe=lite)
    with pytest.raises(MribatchError, match=r"cannot read the weights .*net\.pth"):
        make_fingerprint(asked, lite, data, data.labels)
    seen = []
    for content in (b"some", b"other"):
        (tmp_path / "net.pth").write_bytes(content)
        seen.append(make_fingerprint(asked, lite, data, data.labels).to_json())
    assert [key for key in seen[0] if seen[0][key] != seen[1][key]] == ["weights_sha256"]
    for weights in ("imagenet", "net.pth"):
        scratch = replace(RECIPES["cnn"], weights=weights)
        with pytest.raises(MribatchError, match="'cnn' is trained from scratch and takes no initial weights"):
            make_fingerprint(asked, scratch, data, data.labels)
