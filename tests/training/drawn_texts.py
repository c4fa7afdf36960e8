"""The texts on a picture, for tests: those that are really drawn, and where."""

from pathlib import Path
from typing import Any

import pytest

from mribatch.training.figures.page import Page


class Texts:
    """What is drawn on a page, read back from the figure with its place in pixels."""

    def __init__(self, page: Page) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.text import Text

        drawn: list[Text] = []
        original = Text.draw

        def draw(text: Text, renderer: Any) -> None:
            drawn.append(text)
            original(text, renderer)

        with pytest.MonkeyPatch.context() as patch:  # ticks outside the axes are texts too, but never drawn
            patch.setattr(Text, "draw", draw)
            FigureCanvasAgg(page.figure).draw()
        self.size = page.figure.bbox
        shown = [text for text in dict.fromkeys(drawn) if text.get_visible() and text.get_text().strip()]
        self.boxes = [(text.get_text(), text.get_window_extent()) for text in shown]
        self.slanted = {text.get_text() for text in shown if text.get_rotation() % 90}
        self.all = "\n".join(text for text, _ in self.boxes)

    def overlapping(self) -> list[tuple[str, str]]:
        """Pairs that share more than a pixel each way; of two slanted texts the boxes say nothing."""
        pairs = []
        for place, (first, a) in enumerate(self.boxes):
            for second, b in self.boxes[place + 1 :]:
                across = min(a.x1, b.x1) - max(a.x0, b.x0)
                down = min(a.y1, b.y1) - max(a.y0, b.y0)
                if across > 1 and down > 1 and not {first, second} <= self.slanted:
                    pairs.append((first, second))
        return pairs

    def outside(self) -> list[str]:
        width, height = self.size.width, self.size.height
        return [t for t, box in self.boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height]


@pytest.fixture(name="pages")
def drawn_pages(monkeypatch: pytest.MonkeyPatch) -> dict[str, Texts]:
    """name -> the texts on it, for every page that is saved while the test runs."""
    saved: dict[str, Texts] = {}

    def save(page: Page, folder: Path, name: str) -> list[Path]:
        saved[name] = Texts(page)
        return [folder / f"{name}.png", folder / f"{name}.svg"]

    monkeypatch.setattr(Page, "save", save)
    return saved
