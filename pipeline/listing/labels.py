"""Labels of files: from their parent folder's name, or from a table; only where the bundle knows the class."""

import csv
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from mribatch.core.errors import MribatchError
from mribatch.core.model_spec import ModelSpec
from mribatch.pipeline.listing.discover import Input, escape

_MAX_NAMES = 1000  # distinct unknown names that are counted one by one; folders named after patients can be many
_OTHERS = "(others)"


class Labels(Protocol):
    """Where a file's label comes from.

    `unknown` counts names that are no class of the bundle; their files have no label.
    """

    unknown: Counter[str]

    def of(self, item: Input, path: bytes) -> str | None: ...


class NoLabels:
    """--labels none."""

    def __init__(self) -> None:
        self.unknown: Counter[str] = Counter()

    def of(self, item: Input, path: bytes) -> str | None:
        return None


class FolderLabels:
    """--labels auto: the parent folder's name, where it is one of the model's classes or their aliases."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._last: tuple[bytes, str, str | None] = (b"", "", None)
        self.unknown: Counter[str] = Counter()

    def of(self, item: Input, path: bytes) -> str | None:
        folder = os.path.dirname(os.path.join(item.root, path))
        if folder != self._last[0]:  # files come folder by folder
            name = escape(os.path.basename(folder))[0]
            self._last = (folder, name, self._spec.label_of(name))
        _, name, label = self._last
        if label is None:
            _count(self.unknown, name)
        return label


class TableLabels:
    """--labels FILE.csv with the columns path and label; `path` as in the result, or absolute.

    The table is kept in the discovery's folder as a database, so that millions of lines need no memory.
    """

    def __init__(self, spec: ModelSpec, table: Path, database: Path) -> None:
        self.unknown: Counter[str] = Counter()
        self._spec = spec
        self._database = database
        database.unlink(missing_ok=True)
        self._connection = sqlite3.connect(database, isolation_level=None)
        for statement in (
            "PRAGMA journal_mode=OFF",
            "PRAGMA synchronous=OFF",
            "PRAGMA cache_size=-4096",
            "CREATE TABLE labels (path TEXT PRIMARY KEY, label TEXT) WITHOUT ROWID",
            "BEGIN",
        ):
            self._connection.execute(statement)
        try:
            for line, path, text in _lines(table):
                self._add(table, line, path, text)
        except BaseException:
            self.close()
            raise
        self._connection.execute("COMMIT")

    def _add(self, table: Path, line: int, path: str, text: str) -> None:
        label = self._spec.label_of(text)
        if label is None and text.strip():
            _count(self.unknown, text.strip())
        inserted = self._connection.execute("INSERT OR IGNORE INTO labels VALUES (?, ?)", (path, label)).rowcount
        if not inserted and self._lookup(path) != label:
            raise MribatchError(
                f"{table}, line {line}: a second, different label for '{path}'", "keep one line for each file"
            )

    def _lookup(self, path: str) -> str | None:
        row = self._connection.execute("SELECT label FROM labels WHERE path = ?", (path,)).fetchone()
        return row[0] if row else None

    def of(self, item: Input, path: bytes) -> str | None:
        label = self._lookup(escape(path)[0])
        return label if label is not None else self._lookup(escape(os.path.join(item.root, path))[0])

    def close(self) -> None:
        """Remove the database."""
        self._connection.close()
        self._database.unlink(missing_ok=True)


def _count(counts: Counter[str], name: str) -> None:
    counts[name if name in counts or len(counts) < _MAX_NAMES else _OTHERS] += 1


def _lines(table: Path) -> Iterator[tuple[int, str, str]]:
    fix = "give a CSV file with the header path,label, in UTF-8"
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = {"path", "label"} - set(reader.fieldnames or ())
            if missing:
                raise MribatchError(f"{table} has no column '{sorted(missing)[0]}'", fix)
            for row in reader:
                if row["path"] is not None and row["label"] is not None:
                    yield reader.line_num, row["path"].replace("\\", "/"), row["label"]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MribatchError(f"cannot read the labels {table}: {error}", fix) from error
