"""fp32 or int8: who chooses, what is kept of a measurement, and what is refused. Real graphs, real ONNX Runtime."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.dataset as ds
import pytest

from mribatch.core.bundle import INT8_FILE, Bundle, load_bundle
from mribatch.core.errors import MribatchError, OptionError, RunError
from mribatch.core.gate import GateFailed
from mribatch.core.processor import find_processor
from mribatch.pipeline.inference.onnxruntime import OnnxRuntimeClassifier
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.summary import RunSummary
from mribatch.pipeline.precision import FEWEST_FILES, Conditions, Int8Trial, choose_precision, measure_gain
from mribatch.pipeline.records import Choice
from mribatch.pipeline.run import classify
from tests.make_models import edit_spec

CPU, GPU = Choice("onnxruntime", "a test"), Choice("tensorrt", "a test")


@pytest.fixture
def bundle(int8_model: Path) -> Bundle:
    return load_bundle(str(int8_model))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MRIBATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "precision"


def choose(bundle: Bundle, wanted: str = "auto", *, files: int = FEWEST_FILES, threads: int = 1) -> Choice:
    return choose_precision(wanted, bundle, CPU, files=files, threads=threads, note=lambda _: None)


def change_gain(cache: Path, gain: float) -> None:
    """Make the measurement that was kept say something else."""
    (kept,) = cache.iterdir()
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"gain": gain}))


def run(data: Path, out: Path, model: Path, **options: Any) -> RunSummary:
    return classify([data], out, ClassifyOptions(model=str(model), threads=1, **options))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FEWEST_FILES images, each of its own noise."""
    folder = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(0).integers(0, 256, (FEWEST_FILES, 16, 16), np.uint8)
    for number, pixels in enumerate(noise):
        cv2.imwrite(str(folder / f"{number:04}.png"), pixels)
    return folder


def test_both_graphs_answer_nearly_the_same(bundle: Bundle) -> None:
    with OnnxRuntimeClassifier(bundle, 1, "int8") as fast, OnnxRuntimeClassifier(bundle, 1) as exact:
        difference = np.abs(fast(bundle.golden.images) - exact(bundle.golden.images)).max()
    assert 0 < difference <= bundle.spec.tolerance.limit("int8")


def test_requests_are_obeyed_or_refused(bundle: Bundle, tiny_model: Path) -> None:
    assert choose(bundle, "int8", files=1) == Choice("int8", "requested")
    assert choose(bundle, "fp32") == Choice("fp32", "requested")
    assert choose_precision("auto", bundle, GPU, files=9999, threads=1, note=pytest.fail).name == "fp16"
    with pytest.raises(
        OptionError, match="needs an INT8 graph, and the model 'tiny' has none. Fix: use --precision fp32"
    ):
        choose(load_bundle(str(tiny_model)), "int8")
    with pytest.raises(OptionError, match="--backend tensorrt computes in fp16. Fix: leave one of them out"):
        ClassifyOptions(backend="tensorrt", precision="int8")
    with pytest.raises(OptionError, match="--precision 'int4' is unknown"):
        ClassifyOptions(precision="int4")


def test_auto_without_a_measurement_where_nothing_is_to_be_gained(
    bundle: Bundle, tiny_model: Path, cache: Path
) -> None:
    assert choose(load_bundle(str(tiny_model))) == Choice("fp32", "the model has no INT8 graph")
    assert choose(bundle, files=FEWEST_FILES - 1) == Choice("fp32", "int8 is for runs of 1,000 files or more")
    assert not cache.exists()


def test_a_measurement_is_made_once_and_told_once(bundle: Bundle, cache: Path) -> None:
    notes: list[str] = []
    first = choose_precision("auto", bundle, CPU, files=FEWEST_FILES, threads=1, note=notes.append)
    (kept,) = cache.iterdir()
    assert notes == [f"measured once for this machine: {first.name}, {first.reason}; kept in {kept}"]
    for gain, name in ((1.19, "fp32"), (1.2, "int8"), (7.0, "int8")):
        change_gain(cache, gain)
        assert choose_precision("auto", bundle, CPU, files=FEWEST_FILES, threads=1, note=pytest.fail).name == name
    assert choose(bundle).reason == "7.0 times as fast as fp32 on this machine"


