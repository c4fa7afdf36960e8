"""`mribatch export` from the command line: a user's model to classified files, and what it says and refuses."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click import Command
from click.testing import CliRunner, Result

from mribatch.cli.classify import classify
from mribatch.cli.export import export
from mribatch.cli.report import report
from mribatch.core.errors import MribatchError
from mribatch.core.install import install_command
from tests.cli.documented_json import check_documented

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def run(command: Command, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tensorflow", reason="needs the extra 'train'")
    from tests.training import keras_models as models

    return models.saved(models.small(models.rescaling()), tmp_path_factory.mktemp("model") / "mine.keras")


def test_nothing_heavy_before_it_is_used() -> None:
    heavy = ("numpy", "tensorflow", "keras", "matplotlib", "onnxruntime", "cv2")
    code = f"import sys, mribatch.cli.export; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_help_lists_scales_and_kinds_of_outputs() -> None:
    text = run(export, "--help").output
    assert "[none|1/255|-1..1|imagenet|caffe]" in text and "[logits|sigmoid]" in text


def test_export_classify_report(model: Path, tmp_path: Path) -> None:
    import cv2

    from mribatch.core.synthetic import draw_slice

    result = run(export, model, "--out", tmp_path / "bundle", "--classes", "a,b,c")
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines() == [
        "Pixels: 24 x 24, grey repeated to three channels, scaled by the model's own rescaling.",
        "Output: 3 classes; the model ends in its own softmax.",
    ]
    assert result.stdout.startswith("ONNX Runtime against Keras on the golden slices: max |Δp| ")
    assert "0 of 64 classes differ" in result.stdout and "Research use only" in result.stdout
    images = []
    for place, name in enumerate("abcabc"):
        (tmp_path / "scans" / name).mkdir(parents=True, exist_ok=True)
        images.append(draw_slice(place, 40, 40))
        cv2.imwrite(str(tmp_path / "scans" / name / f"{place}.png"), images[-1])
    done = run(classify, tmp_path / "scans", "--model", tmp_path / "bundle", "--out", tmp_path / "run", "--quiet")
    assert done.exit_code == 0, done.output
    rows = pq.read_table(tmp_path / "run" / "predictions").to_pylist()
    assert [row["path"] for row in rows] == ["a/0.png", "a/3.png", "b/1.png", "b/4.png", "c/2.png", "c/5.png"]

    import keras

    seen = [cv2.resize(images[int(row["path"][2])], (24, 24)) for row in rows]
    rgb = np.repeat(np.stack(seen)[..., None].astype(np.float32), 3, axis=3)
    expected = keras.saving.load_model(model).predict(rgb, verbose=0)
    assert np.abs([row["confidence"] for row in rows] - expected.max(axis=1)).max() < 1e-4
    assert [row["predicted"] for row in rows] == ["abc"[place] for place in expected.argmax(axis=1)]
    assert run(report, tmp_path / "run").exit_code == 0


def test_export_classify_with_sigmoids(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="needs the extra 'train'")
    import cv2
    import keras

    from mribatch.core.synthetic import draw_slice
    from tests.training import keras_models as models

    made = models.small(models.rescaling(), activation="sigmoid")
    path = models.saved(made, tmp_path / "mine.keras")
    arguments = (export, path, "--out", tmp_path / "bundle", "--classes", "a,b,c")
    error = run(*arguments).exception
    assert isinstance(error, MribatchError) and "--outputs sigmoid" in error.fix and "\n" not in str(error)
    result = run(*arguments, "--outputs", "sigmoid")
    assert result.exit_code == 0, result.output
    line = "Output: 3 classes; the model ends in sigmoids, each of which the graph divides by their sum."
    assert line in result.stderr
    (tmp_path / "scans").mkdir()
    images = [draw_slice(place, 40, 40) for place in range(6)]
    for place, image in enumerate(images):
        cv2.imwrite(str(tmp_path / "scans" / f"{place}.png"), image)
    done = run(classify, tmp_path / "scans", "--model", tmp_path / "bundle", "--out", tmp_path / "run", "--quiet")
    assert done.exit_code == 0, done.output
    rows = pq.read_table(tmp_path / "run" / "predictions").to_pylist()
    seen = np.stack([cv2.resize(image, (24, 24)) for image in images])[..., None].astype(np.float32)
    sigmoids = keras.saving.load_model(path).predict(np.repeat(seen, 3, axis=3), verbose=0)
    got = np.array([[row[f"p_{name}"] for name in "abc"] for row in rows])
    assert np.abs(got - sigmoids / sigmoids.sum(axis=1, keepdims=True)).max() < 1e-4
    assert np.abs(sigmoids.sum(axis=1) - 1).max() > 0.05 and np.allclose(got.sum(axis=1), 1, atol=1e-5)
    assert [row["predicted"] for row in rows] == ["abc"[place] for place in sigmoids.argmax(axis=1)]


def test_one_line_of_json_and_nothing_else(model: Path, tmp_path: Path) -> None:
    result = run(export, model, "--out", tmp_path / "b", "--classes", "a,b,c", "--json", "--quiet", "--name", "mine")
    facts = json.loads(result.stdout)
    assert result.stderr == "" and result.stdout.count("\n") == 1
    assert (facts["name"], facts["scale"], facts["ends_in"]) == ("mine", "none", "probabilities")
    assert facts["golden_max_difference"] <= 1e-4
    check_documented("export", facts)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--classes", "a,b"), "the model gives 3 numbers per image, --classes names 2. Fix: name every class once"),
        (("--classes", "a,b,b"), "the classes a, b, b are not two or more different names. Fix: "),
        (("--classes", "a,b,c", "--scale", "1/255"), "would scale them twice. Fix: omit --scale"),
        (("--classes", "a,b,c", "--outputs", "logits"), "would add a second softmax. Fix: omit --outputs"),
        (("--classes", "a,b,c", "--outputs", "sigmoid"), "ends in 'softmax', --outputs says sigmoid. Fix: omit"),
        (("--classes", "a,b,c", "--size", "99"), "--size says 99. Fix: omit --size"),
    ],
)
def test_a_refusal_is_one_line_and_leaves_nothing(
    model: Path, tmp_path: Path, arguments: tuple[str, ...], error: str
) -> None:
    result = run(export, model, "--out", tmp_path / "bundle", *arguments)
    assert isinstance(result.exception, MribatchError)
    assert error in str(result.exception) and "\n" not in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_usage(tmp_path: Path) -> None:
    for arguments in (
        (),
        ("m.keras",),
        ("m.keras", "--out", "b"),
        ("m.keras", "--out", "b", "--classes", "a,b", "--scale", "2"),
    ):
        assert run(export, *arguments).exit_code == 2


def test_where_tensorflow_is_missing_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zipfile

    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setitem(sys.modules, "keras", None)
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", '{"config": {}}')
        archive.writestr("model.weights.h5", "")
    error = run(export, tmp_path / "m.keras", "--out", tmp_path / "b", "--classes", "a,b").exception
    assert isinstance(error, MribatchError) and error.fix == install_command("train")
