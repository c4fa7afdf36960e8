"""Labels of files: from their parent folder's name, or from a table; only where the bundle knows the class."""

import contextlib
import dataclasses
import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from mribatch.core.csv_rows import open_csv
from mribatch.core.errors import MribatchError, OptionError
from mribatch.core.model_spec import ModelSpec, normalise_label
from mribatch.core.scratch_database import open_scratch
from mribatch.core.text import decode_name
from mribatch.pipeline.listing.discover import Input
from mribatch.pipeline.storage.address import join

_FROM_FOLDERS, _NOWHERE = "auto", "none"  # what `open_labels` understands beside a file
_MAX_NAMES = 1000  # distinct unknown names that are counted one by one; folders named after patients can be many
_OTHERS = "(others)"
_CACHE_KIB = 4096
_FIRST_LINES = 5  # lines of a table without a file that are named


@dataclasses.dataclass(frozen=True)
class UnmatchedLines:
    """The lines of a labels table whose path is no listed file's."""

    count: int
    first: tuple[str, ...]  # paths of the first ones, as written


class Labels(Protocol):
    """Where a file's label comes from.

    `unknown` counts names that are no class of the bundle; their files have no label.
    """

    unknown: Counter[str]

    def of(self, item: Input, path: bytes) -> str | None: ...

    def unmatched(self) -> UnmatchedLines | None:
        """The lines that gave no file a label, once every file was asked for; None where there is no table."""
        ...


class NoLabels:
    """--labels none."""

    def __init__(self) -> None:
        self.unknown: Counter[str] = Counter()

    def of(self, item: Input, path: bytes) -> str | None:
        return None

    def unmatched(self) -> None:
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

    def unmatched(self) -> None:
        return None


class TableLabels:
    """--labels FILE.csv with the columns path and label; `path` as in the result, or absolute.

    A path that matches no file as it is written is tried with its backslashes as separators and without "./", as a
    table from Windows or from `find .` has them. The table is kept in the discovery's folder as a database, so that
    millions of lines need no memory.
    """

    def __init__(self, spec: ModelSpec, table: Path, database: Path) -> None:
        self.unknown: Counter[str] = Counter()
        self._spec = spec
        self._database = database
        self._connection = open_scratch(database, _CACHE_KIB)
        for statement in (
            "CREATE TABLE labels (path TEXT PRIMARY KEY, line INTEGER, label TEXT, used INTEGER) WITHOUT ROWID",
            "CREATE TABLE other_spellings (spelling TEXT PRIMARY KEY, path TEXT) WITHOUT ROWID",
            "BEGIN",
        ):
            self._connection.execute(statement)
        try:
            for line, path, text in _read_labels(table):
                self._add(table, line, path, text)
        except BaseException:
            self.close()
            raise

    def _add(self, table: Path, line: int, path: str, text: str) -> None:
        label = self._spec.label_of(text)
        if label is None and text.strip():
            _count(self.unknown, text.strip())
        self._insert(table, line, path, label)
        spelling = posixpath.normpath(path.replace("\\", "/"))
        if spelling == path:
            return
        earlier = self._connection.execute(
            "SELECT path FROM other_spellings WHERE spelling = ?", (spelling,)
        ).fetchone()
        if earlier is None:
            self._connection.execute("INSERT INTO other_spellings VALUES (?, ?)", (spelling, path))
        elif self._connection.execute("SELECT label FROM labels WHERE path = ?", earlier).fetchone()[0] != label:
            raise _second_label(table, line, path)

    def _insert(self, table: Path, line: int, path: str, label: str | None) -> None:
        row = (path, line, label)
        if self._connection.execute("INSERT OR IGNORE INTO labels VALUES (?, ?, ?, 0)", row).rowcount:
            return
        if self._connection.execute("SELECT label FROM labels WHERE path = ?", (path,)).fetchone()[0] != label:
            raise _second_label(table, line, path)

    def of(self, item: Input, path: bytes) -> str | None:
        relative, absolute = decode_name(path)[0], decode_name(join(item.root, path))[0]
        for written in (relative, absolute):
            label = self._use(written)
            if label is None:
                label = self._use_other_spelling(posixpath.normpath(written))
            if label is not None:
                return label
        return None

    def _use(self, path: str) -> str | None:
        row = self._connection.execute("SELECT label, used FROM labels WHERE path = ?", (path,)).fetchone()
        if row is None:
            return None
        if not row[1]:
            self._connection.execute("UPDATE labels SET used = 1 WHERE path = ?", (path,))
        return row[0] if row[0] is None else str(row[0])

    def _use_other_spelling(self, spelling: str) -> str | None:
        statement = "SELECT path FROM other_spellings WHERE spelling = ?"
        row = self._connection.execute(statement, (spelling,)).fetchone()
        return self._use(row[0] if row is not None else spelling)

    def unmatched(self) -> UnmatchedLines:
        (count,) = self._connection.execute("SELECT count(*) FROM labels WHERE used = 0").fetchone()
        statement = f"SELECT path FROM labels WHERE used = 0 ORDER BY line LIMIT {_FIRST_LINES}"
        return UnmatchedLines(count, tuple(path for (path,) in self._connection.execute(statement)))

    def close(self) -> None:
        """Remove the database."""
        self._connection.close()
        self._database.unlink(missing_ok=True)