def test_a_measurement_holds_for_its_conditions_only(bundle: Bundle, cache: Path) -> None:
    choose(bundle)
    choose(bundle, threads=2)
    choose(dataclasses.replace(bundle, sha256="0" * 64))
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"gain": "fast"}', '{"gain": 9.0}'])
def test_a_damaged_measurement_is_made_again(bundle: Bundle, cache: Path, damage: str) -> None:
    choose(bundle)
    (kept,) = cache.iterdir()
    whole = json.loads(kept.read_text())
    kept.write_text(damage)
    choose(bundle)
    assert json.loads(kept.read_text())["conditions"] == whole["conditions"]


def test_what_cannot_be_kept_is_not_measured(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MRIBATCH_CACHE", str(tmp_path / "file"))
    choice = choose(bundle)
    assert choice.name == "fp32" and choice.reason.startswith("whether int8 is faster cannot be measured and kept: ")


def test_a_graph_that_does_not_reproduce_the_golden_answers_is_not_picked(bundle: Bundle, cache: Path) -> None:
    golden = dataclasses.replace(bundle.golden, probabilities=np.roll(bundle.golden.probabilities, 1, axis=1))
    other = dataclasses.replace(bundle, golden=golden)
    trial = measure_gain(
        other, Conditions(bundle_sha256="0", onnxruntime="", processor=find_processor().name, threads=1)
    )
    assert trial.choice.name == "fp32" and trial.choice.reason.startswith("int8 does not reproduce the golden answers")
    assert Int8Trial(conditions=trial.conditions, gain=9.0).choice.name == "int8"


def test_a_run_says_its_precision_and_keeps_to_it(images: Path, int8_model: Path, tmp_path: Path, cache: Path) -> None:
    small = tmp_path / "small"
    shutil.copytree(images, small, ignore=lambda _, names: sorted(names)[50:])
    summary = run(small, tmp_path / "few", int8_model)
    assert (summary.precision, summary.reasons["precision"]) == ("fp32", "int8 is for runs of 1,000 files or more")
    assert "onnxruntime (fp32) + opencv" in summary.to_text() and not cache.exists()

    choose(load_bundle(str(int8_model)))
    change_gain(cache, 3.0)
    summary = run(images, tmp_path / "many", int8_model)
    assert summary.precision == "int8" and "int8: 3.0 times as fast as fp32 on this machine." in summary.to_text()
    facts = json.loads((tmp_path / "many/run.json").read_text())
    assert facts["precision"] == facts["fingerprint"]["precision"] == "int8"
    assert facts["reasons"]["precision"] == "3.0 times as fast as fp32 on this machine"
    assert facts["proof"]["limit"] == load_bundle(str(int8_model)).spec.tolerance.int8

    change_gain(cache, 0.5)  # auto of a run that has begun is what its run.json says
    assert run(images, tmp_path / "many", int8_model).precision == "int8"
    with pytest.raises(RunError, match="the precision was int8, now it is fp32"):
        run(images, tmp_path / "many", int8_model, precision="fp32")

    rows = [ds.dataset(tmp_path / name / "predictions").to_table() for name in ("many", "few")]
    assert rows[0].num_rows == FEWEST_FILES
    assert rows[0].column("confidence").to_pylist()[:50] != rows[1].column("confidence").to_pylist()


def test_forced_int8_has_to_pass_the_gate(images: Path, int8_model: Path, tmp_path: Path) -> None:
    strict = tmp_path / "strict"
    shutil.copytree(int8_model, strict)
    tolerance = json.loads((strict / "bundle.json").read_text())["tolerance"]
    edit_spec(strict, tolerance=tolerance | {"int8": 1e-9})
    with pytest.raises(GateFailed, match=r"\(int8\) does not reproduce .* Fix: use --precision fp32, or"):
        run(images, tmp_path / "out", strict, precision="int8")


@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_a_damaged_int8_graph_is_refused_before_it_is_loaded(
    images: Path, int8_model: Path, tmp_path: Path, cache: Path, precision: str
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(int8_model, damaged)
    content = bytearray((damaged / INT8_FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / INT8_FILE).write_bytes(content)
    with pytest.raises(MribatchError, match=r"model\.int8\.onnx has sha256 .*, its bundle.json says"):
        run(images, tmp_path / "out", damaged, precision=precision)
    assert not (tmp_path / "out").exists() and not cache.exists()


def test_the_worker_process_computes_in_int8_too(images: Path, int8_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("nvidia.dali")
    summary = run(images, tmp_path / "out", int8_model, precision="int8", decoder="dali")
    assert (summary.precision, summary.reasons["precision"]) == ("int8", "requested")
