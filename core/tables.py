"""Tables for a terminal or a pipe, drawn by rich: as wide as the screen and coloured on a terminal, plain elsewhere."""

import io
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

from mribatch.core.text import one_line

_UNLIMITED = 10_000  # columns; a pipe has no width, and a path that is cut is of no use


@dataclass(frozen=True)
class Screen:
    """Where text will be shown. width: in characters, None where nothing limits it."""

    width: int | None = None
    coloured: bool = False

    @classmethod
    def of_stdout(cls) -> Self:
        """Standard output, as it is now. NO_COLOR and TERM=dumb turn colours off, COLUMNS sets the width."""
        if sys.stdout is None or not sys.stdout.isatty():
            return cls()
        plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        return cls(shutil.get_terminal_size().columns, not plain)


PLAIN = Screen()


@dataclass(frozen=True)
class Column:
    """One column: its heading, and how its cells are laid out."""

    title: str = ""
    align: Literal["left", "right"] = "left"
    wraps: bool = False  # a cell that does not fit is continued on the next line


@dataclass(frozen=True)
class Cell:
    """Text with a style of rich's, e.g. "red"; it is seen only on a terminal with colours."""

    text: str
    style: str = ""


def format_table(
    columns: Sequence[Column], rows: Sequence[Sequence[str | Cell]], screen: Screen = PLAIN, indent: int = 0
) -> str:
    """Lay out rows under their headings, without lines around the cells; no line ends in spaces.

    Args:
        columns: In order; where no column has a title, no headings are written.
        rows: One cell per column. Text from strangers is safe here: nothing in it steers the terminal.
        screen: Where it will be shown.
        indent: Spaces before each line.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=None,
        show_header=any(column.title for column in columns),
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="bold",
    )
    for column in columns:
        table.add_column(column.title, justify=column.align, overflow="fold", no_wrap=not column.wraps)
    for row in rows:
        cells = (cell if isinstance(cell, Cell) else Cell(cell) for cell in row)
        table.add_row(*(Text(one_line(cell.text), style=cell.style) for cell in cells))
    stream = io.StringIO()
    width = _UNLIMITED if screen.width is None else max(20, screen.width - indent)
    Console(
        file=stream,
        width=width,
        force_terminal=screen.coloured,
        force_jupyter=False,  # in a notebook it would show the table instead of writing it
        no_color=not screen.coloured,
        legacy_windows=False,
        color_system="standard" if screen.coloured else None,
    ).print(table)
    return "\n".join(" " * indent + line.rstrip() for line in stream.getvalue().splitlines())


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun: "1 file", "2,000 files"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
