"""The one reader of CSV files: UTF-8, a header, then one row after the other, however large the file is.

    with open_csv(path, name="--groups groups.csv", fix="give a CSV file in UTF-8") as table:
        columns = [table.column("path"), table.column("label")]
        for line, (path, label) in table.rows(columns):
            ...

A file that is not what it should be is a MribatchError that names the line; the caller says how to fix it.
"""

import contextlib
import csv
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TextIO

from mribatch.core.errors import MribatchError

Cells = tuple[str | None, ...]

_MOST_TITLES, _LONGEST_TITLE = 20, 80  # in a message
_LONGEST_LINE = 1 << 20  # characters; a file without line ends would come into memory whole


class CsvTable:
    """An open CSV file whose header was read.

    header: The names of the columns, as written.
    """

    def __init__(self, stream: TextIO, name: str, fix: str) -> None:
        self.name = name
        self._fix = fix
        self._reader = csv.reader(self._check_lines(iter(partial(stream.readline, _LONGEST_LINE), "")), strict=True)
        self.header: tuple[str, ...] = tuple(next(self._records(), (1, []))[1])

    def find_column(self, *names: str) -> int | None:
        """The position of the first of `names` that the header has, or None.

        A column that is spelled exactly so is preferred; else upper and lower case and surrounding spaces do not count.

        Raises:
            MribatchError: Two columns have that name.
        """
        for name in names:
            exact = [i for i, title in enumerate(self.header) if title == name]
            found = exact or [i for i, title in enumerate(self.header) if _fold(title) == _fold(name)]
            if len(found) > 1:
                raise self.error(f"has {len(found)} columns named '{name}'")
            if found:
                return found[0]
        return None

    def column(self, *names: str) -> int:
        """Like `find_column`.

        Raises:
            MribatchError: None of the names is there, or two columns have one.
        """
        position = self.find_column(*names)
        if position is None:
            raise self.error(f"has no column '{names[0]}'; its columns: {self.titles}")
        return position

    @property
    def titles(self) -> str:
        """The names of the columns for a message: the first of them, cut where they are long."""
        shown = [title[:_LONGEST_TITLE] for title in self.header]
        more = f" and {len(shown) - _MOST_TITLES:,} more" if len(shown) > _MOST_TITLES else ""
        return ", ".join(shown[:_MOST_TITLES]) + more or "none"

    def rows(self, columns: Sequence[int]) -> Iterator[tuple[int, Cells]]:
        """Yield (line, cells) for every row below the header: the line where it begins, and its cells of `columns`.

        Empty lines are skipped. A cell is None where its row is too short; cells beyond the header are ignored.

        Raises:
            MribatchError: Not UTF-8, a NUL byte, a line of a million characters, a field over
                `csv.field_size_limit()`, or misplaced quotes.
        """
        for line, cells in self._records():
            yield line, tuple(cells[i] if i < len(cells) else None for i in columns)

    def error(self, problem: str, line: int | None = None) -> MribatchError:
        """An error about this file, with the fix of whoever opened it; `problem` follows the file's name."""
        return MribatchError(
            f"{self.name} {problem}" if line is None else f"{self.name}, line {line}: {problem}", self._fix
        )

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        while True:
            line = self._reader.line_num + 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise self.error(str(error), line) from error
            except OSError as error:
                raise _cannot_read(self.name, error, self._fix) from error
            if cells:
                yield line, cells

    def _check_lines(self, lines: Iterable[str]) -> Iterator[str]:
        """The lines, which were decoded with surrogates in the place of what is not UTF-8."""
        for number, line in enumerate(lines, start=1):
            if len(line) == _LONGEST_LINE:
                raise self.error(f"more than {_LONGEST_LINE:,} characters; this is not a table of short texts", number)
            if "\0" in line:
                raise self.error("a NUL byte; this is not a text file in UTF-8", number)
            if not line.isascii():
                try:
                    line.encode()
                except UnicodeEncodeError as error:
                    byte = ord(line[error.start]) & 0xFF
                    raise self.error(f"byte 0x{byte:02x} is not UTF-8", number) from error
            yield line


@contextlib.contextmanager
def open_csv(path: Path, *, name: str, fix: str) -> Iterator[CsvTable]:
    """Open a CSV file in UTF-8, with or without a byte order mark, and read its header.

    Args:
        path: The file.
        name: What errors call it, e.g. "--labels labels.csv".
        fix: What errors advise; the caller knows its options.

    Raises:
        MribatchError: It cannot be opened, or its header cannot be read.
    """
    try:
        stream = path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    except OSError as error:
        raise _cannot_read(name, error, fix) from error
    with stream:
        yield CsvTable(stream, name, fix)


def _fold(name: str) -> str:
    return name.strip().casefold()


def _cannot_read(name: str, error: OSError, fix: str) -> MribatchError:
    return MribatchError(f"cannot read {name}: {error.strerror or error}", fix)
