"""What all pictures share: the page with its heading, colours, a grid of tiles, and saving as PNG and SVG.

A picture is at most 12.8 x 8 inches, 1280 x 800 pixels at 100 dots per inch: one screen. Colours are those of Okabe and
Ito, "Color universal design" (2008), which are distinguishable with any colour vision; no meaning depends on colour
alone.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from numpy import generic
from numpy.typing import NDArray

from mribatch.core.about import RESEARCH_NOTICE
from mribatch.core.files import publishing
from mribatch.core.text import one_line

WIDTH, HEIGHT = 12.8, 8.0  # inches, of the whole page
MARGIN = 0.3  # inches
BLUE, SKY, VERMILLION, GREEN, GREY = "#0072B2", "#56B4E9", "#D55E00", "#007a59", "#5f5f5f"

_DPI = 150
_TITLE_POINTS, _LINE_POINTS, _SMALL_POINTS = 17, 11, 8.5
_LETTERS_A_LINE = 150  # of the lines under the title
_LINES_AT_MOST = 4


@dataclass(frozen=True)
class Page:
    """A figure with its heading; `top` is the end of the heading, in inches from the upper edge."""

    figure: Any
    height: float
    top: float

    @property
    def body_height(self) -> float:
        """Height between heading and footer, in inches."""
        return self.height - self.top - MARGIN - 0.1

    def canvas(self) -> Any:
        """Return axes without ticks over the body, in inches: (0, 0), upper left, to (12.2, body_height)."""
        width = WIDTH - 2 * MARGIN
        self.figure.set_layout_engine("none")  # positions are given in inches; there is nothing to lay out
        place = (MARGIN / WIDTH, (MARGIN + 0.1) / self.height, width / WIDTH, self.body_height / self.height)
        axes = self.figure.add_axes(place)
        axes.set(xlim=(0, width), ylim=(self.body_height, 0), autoscale_on=False)
        axes.axis("off")
        return axes

    def save(self, folder: Path, name: str) -> list[Path]:
        """Write folder/name.png and .svg, whole or not at all; the same picture gives the same files."""
        from matplotlib import rc_context

        folder.mkdir(parents=True, exist_ok=True)
        look = {"svg.hashsalt": name, "image.composite_image": False}  # in SVG, every image separately: sharper, faster
        paths = []
        for suffix, metadata in (("png", {}), ("svg", {"Date": None})):
            path = folder / f"{name}.{suffix}"
            with publishing(path) as temporary, rc_context(look):
                self.figure.savefig(temporary, format=suffix, dpi=_DPI, metadata=metadata)
            paths.append(path)
        return paths


def make_page(title: str, lines: Sequence[str], height: float = HEIGHT) -> Page:
    """Make a page that says what it shows: the title, then lines (what, n, protocol) in smaller grey letters.

    Charts on `Page.figure` keep clear of heading and footer by themselves.
    """
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    wrapped = [part for line in lines if line for part in textwrap.wrap(line, _LETTERS_A_LINE)]
    if len(wrapped) > _LINES_AT_MOST:
        wrapped = [*wrapped[: _LINES_AT_MOST - 1], shorten(" ".join(wrapped[_LINES_AT_MOST - 1 :]), _LETTERS_A_LINE)]
    top = 0.62 + 0.22 * len(wrapped) + 0.12
    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    bottom = MARGIN + 0.1
    rect = (MARGIN / WIDTH, bottom / height, 1 - 2 * MARGIN / WIDTH, (height - top - bottom) / height)
    layout: Any = figure.get_layout_engine()
    layout.set(rect=rect)
    left = MARGIN / WIDTH
    figure.text(left, 1 - 0.24 / height, escape(shorten(title, 100)), size=_TITLE_POINTS, weight="bold", va="top")
    for place, line in enumerate(wrapped):
        figure.text(left, 1 - (0.62 + 0.22 * place) / height, escape(line), size=_LINE_POINTS, color=GREY, va="top")
    figure.text(1 - left, 0.12 / height, RESEARCH_NOTICE, size=_SMALL_POINTS, color=GREY, ha="right", va="bottom")
    return Page(figure, height, top)


@dataclass(frozen=True)
class Tiles:
    """A grid of square tiles with room for a caption under each. Lengths in inches, origin at the upper left."""

    columns: int
    rows: int
    side: float
    across: float  # between the left edges of neighbouring tiles
    down: float  # between the upper edges of neighbouring tiles
    left: float

    def corner(self, place: int) -> tuple[float, float]:
        """Return (x, y) of the upper left corner of tile number `place`, counted along rows."""
        row, column = divmod(place, self.columns)
        return self.left + column * self.across, row * self.down


def lay_out_tiles(
    count: int,
    width: float,
    height: float,
    *,
    caption: float,
    gap: float = 0.12,
    largest: float = 2.6,
    words: float = 0.0,
) -> Tiles:
    """Return the grid of `count` tiles with the largest squares that fits into width x height, centred across.

    Args:
        count: Number of tiles, at least one.
        width: Width of the room, in inches.
        height: Height of the room, in inches.
        caption: Height of the caption under a tile, in inches.
        gap: Distance between tiles, in inches.
        largest: Maximum side of a tile, in inches.
        words: Width that each caption needs, in inches; captions never touch.
    """
    best, columns = -1.0, 1
    for tried in range(1, count + 1):
        rows = ceil(count / tried)
        side = min((width + gap) / tried - gap, (height + gap) / rows - gap - caption, largest)
        if side > best and (tried == 1 or (width + gap) / tried >= words + gap):
            best, columns = side, tried
    across = max(best, words) + gap
    used = (columns - 1) * across + max(best, words)
    return Tiles(columns, ceil(count / columns), best, across, best + caption + gap, max(0.0, (width - used) / 2))


def draw_image(axes: Any, image: NDArray[generic], corner: tuple[float, float], side: float, **look: Any) -> None:
    """Draw an image into the square with that upper left corner (x, y), its aspect kept. Axes as of `Page.canvas`."""
    height, width = image.shape[:2]
    across, down = side * min(1, width / height), side * min(1, height / width)
    x, y = corner[0] + (side - across) / 2, corner[1] + (side - down) / 2
    axes.imshow(image, extent=(x, x + across, y + down, y), aspect="auto", **{"interpolation": "nearest"} | look)


def format_class(name: str, letters: int = 22) -> str:
    """Return a class name for people: without underscores, not too long."""
    return escape(shorten(name.replace("_", " "), letters))


def shorten(text: str, letters: int) -> str:
    """Cut the text to a maximum number of letters; an ellipsis replaces the rest."""
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"


def escape(text: str) -> str:
    """Return the text as matplotlib draws it unchanged: a dollar sign would begin a formula."""
    return one_line(text).replace("$", r"\$")


def format_percent(share: float) -> str:
    """0.9816 -> "98.2 %"; only 1 is called 100 % and only 0 is called 0 %."""
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    return f"{min(max(100 * share, 0.1), 99.9):.1f} %"
