"""Some rows of a run, chosen and sorted, without reading all of them into memory."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mribatch.core.errors import OptionError
from mribatch.pipeline.output.parts import read_parts
from mribatch.pipeline.records import Status

LISTING_ORDER = "listing"
SORTS = (LISTING_ORDER, "path", "confidence", "margin", "entropy")
FAILED = "failed"  # as a status: every one but ok and blank
STATUSES = (*(status.value for status in Status), FAILED)


@dataclass(frozen=True, kw_only=True)
class RowSelection:
    """Which rows of a run, and in which order."""

    top: int | None = None  # maximum number of rows; None: all
    sort: str = LISTING_ORDER  # one of SORTS: lowest first, entropy highest first, so that the least certain rows lead
    reverse: bool = False
    predicted: str | None = None  # class
    label: str | None = None  # class
    status: str | None = None  # one of STATUSES
    disagreeing: bool = False  # only rows whose label is another class than the predicted one

    def check_classes(self, classes: tuple[str, ...]) -> None:
        """Refuse a class that the run does not have.

        Raises:
            OptionError: `predicted` or `label` is not one of `classes`.
        """
        for option, name in (("--class", self.predicted), ("--label", self.label)):
            if name is not None and name not in classes:
                raise OptionError(
                    f"{option} '{name}' is not a class of this run", f"choose one of {', '.join(classes)}"
                )

    def matches(self, row: dict[str, Any]) -> bool:
        """Whether a row is wanted."""
        ok = row["status"] == Status.OK
        wanted = self.status is None or row["status"] == self.status
        wanted = wanted or (self.status == FAILED and Status(row["status"]).is_failure)
        wanted = wanted and (self.predicted is None or row["predicted"] == self.predicted)
        wanted = wanted and (self.label is None or row["label"] == self.label)
        return wanted and not (self.disagreeing and not (ok and row["label"] not in (None, row["predicted"])))


@dataclass(frozen=True)
class SelectedRows:
    """The chosen rows, and how many there would be without a limit."""

    rows: tuple[dict[str, Any], ...]
    matching: int


def select_rows(run: Path, selection: RowSelection) -> SelectedRows:
    """Read a run part by part and keep the rows that are wanted. Only `top` rows are in memory where it is given."""
    counter = _Counter()
    wanted = counter.count(row for row in _read_rows(run) if selection.matches(row))
    if selection.sort == LISTING_ORDER and not selection.reverse:
        rows = tuple(islice(wanted, selection.top))
        for _ in wanted:  # count the rest
            pass
    else:
        keyed = (row for row in wanted if selection.sort not in row or row[selection.sort] is not None)
        rows = tuple(_sort(keyed, selection))
    return SelectedRows(rows, counter.number)


def _read_rows(run: Path) -> Iterator[dict[str, Any]]:
    for table in read_parts(run):
        yield from table.to_pylist()


def _sort(rows: Iterator[dict[str, Any]], selection: RowSelection) -> list[dict[str, Any]]:
    column = "index" if selection.sort == LISTING_ORDER else selection.sort
    descending = (column == "entropy") != selection.reverse
    if selection.top is None:
        return sorted(rows, key=lambda row: row[column], reverse=descending)
    best = heapq.nlargest if descending else heapq.nsmallest
    return best(selection.top, rows, key=lambda row: row[column])


class _Counter:
    """Counts what passes through."""

    def __init__(self) -> None:
        self.number = 0

    def count(self, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for row in rows:
            self.number += 1
            yield row
