"""`mribatch train` under each split: the parts that are trained on and tested, and what the bundle then says of them."""

from dataclasses import replace
from pathlib import Path

import cv2
import pyarrow.parquet as pq
import pytest

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

from mribatch.bundle import load_bundle
from mribatch.errors import MribatchError
from mribatch.synthetic import draw_slice
from mribatch.training.classes import BRAIN_TUMORS
from mribatch.training.data import load
from mribatch.training.networks import NETWORKS
from mribatch.training.prepare import TrainOptions, fit_fingerprint
from mribatch.training.recipes import RECIPES
from mribatch.training.train import train
from tests.training.toy import tiny_network, tiny_recipe

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "tiny", tiny_network)  # type: ignore[arg-type]


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


def options(data: Path, out: Path, split: str, **changes) -> TrainOptions:
    recipe = tiny_recipe(epochs=2, keep="last", schedule="cosine")
    return TrainOptions(**{"recipe": recipe, "data": data, "out": out, "split": split} | changes)


def test_official_tells_leaked_and_clean_images_apart(published: Path, tmp_path: Path):
    result = train(options(published, tmp_path / "model", "official"))
    parts = {row["path"]: row["part"] for row in pq.read_table(result.work / "parts.parquet").to_pylist()}
    assert all(part == ("test" if path.startswith("Testing") else "train") for path, part in parts.items())
    spec = load_bundle(str(tmp_path / "model")).spec
    assert spec.training["leak_rate"] == 0.5 and spec.training["images"] == {"train": 48, "validation": 0, "test": 48}
    accuracies = [row for row in spec.metrics if row["metric"] == "accuracy"]
    assert [row["n"] for row in accuracies] == [48, 24, 24]
    assert [row["leak_rate"] for row in accuracies] == [0.5, 1.0, 0.0]
    whole, leaked, clean = (row["value"] for row in accuracies)
    assert whole == pytest.approx((leaked + clean) / 2)
    card = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    for text in ("official split", "50.0% (24 of 48 test images", "leaked test images only, accuracy", "came last",
                 "this protocol divides units between parts"):  # fmt: skip
        assert text in card


def test_the_card_cites_other_runs_from_their_own_tables(published: Path, tmp_path: Path):
    first = train(options(published, tmp_path / "first", "official"))
    train(options(published, tmp_path / "second", "reference", cite=(first.work,)))
    accuracy = next(row for row in first.facts["metrics"] if row["metric"] == "accuracy")
    lines = [
        line for line in (tmp_path / "second" / "MODEL_CARD.md").read_text().splitlines() if "| first-work |" in line
    ]
    assert len(lines) == 1 and "official split" in lines[0] and f"| 48 | {accuracy['value']:.4f} (" in lines[0]
    with pytest.raises(MribatchError, match=r"cannot read .*metrics\.parquet"):
        train(options(published, tmp_path / "third", "reference", cite=(tmp_path,)))


def test_reference_tests_15_in_100_and_a_recipe_that_chooses_gets_its_own_images(published: Path, tmp_path: Path):
    chooses = tiny_recipe(epochs=2)
    result = train(options(published, tmp_path / "model", "reference", recipe=chooses))
    images = result.facts["training"]["images"]
    assert images["test"] == 15 and images["validation"] > 0 and sum(images.values()) == 96
    assert "reference split" in result.facts["summary"]["test part"]
    assert "that the validation part chose" in (tmp_path / "model" / "MODEL_CARD.md").read_text()


def test_a_part_without_a_class_is_refused(toy_data: Path, tmp_path: Path):
    """The toy set's Testing holds two of the four classes."""
    with pytest.raises(MribatchError, match="none falls into the (train|test) part"):
        train(options(toy_data, tmp_path / "model", "official"))


def test_weights_from_a_file_are_part_of_the_fit(published: Path, tmp_path: Path):
    data = load(published, BRAIN_TUMORS, 8)
    lite = replace(RECIPES["efficientnet_lite0"], weights=str(tmp_path / "net.pth"))
    asked = options(published, tmp_path / "model", "official", recipe=lite)
    with pytest.raises(MribatchError, match=r"cannot read the weights .*net\.pth"):
        fit_fingerprint(asked, lite, data, data.labels)
    seen = []
    for content in (b"some", b"other"):
        (tmp_path / "net.pth").write_bytes(content)
        seen.append(fit_fingerprint(asked, lite, data, data.labels))
    assert [key for key in seen[0] if seen[0][key] != seen[1][key]] == ["weights_sha256"]
    for weights in ("imagenet", "net.pth"):
        scratch = replace(RECIPES["cnn"], weights=weights)
        with pytest.raises(MribatchError, match="'cnn' is trained from scratch, it takes no weights"):
            fit_fingerprint(asked, scratch, data, data.labels)
