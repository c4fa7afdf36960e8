"""Docs say what is so: links lead somewhere, commands and names exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mribatch.pipeline.listing.discover import SkipReason
from mribatch.pipeline.records import Flag, Status

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_in_the_docs_exist(page: Path) -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.M))
    assert named <= make_targets()


def test_every_make_target_is_phony_and_in_the_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.M)[0].split())
    assert phony == make_targets()
    shown = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert make_targets() <= {line.split()[0] for line in shown.splitlines() if line}


def test_the_readme_example_in_python_runs(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.folders import draw_images

    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    draw_images(tmp_path / "scans", 3)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / "results" / "run.json").exists()


def test_the_command_line_reference_is_what_help_says() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "import make_cli_reference as page; print(page.reference(), end='')"],
        cwd=ROOT / "docs",
        capture_output=True,
        text=True,
        check=True,
    )
    assert (ROOT / "docs/reference/cli.md").read_text() == result.stdout, "stale: make docs"


def test_every_way_to_open_the_results_works(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mribatch.pipeline.options import ClassifyOptions
    from mribatch.pipeline.run import classify
    from tests.folders import draw_images

    draw_images(tmp_path / "scans", 12)
    (tmp_path / "scans" / "broken.png").write_text("no image")
    classify([tmp_path / "scans"], tmp_path / "results", ClassifyOptions(model=str(tiny_model)))
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs/how-to/open-the-results.md").read_text(), re.S)
    assert len(examples) == 4
    for code in examples:
        exec(code, {})
    shown = capsys.readouterr().out
    assert "broken.png" in shown and "unsupported" in shown and "glioma_tumor" in shown


def test_every_status_and_flag_is_documented_and_no_other() -> None:
    page = (ROOT / "docs/reference/statuses.md").read_text()
    documented = set(re.findall(r"^\| `([a-z0-9_]+)` \|", page, re.M))
    assert documented == {*map(str, Status), *map(str, Flag)}


def test_every_reason_to_skip_is_documented() -> None:
    page = (ROOT / "docs/reference/parquet-schema.md").read_text()
    documented = set(re.findall(r"^\| `([a-z_]+)` \| [^|]+ \|$", page, re.M))
    assert documented >= set(map(str, SkipReason))
