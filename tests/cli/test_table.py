"""mribatch table: rows of a run."""

import json
from pathlib import Path

import pytest

from mribatch.cli.table import SORTS, STATUSES
from mribatch.core.tables import Screen
from mribatch.pipeline.output import selection
from mribatch.pipeline.output.row_table import format_rows
from tests.finished_run import CLASSES, Row, scores_for, write_run
from tests.folders import draw_images, mribatch


@pytest.fixture
def run(tmp_path: Path) -> Path:
    certain = (0.9, 0.5, 0.7, 0.6, 0.8)
    rows = [Row(f"{i}.png", CLASSES[i % 2], scores_for(0, value)) for i, value in enumerate(certain)]
    return write_run(tmp_path / "run", [*rows, Row("x\n.png", None, None, "empty", "The file is empty (0 bytes).")])


def paths(*arguments: object) -> list[str]:
    result = mribatch("table", *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return [json.loads(line)["path"] for line in result.stdout.splitlines()]


def test_the_command_knows_every_sort_and_status() -> None:
    assert (SORTS, STATUSES) == (selection.SORTS, selection.STATUSES)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ["0.png", "1.png", "2.png", "3.png", "4.png", "x\n.png"]),
        (("--top", 2), ["0.png", "1.png"]),
        (("--reverse", "--top", 2), ["x\n.png", "4.png"]),
        (("--sort", "confidence", "--top", 0), ["1.png", "3.png", "2.png", "4.png", "0.png"]),
        (("--sort", "confidence", "--top", 2, "--reverse"), ["0.png", "4.png"]),
        (("--status", "failed"), ["x\n.png"]),
        (("--status", "empty"), ["x\n.png"]),
        (("--label", CLASSES[1]), ["1.png", "3.png"]),
        (("--class", CLASSES[0], "--wrong"), ["1.png", "3.png"]),
        (("--class", CLASSES[2]), []),
    ],
)
def test_rows_are_chosen_and_sorted(run: Path, options: tuple[object, ...], expected: list[str]) -> None:
    assert paths(run, *options) == expected


def test_rows_as_a_table_and_how_many_there_are(run: Path) -> None:
    result = mribatch("table", run, "--top", 2)
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["file", "status", "label", "class", "confidence", *CLASSES]
    assert lines[1].split()[:5] == ["0.png", "ok", CLASSES[0], CLASSES[0], "0.9000"]
    assert lines[-1] == "2 of 6 rows; --top 0 prints all."
    failed = mribatch("table", run, "--status", "failed").stdout
    assert r"x\n.png" in failed and "The file is empty (0 bytes)." in failed


def test_a_class_that_the_run_lacks_is_usage(run: Path) -> None:
    result = mribatch("table", run, "--class", "glioma")
    assert result.returncode == 2 and "choose one of glioma_tumor, " in result.stderr


def test_a_narrow_screen_gets_paragraphs(run: Path) -> None:
    found = selection.select_rows(run, selection.RowSelection())
    text = format_rows(found.rows, CLASSES, Screen(80))
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[:2] == [
        "0.png",
        "    ok: glioma_tumor 0.9000, meningioma_tumor 0.0333, no_tumor 0.0333,",
    ]
    assert "\x1b" not in text and "\x1b[" in format_rows(found.rows, CLASSES, Screen(200, coloured=True))


def test_a_few_files_are_printed_by_classify(tmp_path: Path, tiny_model: Path) -> None:
    (image,) = draw_images(tmp_path / "data", 1)
    result = mribatch("classify", image, "--out", tmp_path / "out", "--model", tiny_model)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("file ") and lines[1].startswith(f"{image.name}  ok")
    assert lines[3] == "1 file: 1 ok, 0 failed"
    draw_images(tmp_path / "many", 11)
    result = mribatch("classify", tmp_path / "many", "--out", tmp_path / "more", "--model", tiny_model)
    assert result.stdout.startswith("11 files: ")
