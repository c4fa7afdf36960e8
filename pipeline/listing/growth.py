"""A folder that has grown since it was listed: the earlier listing stays as it is, and new files are appended to it.

Both listings are compared in an on-disk database, so that memory does not grow with the number of files.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mribatch.core.errors import RunError
from mribatch.core.local_paths import arrow_path
from mribatch.core.scratch_database import open_scratch
from mribatch.core.system_errors import reading
from mribatch.pipeline.listing.table import LISTING_FILE, LISTING_SCHEMA, PATHS_FILE, ListingWriter, open_listing
from mribatch.pipeline.parquet_file import read_groups

_CACHE_KIB = 4096
GROWN_LISTING = ".grown.parquet"
_FIRST_NAMES = 5
# The columns of a listing after `index`, in order; `real_path` is of paths.parquet.
_COLUMNS = (*LISTING_SCHEMA.names[1:], "real_path")
_SAMPLED = _COLUMNS.index("sampled")
# A series whose range of values is taken from some of its images keeps that range.
_NEW_COLUMNS = ", ".join(
    "latest.sampled AND latest.series NOT IN (SELECT series FROM earlier WHERE sampled)"
    if name == "sampled"
    else f"latest.{name}"
    for name in _COLUMNS
)
_SAME = "earlier.input = latest.input AND earlier.name = latest.name AND earlier.place = latest.place"
_UNKNOWN = "earlier.bytes IS NULL AND earlier.mtime_ns IS NULL"  # the file system did not say
_CHANGED = (
    f"FROM earlier JOIN latest ON {_SAME} WHERE earlier.label IS NOT latest.label"
    " OR ((earlier.bytes IS NOT latest.bytes OR earlier.mtime_ns IS NOT latest.mtime_ns) AND NOT (:lenient AND "
    f"{_UNKNOWN}))"
)
_VANISHED = f"FROM earlier LEFT JOIN latest ON {_SAME} WHERE latest.name IS NULL"
# A file that is there has all of its rows, also where its header could not be read and it has only one.
_NEW = (
    "FROM latest WHERE NOT EXISTS"
    " (SELECT 1 FROM earlier WHERE earlier.input = latest.input AND earlier.name = latest.name)"
)


def grow_listing(earlier: Path, images: int, latest: Path, database: Path, *, completes: bool = False) -> int:
    """Write the earlier listing followed by the images that only the latest one has, in its order.

    The result is GROWN_LISTING in the folder of the latest one; where paths are hidden, paths.parquet there grows, too.

    Args:
        earlier: Folder of the listing so far.
        images: Rows of it that count; what follows is from a growth that was killed before it was recorded.
        latest: Folder of the listing of today.
        database: Scratch file, removed at the end.
        completes: Whether the file system gave no answer for some files of the earlier listing; they have not changed.

    Returns:
        The number of new images.

    Raises:
        RunError: A file of the earlier listing has changed or is gone; names the first ones and their number.
        WriteError: The file system refused.
        sqlite3.Error: The file system refused to keep the names.
    """
    hidden = (latest / PATHS_FILE).exists()
    with contextlib.closing(open_scratch(database, _CACHE_KIB)) as connection:
        try:
            _load(connection, "earlier", earlier, images)
            _load(connection, "latest", latest, None)
            _refuse_lost(connection, completes)
            added = 0
            with ListingWriter(latest, hidden, GROWN_LISTING) as writer:
                for row in _rows(earlier, images):
                    writer.add(row[-1], *row[1:-1])
                for row in connection.execute(f"SELECT {_NEW_COLUMNS} {_NEW} ORDER BY latest.row"):
                    sampled = None if row[_SAMPLED] is None else bool(row[_SAMPLED])  # SQLite has numbers only
                    writer.add(row[-1], *row[:_SAMPLED], sampled, *row[_SAMPLED + 1 : -1])
                    added += 1
            return added
        finally:
            database.unlink(missing_ok=True)


def _load(connection: sqlite3.Connection, table: str, folder: Path, images: int | None) -> None:
    connection.execute(
        f"CREATE TABLE {table} (row INTEGER, {', '.join(_COLUMNS)}, name BLOB, place INTEGER,"
        " PRIMARY KEY (input, name, place)) WITHOUT ROWID"
    )
    slice_column, raw_column = LISTING_SCHEMA.names.index("slice"), LISTING_SCHEMA.names.index("raw_path")
    path_column = LISTING_SCHEMA.names.index("path")
    connection.execute("BEGIN")
    rows = (
        (*row, row[raw_column] if row[raw_column] is not None else row[path_column].encode(), row[slice_column] or 0)
        for row in _rows(folder, images)
    )
    connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * (len(_COLUMNS) + 3))})", rows)
    connection.execute("COMMIT")


def _rows(folder: Path, images: int | None) -> Iterator[tuple[Any, ...]]:
    """The rows of a listing as tuples in the order of its columns, then the real path; at most the first `images`."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(reading(folder / LISTING_FILE))
        table = stack.enter_context(open_listing(folder / LISTING_FILE))
        paths = None
        if (folder / PATHS_FILE).exists():
            paths = stack.enter_context(pq.ParquetFile(arrow_path(folder / PATHS_FILE)))
        left = table.metadata.num_rows if images is None else images
        for group in range(table.metadata.num_row_groups):
            rows = read_groups(table, [group]).slice(0, left)
            real: list[bytes | None] = [None] * rows.num_rows
            if paths is not None:
                real = (
                    paths.read_row_group(group, ["real_path"], use_threads=False).column(0).to_pylist()[: rows.num_rows]
                )
            yield from zip(*_all_columns(rows), real, strict=True)
            left -= rows.num_rows


def _all_columns(rows: pa.Table) -> Iterator[list[Any]]:
    """Every column of a listing; those that a listing of an earlier version lacks are null."""
    for name in LISTING_SCHEMA.names:
        yield rows.column(name).to_pylist() if name in rows.column_names else [None] * rows.num_rows


def _refuse_lost(connection: sqlite3.Connection, lenient: bool) -> None:
    problems = []
    for what, rows in (("changed (size, time or label)", _CHANGED), ("gone", _VANISHED)):
        files = f"SELECT earlier.path {rows} GROUP BY earlier.input, earlier.path ORDER BY min(earlier.row)"
        chosen = {"lenient": lenient}
        (count,) = connection.execute(f"SELECT count(*) FROM ({files})", chosen).fetchone()
        if count:
            names = ", ".join(f"'{path}'" for (path,) in connection.execute(f"{files} LIMIT {_FIRST_NAMES}", chosen))
            more = f" and {count - _FIRST_NAMES:,} more" if count > _FIRST_NAMES else ""
            problems.append(f"{count:,} {what}: {names}{more}")
    if problems:
        raise RunError(
            f"only new files can be added, but files of the run differ: {'; '.join(problems)}",
            "restore them, or classify the images again into another folder",
        )
