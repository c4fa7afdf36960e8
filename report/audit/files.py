"""The files of an audit, in its folder: audit.parquet, pairs.parquet, groups.csv, audit.json, paths.parquet."""

import csv
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mribatch.core.files import publishing, write_json
from mribatch.core.local_paths import arrow_path
from mribatch.pipeline.listing.table import PATHS_FILE
from mribatch.report.audit.audit_file import AUDIT_JSON, AuditFile
from mribatch.report.audit.table import GROUPS_HEADER, AuditTable, audit_to_arrow, list_groups, pairs_to_arrow

if TYPE_CHECKING:
    import pyarrow as pa

AUDIT_PARQUET, PAIRS_PARQUET, GROUPS_CSV = "audit.parquet", "pairs.parquet", "groups.csv"


def write_files(folder: Path, table: AuditTable, file: AuditFile, roots: list[bytes], paths_file: Path | None) -> None:
    """Replace the files of an audit, each atomically; audit.json is the last.

    Args:
        folder: Where they go.
        table: The rows.
        file: The content of audit.json.
        roots: Folder of each input, absolute.
        paths_file: Which path each pseudonym stands for, where paths are hidden. groups.csv is then left out, since it
            would have to name them.

    Raises:
        WriteError: The folder cannot be written to.
    """
    for name, rows in ((AUDIT_PARQUET, audit_to_arrow(table)), (PAIRS_PARQUET, pairs_to_arrow(table))):
        _write_table(folder / name, rows, file)
    if paths_file is None:
        _write_groups(folder / GROUPS_CSV, table, roots)
        (folder / PATHS_FILE).unlink(missing_ok=True)  # of an earlier audit
    else:
        _write_private(folder / PATHS_FILE, paths_file.read_bytes())
        (folder / GROUPS_CSV).unlink(missing_ok=True)
    write_json(folder / AUDIT_JSON, file.to_json())


def _write_table(path: Path, rows: "pa.Table", file: AuditFile) -> None:
    import pyarrow.parquet as pq

    metadata = {
        "mribatch.schema_version": json.dumps(file.schema_version),
        "mribatch.tool_version": file.tool_version,
        "mribatch.research_notice": file.research_notice,
    }
    with publishing(path) as temporary:
        pq.write_table(rows.replace_schema_metadata(metadata), arrow_path(temporary))


def _write_groups(path: Path, table: AuditTable, roots: list[bytes]) -> None:
    lines = list_groups(table, roots)
    width = len(GROUPS_HEADER) if any(line[-1] for line in lines) else len(GROUPS_HEADER) - 1
    with publishing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([GROUPS_HEADER[:width], *(line[:width] for line in lines)])


def _write_private(path: Path, content: bytes) -> None:
    """For the owner only."""
    with publishing(path) as temporary:
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(content)
