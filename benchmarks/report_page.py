"""The report's page of a large run: python -m benchmarks.report_page [--rows N ...] [--side PIXELS]

Synthetic slices, 2,500 different ones, labelled by their folders, classified by a tiny model, since only the number of
rows matters here; the same for fewer rows. Seconds to make metrics and page, the page's bytes, and from a
headless Chromium the first contentful paint (W3C Paint Timing) and the time until everything is parsed, each in a fresh
browser context.
"""

import argparse
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from benchmarks.conditions import RESULTS, conditions, machine, spread
from mribatch.core.files import write_json
from mribatch.core.synthetic import draw_slice
from mribatch.core.training_images import TrainingImages
from mribatch.core.training_look import TrainingLook
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.run import classify
from mribatch.report.html.page import HTML_PAGE
from mribatch.report.measure import ReportOptions, report
from mribatch.training.export.training_images import KnownImages, add_training_images
from tests.make_models import CLASSES, make_tiny

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_REPEATS = 5
_MODEL_SIDE = 64
_DRAWN = 2500  # different slices
_KNOWN = 500  # drawings that the model knows as its training images
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
_PARSED = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"


@dataclass(frozen=True)
class PageFigures:
    """One run. Milliseconds are from the beginning of the navigation."""

    rows: int
    figures_seconds: float  # without the page
    with_page_seconds: float
    page_bytes: int
    elements: int
    first_contentful_paint_ms: dict[str, Any]
    first_contentful_paint_of_one_word_ms: dict[str, Any]  # a page of nothing else, in turns: what the machine allows
    parsed_ms: dict[str, Any]


def make_model(folder: Path) -> Path:
    """A tiny model with hashes and statistics of drawings."""
    bundle = make_tiny(folder, size=_MODEL_SIDE, trained=True)
    pixels = np.stack([draw_slice(seed, _MODEL_SIDE, _MODEL_SIDE) for seed in range(_KNOWN)])[..., None]
    look = TrainingLook.of_images(pixels, [(256, 256)] * _KNOWN, np.arange(_KNOWN))
    add_training_images(bundle, KnownImages(TrainingImages.of_pixels(pixels), look))
    return bundle


def draw_folder(folder: Path, rows: int, side: int) -> None:
    """Slices in one folder for each class, every hundredth cut short; beyond _DRAWN they are links to earlier ones."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    paths = [folder / CLASSES[number % len(CLASSES)] / f"slice-{number:06d}.png" for number in range(rows)]
    for number, path in enumerate(paths):
        if number >= _DRAWN:
            path.hardlink_to(paths[number % _DRAWN])
            continue
        content = bytes(cv2.imencode(".png", draw_slice(number, side, side))[1])
        path.write_bytes(content[: len(content) // 2] if number % 100 == 99 else content)


def measure(browser: "Browser", slices: Path, run: Path, model: Path) -> PageFigures:
    """Classify, report without and with the page, open the page."""
    summary = classify([slices], run, ClassifyOptions(model=str(model)))
    seconds = []
    for html in (False, True):
        begin = time.perf_counter()
        report(ReportOptions(run=run, html=html))
        seconds.append(time.perf_counter() - begin)
    word = run / "word.html"
    word.write_text("<!doctype html><title>word</title><p>word", encoding="utf-8")
    paints: list[float] = []
    words: list[float] = []
    parsed: list[float] = []
    elements = 0
    for _ in range(_REPEATS):
        words.append(_open(browser, word)[0])
        paint, ready, elements = _open(browser, run / HTML_PAGE)
        paints.append(paint)
        parsed.append(ready)
    size = (run / HTML_PAGE).stat().st_size
    first, second = (round(value, 2) for value in seconds)
    return PageFigures(
        rows=summary.images,
        figures_seconds=first,
        with_page_seconds=second,
        page_bytes=size,
        elements=elements,
        first_contentful_paint_ms=spread(paints),
        first_contentful_paint_of_one_word_ms=spread(words),
        parsed_ms=spread(parsed),
    )


def _open(browser: "Browser", file: Path) -> tuple[float, float, int]:
    """First contentful paint and the end of parsing, in milliseconds, and the number of elements."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(file.as_uri())
    while page.evaluate(_PAINT) is None:  # wait_for_function evaluates text, which the page's policy forbids
        page.wait_for_timeout(10)
    values = [round(float(page.evaluate(each)), 1) for each in (_PAINT, _PARSED)]
    elements = int(page.evaluate("document.querySelectorAll('*').length"))
    context.close()
    return values[0], values[1], elements


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description="Measure the report's page of a large run.")
    parser.add_argument("--rows", type=int, nargs="+", default=[500, 50_000])
    parser.add_argument("--side", type=int, default=96, help="of the slices, in pixels")
    given = parser.parse_args()
    facts = conditions()
    chromium = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
    figures = []
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        facts["chromium"] = browser.version
        model = make_model(Path(scratch) / "model")
        for rows in given.rows:
            folder = Path(scratch) / str(rows)
            draw_folder(folder / "slices", rows, given.side)
            figures.append(measure(browser, folder / "slices", folder / "run", model))
            print(figures[-1])
        browser.close()
    name = f"report_page-{max(given.rows)}rows-synthetic{given.side}px-{machine(facts)}.json"
    write_json(RESULTS / name, {"conditions": facts, "runs": [asdict(each) for each in figures]})
    print(f"written: {RESULTS / name}")


if __name__ == "__main__":
    main()
