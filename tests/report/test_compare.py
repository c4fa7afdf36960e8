"""Two real runs compared."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from mribatch import classify
from mribatch.cli.main import cli
from mribatch.core.errors import ExitCode, MribatchError
from mribatch.core.synthetic import draw_slice
from mribatch.pipeline.demo_folder import draw_demo_folder
from mribatch.report.compare import compare_runs
from mribatch.report.text.comparison import format_comparison
from tests.cli.documented_json import check_documented
from tests.make_models import make_tiny


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The demo folder by a model, its moved copy by the same model, and by another one, with a file more."""
    folder = tmp_path_factory.mktemp("compare")
    models = [make_tiny(folder / name, trained=True, seed=seed) for name, seed in (("tiny", 0), ("other", 7))]
    slices = draw_demo_folder(folder / "slices").folder
    moved = Path(shutil.copytree(slices, folder / "moved"))
    import cv2

    cv2.imwrite(str(moved / "new.png"), draw_slice(99, 64, 64))
    shutil.copy(slices / "no_tumor" / "slice-00002.jpg", moved / "no_tumor" / "twice.jpg")
    first = classify(slices, folder / "a", model=str(models[0]), progress=False).path
    second = classify(moved, folder / "b", model=str(models[0]), progress=False).path
    third = classify(moved, folder / "c", model=str(models[1]), progress=False).path
    return first, second, third


def test_the_same_images_under_other_names_agree(runs: tuple[Path, Path, Path]) -> None:
    figures = compare_runs(runs[0], runs[1]).figures
    assert (figures.matched, figures.only_a, figures.only_b) == (31, 0, 2)
    assert (figures.compared, figures.ok_in_one, figures.flips) == (24, 0, 0)
    assert figures.max_difference == 0
    assert figures.mcnemar is not None
    assert figures.mcnemar.p_value == 1


def test_another_model_is_told_by_every_figure(runs: tuple[Path, Path, Path]) -> None:
    found = compare_runs(runs[1], runs[2])
    figures, images = found.figures, found.images.to_pylist()
    flips = [row for row in images if row["predicted_a"] != row["predicted_b"]]
    assert figures.flips == len(flips) > 0
    assert figures.max_difference == pytest.approx(max(row["max_difference"] for row in images))
    assert sum(each.lost for each in figures.classes) == sum(each.gained for each in figures.classes) == figures.flips
    labelled = [row for row in images if row["label"]]
    only_a = sum(row["predicted_a"] == row["label"] != row["predicted_b"] for row in labelled)
    assert figures.mcnemar is not None
    assert figures.mcnemar.only_a_right == only_a
    text = format_comparison(found)
    assert f"{len(flips)} images changed class" in text
    assert "Research use only" in text


def test_the_order_of_the_runs_only_swaps_the_sides(runs: tuple[Path, Path, Path]) -> None:
    forth, back = compare_runs(runs[0], runs[2]).figures, compare_runs(runs[2], runs[0]).figures
    assert (forth.flips, forth.only_a) == (back.flips, back.only_b)
    assert forth.kappa == pytest.approx(back.kappa)
    assert [(each.lost, each.gained) for each in forth.classes] == [(each.gained, each.lost) for each in back.classes]


def test_on_the_command_line(runs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    images = tmp_path / "images.parquet"
    arguments = ["compare", str(runs[0]), str(runs[2]), "--json", "--parquet", str(images)]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == ExitCode.OK
    figures = json.loads(result.stdout)
    check_documented("compare", figures)
    table = pq.read_table(images)
    assert table.num_rows == figures["compared"]
    assert np.sum(table["predicted_a"].to_numpy(False) != table["predicted_b"].to_numpy(False)) == figures["flips"]


def test_runs_of_other_classes_or_images_are_refused(runs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    other = make_tiny(tmp_path / "two", trained=True, classes=("yes", "no"))
    slices = draw_demo_folder(tmp_path / "slices", count=4, seed=5).folder
    by_two = classify(slices, tmp_path / "by-two", model=str(other), progress=False).path
    with pytest.raises(MribatchError, match="different classes"):
        compare_runs(runs[0], by_two)


def test_right_answers_of_each_class_add_up_to_mcnemars_counts(runs: tuple[Path, Path, Path]) -> None:
    figures = compare_runs(runs[0], runs[2]).figures
    assert figures.mcnemar is not None
    assert sum(each.only_a_right or 0 for each in figures.classes) == figures.mcnemar.only_a_right
    assert sum(each.only_b_right or 0 for each in figures.classes) == figures.mcnemar.only_b_right
    assert figures.mcnemar.only_a_right + figures.mcnemar.only_b_right > 0


def test_a_page_on_demand(runs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "compare.html"
    result = CliRunner().invoke(cli, ["compare", str(runs[0]), str(runs[2]), "--html", str(page)])
    assert result.exit_code == ExitCode.OK and page.read_text(encoding="utf-8").startswith("<!doctype html>")
    alone = CliRunner().invoke(cli, ["compare", str(runs[0]), str(runs[2]), "--open"])
    assert "name its file with --html" in str(alone.exception)
