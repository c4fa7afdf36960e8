"""`mribatch train` from the command line: what it prints, what it refuses, and what it says where TensorFlow is missing."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mribatch.cli.train import train
from mribatch.core.errors import MribatchError
from mribatch.core.install import install_command
from mribatch.training.data.data_sheets import BRAIN_TUMOR_CLASSIFICATION_MRI, UNKNOWN, read_data_sheet
from mribatch.training.recipes.catalog import RECIPES
from tests.cli.documented_json import check_documented


def run(*arguments: object) -> Result:
    return CliRunner().invoke(train, [str(argument) for argument in arguments])


def test_help_names_every_recipe() -> None:
    text = run("--help").output
    assert all(f"  {name} " in text for name in RECIPES) and "Traceback" not in text


def test_an_unknown_recipe_is_refused(tmp_path: Path) -> None:
    error = run("resnet", tmp_path, "--out", tmp_path / "out").exception
    assert isinstance(error, MribatchError)
    assert str(error) == f"there is no recipe 'resnet'. Fix: choose one of: {', '.join(RECIPES)}"


def test_where_tensorflow_is_missing_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setitem(sys.modules, "keras", None)
    error = run("cnn", tmp_path, "--out", tmp_path / "out").exception
    assert isinstance(error, MribatchError) and error.fix == install_command("train")
    assert "training needs TensorFlow and Keras" in error.problem
    assert list(tmp_path.iterdir()) == []


def test_one_line_of_json(toy_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="needs the extra 'train'")
    sheet = tmp_path / "sheet.json"
    sheet.write_text(json.dumps({"title": "Toys", "source": "drawn", "licence": "CC0", "limits": ["Drawings only."]}))
    small = ("--set", "size=96", "--epochs", 1, "--no-figures", "--data-sheet", sheet)
    result = run("cnn", toy_data, "--out", tmp_path / "m", *small, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["training"]["data"] == "Toys" and facts["training"]["epochs"] == 1 and result.stderr == ""
    check_documented("train", facts)
    card = (tmp_path / "m" / "MODEL_CARD.md").read_text()
    assert "- Drawings only." in card and "Training data: CC0." in card
    shown = run("cnn", toy_data, "--out", tmp_path / "m", *small)
    assert "already holds this fit" in shown.stderr
    assert shown.stdout.startswith("metric") and shown.stdout.endswith("Research use only, not a medical device.\n")


def test_data_sheets(tmp_path: Path) -> None:
    assert read_data_sheet(None) is UNKNOWN
    sheet = read_data_sheet("brain-tumor-classification-mri")
    assert sheet is BRAIN_TUMOR_CLASSIFICATION_MRI and "91.2 %" in " ".join(sheet.limits)
    for content, problem in (
        ('{"title": "x"}', "is not a data sheet"),
        ("[]", "is not a data sheet"),
        ("{", "is not a data sheet"),
    ):
        (tmp_path / "sheet.json").write_text(content)
        with pytest.raises(MribatchError, match=problem):
            read_data_sheet(str(tmp_path / "sheet.json"))
    with pytest.raises(MribatchError, match=r"there is no data sheet .*brain-tumor-classification-mri"):
        read_data_sheet(str(tmp_path / "none.json"))
