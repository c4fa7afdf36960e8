"""mribatch report at the command line: what goes to stdout, and the exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mribatch.cli.report import report
from mribatch.core.errors import RequirementNotMetError
from tests.finished_run import CLASSES, Row, scores_for, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = [Row(f"{name}/P{i}_{k}.png", name, scores_for(k, 0.9)) for k, name in enumerate(CLASSES) for i in range(3)]
    rows[0] = Row("glioma_tumor/P0_0.png", CLASSES[0], scores_for(2, 0.8))
    return write_run(tmp_path / "run", rows)


def test_the_table_on_stdout_and_the_files_in_the_run(run: Path) -> None:
    result = CliRunner().invoke(
        report, [str(run), "--groups", "label", "--protocol", "by series", "--seed", "3", "--no-html"]
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert "accuracy            0.9167" in result.stdout
    assert "Protocol, as given and not checked: by series." in result.stdout
    assert (
        "2,000 resamples of 4 groups (column label of the predictions; the largest has 3 images), seed 3."
        in result.stdout
    )
    assert {"metrics.parquet", "metrics.json", "report.md"} < {path.name for path in run.iterdir()}


def test_json_is_one_line_and_equal_to_the_file(run: Path) -> None:
    result = CliRunner().invoke(report, [str(run), "--no-html", "--json", "--group-by", "patient=(P.)_"])
    assert result.exit_code == 0 and result.stdout.count("\n") == 1
    assert json.loads(result.stdout, parse_constant=pytest.fail) == json.loads((run / "metrics.json").read_text())


def test_a_requirement_that_is_not_met_ends_in_an_error_after_the_table(run: Path) -> None:
    wanted = ["--require", "accuracy>=0.9", "--require", "sensitivity[glioma_tumor]>=0.95"]
    result = CliRunner().invoke(report, [str(run), "--no-html", *wanted])
    assert isinstance(result.exception, RequirementNotMetError)
    assert int(result.exception.exit_code) == 4
    assert str(result.exception).startswith("requirement not met: sensitivity[glioma_tumor] = 0.6667 (")
    assert "Requirement accuracy>=0.9: met" in result.stdout
    assert CliRunner().invoke(report, [str(run), "--no-html", *wanted[:2]]).exit_code == 0


@pytest.mark.parametrize("arguments", [[], ["--seed", "-1"], ["--seed", "x"], ["--colour"]])
def test_usage(run: Path, arguments: list[str]) -> None:
    assert CliRunner().invoke(report, [*([str(run)] if arguments else []), *arguments]).exit_code == 2


def test_nothing_heavy_before_it_is_used() -> None:
    heavy = ("numpy", "pyarrow", "sklearn", "scipy")
    code = f"import sys, mribatch.cli.report; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_warning_reaches_the_user(tmp_path: Path) -> None:
    """Ten rows of one class, in a fresh process with every warning shown."""
    run = write_run(tmp_path / "run", [Row(f"{i}.png", CLASSES[0], scores_for(i % 2, 0.8)) for i in range(10)])
    code = f"from mribatch.cli.report import report; report([{str(run)!r}])"
    result = subprocess.run([sys.executable, "-W", "default", "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
