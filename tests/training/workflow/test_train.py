"""From a folder of slices to a bundle that classifies: the whole chain at toy size, also through kill -9."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

from mribatch.core.bundle import TRAINING_IMAGES_FILE, load_bundle
from mribatch.core.errors import BundleError, MribatchError
from mribatch.core.training_images import TrainingMatch
from mribatch.pipeline.decode.file import decode_file
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.run import classify
from mribatch.training.data.classes import ClassList
from mribatch.training.fit.checkpoints import STATE_FILE
from mribatch.training.networks.build import NETWORKS
from mribatch.training.work_folder.summary import SplitFacts
from mribatch.training.workflow.cross_validation import cross_validate
from mribatch.training.workflow.finish import TrainResult
from mribatch.training.workflow.options import TrainOptions
from mribatch.training.workflow.train import train
from tests.training import toy

ROOT = Path(__file__).parents[3]


def test_the_fit_learned_the_toy_classes(trained: TrainResult) -> None:
    history = pq.read_table(trained.work / "history.parquet").to_pylist()
    assert [row["epoch"] for row in history] == list(range(1, toy.EPOCHS + 1))
    assert history[-1]["loss"] < history[0]["loss"]
    best = min(history, key=lambda row: row["val_loss"])["epoch"]
    assert isinstance(trained.summary.training, SplitFacts) and trained.summary.training.best_epoch == best


def test_the_bundle_says_what_it_is_worth(trained: TrainResult) -> None:
    spec = load_bundle(str(trained.out)).spec
    assert spec.trained and spec.notice is None and spec.name == "toy-model"
    assert spec.training["images"] == {"train": 32, "validation": 8, "test": 8} and spec.training["leak_rate"] == 0
    rows = {(row["metric"], row["class"]): row for row in spec.metrics}
    accuracy = rows["accuracy", None]
    assert accuracy["n"] == 8 and "split seed 0" in accuracy["protocol"] and accuracy["leak_rate"] == 0
    assert ("sensitivity", "glioma_tumor") in rows and ("f1", "macro") in rows and ("log_loss", None) in rows
    predictions = pq.read_table(trained.work / "test_predictions.parquet").to_pylist()
    hits = sum(row["label"] == row["predicted"] for row in predictions)
    assert accuracy["value"] == hits / 8


def test_the_bundle_knows_the_images_that_it_was_fitted_on_and_no_others(trained: TrainResult, toy_data: Path) -> None:
    bundle = load_bundle(str(trained.out))
    parts = pq.read_table(trained.work / "parts.parquet").to_pylist()
    pixels = [decode_file(bytes(toy_data / row["path"]), bundle.spec.height, bundle.spec.width).pixels for row in parts]
    assert bundle.training_images is not None and len(bundle.training_images) == 40
    found = bundle.training_images.find(np.stack([image for image in pixels if image is not None]))
    known = {row["path"] for row, match in zip(parts, found, strict=True) if match is TrainingMatch.EXACT}
    assert known == {row["path"] for row in parts if row["part"] != "test"}


def test_damaged_hashes_are_refused_with_what_train_can_do(
    trained: TrainResult, toy_data: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(trained.out, tmp_path / "toy-model"))
    with (out / TRAINING_IMAGES_FILE).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(BundleError, match=r"training_images\.npz has sha256 .*Fix: .*--overwrite"):
        train(toy.options(toy_data, out, work=trained.work))


def test_the_card_holds_the_same_numbers_and_the_warnings(trained: TrainResult) -> None:
    card = (trained.out / "MODEL_CARD.md").read_text()
    metrics = {(row["metric"], row["class"]): row for row in load_bundle(str(trained.out)).spec.metrics}
    assert f"| accuracy | {metrics['accuracy', None]['value']:.4f} (" in card
    assert f"| macro F1 | {metrics['f1', 'macro']['value']:.4f} (" in card
    for text in (
        "Research use only, not a medical device.",
        "0.0% (0 of 8 test images",
        "ends in a softmax",
        "Licences",
        "| test | 2 | 2 | 2 | 2 | 8 | 8 |",
        "size in pixels alone",
    ):
        assert text in card


def test_size_alone_gives_the_toy_classes_away(trained: TrainResult) -> None:
    """The toy classes differ in width; the card must notice such a shortcut."""
    rows = [line for line in (trained.out / "MODEL_CARD.md").read_text().splitlines() if "100.0% | 75.0%" in line]
    assert len(rows) == 4


def test_parts_are_listed_and_disjoint(trained: TrainResult, toy_data: Path) -> None:
    rows = pq.read_table(trained.work / "parts.parquet").to_pylist()
    assert len(rows) == 48 and {row["part"] for row in rows} == {"train", "validation", "test"}
    listed = (trained.work / "test_files.txt").read_text().splitlines()
    assert listed == [str(toy_data / row["path"]) for row in rows if row["part"] == "test"]
    assert (trained.work / "figures" / "training_curves.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in (trained.work / "figures" / "confusion_matrix.svg").read_text()


def test_classify_gives_keras_probabilities_for_the_test_part(trained: TrainResult, tmp_path: Path) -> None:
    options = ClassifyOptions(model=str(trained.out), from_file=str(trained.work / "test_files.txt"), threads=1)
    assert classify([], tmp_path / "run", options).exit_code == 0
    got = pq.read_table(tmp_path / "run" / "predictions")
    expected = pq.read_table(trained.work / "test_predictions.parquet")
    assert got["label"].to_pylist() == expected["label"].to_pylist()
    for name in load_bundle(str(trained.out)).spec.classes:
        assert np.abs(got[f"p_{name}"].to_numpy() - expected[f"p_{name}"].to_numpy()).max() < 1e-5


def test_the_same_command_again_does_nothing(trained: TrainResult, toy_data: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (*trained.out.iterdir(), *trained.work.glob("*.*"))}
    lines: list[str] = []
    again = train(toy.options(toy_data, trained.out), lines.append)
    assert again.summary == trained.summary
    assert lines[-1].startswith(f"{trained.out} already holds this fit; nothing was written")
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"seed": 5}, "holds another bundle, 'toy-model'"),
        ({"overwrite": True, "seed": 5}, "was started with seed = 0, this command has 5"),
        ({"overwrite": True, "split_seed": 1}, "was started with parts_sha256 = "),
        ({"overwrite": True, "recipe": replace(toy.RECIPE, batch=3)}, "recipe.batch = 4, this command has 3"),
    ],
)
def test_another_fit_is_refused_by_name(
    trained: TrainResult, toy_data: Path, change: dict[str, Any], problem: str
) -> None:
    with pytest.raises(MribatchError, match=problem):
        train(toy.options(toy_data, trained.out, **change))
    assert load_bundle(str(trained.out)).spec.training["fit"]["seed"] == 0


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": "my model"}, "'name' does not fit: my model"),
        ({"classes": ClassList(("glioma tumor", "no"))}, "'classes' does not fit: glioma tumor"),
        (
            {"classes": ClassList(("glioma_tumor", "macro"))},
            "a class is called 'macro', which is the name of an average",
        ),
    ],
)
@pytest.mark.parametrize("start", [train, cross_validate])
def test_names_that_no_bundle_can_hold_are_refused_before_any_work(
    start: Callable[[TrainOptions], TrainResult], toy_data: Path, tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    with pytest.raises(MribatchError, match=problem):
        start(toy.options(toy_data, tmp_path / "out", final=True, **change))
    assert list(tmp_path.iterdir()) == []


def test_the_work_folder_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    options = toy.options(Path("data"), Path())
    assert (options.work_folder, options.bundle_name) == (tmp_path / "here-work", "here")


def test_stopped_between_the_bundle_and_its_summary_it_resumes(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETWORKS, "tiny", toy.tiny_network)
    options = toy.options(toy_data, tmp_path / "out", recipe=toy.tiny_recipe(epochs=1), keep_work=False)

    with pytest.raises(toy.Killed):
        train(options, toy.DyingEcho("ONNX Runtime against Keras"))
    assert load_bundle(str(options.out)).spec.trained and not (options.work_folder / "training.json").exists()
    lines: list[str] = []
    result = train(options, lines.append)
    assert not any(line.startswith("epoch ") for line in lines) and result.summary.has_bundle
    (options.work_folder / "training.json").unlink()
    with pytest.raises(MribatchError, match=r"holds this fit, but .* has no training\.json of it"):
        train(options)


def test_a_folder_that_is_not_a_bundle_is_refused_before_any_work(toy_data: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(MribatchError, match="exists and is not a model bundle"):
        train(toy.options(toy_data, tmp_path, work=tmp_path / "work"))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_int8_is_compared_on_the_test_part(trained: TrainResult) -> None:
    facts = load_bundle(str(trained.out)).spec.int8
    assert (facts["calibration_images"], facts["comparison"]["images"]) == (40, 8)
    assert facts["comparison"]["training_images"] == 0


def test_groups_are_kept_together_and_left_out_files_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETWORKS, "tiny", toy.tiny_network)
    data = toy.draw_data(tmp_path / "brain", per_class=12)
    (data / "Testing/no/empty.png").touch()
    rows = [f"{path.relative_to(data)},s{int(path.stem) // 2}{path.parent.name}" for path in data.rglob("[0-9]*.png")]
    groups = tmp_path / "groups.csv"
    groups.write_text("path,series_id\n" + "\n".join(rows) + "\n")
    lines: list[str] = []
    recipe = toy.tiny_recipe(epochs=1)
    result = train(toy.options(data, tmp_path / "out", groups=groups, recipe=recipe, keep_work=False), lines.append)
    table = pq.read_table(result.work / "parts.parquet").to_pylist()
    homes: dict[str, set[str]] = {}
    for row in table:
        if row["part"] != "left_out":
            folder, name = row["path"].split("/")[1:]
            homes.setdefault(f"{int(name[:-4]) // 2}{folder}", set()).add(row["part"])
    assert len(homes) == 24 and all(len(parts) == 1 for parts in homes.values())
    assert [row["error"][:6] for row in table if row["part"] == "left_out"] == ["empty:"]
    assert any(line.startswith("left out: Testing/no/empty.png: empty") for line in lines)
    card = (result.out / "MODEL_CARD.md").read_text()
    assert "series_id and equal pixels" in card
    assert "1 file could not be used and was left out (empty 1)." in card and "empty.png" not in card
    assert not (result.work / STATE_FILE).exists() and (result.work / "history.parquet").exists()


def start(data: Path, out: Path) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-m", "tests.training.toy", str(data), str(out), "0"]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


def epochs_done(state: Path) -> int:
    with state.open("rb") as stream, np.load(stream) as archive:
        return len(json.loads(str(archive["history"])))


@pytest.mark.slow
def test_kill_9_changes_nothing(trained: TrainResult, toy_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "toy-model"
    state = tmp_path / "toy-model-work" / STATE_FILE
    process = start(toy_data, out)
    deadline = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = epochs_done(state)
    assert 1 <= done < toy.EPOCHS and not out.exists()
    lines: list[str] = []
    resumed = train(toy.options(toy_data, out), lines.append)
    assert sum(line.startswith("epoch ") for line in lines) == toy.EPOCHS - done

    spec, expected = load_bundle(str(out)).spec, load_bundle(str(trained.out)).spec
    assert spec.model_sha256 == expected.model_sha256 and spec.golden_sha256 == expected.golden_sha256
    assert spec.metrics == expected.metrics
    for name in ("history.parquet", "test_predictions.parquet"):
        got, wanted = pq.read_table(resumed.work / name), pq.read_table(trained.work / name)
        if "seconds" in got.column_names:
            got, wanted = got.drop_columns(["seconds"]), wanted.drop_columns(["seconds"])
        assert got.equals(wanted)
