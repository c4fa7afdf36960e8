"""The page of a real run: its figures are those of metrics.parquet, and nothing in it comes from outside."""

import html
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
from click.testing import CliRunner

from mribatch.cli.report import report as report_command
from mribatch.report.compare import compare_runs
from mribatch.report.html.page import HTML_PAGE
from mribatch.report.measure import ReportOptions, report
from tests.report.html.pages import COMPARE_PAGE, HOSTILE, ParsedPage, parse


def test_every_figure_is_the_one_of_metrics_parquet(labelled_run: Path) -> None:
    metrics = {
        (row["metric"], row["class"] or ""): row for row in pq.read_table(labelled_run / "metrics.parquet").to_pylist()
    }
    figures = parse(labelled_run).figures
    assert len(figures) > 30
    for figure in figures:
        value = metrics[figure.metric, figure.class_]["value"]
        assert figure.value == ("" if value is None else repr(value))
        shown = "–" if value is None else f"{value:.1%}" if figure.text.endswith("%") else f"{value:.3f}"
        assert figure.text == shown


def test_nothing_is_loaded_from_elsewhere(labelled_run: Path) -> None:
    page = parse(labelled_run)
    addresses = [value for _, each in page.tags for name, value in each.items() if name in ("src", "href", "srcset")]
    assert addresses
    assert all(address.startswith(("data:image/", "#")) for address in addresses)
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert not [attributes for _, attributes in page.tags if "style" in attributes]
    (policy,) = (each["content"] for _, each in page.tags if each.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


def test_a_hostile_file_name_stays_text(labelled_run: Path) -> None:
    page = parse(labelled_run)
    assert HOSTILE in page.text
    assert "x" not in [each.get("src") for _, each in page.tags]


def test_pictures_are_there_and_the_page_is_small(labelled_run: Path) -> None:
    page = parse(labelled_run)
    rows = [each for tag, each in page.tags if tag == "tr" and "data-large" in each]
    assert rows
    assert all(each["data-large"].startswith("data:image/webp") for each in rows)
    assert any(each["data-overlay"] for each in rows)
    assert (labelled_run / HTML_PAGE).stat().st_size < 4_000_000


def test_without_labels_there_are_no_figures_but_pictures(unlabelled_run: Path) -> None:
    page = parse(unlabelled_run)
    assert not page.figures
    assert "Confusion" not in page.text
    assert "small margin" in page.text
    assert "differs from its label" not in page.text


def test_files_without_an_answer_are_listed_with_their_reason(unlabelled_run: Path) -> None:
    text = re.sub(r"\s+", " ", parse(unlabelled_run).text)
    assert "truncated: 2" in text
    assert "broken-empty.jpg The file is empty (0 bytes)." in text


def test_images_that_are_gone_have_no_picture(unlabelled_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(unlabelled_run, tmp_path / "run"))
    slices = unlabelled_run.parent / "slices"
    moved = slices.rename(tmp_path / "moved")
    try:
        told = CliRunner().invoke(report_command, [str(run)])
    finally:
        moved.rename(slices)
    page = re.sub(r"\s+", " ", parse(run).text)
    assert "no picture" in page
    (warning,) = [line for line in told.stderr.splitlines() if line.startswith("Warning: ")]
    assert "images lack a picture on the page, as the file could not be read again: 'glioma_tumor/" in warning
    assert html.unescape(warning.removeprefix("Warning: ").split(" Fix: ")[0]) in page
    assert CliRunner().invoke(report_command, [str(run)]).stderr == ""
    assert "could not be read again" not in parse(run).text


def test_the_page_can_be_left_out(unlabelled_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(unlabelled_run, tmp_path / "run"))
    (run / HTML_PAGE).unlink()
    report(ReportOptions(run=run, html=False))
    assert not (run / HTML_PAGE).exists()


def test_the_same_run_gives_the_same_page(unlabelled_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(unlabelled_run, tmp_path / "run"))
    report(ReportOptions(run=run))
    assert (run / HTML_PAGE).read_bytes() == (unlabelled_run / HTML_PAGE).read_bytes()


def test_series_are_strips_of_their_slices(study_run: Path) -> None:
    page = parse(study_run)
    strips = [each for tag, each in page.tags if tag == "ol" and each.get("class") == "strip"]
    assert len(strips) == 4
    assert "4 of 4 series" in page.text
    assert sum(tag == "svg" and each.get("class") == "bar" for tag, each in page.tags) >= 40
    assert "Patient " in page.text and "No patient in the header" in page.text


def test_duplicates_are_named_with_their_pictures(study_run: Path) -> None:
    text = re.sub(r"\s+", " ", parse(study_run).text)
    assert "Copies of an earlier image, byte for byte: 1." in text
    assert "The same bytes" in text and "copy.png" in text.split("Duplicates in the input")[1]
    near = re.search(r"by a perceptual hash: (\d+)", text)
    assert near is not None and int(near.group(1)) >= 2
    assert "brighter.png" in text.split("Duplicates in the input")[1]


def test_an_image_unlike_training_is_shown_as_such(study_run: Path) -> None:
    page = parse(study_run)
    text = re.sub(r"\s+", " ", page.text)
    assert "noise.png unlike training" in text  # the tag in the list of what to look at first
    assert "Images unlike the training images" in text


def test_where_the_inputs_are_is_not_on_the_page(unlabelled_run: Path) -> None:
    text = (unlabelled_run / HTML_PAGE).read_text(encoding="utf-8")
    assert "max_pixels" in text
    assert text.count(str(unlabelled_run.parent)) == 1  # as it was typed


def test_the_page_of_two_runs_has_the_figures_of_the_comparison(compared_run: Path) -> None:
    page = parse(compared_run, COMPARE_PAGE)
    text = re.sub(r"\s+", " ", page.text)
    figures = compare_runs(compared_run.parent / labelled(page), compared_run / "run").figures
    assert f"{figures.flips:,}changed class" in text
    assert f"{figures.kappa:.3f}Cohen's kappa" in text
    assert HOSTILE in page.text
    rows = [each for tag, each in page.tags if tag == "tr" and "data-large" in each]
    assert all(each["data-large"].startswith("data:image/webp") for each in rows)


def labelled(page: ParsedPage) -> Path:
    """The folder of run A, by the page."""
    found = re.search(r"A is (\S+), B is", re.sub(r"\s+", " ", page.text))
    assert found is not None
    return Path(found.group(1))
