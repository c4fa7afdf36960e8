"""A bundle with an INT8 graph: made from a real one, measured, written, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from mribatch.cli.main import cli
from mribatch.core.bundle import INT8_FILE, load_bundle
from mribatch.core.errors import BundleError, MribatchError
from mribatch.core.synthetic import golden_slices
from mribatch.training.export.int8_bundle import add_int8, divide_slices, put_into_card
from mribatch.training.export.quantization import choose_evenly, quantize
from tests.make_models import edit_spec, make_convolutional, make_tiny, packed, set_golden


@given(st.integers(0, 5000), st.integers(1, 700))
def test_images_are_chosen_evenly(images: int, count: int) -> None:
    chosen = choose_evenly(images, count)
    assert len(chosen) == len(set(chosen)) == min(images, count)
    assert images == 0 or (chosen.min() >= 0 and chosen.max() < images)
    gaps = np.diff(chosen)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


@given(st.integers(2, 900))
def test_no_image_gives_a_range_and_is_compared(count: int) -> None:
    pixels = np.arange(count, dtype=np.uint16).view(np.uint8).reshape(count, 2, 1, 1)
    slices = divide_slices(pixels)
    gives, compared = ({bytes(image.ravel()) for image in part} for part in (slices.calibration, slices.compared))
    assert not gives & compared and len(gives) == len(slices.calibration) == min(128, -(-min(count, 640) // 2))
    assert len(gives | compared) == min(count, 640)


def test_the_same_images_give_the_same_graph(tmp_path: Path) -> None:
    model = load_bundle(str(make_convolutional(tmp_path / "model"))).model
    images = golden_slices(20, 16, 16)
    assert quantize(model, images) == quantize(model, images) != quantize(model, 255 - images)


def test_a_bundle_with_int8_has_all_that_it_had(int8_model: Path) -> None:
    before, after = load_bundle(str(int8_model.with_name("fp32"))), load_bundle(str(int8_model))
    assert (after.model, after.spec.golden_sha256) == (before.model, before.spec.golden_sha256)
    assert not before.has_int8 and after.has_int8 and after.graph("int8") == (int8_model / INT8_FILE).read_bytes()
    with pytest.raises(BundleError, match="has no INT8 graph. Fix: make one with mribatch quantize"):
        before.graph("int8")
    assert replace(after.spec, int8_sha256=None, int8={}, tolerance=before.spec.tolerance) == before.spec
    facts = after.spec.int8
    assert after.spec.tolerance.int8 == pytest.approx(facts["golden_max_difference"] + 0.02, abs=0.0101)
    assert (facts["calibration_images"], facts["comparison"]["images"]) == (40, 40)
    written = json.loads((int8_model / "bundle.json").read_text())
    assert written == after.spec.to_json()


def test_the_card_has_one_section_about_int8(int8_model: Path, tmp_path: Path) -> None:
    card = (int8_model / "MODEL_CARD.md").read_text()
    assert card.count("## INT8\n") == 1 and card.index("## INT8") < card.index("## Licences")
    slices = divide_slices(golden_slices(60, 16, 16))
    facts = add_int8(int8_model, slices, tmp_path / "again", note="On unseen images: the same class for all.")
    again = (tmp_path / "again/MODEL_CARD.md").read_text()
    assert again.count("## INT8\n") == again.count("## Licences\n") == 1 and "\n\nOn unseen images: " in again
    assert again == put_into_card(card, facts) == put_into_card(again, facts)


def test_a_network_that_loses_too_much_is_refused(tmp_path: Path) -> None:
    source = make_convolutional(tmp_path / "source")
    golden = load_bundle(str(source)).golden
    set_golden(source, packed({"images": golden.images, "probabilities": np.roll(golden.probabilities, 2, axis=1)}))
    with pytest.raises(MribatchError, match="in 8 bits, 'convolutional' changes a probability of a golden slice by"):
        add_int8(source, divide_slices(golden_slices(40, 16, 16)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_quantized_is_refused(tmp_path: Path) -> None:
    tiny = load_bundle(str(make_tiny(tmp_path / "tiny"))).model
    with pytest.raises(MribatchError, match="the model has no convolution"):
        quantize(tiny, golden_slices(20, 8, 8))
    with pytest.raises(MribatchError, match="15 images are too few"):
        quantize(tiny, golden_slices(15, 8, 8))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"int8_sha256": "x"}, "'int8_sha256' does not fit: x"),
        ({"tolerance": {"fp32": 1e-4, "fp16": 0.01, "margin": 0.02}}, "'tolerance' does not fit: None"),
        ({"tolerance": {"fp32": 1e-4, "fp16": 0.01, "margin": 0.02, "int8": 2, "int8_margin": 0.1}}, "'tolerance'"),
        ({"int8": []}, r"'int8' does not fit: \[\]"),
    ],
)
def test_fields_that_do_not_fit_are_refused(
    int8_model: Path, tmp_path: Path, fields: dict[str, object], words: str
) -> None:
    broken = shutil.copytree(int8_model, tmp_path / "broken")
    edit_spec(broken, **fields)
    with pytest.raises(BundleError, match=words):
        load_bundle(str(broken))


def test_the_command(tmp_path: Path) -> None:
    source, out = make_convolutional(tmp_path / "source"), tmp_path / "out"
    (tmp_path / "slices").mkdir()
    for number, image in enumerate(golden_slices(40, 32, 32)):
        cv2.imwrite(str(tmp_path / f"slices/{number}.png"), image)
    (tmp_path / "slices/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    command = ["quantize", str(source), "--calibration", str(tmp_path / "slices"), "--out", str(out)]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "INT8 against FP32: the same class for " in result.stdout and load_bundle(str(out)).has_int8
    with pytest.raises(MribatchError, match="holds a bundle. Fix: choose another --out, or add --overwrite"):
        CliRunner().invoke(cli, command, catch_exceptions=False, standalone_mode=False)
    result = CliRunner().invoke(cli, [*command, "--overwrite", "--json"], catch_exceptions=False)
    assert json.loads(result.stdout)["calibration_images"] == 20
    for wrong in ([str(tmp_path / "missing")], [str(source)]):
        with pytest.raises(MribatchError):
            CliRunner().invoke(
                cli,
                ["quantize", str(source), "--calibration", *wrong, "--out", str(tmp_path / "x")],
                catch_exceptions=False,
                standalone_mode=False,
            )
