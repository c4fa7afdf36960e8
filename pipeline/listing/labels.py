"""Labels of files: from their parent folder's name, or from a table; only where the bundle knows the class."""

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from mribatch.core.csv_rows import open_csv
from mribatch.core.errors import MribatchError
from mribatch.core.model_spec import ModelSpec
from mribatch.core.text import decode_name
from mribatch.pipeline.listing.discover import Input

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
            name = decode_name(os.path.basename(folder))[0]
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
            for line, path, text in _read_labels(table):
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
                f"--labels {table}, line {line}: a second, different label for '{path}'", "keep one line for each file"
            )

    def _lookup(self, path: str) -> str | None:
        row = self._connection.execute("SELECT label FROM labels WHERE path = ?", (path,)).fetchone()
        return row[0] if row else None

    def of(self, item: Input, path: bytes) -> str | None:
        label = self._lookup(decode_name(path)[0])
        return label if label is not None else self._lookup(decode_name(os.path.join(item.root, path))[0])

    def close(self) -> None:
        """Remove the database."""
        self._connection.close()
        self._database.unlink(missing_ok=True)


def _count(counts: Counter[str], name: str) -> None:
    counts[name if name in counts or len(counts) < _MAX_NAMES else _OTHERS] += 1


def _read_labels(table: Path) -> Iterator[tuple[int, str, str]]:
    """Line, path and label of every row that has both."""
    fix = "give a CSV file with the header path,label, in UTF-8"
    with open_csv(table, name=f"--labels {table}", fix=fix) as rows:
        for line, (path, label) in rows.rows([rows.column("path"), rows.column("label")]):
            if path is not None and label is not None:
                yield line, path.replace("\\", "/"), label
