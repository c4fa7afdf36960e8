"""The commands of docs/how-to/train-your-own.md, one after the other, with a table of patients."""

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from mribatch.cli.main import cli
from tests.training.toy import draw_data

PAGE = Path(__file__).parents[2] / "docs/how-to/train-your-own.md"
SMALL = ["--set", "size=96", "--epochs", "1", "--no-figures", "--quiet"]  # a fit of seconds


def commands_of_the_page() -> list[list[str]]:
    """Those of its first part, up to the report; the one on new images is left out."""
    text = PAGE.read_text(encoding="utf-8").split("\n## ")[0]
    blocks = re.findall(r"^ *```sh\n(.*?)```", text, re.M | re.S)
    lines = [shlex.split(line) for block in blocks for line in block.strip().splitlines()]
    return [line[1:] for line in lines if "new-scans/" not in line]


def test_a_table_of_patients_serves_training_and_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorflow", reason="needs the extra 'train'")
    monkeypatch.chdir(tmp_path)
    files = sorted(draw_data(tmp_path / "scans").rglob("*.png"))
    patients = [f"{path.relative_to(tmp_path)},{path.parent.name} {number // 2}" for number, path in enumerate(files)]
    Path("groups.csv").write_text("\n".join(["path,patient_id", *patients, ""]), encoding="utf-8")
    train, classify, report = commands_of_the_page()  # on scans/, and the table begins each path with it
    assert (train[0], classify[0], report[0]) == ("train", "classify", "report")
    for command in ([*train, *SMALL], classify, report):
        result = CliRunner().invoke(cli, command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    summary = json.loads(Path("my-model-work/training.json").read_text())
    assert "patient_id and equal pixels" in json.dumps(summary)
    (level,) = json.loads(Path("check/metrics.json").read_text())["levels"]
    assert level["intervals"]["source"] == "patient_id of groups.csv"
    assert (level["intervals"]["largest"], level["intervals"]["without_group"]) == (2, 0)
