"""A folder that has grown since it was listed: the earlier listing stays as it is, and new files are appended to it.

Both listings are compared in an on-disk database, so that memory does not grow with the number of files.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mribatch.core.errors import RunError
from mribatch.core.files import publishing
from mribatch.core.local_paths import arrow_path
from mribatch.pipeline.listing.table import LISTING_SCHEMA, TableWriter

_FIRST_NAMES = 5
_COLUMNS = "latest.input, latest.path, latest.bytes, latest.mtime_ns, latest.label, latest.raw_path"
_CHANGED = (
    "FROM earlier JOIN latest USING (input, name) WHERE earlier.bytes IS NOT latest.bytes"
    " OR earlier.mtime_ns IS NOT latest.mtime_ns OR earlier.label IS NOT latest.label"
)
_VANISHED = "FROM earlier LEFT JOIN latest USING (input, name) WHERE latest.name IS NULL"
_NEW = "FROM latest LEFT JOIN earlier USING (input, name) WHERE earlier.name IS NULL"


def grow_listing(earlier: Path, files: int, latest: Path, target: Path, database: Path) -> int:
    """Write the earlier listing followed by the files that only the latest one has, in its order.

    Args:
        earlier: The listing so far.
        files: Rows of it that count; what follows is from a growth that was killed before it was recorded.
        latest: The listing of today.
        target: Where the grown listing goes, whole or not at all; not one of the two.
        database: Scratch file, removed at the end.

    Returns:
        The number of new files.

    Raises:
        RunError: A file of the earlier listing has changed or is gone; names the first ones and their number.
        WriteError: The file system refused.
        sqlite3.Error: The file system refused to keep the names.
    """
    with contextlib.closing(_open_database(database)) as connection:
        try:
            _load(connection, "earlier", earlier, files)
            _load(connection, "latest", latest, None)
            _refuse_lost(connection)
            with publishing(target) as temporary, contextlib.closing(TableWriter(temporary, LISTING_SCHEMA)) as writer:
                for row in _rows(earlier, files):
                    writer.add(*row)
                index = files
                for row in connection.execute(f"SELECT {_COLUMNS} {_NEW} ORDER BY latest.row"):
                    writer.add(index, *row)
                    index += 1
            return index - files
        finally:
            database.unlink(missing_ok=True)


def _open_database(path: Path) -> sqlite3.Connection:
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE", "cache_size=-4096"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _load(connection: sqlite3.Connection, table: str, listing: Path, files: int | None) -> None:
    columns = "row INTEGER, input INTEGER, path TEXT, bytes INTEGER, mtime_ns INTEGER, label TEXT, raw_path BLOB"
    connection.execute(f"CREATE TABLE {table} ({columns}, name BLOB, PRIMARY KEY (input, name)) WITHOUT ROWID")
    connection.execute("BEGIN")
    rows = ((*row, row[6] if row[6] is not None else row[2].encode()) for row in _rows(listing, files))
    connection.executemany(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    connection.execute("COMMIT")


def _rows(listing: Path, files: int | None) -> Iterator[tuple[Any, ...]]:
    """The rows of a listing as tuples in the order of its columns, at most the first `files`."""
    with pq.ParquetFile(arrow_path(listing)) as table:
        left = table.metadata.num_rows if files is None else files
        for group in range(table.metadata.num_row_groups):
            rows = table.read_row_group(group).slice(0, left)
            yield from zip(*(column.to_pylist() for column in rows.columns), strict=True)
            left -= rows.num_rows


def _refuse_lost(connection: sqlite3.Connection) -> None:
    problems = []
    for what, rows in (("changed (size, time or label)", _CHANGED), ("gone", _VANISHED)):
        (count,) = connection.execute(f"SELECT count(*) {rows}").fetchone()
        if count:
            order = f"SELECT earlier.path {rows} ORDER BY earlier.row LIMIT {_FIRST_NAMES}"
            names = ", ".join(f"'{path}'" for (path,) in connection.execute(order))
            more = f" and {count - _FIRST_NAMES:,} more" if count > _FIRST_NAMES else ""
            problems.append(f"{count:,} {what}: {names}{more}")
    if problems:
        raise RunError(
            f"only new files can be added, but files of the run differ: {'; '.join(problems)}",
            "restore them, or classify the images again into another folder",
        )
