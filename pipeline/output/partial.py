"""Partial files: the first rows of parts that a signal interrupted, until those parts are finished.

They are only a saving of time: whatever does not fit is deleted, and its files are classified again.
"""

import contextlib
from collections.abc import Container
from pathlib import Path

import pyarrow as pa

from mribatch.pipeline.output.layout import PartLayout
from mribatch.pipeline.output.parts import (
    PARTS_FOLDER,
    PartFacts,
    is_of_run,
    parse_part,
    partial_path,
    predictions_schema,
    read_part,
)

_PREFIX, _SUFFIX = ".part-", ".partial"


def read_partials(run: Path, layout: PartLayout, facts: PartFacts, done: Container[int]) -> dict[int, pa.Table]:
    """Read the rows that were kept of unfinished parts; delete files that are of no use to this run.

    Args:
        run: The run folder.
        layout: Which rows belong to which part.
        facts: Of the run; rows of another run, or of other classes, are not used.
        done: Parts that are finished.

    Returns:
        Part -> its first rows, fewer than the part has.
    """
    heads = {}
    for path in (run / PARTS_FOLDER).glob(f"{_PREFIX}*{_SUFFIX}"):
        number = path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
        part = int(number) if number.isdecimal() else -1
        head = None if part in done or not 0 <= part < layout.parts else _read_head(path, layout.rows(part), facts)
        if head is None or path != partial_path(run, part):
            path.unlink(missing_ok=True)
        else:
            heads[part] = head
    for temporary in (run / PARTS_FOLDER).glob(f".{_PREFIX}*{_SUFFIX}.tmp"):  # killed while it was written
        temporary.unlink(missing_ok=True)
    return heads


def read_partial(run: Path, layout: PartLayout, facts: PartFacts, part: int) -> pa.Table | None:
    """Read the rows that were kept of one part; None where there are none."""
    return _read_head(partial_path(run, part), layout.rows(part), facts)


def _read_head(path: Path, rows: range, facts: PartFacts) -> pa.Table | None:
    """Return the first rows of a part, or None where the file does not hold them."""
    with contextlib.suppress(OSError, ValueError, pa.ArrowException):
        head = parse_part(read_part(path))
        expected = list(rows[: head.num_rows])
        fits = is_of_run(head.schema.metadata, facts.run_id) and head.schema.equals(predictions_schema(facts.classes))
        if fits and 0 < head.num_rows < len(rows) and head.column("index").to_pylist() == expected:
            return head
    return None
