"""When failures end a run: the budget that a user gives, in real processes and from Python."""

import json
from pathlib import Path
from typing import Any

import pytest

import mribatch
from mribatch.core.errors import ExitCode, OptionError, RequirementNotMetError
from mribatch.pipeline.failure_limits import FailureBudget
from mribatch.pipeline.options import ClassifyOptions
from tests import folders
from tests.folders import draw_images, table


@pytest.mark.parametrize(
    ("text", "images", "allowed"),
    [("0", 9, 0), ("20", 9, 20), ("0%", 9, 0), ("10%", 9, 0), ("10%", 10, 1), ("2.5 %", 1000, 25), ("100%", 7, 7)],
)
def test_a_budget_is_a_number_or_a_share(text: str, images: int, allowed: int) -> None:
    assert FailureBudget.parse(text).allowed(images) == allowed


@pytest.mark.parametrize("text", ["", "-1", "1.5", "101%", "%", "ten", "1e3%", "nan%"])
def test_anything_else_is_a_wrong_option(text: str) -> None:
    with pytest.raises(OptionError, match="--max-failures '.*' is neither a number nor a percentage"):
        ClassifyOptions(max_failures=text)


@pytest.fixture
def half_broken(tmp_path: Path) -> Path:
    """40 images, of which those of two classes are empty files."""
    data = tmp_path / "data"
    for path in draw_images(data, 40):
        if path.parent.name in ("meningioma_tumor", "no_tumor"):
            path.write_bytes(b"")
    return data


def attempts(out: Path) -> list[dict[str, Any]]:
    content = json.loads((out / "run.json").read_text())
    listed: list[dict[str, Any]] = content["attempts"]
    return listed


def test_a_run_stops_beyond_its_budget_and_goes_on_with_a_larger_one(
    half_broken: Path, tiny_model: Path, tmp_path: Path
) -> None:
    def classify(out: str, *more: str) -> tuple[int, str]:
        options = ("--model", tiny_model, "--batch-size", 4, "--quiet")
        ended = folders.mribatch("classify", half_broken, "--out", tmp_path / out, *options, *more)
        return ended.returncode, ended.stderr

    assert classify("whole") == (ExitCode.ROWS_NOT_OK, "")
    code, error = classify("out", "--max-failures", "5")
    assert code == ExitCode.REQUIREMENT_NOT_MET
    assert error.count("\n") == 1 and error.startswith(
        "Error: 6 of the first 16 images failed (empty 6), more than --max-failures 5 allows in a run of 40. "
        "Fix: type the same command again with a higher --max-failures"
    )
    code, error = classify("out", "--max-failures", "10%")  # what is there already is too much: nothing is classified
    assert code == ExitCode.REQUIREMENT_NOT_MET and "6 of the first 16 images failed" in error
    assert classify("out", "--max-failures", "50%") == (ExitCode.ROWS_NOT_OK, "")
    assert table(tmp_path / "out").equals(table(tmp_path / "whole"))
    noted = attempts(tmp_path / "out")
    assert [(one["max_failures"], one["rows"]) for one in noted] == [("5", 16), ("10%", 0), ("50%", 24)]
    assert noted[0]["error"].startswith("6 of the first 16 images failed")
    assert "max_failures" not in attempts(tmp_path / "whole")[0]


def test_the_budget_from_python(half_broken: Path, tiny_model: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": str(tiny_model), "batch_size": 4, "progress": False}
    with pytest.raises(RequirementNotMetError, match=r"more than max_failures 0 allows .* with a higher max_failures"):
        mribatch.classify(half_broken, tmp_path / "out", max_failures=0, **options)
    run = mribatch.classify(half_broken, tmp_path / "out", max_failures="50%", **options)
    assert run.exit_code == ExitCode.ROWS_NOT_OK
