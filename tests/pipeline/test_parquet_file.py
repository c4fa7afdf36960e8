"""What a Parquet file claims is checked before its rows are in memory."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mribatch.pipeline.parquet_file import MAX_TEXT_BYTES, ParquetProblem, open_parquet, read_groups

FIELDS = pa.schema([pa.field("path", pa.string()), pa.field("flags", pa.list_(pa.string())), pa.field("n", pa.int32())])


def write(target: Path, **columns: pa.Array) -> Path:
    pq.write_table(pa.table(columns), target)
    return target


def read(path: Path, most: int = 10) -> pa.Table:
    with open_parquet(path, FIELDS, most=most) as file:
        return read_groups(file, range(file.metadata.num_row_groups))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    table = pa.table({"path": ["a", None, "ä"], "flags": [["x"], [], ["y"]], "n": [1, 2, None]}, schema=FIELDS)
    pq.write_table(table, tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet").equals(table)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"path": pa.array([1])}, "column 'path' is int64, not string"),
        ({"flags": pa.array(["a"])}, "column 'flags' is string, not list"),
        ({"n": pa.array([1.5])}, "column 'n' is double, not int32"),
        ({"path": pa.array(["a"] * 11)}, "11 rows are together, of at most 10"),
        ({"path": pa.array(["x" * (MAX_TEXT_BYTES + 1)])}, "a text has 1,048,577 bytes"),
    ],
)
def test_what_no_run_holds_is_refused(columns: dict[str, pa.Array], words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", **columns)
    with pytest.raises(ParquetProblem, match=words):
        read(path)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    binary = pa.array([b"\xff\xfe"], pa.binary())
    path = write(tmp_path / "x.parquet", path=pa.StringArray.from_buffers(1, *binary.buffers()[1:]))
    with pytest.raises(pa.ArrowInvalid, match="UTF8"):
        read(path)


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.parquet")
    with pytest.raises(OSError, match="it is a FIFO, not a regular file"):
        read(tmp_path / "x.parquet")
