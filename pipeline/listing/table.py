"""listing.parquet and skipped.parquet: what a run was asked to do, streamed to disk and read back in slices."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mribatch.core.files import publishing
from mribatch.core.local_paths import arrow_path
from mribatch.core.text import decode_name
from mribatch.pipeline.listing.discover import Discovery, Input, OnFiles, SkipReason, ignore_files
from mribatch.pipeline.listing.labels import Labels
from mribatch.pipeline.records import ImageFile

LISTING_FILE, SKIPPED_FILE = "listing.parquet", "skipped.parquet"

LISTING_SCHEMA = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("input", pa.int16(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("bytes", pa.int64()),
        pa.field("mtime_ns", pa.int64()),
        pa.field("label", pa.string()),
        pa.field("raw_path", pa.binary()),
    ]
)
SKIPPED_SCHEMA = pa.schema(
    [
        pa.field("input", pa.int16(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
    ]
)
_ROW_GROUP = 16_384  # rows held in memory at once
_MAX_SUFFIXES, _OTHERS = 100, "(others)"
_FIRST_NAMES = 20


@dataclass(frozen=True, kw_only=True)
class ListingFacts:
    """What run.json says of the listing."""

    files: int
    labelled: int
    sha256: str  # hex, over input, path, bytes, mtime_ns and label of every row, in order
    skipped: int
    skipped_by_reason: Mapping[str, int]
    skipped_by_suffix: Mapping[str, int]  # of the files that were skipped for their name
    skipped_first: tuple[str, ...]  # the first names, at most 20
    unknown_labels: Mapping[str, int]  # folder or label that is not a class of the model -> files
    unmatched_lines: int | None = None  # lines of the labels table whose path is no listed file's; None without a table
    unmatched_first: tuple[str, ...] | None = None  # the first paths of those, at most 5


class _SkippedCounts:
    """Counts the files that are not listed."""

    def __init__(self) -> None:
        self.by_reason: Counter[str] = Counter()
        self.by_suffix: Counter[str] = Counter()
        self.first: list[str] = []

    def add(self, reason: SkipReason, path: str) -> None:
        self.by_reason[reason.value] += 1
        if reason in (SkipReason.SUFFIX, SkipReason.DICOM, SkipReason.NIFTI):
            suffix = os.path.splitext(path)[1].lower() or "(none)"
            known = suffix in self.by_suffix or len(self.by_suffix) < _MAX_SUFFIXES
            self.by_suffix[suffix if known else _OTHERS] += 1
        if len(self.first) < _FIRST_NAMES:
            self.first.append(path)


class TableWriter:
    """Rows of one schema to one Parquet file, a row group at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(arrow_path(path), schema)
        self._schema = schema
        self._rows: list[tuple[Any, ...]] = []

    def add(self, *row: Any) -> None:
        self._rows.append(row)
        if len(self._rows) == _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(self._schema)
        arrays = [pa.array(values, type=column.type) for values, column in zip(columns, self._schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows.clear()

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()


def write_listing(
    folder: Path, inputs: Sequence[Input], discovery: Discovery, labels: Labels, on_files: OnFiles = ignore_files
) -> ListingFacts:
    """Walk the inputs and write listing.parquet and skipped.parquet into `folder`, each whole or not at all.

    Raises:
        WriteError: The folder cannot be written to.
    """
    files = labelled = 0
    counts, digest = _SkippedCounts(), sha256()
    with publishing(folder / SKIPPED_FILE) as skipped_path, publishing(folder / LISTING_FILE) as listing_path:
        listing = TableWriter(listing_path, LISTING_SCHEMA)
        skipped = TableWriter(skipped_path, SKIPPED_SCHEMA)
        for found in discovery.files(on_files):
            path, escaped = decode_name(found.path)
            if found.skipped is not None:
                skipped.add(found.input, path, found.skipped.value, found.detail)
                counts.add(found.skipped, path)
                continue
            label = labels.of(inputs[found.input], found.path)
            raw = found.path if escaped else None
            listing.add(files, found.input, path, found.size, found.mtime_ns, label, raw)
            digest.update(repr((found.input, found.path, found.size, found.mtime_ns, label)).encode())
            files += 1
            labelled += label is not None
        listing.close()
        skipped.close()
    unmatched = labels.unmatched()
    return ListingFacts(
        files=files,
        labelled=labelled,
        sha256=digest.hexdigest(),
        skipped=counts.by_reason.total(),
        skipped_by_reason=counts.by_reason,
        skipped_by_suffix=counts.by_suffix,
        skipped_first=tuple(counts.first),
        unknown_labels=labels.unknown,
        unmatched_lines=unmatched.count if unmatched else None,
        unmatched_first=unmatched.first if unmatched else None,
    )


class Listing:
    """listing.parquet, read in slices of one part or less."""

    def __init__(self, path: Path, inputs: Sequence[Input]) -> None:
        self._path = path
        self._roots = [item.root for item in inputs]
        self.files: int = pq.read_metadata(arrow_path(path)).num_rows

    def slices(self, wanted: Iterable[range]) -> Iterator[list[ImageFile]]:
        """Yield the files of the wanted row numbers, which must ascend. One slice is in memory at a time."""
        with pq.ParquetFile(arrow_path(self._path)) as table:
            starts = [0]
            for group in range(table.metadata.num_row_groups):
                starts.append(starts[-1] + table.metadata.row_group(group).num_rows)
            loaded, rows = -1, LISTING_SCHEMA.empty_table()
            for span in wanted:
                files: list[ImageFile] = []
                for group, (begin, end) in enumerate(pairwise(starts)):
                    if end <= span.start or begin >= span.stop:
                        continue
                    if group != loaded:
                        loaded, rows = group, table.read_row_group(group)
                    low, high = max(span.start, begin) - begin, min(span.stop, end) - begin
                    files += [self._image_file(row) for row in rows.slice(low, high - low).to_pylist()]
                yield files

    def _image_file(self, row: dict[str, Any]) -> ImageFile:
        raw: bytes | None = row["raw_path"]
        name = raw if raw is not None else row["path"].encode()
        file = os.path.join(self._roots[row["input"]], name)
        return ImageFile(row["index"], row["input"], row["path"], file, row["label"], raw is not None)
