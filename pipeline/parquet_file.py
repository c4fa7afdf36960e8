"""Parquet files of a run folder, which may be anyone's: what they claim is checked before they are read into memory.

A file of kilobytes can hold billions of rows that are all alike, or one text for every row; its columns may have other
types than those that were written, and its text need not be UTF-8.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mribatch.core.local_paths import arrow_path
from mribatch.core.regular_file import check_regular

MAX_TEXT_BYTES = 1 << 20  # of one value; a path has 4,096
_MAX_GROUP_BYTES = 1 << 30  # unpacked


class ParquetProblem(ValueError):
    """The file is not what mribatch writes."""


def open_parquet(source: Path | bytes, fields: pa.Schema, *, most: int) -> pq.ParquetFile:
    """Open a Parquet file; a context. Its text is read as dictionaries, for `read_groups`.

    Args:
        source: The file, or its bytes.
        fields: The types that its columns must have, where it has them.
        most: Rows of a row group at most.

    Raises:
        ParquetProblem: It is of another make.
        OSError: There is no regular file; also pa.ArrowException.
    """
    if isinstance(source, Path):
        check_regular(os.fsencode(source))
    with _open(source, []) as plain:
        _check_types(plain.schema_arrow, fields)
        _check_claims(plain.metadata, most)
        texts = [field.name for field in plain.schema_arrow if pa.types.is_string(field.type)]
    return _open(source, texts)


def _check_types(found: pa.Schema, fields: pa.Schema) -> None:
    """Raises ParquetProblem where a column has another type than the field of its name."""
    for field in fields:
        if field.name in found.names and not _are_equal(found.field(field.name).type, field.type):
            raise ParquetProblem(f"column '{field.name}' is {found.field(field.name).type}, not {field.type}")


def _check_claims(metadata: pq.FileMetaData, most: int) -> None:
    """Raises ParquetProblem where a row group has more rows than `most`, or unpacks to more than 1 GiB."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.num_rows > most:
            raise ParquetProblem(f"{group.num_rows:,} rows are together, of at most {most:,}")
        size = sum(max(0, group.column(i).total_uncompressed_size) for i in range(group.num_columns))
        if size > _MAX_GROUP_BYTES:
            raise ParquetProblem(f"{group.num_rows:,} rows unpack to {size:,} bytes")


def read_groups(file: pq.ParquetFile, groups: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
    """Read row groups whose text is UTF-8 and of a sensible length; all columns, or those named.

    Raises:
        ParquetProblem: A text is too long.
        OSError: The bytes are damaged; also pa.ArrowException, for text that is not UTF-8, too.
    """
    wanted = None if columns is None else list(columns)
    # Groups are small, and Arrow crashes at the end of a process in which it could not start its threads.
    table = file.read_row_groups(groups, columns=wanted, use_threads=False)
    for place, column in enumerate(table.columns):
        if pa.types.is_dictionary(column.type):  # one long text for every row takes memory only where it is written out
            table = table.set_column(place, table.field(place).with_type(pa.string()), _write_out(column))
    table.validate(full=True)
    return table


def _open(source: Path | bytes, texts: Sequence[str]) -> pq.ParquetFile:
    opened = arrow_path(source) if isinstance(source, Path) else pa.BufferReader(source)
    return pq.ParquetFile(opened, read_dictionary=list(texts), page_checksum_verification=True)


def _write_out(column: pa.ChunkedArray) -> pa.ChunkedArray:
    for chunk in column.chunks:
        longest = pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0
        if longest > MAX_TEXT_BYTES:
            raise ParquetProblem(f"a text has {longest:,} bytes")
    return column.cast(pa.string())


def _are_equal(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_list(wanted):  # the name of the values differs between versions of Arrow
        return bool(pa.types.is_list(found) and found.value_type == wanted.value_type)
    return bool(found == wanted)
