"""An SQLite database as scratch space on disk: for one process and one call, gone afterwards."""

import sqlite3
from pathlib import Path


def open_scratch(path: Path, cache_kib: int) -> sqlite3.Connection:
    """Make an empty database; what lies at `path` is replaced. Nothing of it needs to survive a crash.

    SQLite takes no locks: the folder is this process' own, and a network folder may have none to give.

    Args:
        path: Of the database.
        cache_kib: KiB of memory; the rest spills to disk.
    """
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?nolock=1", isolation_level=None, uri=True)
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE", f"cache_size=-{cache_kib}"):
        connection.execute(f"PRAGMA {pragma}")
    return connection
