"""Draws docs/pictures/report*.png and compare.png, pages of the demo in a browser: python docs/make_report_picture.py

Synthetic slices only. Needs Chromium.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import mribatch
from mribatch.pipeline.demo_folder import add_demo_study, draw_demo_folder
from mribatch.report.compare import compare_runs
from mribatch.report.html.compare_page import write_compare_page
from mribatch.report.html.page import HTML_PAGE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PICTURES = Path(__file__).resolve().parent / "pictures"
DESKTOP, PHONE = (1120, 720), (390, 760)  # pixels
COMPARE_PAGE = "compare.html"


def main() -> None:
    from playwright.sync_api import sync_playwright

    chromium = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        folder = Path(scratch)
        run = make_pages(folder)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        draw(browser, run / HTML_PAGE, "report-overview", "overview")
        draw(browser, run / HTML_PAGE, "report-series", "series")
        draw(browser, run / HTML_PAGE, "report-phone", "overview", PHONE)
        draw(browser, folder / COMPARE_PAGE, "compare", "overview")
        page = draw(browser, run / HTML_PAGE, "report-triage", "triage")
        page.locator("button.open").nth(4).click()
        page.wait_for_timeout(300)
        save(page, "report-viewer")
        browser.close()


def make_pages(folder: Path) -> Path:
    """Classify the demo by both shipped models; return the first run, whose page is written."""
    os.chdir(folder)  # the pages show paths as they are typed
    slices = draw_demo_folder(Path("slices")).folder
    add_demo_study(slices)
    run = mribatch.classify(slices, "results", progress=False)
    run.report()
    other = mribatch.classify(slices, "results-cnn", model="cnn", progress=False)
    write_compare_page(compare_runs(run.path, other.path), Path(COMPARE_PAGE))
    return folder / run.path


def draw(browser: "Browser", file: Path, name: str, section: str, size: tuple[int, int] = DESKTOP) -> "Page":
    """Save what a screen shows from a section on."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.goto(file.as_uri())
    page.evaluate(f"document.getElementById('{section}').scrollIntoView()")
    page.wait_for_timeout(500)
    save(page, name)
    return page


def save(page: "Page", name: str) -> None:
    path = PICTURES / f"{name}.png"
    page.screenshot(path=str(path))
    print(f"written: {path} ({path.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
