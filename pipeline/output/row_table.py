"""Rows of a run as a table for a terminal."""

import textwrap
from collections.abc import Sequence
from typing import Any

from mribatch.core.tables import PLAIN, Cell, Column, Screen, format_table
from mribatch.core.text import one_line
from mribatch.pipeline.records import Status

_SERIES_WIDTH, _LEFT_OUT = 105, ("ok", "blank", "plane")  # on a narrower screen, a table of series lacks these
_PATH_WIDTH = 24  # characters that a path should have before each class gets a column of its own


def format_rows(rows: Sequence[dict[str, Any]], classes: Sequence[str], screen: Screen = PLAIN) -> str:
    """Write rows with file, status, label if any, class, confidence, probabilities, and why a file failed.

    A table where the screen is wide enough for a column per class, else a short paragraph for each row.

    Args:
        rows: As read from the Parquet files.
        classes: Of the model, in order.
        screen: Where it will be shown.
    """
    labelled = any(row["label"] for row in rows)
    if not _is_wide_enough(classes, labelled, screen):
        return "\n".join(_format_paragraph(row, classes, screen) for row in rows)
    columns = [Column("file", wraps=True), Column("status"), *([Column("label")] if labelled else [])]
    columns += [Column("class"), Column("confidence", "right"), *(Column(name, "right") for name in classes)]
    table = format_table(columns, [_list_cells(row, classes, labelled) for row in rows], screen)
    errors = [(_name(row), row["error"]) for row in rows if row["error"]]
    if not errors:
        return table
    return f"{table}\n{format_table([Column(wraps=True), Column(wraps=True)], errors, screen)}"


def format_series(rows: Sequence[dict[str, Any]], screen: Screen = PLAIN) -> str:
    """Write rows of series.parquet: images, plane, class, mean probability, and the slice that shows a tumor most.

    On a narrow screen without the counts of ok and blank images, and without the plane.
    """
    columns = [Column("series"), Column("images", "right"), Column("ok", "right"), Column("blank", "right")]
    columns += [Column("plane"), Column("class"), Column("mean", "right"), Column("top", "right")]
    columns.append(Column("top slice", wraps=True))
    narrow = screen.width is not None and screen.width < _SERIES_WIDTH
    shown = [place for place, column in enumerate(columns) if not (narrow and column.title in _LEFT_OUT)]
    cells = [_list_series_cells(row) for row in rows]
    return format_table(
        [columns[place] for place in shown], [[line[place] for place in shown] for line in cells], screen, indent=2
    )


def _list_series_cells(row: dict[str, Any]) -> list[str | Cell]:
    counts = [f"{row['images']:,}", f"{row['ok']:,}", f"{row['blank']:,}"]
    path, number = row["top_path"] or "-", row["top_slice"]
    where = path if number is None else f"{path} [{number}]"
    answer = [Cell(row["predicted"] or "-", "bold"), _format_number(row["confidence"])]
    return [row["series"], *counts, row["plane"] or "-", *answer, _format_number(row["top_probability"]), where]


def _is_wide_enough(classes: Sequence[str], labelled: bool, screen: Screen) -> bool:
    longest = max(map(len, classes))
    fixed = sum(len(name) + 2 for name in classes) + (longest + 2) * (1 + labelled) + len("confidence") + 2 + 15
    return screen.width is None or fixed + _PATH_WIDTH <= screen.width


def _list_cells(row: dict[str, Any], classes: Sequence[str], labelled: bool) -> list[str | Cell]:
    ok = row["status"] == Status.OK
    wrong = ok and row["label"] not in (None, row["predicted"])
    cells: list[str | Cell] = [_name(row), Cell(row["status"], "red" if Status(row["status"]).is_failure else "green")]
    cells += [row["label"] or "-"] if labelled else []
    cells += [Cell(row["predicted"] or "-", "yellow" if wrong else "bold" if ok else "")]
    return [*cells, _format_number(row["confidence"]), *(_format_number(row.get(f"p_{name}")) for name in classes)]


def _format_paragraph(row: dict[str, Any], classes: Sequence[str], screen: Screen) -> str:
    """The file on a line of its own, then its status with the classes by probability, or the reason."""
    if row["status"] == Status.OK:
        by_probability = sorted(classes, key=lambda name: (name != row["predicted"], -row[f"p_{name}"]))
        text = ", ".join(f"{name} {_format_number(row[f'p_{name}'])}" for name in by_probability)
        text += f"; label {row['label']}" if row["label"] else ""
    else:
        text = row["error"]
    lines = textwrap.wrap(one_line(f"{row['status']}: {text}"), max(20, (screen.width or 80) - 4))
    return "\n".join([one_line(_name(row)), *(f"    {line}" for line in lines)])


def _name(row: dict[str, Any]) -> str:
    """The path, with the slice where the file holds several."""
    return str(row["path"]) if row.get("slice") is None else f"{row['path']}, slice {row['slice']}"


def _format_number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
