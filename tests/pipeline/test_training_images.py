"""A run flags the images that its model was trained on; summary, run.json and report count them."""

import json
import shutil
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest

from mribatch.core.bundle import TRAINING_IMAGES_FILE, load_bundle
from mribatch.core.errors import BundleError
from mribatch.core.training_images import TrainingImages
from mribatch.pipeline.decode.file import decode_file
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.run_file import run_file_schema
from mribatch.pipeline.run import classify
from mribatch.report.measure import ReportOptions, report
from mribatch.report.metrics_file import metrics_schema
from mribatch.training.export.training_images import KnownImages, add_training_images
from tests.folders import draw_images, rows
from tests.report.html.pages import make_model_with_look


@pytest.fixture
def trained_on_some(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with the hashes of the first 12 of the 20 images that are drawn beside it; one is encoded again."""
    paths = draw_images(tmp_path / "data", 20, size=64)
    (tmp_path / "data" / "broken.jpg").write_bytes(b"x")
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    spec = load_bundle(str(folder)).spec
    pixels = [decode_file(bytes(path), spec.height, spec.width).pixels for path in paths[:12]]
    known = TrainingImages.of_pixels(np.stack([image for image in pixels if image is not None]))
    add_training_images(folder, KnownImages(known))
    image = cv2.imread(str(paths[0]), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    cv2.imwrite(str(paths[0]), image + 1, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return folder


def test_training_images_are_flagged_counted_and_left_out(trained_on_some: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = classify([tmp_path / "data"], out, ClassifyOptions(model=str(trained_on_some), batch_size=8))
    flags = [row["flags"] for row in rows(out) if row["status"] == "ok"]
    assert flags == [["seen_in_training", "near_match"], *[["seen_in_training"]] * 11, *[[]] * 8]
    counts = summary.counts
    assert (counts.training_exact, counts.training_near, counts.new_labelled_ok) == (11, 1, 8)
    text = f"12 of 20 were training images (exact 11, near 1); without them labels agree with {counts.new_correct} of 8"
    assert text in summary.to_text() and summary.to_json()["seen_in_training"] == 12
    content = json.loads((out / "run.json").read_bytes())
    jsonschema.validate(content, run_file_schema())
    assert (content["bundle"]["training_images"], content["counts"]["seen_in_training"]) == (12, 12)
    measured = report(ReportOptions(run=out, html=False))
    jsonschema.validate(measured.content, metrics_schema())
    assert [(level.level, level.n) for level in measured.file.levels] == [("image", 20), ("image_not_in_training", 8)]
    for page in (measured.table, (out / "report.md").read_text()):
        assert "12 of 20 were training images (exact 11, near 1)" in page.replace("\\", "")
        assert "of all 20 labelled images" in page and "of the 8 that were not in training" in page


def test_a_model_without_hashes_says_nothing_of_training(tiny_model: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 8)
    summary = classify([tmp_path / "data"], tmp_path / "out", ClassifyOptions(model=str(tiny_model)))
    assert "training" not in summary.to_text() and "seen_in_training" not in summary.to_json()
    assert "seen_in_training" not in report(ReportOptions(run=tmp_path / "out", html=False)).content
    assert "training_images" not in json.loads((tmp_path / "out" / "run.json").read_bytes())["bundle"]


def test_damaged_hashes_are_refused_before_anything_is_written(trained_on_some: Path, tmp_path: Path) -> None:
    with (trained_on_some / TRAINING_IMAGES_FILE).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(BundleError, match=r"training_images\.npz has sha256 .*Fix: "):
        classify([tmp_path / "data"], tmp_path / "out", ClassifyOptions(model=str(trained_on_some)))
    assert not (tmp_path / "out").exists()


def test_images_unlike_training_are_flagged_and_counted(tmp_path: Path) -> None:
    model = make_model_with_look(tmp_path / "model")
    draw_images(tmp_path / "data", 12, size=256)
    noise = np.random.default_rng(0).integers(0, 256, (256, 256)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "data" / "noise.png"), noise)
    summary = classify([tmp_path / "data"], tmp_path / "out", ClassifyOptions(model=str(model)))
    flagged = [row["path"] for row in rows(tmp_path / "out") if "unlike_training" in row["flags"]]
    number = len(flagged)  # drawings may be among them, as false alarms
    assert "noise.png" in flagged and number <= 3 and summary.counts.unlike_training == number
    assert f"{number} of 13 look unlike the training images (flag unlike_training)" in summary.to_text()
    assert summary.to_json()["unlike_training"] == number
    content = json.loads((tmp_path / "out" / "run.json").read_bytes())
    jsonschema.validate(content, run_file_schema())
    assert content["counts"]["unlike_training"] == number and content["bundle"]["unlike_false_alarms"] < 0.05
    measured = report(ReportOptions(run=tmp_path / "out", html=False))
    jsonschema.validate(measured.content, metrics_schema())
    assert measured.content["unlike_training"]["images"] == number
    for page in (measured.table, (tmp_path / "out" / "report.md").read_text()):
        assert f"{number} of 13 look unlike the training images" in page.replace("\\", "")


def test_equal_pictures_have_equal_perceptual_hashes_in_the_rows(tmp_path: Path) -> None:
    model = make_model_with_look(tmp_path / "model")
    first = draw_images(tmp_path / "data", 3, size=64)[0]
    picture = cv2.imread(str(first), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    cv2.imwrite(str(tmp_path / "data" / "again.png"), picture)
    cv2.imwrite(str(tmp_path / "data" / "flat.png"), np.full((64, 64), 9, np.uint8))
    (tmp_path / "data" / "broken.png").write_bytes(b"x")
    classify([tmp_path / "data"], tmp_path / "out", ClassifyOptions(model=str(model)))
    hashes = {row["path"].split("/")[-1]: row["perceptual_hash"] for row in rows(tmp_path / "out")}
    assert hashes["flat.png"] is None and hashes["broken.png"] is None
    assert hashes["again.png"] == hashes[first.name] and len(hashes["again.png"]) == 16
