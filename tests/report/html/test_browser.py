"""The page in a real browser, opened from disk."""

import csv
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mribatch.report.html.page import HTML_PAGE
from tests.report.html.pages import COMPARE_PAGE, HOSTILE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt install chromium")


@dataclass
class Opened:
    """A page with what went wrong on it."""

    page: "Page"
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: "Browser", labelled_run: Path) -> Iterator[Opened]:
    yield from open_page(browser, labelled_run)


def open_page(browser: "Browser", run: Path, name: str = HTML_PAGE, **options: Any) -> Iterator[Opened]:
    context = browser.new_context(**options)
    found = Opened(context.new_page())
    found.page.on("console", lambda message: found.errors.append(message.text))
    found.page.on("pageerror", lambda error: found.errors.append(str(error)))
    found.page.on("dialog", lambda dialog: dismiss(dialog, found))
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.goto((run / name).as_uri())
    yield found
    assert found.errors == []
    assert [url for url in found.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    context.close()


def find_serious_faults(page: "Page") -> list[tuple[str, str]]:
    """What axe-core (https://github.com/dequelabs/axe-core) finds, as axe-playwright-python carries it: rule, HTML."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page).response
    assert len(found["passes"]) > 10
    faults = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
    return [(each["id"], each["nodes"][0]["html"]) for each in faults]


def dismiss(dialog: "Dialog", found: Opened) -> None:
    found.errors.append(f"a dialog opened: {dialog.message}")
    dialog.dismiss()


def column(page: "Page", number: int) -> list[str]:
    cells = page.locator(f"#look-table tbody tr:visible td:nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


def test_charts_and_pictures_are_drawn(opened: Opened) -> None:
    """A broken image has no width; charts of matplotlib must pass the page's policy."""
    opened.page.evaluate("for (const image of document.images) image.loading = 'eager'")
    opened.page.wait_for_function(
        "[...document.querySelectorAll('main img')].every(i => i.complete && i.naturalWidth > 0)"
    )
    assert opened.page.locator("figure picture img").count() == 3


def test_sort_by_number_and_by_text(opened: Opened) -> None:
    page = opened.page
    page.get_by_role("button", name="margin").click()
    margins = [float(text) for text in column(page, 7)]
    assert margins == sorted(margins)
    page.get_by_role("button", name="margin").click()
    assert [float(text) for text in column(page, 7)] == sorted(margins, reverse=True)
    page.get_by_role("button", name="answer").click()
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("answer")


def test_filter_and_saved_list(opened: Opened) -> None:
    page = opened.page
    page.get_by_role("searchbox").fill("onerror")
    assert column(page, 3) == [HOSTILE_PATH]
    assert page.locator("#shown").inner_text().startswith("1 of ")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save this list as CSV").click()
    text = Path(saved.value.path()).read_text(encoding="utf-8-sig")
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["concern", "path", "label", "answer", "confidence", "margin"]
    assert [row[1] for row in rows[1:]] == [HOSTILE_PATH]


HOSTILE_PATH = f"glioma_tumor/{HOSTILE}"


def test_the_slider_follows_bayes(opened: Opened) -> None:
    page = opened.page
    page.locator("#prevalence").fill("50")
    assert page.locator("#prevalence-shown").inner_text() == "50.0 %"
    for row in page.locator("#predictive-values tbody tr").all():
        sensitivity, specificity = (
            float(row.get_attribute(f"data-{name}") or "nan") for name in ("sensitivity", "specificity")
        )
        shown = row.locator("td").all_inner_texts()
        if sensitivity + 1 - specificity:
            assert float(shown[0]) == pytest.approx(sensitivity / (sensitivity + 1 - specificity), abs=6e-4)


def test_the_keyboard_goes_through_the_pictures(opened: Opened) -> None:
    page = opened.page
    paths = column(page, 3)
    page.locator("button.open").first.focus()
    page.keyboard.press("Enter")
    viewer = page.locator("#viewer")
    assert viewer.is_visible()
    assert viewer.locator("h2").inner_text() in paths[0]
    page.keyboard.press("ArrowRight")
    assert viewer.locator("h2").inner_text() in paths[1]
    page.keyboard.press("ArrowLeft")
    assert page.locator("#viewer-image").evaluate("image => image.src.startsWith('data:image/webp')")
    page.keyboard.press("Escape")
    assert not viewer.is_visible()
    assert page.locator("button.open").first.evaluate("button => button === document.activeElement")


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_sticks_out_of_the_screen(browser: "Browser", labelled_run: Path, width: int) -> None:
    for opened in open_page(browser, labelled_run, viewport={"width": width, "height": 800}):
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_of_an_unlabelled_run_has_no_error(browser: "Browser", unlabelled_run: Path) -> None:
    for opened in open_page(browser, unlabelled_run, color_scheme="dark"):
        assert opened.page.get_by_role("heading", name="Look at these images first").is_visible()


PAGES = {
    "labelled": ("labelled_run", HTML_PAGE),
    "unlabelled": ("unlabelled_run", HTML_PAGE),
    "study": ("study_run", HTML_PAGE),
    "compared": ("compared_run", COMPARE_PAGE),
}


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_axe_finds_no_serious_fault(
    browser: "Browser", request: pytest.FixtureRequest, page: str, colours: str
) -> None:
    fixture, name = PAGES[page]
    for opened in open_page(browser, request.getfixturevalue(fixture), name, color_scheme=colours):
        assert find_serious_faults(opened.page) == []


def test_axe_finds_a_fault_where_there_is_one(browser: "Browser", unlabelled_run: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    for opened in open_page(browser, unlabelled_run):
        opened.page.evaluate(
            "document.getElementById('filter').parentElement.replaceWith(document.createElement('input'))"
        )
        assert "label" in [each["id"] for each in axe.Axe().run(opened.page).response["violations"]]


def test_the_page_of_two_runs_sorts_and_enlarges(browser: "Browser", compared_run: Path) -> None:
    for opened in open_page(browser, compared_run, COMPARE_PAGE):
        page = opened.page
        page.get_by_role("button", name="difference").click()
        differences = [float(text) for text in column(page, 9)]
        assert differences == sorted(differences)
        page.locator("button.open").first.click()
        assert page.locator("#viewer-image").evaluate("image => image.src.startsWith('data:image/webp')")
        assert page.locator("#viewer-text").inner_text().startswith("A: ")
        assert page.locator("#viewer-overlay").is_hidden()


@pytest.mark.parametrize("width", [360, 1280])
def test_strips_and_comparisons_fit_the_screen(
    browser: "Browser", study_run: Path, compared_run: Path, width: int
) -> None:
    for run, name in ((study_run, HTML_PAGE), (compared_run, COMPARE_PAGE)):
        for opened in open_page(browser, run, name, viewport={"width": width, "height": 800}):
            assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("page", ["study", "labelled", "compared"])
def test_a_printed_page_fits_the_paper(browser: "Browser", request: pytest.FixtureRequest, page: str) -> None:
    fixture, name = PAGES[page]
    width = 718  # of A4 between margins of 1 cm, in CSS pixels
    for opened in open_page(browser, request.getfixturevalue(fixture), name, viewport={"width": width, "height": 1000}):
        opened.page.emulate_media(media="print")
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
