"""Pages of real runs, and their text as a browser would read it."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mribatch import classify
from mribatch.pipeline.demo_folder import draw_demo_folder
from mribatch.report.html.page import HTML_PAGE
from mribatch.report.measure import ReportOptions, report

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


def parse(run: Path) -> ParsedPage:
    """The page of a run."""
    page = ParsedPage()
    page.feed((run / HTML_PAGE).read_text(encoding="utf-8"))
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
