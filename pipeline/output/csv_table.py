"""predictions.csv, for people with a spreadsheet. The Parquet files are the result; this is a copy."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from mribatch.core.files import publishing
from mribatch.core.text import one_line
from mribatch.pipeline.output.parts import read_parts

# A cell that begins like this is run as a formula by spreadsheets (OWASP, "CSV Injection"), the last four in East Asian
# settings; file names are strangers'. A tab or a line end at the beginning would do the same, and is escaped before.
_FORMULA = "^[=+\\-@\uff1d\uff0b\uff0d\uff20]"
_NOT_PLAIN = r"[^\x20-\x7e]"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # Excel takes a CSV file without it for one in the encoding of the machine


def write_csv(run: Path, target: Path, model: str) -> None:
    """Write all rows of a run, with the model's name in a last column; UTF-8 with the mark that Excel needs.

    Text that a spreadsheet would run as a formula gets a leading apostrophe; what would break a line is escaped.

    Raises:
        MribatchError: The file system refused.
    """
    with publishing(target) as temporary, temporary.open("wb") as stream:
        stream.write(BYTE_ORDER_MARK)
        writer = None
        for table in read_parts(run):
            flat = flatten(table, model)
            writer = writer or pacsv.CSVWriter(stream, flat.schema)
            writer.write_table(flat)
        if writer is not None:
            writer.close()


def flatten(table: pa.Table, model: str) -> pa.Table:
    """One part as cells of a spreadsheet: flags joined with ";", text made safe, and the model in a last column."""
    columns: dict[str, Any] = {}
    for name in table.column_names:
        column = table.column(name)
        if name == "flags":
            column = pc.binary_join(column, ";")
        columns[name] = make_safe(column) if pa.types.is_string(column.type) else column
    columns["model"] = make_safe(pa.array([model] * table.num_rows, pa.string()))
    return pa.table({one_line(name): column for name, column in columns.items()})


def make_safe(texts: Any) -> Any:
    """Text of strangers for a cell: control characters are escaped, as on a terminal, and formulas disarmed.

    Args:
        texts: A column of strings.
    """
    odd = pc.match_substring_regex(texts, _NOT_PLAIN)
    if pc.any(odd).as_py():  # hardly ever: file names are mostly plain
        escaped = [None if text is None else one_line(text) for text in texts.to_pylist()]
        texts = pa.chunked_array([pa.array(escaped, pa.string())])
    return _disarm_formulas(texts)


def _disarm_formulas(texts: Any) -> Any:
    """Put an apostrophe before what a spreadsheet would run as a formula; a column of strings."""
    quoted = pc.binary_join_element_wise("'", texts, "")
    return pc.if_else(pc.match_substring_regex(texts, _FORMULA), quoted, texts)