@contextlib.contextmanager
def open_labels(source: str, spec: ModelSpec, database: Path) -> Iterator[Labels]:
    """The labels that `--labels` names.

    Args:
        source: "auto" for the folders' names, "none", or a CSV file.
        spec: Knows the classes and their other names.
        database: Where a table is kept while it is open.
    """
    if source == _FROM_FOLDERS:
        yield FolderLabels(spec)
    elif source == _NOWHERE:
        yield NoLabels()
    else:
        with contextlib.closing(TableLabels(spec, Path(source), database)) as table:
            yield table


def add_aliases(spec: ModelSpec, aliases: Sequence[str]) -> ModelSpec:
    """The spec with more names for its classes, for labels only.

    Args:
        spec: The model's.
        aliases: "FOLDER=CLASS" each; CLASS in any spelling that the spec knows. They come before those of the spec.

    Raises:
        MribatchError: The class is unknown, the folder is itself a class, or is given two classes.
    """
    chosen: dict[str, str] = {}
    for text in aliases:
        folder, _, wanted = text.rpartition("=")
        target = spec.label_of(wanted)
        if target is None:
            raise OptionError(
                f"--alias {text}: '{wanted}' is not a class of the model",
                f"name one of {', '.join(spec.classes)}",
            )
        key = normalise_label(folder)
        if key in map(normalise_label, spec.classes) and spec.label_of(folder) != target:
            raise OptionError(f"--alias {text}: '{folder}' is a class of the model itself", "leave it out")
        if chosen.setdefault(key, target) != target:
            raise OptionError(f"--alias {text}: '{folder}' was given another class before", "keep one of the two")
    taken = {*chosen, *map(normalise_label, spec.classes)}
    kept = {alias: name for alias, name in spec.aliases.items() if normalise_label(alias) not in taken}
    own = {key: name for key, name in chosen.items() if key not in map(normalise_label, spec.classes)}
    return dataclasses.replace(spec, aliases=kept | own)


def _second_label(table: Path, line: int, path: str) -> MribatchError:
    return MribatchError(
        f"--labels {table}, line {line}: a second, different label for '{path}'", "keep one line for each file"
    )


def _count(counts: Counter[str], name: str) -> None:
    counts[name if name in counts or len(counts) < _MAX_NAMES else _OTHERS] += 1


def _read_labels(table: Path) -> Iterator[tuple[int, str, str]]:
    """Line, path and label of every row that has both."""
    fix = "give a CSV file with the header path,label, in UTF-8"
    with open_csv(table, name=f"--labels {table}", fix=fix) as rows:
        for line, (path, label) in rows.rows([rows.column("path"), rows.column("label")]):
            if path is not None and label is not None:
                yield line, path, label
