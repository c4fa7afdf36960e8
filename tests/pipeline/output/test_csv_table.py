"""Text of strangers in a cell of predictions.csv: on one line, and never a formula."""

import csv
from pathlib import Path

import pyarrow as pa
import pytest

from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.csv_table import make_safe
from mribatch.pipeline.run import classify
from tests.folders import draw_images


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("a/b c.jpg", "a/b c.jpg"),
        ("ä/脑.jpg", "ä/脑.jpg"),
        (None, None),
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("\t=1+1", "\\t=1+1"),
        ("\r\n=1+1", "\\r\\n=1+1"),
        ("a\nb\x1b[2J.jpg", "a\\nb\\x1b[2J.jpg"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("a\u2028b", "a\\u2028b"),
    ],
)
def test_text_is_made_safe(text: str | None, cell: str | None) -> None:
    assert make_safe(pa.chunked_array([["plain"], [text]], pa.string())).to_pylist() == ["plain", cell]


def test_a_line_of_the_copy_is_a_row_whatever_a_file_is_named(tiny_model: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 2)
    (tmp_path / "data" / "\x1b[2J\n=HYPERLINK(1),\r.jpg").write_bytes(b"")
    classify([tmp_path / "data"], tmp_path / "out", ClassifyOptions(model=str(tiny_model), csv=True))
    content = (tmp_path / "out" / "predictions.csv").read_bytes()
    lines = content.decode("utf-8-sig").splitlines()
    assert len(lines) == 4 and all(map(str.isprintable, lines))
    assert [row[2] for row in csv.reader(lines)][1] == "\\x1b[2J\\n=HYPERLINK(1),\\r.jpg"
