"""`mribatch features` from the command line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mribatch.cli.features import features
from mribatch.core.errors import MribatchError
from mribatch.core.synthetic import draw_slice

pytest.importorskip("tensorflow", reason="needs the extra 'train'")
pytest.importorskip("matplotlib", reason="needs the extra 'train'")

import cv2

from tests.training import keras_models as models

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(features, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """slice.png, mine.keras (scales inside), bare.keras (does not) and flat.keras (no convolution)."""
    import keras

    folder = tmp_path_factory.mktemp("features")
    cv2.imwrite(str(folder / "slice.png"), draw_slice(3, 60, 50))
    models.saved(models.small(models.rescaling()), folder / "mine.keras")
    models.saved(models.small(), folder / "bare.keras")
    pixels = keras.Input((8, 8, 1))
    flat = keras.layers.Dense(2)(keras.layers.Flatten()(models.rescaling()(pixels)))
    models.saved(keras.Model(pixels, flat, name="flat"), folder / "flat.keras")
    return folder


def test_pictures_of_every_layer(folder: Path, tmp_path: Path) -> None:
    result = run(folder / "slice.png", "--model", folder / "mine.keras", "--out", tmp_path / "new" / "out")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"1 layer, each as PNG and SVG, and features_overview: {tmp_path / 'new' / 'out'}\n"
    assert result.stderr == "slice.png through 'small': 1 convolutional layers with maps\n"
    assert len(list((tmp_path / "new" / "out").glob("*.png"))) == 2


def test_quiet_prints_nothing_and_scale_is_for_models_that_do_not(folder: Path, tmp_path: Path) -> None:
    arguments = (folder / "slice.png", "--model", folder / "bare.keras", "--out", tmp_path)
    assert "nothing in the model scales the pixels" in str(run(*arguments).exception)
    result = run(*arguments, "--scale", "1/255", "--quiet")
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize(("quiet", "disable"), [(("--quiet",), True), ((), None)])
def test_quiet_has_no_progress_bar_either(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: tuple[str, ...], disable: bool | None
) -> None:
    seen = []

    def bar(rows: Any, *arguments: Any, **look: Any) -> Any:
        seen.append(look["disable"])
        return rows

    monkeypatch.setattr("tqdm.tqdm", bar)
    run(folder / "slice.png", "--model", folder / "mine.keras", "--out", tmp_path, *quiet)
    assert seen == [disable]


@pytest.mark.parametrize(
    ("image", "model", "problem"),
    [
        ("mine.keras", "mine.keras", "mine.keras cannot be used: unsupported: "),
        ("none.png", "mine.keras", "No such file"),
        ("slice.png", "none.keras", "No such file"),
        ("slice.png", "slice.png", "is not a .keras file"),
        ("slice.png", "flat.keras", "the model 'flat' has no two-dimensional convolutional layer"),
    ],
)
def test_refusals_are_one_line_and_draw_nothing(
    folder: Path, tmp_path: Path, image: str, model: str, problem: str
) -> None:
    result = run(folder / image, "--model", folder / model, "--out", tmp_path / "out")
    assert isinstance(result.exception, MribatchError)
    assert problem in str(result.exception) and "\n" not in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run(folder / "slice.png", "--model", folder / "mine.keras", "--out", tmp_path / "file" / "out")
    assert "cannot make the folder" in str(result.exception)


def test_usage(folder: Path) -> None:
    assert "[none|1/255|-1..1|imagenet|caffe]" in run("--help").output
    assert run().exit_code == 2 and run(folder / "slice.png").exit_code == 2


def test_nothing_heavy_before_it_is_used() -> None:
    heavy = ("numpy", "tensorflow", "keras", "matplotlib", "cv2", "tqdm")
    code = f"import sys, mribatch.cli.features; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
