"""The docs match the code: links, anchors, commands, options, file names, tables and examples."""

import functools
import html
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mribatch.cli.main import cli
from mribatch.core.about import __version__
from mribatch.pipeline.listing.entry import SkipReason
from mribatch.pipeline.listing.table import LISTING_SCHEMA
from mribatch.pipeline.output.series import series_schema
from mribatch.pipeline.records import Flag, Status

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "models").rglob("*.md")])
CODE = sorted(
    path
    for folder in ("benchmarks", "cli", "core", "docs", "mribatch", "pipeline", "report", "tests", "training", "trt")
    for path in (ROOT / folder).rglob("*.py")
)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.M):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = next(count for count in range(100) if (f"{anchor}-{count}" if count else anchor) not in found)
        found.add(f"{anchor}-{number}" if number else anchor)
    return found


def dead_links(page: Path) -> list[str]:
    """The links of a page to files or headings of the project that are not there."""
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)):
        name, _, anchor = target.partition("#")
        if name.startswith(("http://", "https://")):
            continue
        linked = page.parent / name if name else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            dead.append(target)
    return dead


@each_page
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_and_a_dead_anchor_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`, c: d\n[1](#a-b-c-d) [2](#missing) [3](page.md#a-b-c-d) [4](gone.md) [5](https://example.org/x#y)\n"
        "# Where is ...?\n[6](#where-is-)\n# Twice\n# Twice\n[7](#twice-1) [8](#twice-2)\n```\n[9](gone.md)\n```\n"
    )
    assert dead_links(page) == ["#missing", "gone.md", "#twice-2"]


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs/README.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#]+)", index.read_text())}
    assert set((ROOT / "docs").rglob("*.md")) - linked == {index}


def test_pages_that_code_names_exist() -> None:
    for path in (ROOT / "Makefile", ROOT / "setup.cfg", *CODE):
        for name in re.findall(r"(?<![\w/.])docs/[\w./-]+\.(?:md|py)", path.read_text()):
            assert (ROOT / name).exists(), f"{path}: {name}"


@each_page
def test_files_of_the_project_that_pages_name_exist(page: Path) -> None:
    folders = "benchmarks|cli|core|docs|mribatch|pipeline|report|tests|training|trt"
    for name in re.findall(rf"`((?:{folders})/[\w./-]*)`", page.read_text()):
        assert (ROOT / name).exists(), name


# Commands


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words of each `mribatch ...` command in a page's shell blocks; pipes and variables are cut off."""
    for block in re.findall(r"^ *```(?:sh|console)\n(.*?)^ *```", page.read_text(), re.M | re.S):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            for part in line.split("|"):
                words = shlex.split(part, comments=True)
                if words and (words[0].rpartition("/")[2] == "mribatch" or words[:3] == ["python", "-m", "mribatch"]):
                    yield words[1:] if words[0] != "python" else words[3:]


def check_command(words: list[str]) -> None:
    """Parse a command line with the real commands, and run none of them.

    Raises:
        click.UsageError: There is no such command or option, or an option's value is not one of its choices.
    """
    command: click.Command = cli
    context = click.Context(cli, info_name="mribatch")
    while isinstance(command, click.Group):
        child = command.get_command(context, words[0]) if words else None
        if child is None:
            raise click.UsageError(f"no command {words[:1]}")
        context = click.Context(child, info_name=words[0], parent=context)
        command, words = child, words[1:]
    values, _, _ = command.make_parser(context).parse_args(args=list(words))
    for parameter in command.params:
        if isinstance(parameter.type, click.Choice) and isinstance(values.get(parameter.name or ""), str):
            parameter.type.convert(values[parameter.name or ""], parameter, context)


@each_page
def test_commands_in_the_docs_exist_with_their_options(page: Path) -> None:
    for words in command_lines(page):
        check_command(words)


def test_enough_commands_are_found_to_check() -> None:
    assert sum(1 for page in PAGES for _ in command_lines(page)) > 20


@pytest.mark.parametrize(
    "line", ["clasify scans/", "classify --ot results", "engine biuld", "train cnn x --split gruoped", "engine"]
)
def test_a_wrong_command_is_seen(line: str) -> None:
    with pytest.raises(click.UsageError):
        check_command(shlex.split(line))


@functools.cache
def make_targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M))


@each_page
def test_make_targets_in_the_docs_exist(page: Path) -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.M))
    assert named <= make_targets() | ({"links"} if page.name in ("CHANGELOG.md", "0001-packaging.md") else set())


def test_every_make_target_is_phony_and_in_the_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.M)[0].split())
    assert phony == make_targets()
    shown = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert make_targets() <= {line.split()[0] for line in shown.splitlines() if line}


@pytest.mark.parametrize("name", ["make_cli_reference", "make_python_reference", "make_run_json_reference"])
def test_a_generated_page_is_what_its_source_says(name: str) -> None:
    code = f"import {name} as page; print(page.reference(), page.PAGE.read_text(), sep='\\0', end='')"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "docs", capture_output=True, text=True, check=True)
    expected, found = result.stdout.split("\0")
    assert found == expected, "stale: make docs"


# Examples


def examples(page: Path) -> list[str]:
    """The Python blocks of a page, without their indentation."""
    blocks = re.findall(r"^( *)```python\n(.*?)^ *```", page.read_text(), re.M | re.S)
    return [re.sub(rf"^{indent}", "", code, flags=re.M) for indent, code in blocks]


def test_the_generated_parts_of_the_readme_are_what_their_sources_say() -> None:
    """Runs the example in Python, too: what it prints stands below it."""
    command = [sys.executable, "-m", "docs.make_readme", "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stdout}{result.stderr}: make docs"


def test_the_readme_shows_the_newest_race_over_real_images(tmp_path: Path) -> None:
    figure = {"median": 10.0, "low": 9.0, "high": 12.0}
    one = {
        "label": "OpenCV + Keras",
        "network": "B3",
        "runs": "python -m x",
        "whole_images_per_second": figure,
        "steady_images_per_second": figure,
        "start_seconds": figure,
        "peak_memory_bytes": {"median": 2e9},
    }
    ours = one | {"label": "mribatch", "runs": "mribatch classify", "whole_to_reference": figure | {"median": 4.04}}
    content = {
        "conditions": {"processor": "p", "date": "2026-01-01", "mribatch": "0"},
        "data": "real",
        "images": 3,
        "image_bytes": 3000,
        "threads": 2,
        "repeats": 3,
        "entrants": {"reference": one, "mribatch": ours},
    }
    older = content | {"conditions": content["conditions"] | {"date": "2025-01-01"}}  # type: ignore[operator]
    for name, result in (("race-a", older), ("race-real", content), ("race-z", content | {"data": "synthetic"})):
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    code = (
        "import sys; from pathlib import Path; from docs import make_readme as page;"
        "print(page.speed(Path(sys.argv[1])), page.newest_race(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "| **mribatch** | B3 | 10 (9 to 12) | 4.0 | 10.00 (9.00 to 12.00) | 2.00 |" in shown
    assert "race-real.svg)" in shown and shown.strip().endswith("race-real.json") and "race-z" not in shown


def test_the_picture_of_the_readme_shows_this_version_s_demo() -> None:
    from mribatch.core.bundle import DEFAULT_MODEL

    text = html.unescape((ROOT / "docs/pictures/demo.svg").read_text()).replace("\xa0", " ")
    for shown in (
        f"Model {DEFAULT_MODEL},",
        "80 images in 65 files: 67 ok, 6 blank, 7 failed",
        "Research use only, not a medical device.",
    ):
        assert shown in text, f"{shown}: make picture"
    assert "http" not in re.sub(r'(xmlns(:\w+)?="|<!-- Generated).*?[">]', "", text), (
        "a picture loads nothing from elsewhere"
    )


def test_the_examples_of_the_python_reference_run_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.folders import draw_images

    draw_images(tmp_path / "scans", 4)
    monkeypatch.chdir(tmp_path)
    blocks = examples(ROOT / "docs/reference/python.md")
    assert len(blocks) == 6
    names: dict[str, object] = {}
    for code in blocks:
        exec(code, names)
    shown = capsys.readouterr().out
    assert "{'ok': 4}" in shown and "p_glioma_tumor" in shown and "balanced_accuracy None" in shown


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
    codes = examples(ROOT / "docs/how-to/open-the-results.md")
    assert len(codes) == 4
    for code in codes:
        exec(code, {})
    shown = capsys.readouterr().out
    assert "broken.png" in shown and "unsupported" in shown and "glioma_tumor" in shown


def test_getting_started_tells_what_the_demo_does(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mribatch.pipeline.demo_folder import add_demo_study, draw_demo_folder
    from mribatch.pipeline.options import ClassifyOptions
    from mribatch.pipeline.run import classify

    page = ROOT / "docs/getting-started.md"
    monkeypatch.chdir(tmp_path)
    draw_demo_folder(Path("build/demo/slices"))
    add_demo_study(Path("build/demo/slices"))
    for out in ("build/demo/run", "results"):
        summary = classify(["build/demo/slices"], out, ClassifyOptions(model=str(tiny_model)))
    counts = summary.to_text().split("Predicted:")[0]
    assert "80 images in 65 files: 67 ok, 6 blank, 7 failed" in counts and counts in page.read_text()
    assert summary.skipped == {"suffix": 2, "dicom_no_pixels": 1}
    assert "Not listed (dicom_no_pixels 1, suffix 2): see" in page.read_text()
    first, second = examples(page)
    exec(first, {})
    assert capsys.readouterr().out.count("'path': ") == 5
    exec(second, {})
    assert capsys.readouterr().out.count("'error': ") == 13


# Tables and facts


def test_the_citation_has_the_version_and_the_licence_of_the_package() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.*)$", citation, re.M) == [__version__]
    assert re.findall(r"^license: (.*)$", citation, re.M) == ["Apache-2.0"]


def test_every_status_and_flag_is_documented_and_no_other() -> None:
    page = (ROOT / "docs/reference/statuses.md").read_text()
    documented = set(re.findall(r"^\| `([a-z0-9_]+)` \|", page, re.M))
    assert documented == {*map(str, Status), *map(str, Flag)}


def test_every_reason_to_skip_is_documented() -> None:
    page = (ROOT / "docs/reference/parquet-schema.md").read_text()
    documented = set(re.findall(r"^\| `([a-z_]+)` \| [^|]+ \|$", page, re.M))
    assert documented >= set(map(str, SkipReason))


def test_every_column_of_the_listing_is_documented() -> None:
    page = (ROOT / "docs/reference/parquet-schema.md").read_text()
    section = page.split("\n## listing.parquet\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \| (\w+) \| (yes|no) \|", section, re.M)
    documented = [(name, kind, null) for names, kind, null in rows for name in re.findall(r"`(\w+)`", names)]
    real = [(field.name, str(field.type), "yes" if field.nullable else "no") for field in LISTING_SCHEMA]
    assert sorted(documented) == sorted(real)


def test_ten_questions_are_answered_with_files_that_exist() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    section = page.split("\n## Where is ...?\n")[1]
    answers = re.findall(r"^\| Wh[^|]+\? \| ([^|]+) \|$", section, re.M)
    assert len(answers) >= 10
    for answer in answers:
        files = re.findall(r"`([\w/]+\.py)`", answer)
        assert files, answer
        for name in files:
            assert (ROOT / name).is_file(), name


def test_one_image_passes_through_at_most_eight_files() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    section = page.split("\n## One image\n")[1].split("\n## ")[0]
    steps = re.findall(r"^\| (\d+) \| `([\w/.]+)` \|", section, re.M)
    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1)) and 0 < len(steps) <= 8
    for _, name in steps:
        assert (ROOT / name).is_file(), name


def test_every_column_of_the_series_is_documented() -> None:
    page = (ROOT / "docs/reference/parquet-schema.md").read_text()
    section = page.split("\n## series.parquet\n")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \| ([\w<>]+) \| (yes|no) \|", section, re.M)
    kinds = {"list<element: string>": "list<string>", "list<item: string>": "list<string>"}
    real = [
        (field.name, kinds.get(str(field.type), str(field.type)), "yes" if field.nullable else "no")
        for field in series_schema(["CLASS"])
    ]
    assert documented == real
