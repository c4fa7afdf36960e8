"""Draws docs/pictures/audit-page.png, the page of an audit in a browser: python docs/make_audit_picture.py

Synthetic slices only. Needs Chromium.
"""

import shutil
import tempfile
from contextlib import chdir
from pathlib import Path

import numpy as np

import mribatch
from mribatch.core.synthetic import draw_slice

PICTURE = Path(__file__).resolve().parent / "pictures/audit-page.png"
CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
WIDTH, HEIGHT = 1120, 760  # pixels
SIZE = 256
OF_A_CLASS = 12


def draw_data_set(folder: Path) -> None:
    """Slices of four classes in Training and Testing; some of Testing are copies, encoded again or with a margin."""
    import cv2

    for position, name in enumerate(CLASSES):
        for part, first, count in (("Training", 0, OF_A_CLASS), ("Testing", 50, 3)):
            for number in range(count):
                path = folder / part / name / f"slice-{number:02d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                lesion = name != "no_tumor"
                cv2.imwrite(str(path), draw_slice(100 * position + first + number, SIZE, SIZE, lesion))
        known = draw_slice(100 * position + 1, SIZE, SIZE, name != "no_tumor")
        copy = np.pad(known, 32) if position % 2 else known
        cv2.imwrite(str(folder / "Testing" / name / "copy.jpg"), copy, [cv2.IMWRITE_JPEG_QUALITY, 60])
    shutil.copy(folder / "Training/glioma_tumor/slice-03.jpg", folder / "Training/meningioma_tumor/also-here.jpg")


def main() -> None:
    from playwright.sync_api import sync_playwright

    chromium = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
    with tempfile.TemporaryDirectory() as scratch, chdir(scratch), sync_playwright() as playwright:
        draw_data_set(Path("data"))
        found = mribatch.audit("data", "audit", progress=False)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto((found.path / "audit.html").resolve().as_uri())
        page.evaluate("document.getElementById('leaks').scrollIntoView()")
        page.wait_for_timeout(500)
        page.screenshot(path=str(PICTURE))
        browser.close()
    print(f"written: {PICTURE} ({PICTURE.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
