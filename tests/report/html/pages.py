"""Pages of real runs, and their text as a browser would read it."""

import shutil
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from mribatch import classify
from mribatch.core.synthetic import draw_slice
from mribatch.core.training_images import TrainingImages
from mribatch.core.training_look import TrainingLook
from mribatch.pipeline.demo_folder import add_demo_study, draw_demo_folder
from mribatch.report.compare import compare_runs
from mribatch.report.html.compare_page import write_compare_page
from mribatch.report.html.page import HTML_PAGE
from mribatch.report.measure import ReportOptions, report
from mribatch.training.export.training_images import KnownImages, add_training_images
from tests.make_models import make_tiny

COMPARE_PAGE = "compare.html"
HOSTILE = "<img src=x onerror=alert(1)>.png"


@dataclass
class Figure:
    """A number that the page takes from the metrics."""

    metric: str
    class_: str
    value: str
    text: str


@dataclass
class ParsedPage(HTMLParser):
    """Figures, attributes of tags, and the text outside of style and script."""

    figures: list[Figure] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        self._inside = tag
        if "data-metric" in attributes:
            metric, class_, value = (attributes[name] for name in ("data-metric", "data-class", "data-value"))
            self.figures.append(Figure(metric, class_, value, ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("style", "script"):
            self.text += data
        if self.figures and not self.figures[-1].text:
            self.figures[-1].text = data.strip()


def parse(run: Path, name: str = HTML_PAGE) -> ParsedPage:
    """The page of a run."""
    page = ParsedPage()
    page.feed((run / name).read_text(encoding="utf-8"))
    return page


def make_run(folder: Path, model: Path, *, labels: str = "auto") -> Path:
    """A real run over the demo folder with a file of a hostile name, and its report."""
    slices = draw_demo_folder(folder / "slices").folder
    (slices / "glioma_tumor" / HOSTILE).write_bytes((slices / "glioma_tumor" / "slice-00004.png").read_bytes())
    run = classify(slices, folder / "run", model=str(model), labels=labels, progress=False).path
    report(ReportOptions(run=run))
    return run


@pytest.fixture(scope="session")
def labelled_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    return make_run(tmp_path_factory.mktemp("page"), tiny_model)


@pytest.fixture(scope="session")
def unlabelled_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    return make_run(tmp_path_factory.mktemp("page"), tiny_model, labels="none")


def make_model_with_look(folder: Path, side: int = 64) -> Path:
    """A tiny model that was, by its bundle, trained on drawings."""
    bundle = make_tiny(folder, size=side, trained=True)
    drawn = (cv2.resize(draw_slice(1000 + seed, 256, 256), (side, side)) for seed in range(120))
    pixels = np.stack(list(drawn))[..., None].astype(np.uint8)
    look = TrainingLook.of_images(pixels, [(256, 256)] * len(pixels), np.arange(len(pixels)))
    add_training_images(bundle, KnownImages(TrainingImages.of_pixels(pixels), look))
    return bundle


@pytest.fixture(scope="session")
def study_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over series, an image unlike all others, a copy and a near-duplicate, without labels; with its page."""
    folder = tmp_path_factory.mktemp("page")
    slices = folder / "slices"
    slices.mkdir()
    add_demo_study(slices)
    picture = draw_slice(3, 256, 256)
    brighter = np.clip(picture.astype(np.uint16) + 3, 0, 255).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (256, 256)).astype(np.uint8)
    for name, pixels in (("first", picture), ("brighter", brighter), ("noise", noise)):
        cv2.imwrite(str(slices / f"{name}.png"), pixels)
    shutil.copy(slices / "first.png", slices / "copy.png")
    model = make_model_with_look(folder / "model")
    run = classify(slices, folder / "run", model=str(model), labels="none", progress=False).path
    report(ReportOptions(run=run))
    return run


@pytest.fixture(scope="session")
def compared_run(tmp_path_factory: pytest.TempPathFactory, labelled_run: Path) -> Path:
    """A folder with compare.html: the labelled run against one of another model."""
    folder = tmp_path_factory.mktemp("page")
    other = make_tiny(folder / "other", seed=5, trained=True)
    run = classify(labelled_run.parent / "slices", folder / "run", model=str(other), progress=False).path
    write_compare_page(compare_runs(labelled_run, run), folder / COMPARE_PAGE)
    return folder
