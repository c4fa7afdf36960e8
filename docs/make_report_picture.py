"""Draws docs/pictures/report*.png, the report's page of the demo in a browser: python docs/make_report_picture.py

Synthetic slices only. Needs Chromium.
"""

import shutil
import tempfile
from pathlib import Path

import mribatch
from mribatch.pipeline.demo_folder import add_demo_study, draw_demo_folder
from mribatch.report.html.page import HTML_PAGE

PICTURES = Path(__file__).parent / "pictures"
WIDTH, HEIGHT = 1120, 720  # pixels


def main() -> None:
    from playwright.sync_api import sync_playwright

    chromium = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        slices = draw_demo_folder(Path(scratch) / "slices").folder
        add_demo_study(slices)
        run = mribatch.classify(slices, Path(scratch) / "results", progress=False)
        run.report()
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto((run.path / HTML_PAGE).as_uri())
        page.locator("#triage").scroll_into_view_if_needed()
        page.evaluate("document.getElementById('triage').scrollIntoView()")
        page.wait_for_timeout(500)
        page.screenshot(path=str(PICTURES / "report-triage.png"))
        page.locator("button.open").nth(4).click()
        page.wait_for_timeout(300)
        page.screenshot(path=str(PICTURES / "report-viewer.png"))
        browser.close()
    for name in ("report-triage.png", "report-viewer.png"):
        print(f"written: {PICTURES / name} ({(PICTURES / name).stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
