"""Run folders as a stranger could send them: each a good one that was changed in one way.

    HOSTILE_RUNS    name -> what changes a copy of a good run folder

Whoever changes a part can also write its new hash into parts.sha256, so the hashes are those of the changed files.
"""

import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mribatch.pipeline.listing.table import LISTING_FILE
from mribatch.pipeline.output.part_hashes import HASHES_FILE
from mribatch.pipeline.output.parts import part_path
from mribatch.pipeline.output.run_file import RUN_FILE
from mribatch.pipeline.output.series import SERIES_FILE

Change = Callable[[Path], object]
NAME = '\x1b[2J\n=HYPERLINK("http://x")</td><script>alert(1)</script>\u202e'  # what no terminal, sheet or page may get


def _edit_run_file(change: Callable[[dict[str, Any]], object]) -> Change:
    def edit(run: Path) -> None:
        content = json.loads((run / RUN_FILE).read_bytes())
        change(content)
        (run / RUN_FILE).write_text(json.dumps(content), encoding="utf-8")

    return edit


def _write_run_file(content: bytes) -> Change:
    return lambda run: (run / RUN_FILE).write_bytes(content)


def _replace(name: str, make: Callable[[Path], object]) -> Change:
    def replace(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        make(run / name)

    return replace


def _edit_table(name: str, change: Callable[[pa.Table], pa.Table], **options: Any) -> Change:
    """Change the rows of a Parquet file; its metadata stay."""

    def edit(run: Path) -> None:
        table = pq.read_table(run / name)
        pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), run / name, **options)
        _hash_again(run)

    return edit


def _hash_again(run: Path) -> None:
    digest = sha256(part_path(run, 0).read_bytes()).hexdigest()
    (run / HASHES_FILE).write_text(f"{digest}  predictions/part-00000.parquet\n")


def _column(name: str, values: Callable[[int], list[Any]], kind: pa.DataType | None = None) -> Any:
    def change(table: pa.Table) -> pa.Table:
        place = table.column_names.index(name)
        array = pa.array(values(table.num_rows), kind or table.schema.field(name).type)
        return table.set_column(place, name, array)

    return change


def _bad_utf8(name: str) -> Any:
    def change(table: pa.Table) -> pa.Table:
        binary = pa.array([b"\xff\xfe\x80"] * table.num_rows, pa.binary())
        text = pa.StringArray.from_buffers(len(binary), binary.buffers()[1], binary.buffers()[2])
        return table.set_column(table.column_names.index(name), name, text)

    return change


def _many_rows(name: str) -> Change:
    """Thirty million rows in a file of kilobytes: they are all alike, so that each column is one value and a count."""

    def edit(run: Path) -> None:
        table = pq.read_table(run / name).slice(0, 1)
        million = table.take(pa.array(np.zeros(1_000_000, np.int64)))
        with pq.ParquetWriter(run / name, table.schema, compression="zstd") as writer:
            for _ in range(30):
                writer.write_table(million)
        _hash_again(run)

    return edit


def _part(change: Any, **options: Any) -> Change:
    return _edit_table("predictions/part-00000.parquet", change, **options)


def _listing(change: Any, **options: Any) -> Change:
    return _edit_table(LISTING_FILE, change, **options)


def _hostile_names(content: dict[str, Any]) -> None:
    content["bundle"]["name"] = NAME
    content["tool_version"] = content["notice"] = NAME
    content["inputs"] = [one | {"path": NAME} for one in content["inputs"]]
    content["versions"] = {NAME: NAME}


_PART = "predictions/part-00000.parquet"
_ENDLESS = Path("/dev/zero")

