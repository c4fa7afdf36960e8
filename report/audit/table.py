"""The rows of an audit: what is known of every image, and audit.parquet, pairs.parquet and groups.csv made of it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mribatch.core.text import decode_name
from mribatch.report.audit.duplicates import AuditDuplicates, PairKind, connect, renumber
from mribatch.report.audit.images import AuditedImages
from mribatch.report.audit.series import Series
from mribatch.report.groups import NEAR_DUPLICATES, PATIENT

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class AuditTable:
    """Everything that was found, image by image."""

    images: AuditedImages
    duplicates: AuditDuplicates
    series: Series
    parts: tuple[str | None, ...]
    leaked: NDArray[np.bool_]  # (n,): of a later part, with a duplicate in an earlier one
    contradictory: NDArray[np.bool_]  # (n,): labelled, and its picture carries several labels

    def group_name(self, place: int) -> str | None:
        """As in the files, e.g. "g00012"; None for an unreadable image."""
        return _name("g", int(self.duplicates.groups[place]))

    def series_name(self, place: int) -> str | None:
        """The pseudonym of a header, or e.g. "s00012" for an estimated one; None for an unreadable image."""
        study = self.images.files[place].study
        if self.series.known[place] and study is not None:
            return study.series
        return _name("s", int(self.series.numbers[place]))


def _name(letter: str, number: int) -> str | None:
    return None if number < 0 else f"{letter}{number:05d}"


def audit_schema() -> "pa.Schema":
    """The columns of audit.parquet."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("index", pa.int64(), nullable=False),
            pa.field("input", pa.int16(), nullable=False),
            pa.field("path", pa.string(), nullable=False),
            pa.field("slice", pa.int32()),
            pa.field("label", pa.string()),
            pa.field("part", pa.string()),
            pa.field("status", pa.string(), nullable=False),
            pa.field("error", pa.string()),
            pa.field("flags", pa.list_(pa.field("item", pa.string(), nullable=False)), nullable=False),
            pa.field("format", pa.string()),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("bytes", pa.int64()),
            pa.field("sha256", pa.string()),
            pa.field("pixels_sha256", pa.string()),
            pa.field("perceptual_hash", pa.uint64()),
            pa.field("group_id", pa.string()),
            pa.field("group_size", pa.int32()),
            pa.field("contradictory_label", pa.bool_(), nullable=False),
            pa.field("leaked", pa.bool_(), nullable=False),
            pa.field("series_id", pa.string()),
            pa.field("series_known", pa.bool_(), nullable=False),
            pa.field("patient", pa.string()),
        ]
    )


def pairs_schema() -> "pa.Schema":
    """The columns of pairs.parquet."""
    import pyarrow as pa

    sides: list[Any] = []
    for side in ("first", "second"):
        sides += [
            pa.field(f"{side}_index", pa.int64(), nullable=False),
            pa.field(f"{side}_path", pa.string(), nullable=False),
            pa.field(f"{side}_slice", pa.int32()),
            pa.field(f"{side}_label", pa.string()),
            pa.field(f"{side}_part", pa.string()),
        ]
    kind = pa.field("kind", pa.string(), nullable=False)
    near = [pa.field("bits", pa.int32()), pa.field("correlation", pa.float32())]
    return pa.schema([kind, *sides, *near, pa.field("group_id", pa.string(), nullable=False)])


def audit_to_arrow(table: AuditTable) -> "pa.Table":
    """One row per image, in the order of the listing."""
    import pyarrow as pa

    sizes = table.duplicates.sizes().tolist()
    rows = []
    for place, (file, one) in enumerate(zip(table.images.files, table.images.decoded, strict=True)):
        readable = bool(table.images.readable[place])
        rows.append(
            {
                "index": file.index,
                "input": file.input,
                "path": file.path,
                "slice": None if file.study is None else file.study.slice,
                "label": file.label,
                "part": table.parts[place],
                "status": one.verdict.status.value,
                "error": one.verdict.error,
                "flags": [flag.value for flag in one.verdict.flags],
                "format": one.verdict.format,
                "width": one.verdict.width,
                "height": one.verdict.height,
                "bytes": one.bytes,
                "sha256": one.sha256,
                "pixels_sha256": table.images.content[place],
                "perceptual_hash": int(table.images.hashes[place, 0]) if readable else None,
                "group_id": table.group_name(place),
                "group_size": sizes[place] if readable else None,
                "contradictory_label": bool(table.contradictory[place]),
                "leaked": bool(table.leaked[place]),
                "series_id": table.series_name(place),
                "series_known": bool(table.series.known[place]),
                "patient": None if file.study is None else file.study.patient,
            }
        )
    return pa.Table.from_pylist(rows, schema=audit_schema())


def pairs_to_arrow(table: AuditTable) -> "pa.Table":
    """One row per pair, in the order of the first image, then of the second."""
    import pyarrow as pa

    rows = []
    for pair in table.duplicates.pairs:
        row: dict[str, Any] = {"kind": pair.kind.value, "group_id": table.group_name(pair.first)}
        for side, place in (("first", pair.first), ("second", pair.second)):
            file = table.images.files[place]
            row |= {
                f"{side}_index": file.index,
                f"{side}_path": file.path,
                f"{side}_slice": None if file.study is None else file.study.slice,
                f"{side}_label": file.label,
                f"{side}_part": table.parts[place],
            }
        near = pair.kind is PairKind.NEAR
        rows.append(row | {"bits": pair.bits if near else None, "correlation": pair.correlation if near else None})
    return pa.Table.from_pylist(rows, schema=pairs_schema())


GROUPS_HEADER = ("path", NEAR_DUPLICATES, "series_id", PATIENT)


def list_groups(table: AuditTable, roots: Sequence[bytes]) -> list[tuple[str, str, str, str]]:
    """The lines of groups.csv: one per readable file, as `train --groups` and `report --groups` take it.

    A file with several slices is in one line: the groups that its slices are in count as one. The last column is empty
    where no header names a patient.

    Args:
        table: Of the audit.
        roots: Folder of each input, absolute. Paths are relative to what they have in common.
    """
    names = _name_inputs(roots)
    lines: dict[str, int] = {}
    places = np.flatnonzero(table.images.readable).tolist()
    for place in places:
        file = table.images.files[place]
        lines.setdefault(names[file.input] + file.path, place)
    groups = _join_files(table, places, names)
    found = []
    for path, place in lines.items():
        study = table.images.files[place].study
        patient = None if study is None else study.patient
        found.append((path, groups[place], table.series_name(place) or "", patient or ""))
    return found


def _name_inputs(roots: Sequence[bytes]) -> list[str]:
    """What comes before the paths of each input, with a "/" at its end; nothing for a single one."""
    common = os.path.commonpath(roots)
    relative = (os.path.relpath(root, common) for root in roots)
    return ["" if name == b"." else decode_name(name)[0] + "/" for name in relative]


def _join_files(table: AuditTable, places: Sequence[int], names: Sequence[str]) -> dict[int, str]:
    """Place -> its group, where all slices of a file are in one."""
    edges, first_of_file, first_of_group = [], dict[str, int](), dict[int, int]()
    for place in places:
        file, group = table.images.files[place], int(table.duplicates.groups[place])
        edges.append((first_of_file.setdefault(names[file.input] + file.path, place), place))
        edges.append((first_of_group.setdefault(group, place), place))
    chosen = np.full(len(table.images), -1, np.int64)
    chosen[list(places)] = connect(len(table.images), edges)[list(places)]
    numbers = renumber(chosen)
    return {place: _name("g", int(numbers[place])) or "" for place in places}
