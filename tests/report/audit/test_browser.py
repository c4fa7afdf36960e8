"""The page of an audit in a real browser, opened from disk."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mribatch.report.audit.audit import Audit
from mribatch.report.audit.page import AUDIT_PAGE
from mribatch.report.html.page import HTML_PAGE
from tests.report.html.test_browser import CHROMIUM, browser, find_serious_faults, open_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["browser"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt install chromium")


@pytest.fixture(scope="module")
def page_folder(audited: Audit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page under the name that `open_page` opens."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copy(audited.out / AUDIT_PAGE, folder / HTML_PAGE)
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_opens_without_an_error_and_nothing_sticks_out(
    browser: "Browser", page_folder: Path, width: int, scheme: str
) -> None:
    """`open_page` fails on a message of the console and on a request that leaves the machine."""
    for opened in open_page(browser, page_folder, viewport={"width": width, "height": 800}, color_scheme=scheme):
        page = opened.page
        page.evaluate("for (const image of document.images) image.loading = 'eager'")
        page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.get_by_role("heading", name="One picture, several labels").is_visible()
        assert page.evaluate("getComputedStyle(document.querySelector('.pairs')).display") == "grid"


def test_the_links_of_the_head_lead_to_sections(browser: "Browser", page_folder: Path) -> None:
    for opened in open_page(browser, page_folder):
        targets = opened.page.locator("nav a").evaluate_all("all => all.map(one => one.getAttribute('href'))")
        assert len(targets) >= 8
        assert opened.page.evaluate("all => all.every(one => document.querySelector(one))", targets)


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: "Browser", page_folder: Path, colours: str) -> None:
    for opened in open_page(browser, page_folder, color_scheme=colours):
        assert find_serious_faults(opened.page) == []