HOSTILE_RUNS: dict[str, Change] = {
    "run file is deeply nested": _write_run_file(b'{"a":' * 100_000),
    "run file is not UTF-8": _write_run_file(b"\xff\xfe{"),
    "run file is a number": _write_run_file(b"1" * 5000),
    "run file has no end": _replace(RUN_FILE, lambda path: path.symlink_to(_ENDLESS)),
    "run file blocks": _replace(RUN_FILE, os.mkfifo),
    "run file counts to infinity": _edit_run_file(lambda content: content["counts"].update(rows=10**30)),
    "run file lists endlessly many images": _edit_run_file(
        lambda content: content["listing"].update(files=1 << 60, images=1 << 60)
    ),
    "run file has negative increments": _edit_run_file(
        lambda content: content.update(
            increments=[{"added": "x", "first_index": -5, "files": -(1 << 40), "listing_sha256": "x"}]
        )
    ),
    "run file has two equal classes": _edit_run_file(lambda content: content["bundle"].update(classes=["a", "a"])),
    "run file has a class that steers a terminal": _edit_run_file(
        lambda content: content["bundle"].update(classes=[NAME, *content["bundle"]["classes"][1:]])
    ),
    "run file has names that steer a terminal": _edit_run_file(_hostile_names),
    "run file has a surrogate": _edit_run_file(lambda content: content["bundle"].update(name="\ud800")),
    "run file has no inputs": _edit_run_file(lambda content: content.update(inputs=[])),
    "run file names a root with NUL": _edit_run_file(
        lambda content: content.update(inputs=[one | {"root": "/a\0b"} for one in content["inputs"]])
    ),
    "run file names a device as the model": _edit_run_file(lambda content: content["bundle"].update(folder="/dev")),
    "run file has options of other types": _edit_run_file(
        lambda content: content["fingerprint"].update(max_pixels="many", window=[1], plane=7)
    ),
    "part has no end": _replace(_PART, lambda path: path.symlink_to(_ENDLESS)),
    "part blocks": _replace(_PART, os.mkfifo),
    "part is a folder": _replace(_PART, Path.mkdir),
    "part is a link to another file of the machine": _replace(_PART, lambda path: path.symlink_to("/etc/passwd")),
    "part has thirty million rows": _many_rows(_PART),
    "part has text of 10 MB in every row": _part(_column("error", lambda rows: ["x" * 10_000_000] * rows)),
    "part has names that steer a terminal": _part(_column("path", lambda rows: [NAME] * rows)),
    "part has text that is not UTF-8": _part(_bad_utf8("path")),
    "part has labels that are not UTF-8": _part(_bad_utf8("label")),
    "part has a status that does not exist": _part(_column("status", lambda rows: [NAME] * rows)),
    "part has a label that is no class": _part(_column("label", lambda rows: [NAME] * rows)),
    "part has paths that are numbers": _part(_column("path", lambda rows: [1] * rows, pa.int64())),
    "part has flags that are text": _part(_column("flags", lambda rows: ["a"] * rows, pa.string())),
    "part has probabilities that are text": _part(_column("p_no_tumor", lambda rows: ["a"] * rows, pa.string())),
    "part has probabilities that are no numbers": _part(_column("p_no_tumor", lambda rows: [float("nan")] * rows)),
    "part has an input that does not exist": _part(_column("input", lambda rows: [9] * rows)),
    "part has an index of its own": _part(_column("index", lambda rows: [1 << 62] * rows)),
    "part has no columns": _part(lambda table: table.select([])),
    "part lacks a column": _part(lambda table: table.drop_columns(["status"])),
    "part is named in other digits": lambda run: (run / _PART).rename(run / "predictions/part-٠.parquet"),
    "part has a name without a number": lambda run: (run / _PART).rename(run / "predictions/part-x.parquet"),
    "hashes have no end": _replace(HASHES_FILE, lambda path: path.symlink_to(_ENDLESS)),
    "hashes block": _replace(HASHES_FILE, os.mkfifo),
    "hash of a part with a number of 5,000 digits": lambda run: (run / HASHES_FILE).write_text(
        f"{'0' * 64}  predictions/part-{'9' * 5000}.parquet\n"
    ),
    "listing blocks": _replace(LISTING_FILE, os.mkfifo),
    "listing has no end": _replace(LISTING_FILE, lambda path: path.symlink_to(_ENDLESS)),
    "listing is missing": _replace(LISTING_FILE, lambda path: None),
    "listing has thirty million rows": _many_rows(LISTING_FILE),
    "listing has no columns": _listing(lambda table: table.select([])),
    "listing has text that is not UTF-8": _listing(_bad_utf8("path")),
    "listing has paths that are numbers": _listing(_column("path", lambda rows: [1] * rows, pa.int64())),
    "listing has paths with NUL": _listing(_column("path", lambda rows: ["a\0b"] * rows)),
    "listing has paths that lead elsewhere": _listing(_column("path", lambda rows: ["../../../etc/passwd"] * rows)),
    "listing has paths to devices": _listing(_column("path", lambda rows: ["/dev/zero"] * rows)),
    "listing has an input that does not exist": _listing(_column("input", lambda rows: [9] * rows)),
    "listing has a format that does not exist": _listing(_column("format", lambda rows: [NAME] * rows)),
    "listing has a flag that does not exist": _listing(
        lambda table: _column("flags", lambda rows: [NAME] * rows)(
            _column("format", lambda rows: ["dicom"] * rows)(table)
        )
    ),
    "series has no end": _replace(SERIES_FILE, lambda path: path.symlink_to(_ENDLESS)),
    "series blocks": _replace(SERIES_FILE, os.mkfifo),
    "series is text": _replace(SERIES_FILE, lambda path: path.write_text("no Parquet")),
}
