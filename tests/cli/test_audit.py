"""`mribatch audit` as a process."""

import json
import re
from pathlib import Path

import pytest

from mribatch.core.about import RESEARCH_NOTICE
from tests.folders import mribatch
from tests.report.audit.data_set import CLASSES, draw


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slices of each class, one in each part; the first class has the same slice twice."""
    folder = tmp_path_factory.mktemp("small") / "data"
    for position, name in enumerate(CLASSES):
        draw(folder / f"train/{name}/a.jpg", position, 64)
        draw(folder / f"test/{name}/b.jpg", position + 10 * (position > 0), 64)
    return folder


def test_findings_are_printed_and_files_are_written(small: Path, tmp_path: Path) -> None:
    result = mribatch("audit", small, "--out", tmp_path / "out")
    assert result.returncode == 0
    assert all(line.startswith("reading: ") for line in result.stderr.splitlines())  # on a slow machine
    assert "8 images, 8 readable; 7 different pictures" in result.stdout
    assert "1 of 4 test images (25.0%) have a duplicate in train, 1 of them with the same pixels." in result.stdout
    assert result.stdout.splitlines()[-1] == RESEARCH_NOTICE
    assert re.search(r"^glioma_tumor +2 +1 +1$", result.stdout, re.MULTILINE)
    assert (tmp_path / "out/audit.html").is_file()


def test_json_is_the_content_of_the_file(small: Path, tmp_path: Path) -> None:
    result = mribatch("audit", small, "--out", tmp_path / "out", "--json", "--no-html")
    content = json.loads(result.stdout)
    assert content == json.loads((tmp_path / "out/audit.json").read_text(encoding="utf-8"))
    assert not (tmp_path / "out/audit.html").exists()
    assert content["figures"][6] == {"name": "leak_rate", "value": 0.25, "n": 4}


def test_a_requirement_that_fails_is_exit_code_4(small: Path, tmp_path: Path) -> None:
    result = mribatch("audit", small, "--out", tmp_path / "out", "--quiet", "--no-html", "--require", "leak_rate<=0.1")
    assert (result.returncode, result.stdout) == (4, "")
    assert result.stderr.startswith("Error: requirement not met: leak_rate = 0.2500 > 0.1. Fix: ")
    assert (tmp_path / "out/audit.json").is_file()


def test_wrong_arguments_are_one_line(small: Path, tmp_path: Path) -> None:
    for words in (
        ("audit", small, "--out", "s3://bucket/x"),
        ("audit", small, "--out", tmp_path / "out", "--open", "--no-html"),
        ("audit", small, "--out", tmp_path / "out", "--require", "leak_rate"),
        ("audit", small),
    ):
        result = mribatch(*words)
        assert (result.returncode, result.stderr.count("\n")) == (2, 1), words
    result = mribatch("audit", tmp_path / "missing", "--out", tmp_path / "out")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert not (tmp_path / "out").exists()
