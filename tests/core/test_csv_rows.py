"""What is written is read, and a file that is damaged is refused by its line."""

import csv
import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mribatch.core.csv_rows import open_csv
from mribatch.core.errors import MribatchError

CELL = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8)


def read(path: Path, *columns: str) -> list[tuple[int, tuple[str | None, ...]]]:
    with open_csv(path, name=path.name, fix="give another") as table:
        return list(table.rows([table.column(name) for name in columns]))


def write(folder: Path, content: bytes | str) -> Path:
    path = folder / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@given(
    rows=st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), max_size=6)),
    form=st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\r\n", csv.QUOTE_ALL), ("\n", csv.QUOTE_ALL)]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
)
def test_cells_survive_writing_and_reading(rows: list[list[str]], form: tuple[str, Any], encoding: str) -> None:
    """Not with bare line feeds and few quotes: there the writer of Python 3.11 leaves a carriage return bare."""
    names = [f"c{i}" for i in range(len(rows[0]) if rows else 1)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        with path.open("w", newline="", encoding=encoding) as stream:
            writer = csv.writer(stream, lineterminator=form[0], quoting=form[1])
            writer.writerows([names, *rows])
        assert [list(cells) for _, cells in read(path, *names)] == rows


def test_columns_are_found_in_any_order_whatever_their_case(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff Label ,other,PATH\nno,x,a.jpg\n\nyes,y,b.jpg\n")
    assert read(path, "path", "label") == [(2, ("a.jpg", "no")), (4, ("b.jpg", "yes"))]


def test_the_spelling_as_written_is_preferred(tmp_path: Path) -> None:
    assert read(write(tmp_path, "Patient,patient\n1,2\n"), "patient", "Patient") == [(2, ("2", "1"))]


def test_the_first_name_that_is_there_is_taken(tmp_path: Path) -> None:
    with open_csv(write(tmp_path, "b,c\n"), name="x", fix="y") as table:
        assert (table.find_column("a", "c", "b"), table.find_column("d")) == (1, None)


def test_short_rows_have_no_cell_and_long_ones_are_cut(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a,b\n1\n1,2,3\n"), "a", "b") == [(2, ("1", None)), (3, ("1", "2"))]


def test_a_row_of_several_lines_is_named_by_its_first(tmp_path: Path) -> None:
    assert read(write(tmp_path, 'a\n"1\n2"\n3\n'), "a") == [(2, ("1\n2",)), (4, ("3",))]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "table.csv has no column 'path'; its columns: none"),
        ("name,Other\n", "table.csv has no column 'path'; its columns: name, Other"),
        ("path,path\n", "table.csv has 2 columns named 'path'"),
        ("Path,PATH\n", "table.csv has 2 columns named 'path'"),
        (b"path\na\n\xff.jpg\n", "table.csv, line 3: byte 0xff is not UTF-8"),
        (b"p\xe9th\n", "table.csv, line 1: byte 0xe9 is not UTF-8"),
        ("path\n".encode("utf-16"), "table.csv, line 1: a NUL byte; this is not a text file in UTF-8"),
        ("path\na\0b\n", "table.csv, line 2: a NUL byte; this is not a text file in UTF-8"),
        ("path\na\n" + "x" * (csv.field_size_limit() + 1), "table.csv, line 3: field larger than field limit (131072)"),
        ('path\n"a\nb\n', "table.csv, line 2: unexpected end of data"),
        ('path\na\n"a"b\n', "table.csv, line 3: ',' expected after '\"'"),
    ],
)
def test_a_file_that_is_not_what_it_should_be(tmp_path: Path, content: bytes | str, problem: str) -> None:
    with pytest.raises(MribatchError) as caught:
        read(write(tmp_path, content), "path")
    assert (caught.value.problem, caught.value.fix) == (problem, "give another")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.csv", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(MribatchError, match=f"cannot read {path.name}: {reason}"):
            read(path, "path")


def test_rows_come_while_the_file_is_read(tmp_path: Path) -> None:
    """The damage in the last line is met only there."""
    path = write(tmp_path, b"path\n" + b"a.jpg\n" * 100_000 + b"\xff\n")
    with open_csv(path, name="t", fix="f") as table:
        rows = table.rows([0])
        assert len(list(itertools.islice(rows, 100_000))) == 100_000
        with pytest.raises(MribatchError, match="line 100002"):
            next(rows)


def test_a_line_without_end_is_refused_before_it_is_in_memory(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"path,label\n" + b"x" * 3_000_000)
    with (
        open_csv(tmp_path / "t.csv", name="t.csv", fix="give a table") as table,
        pytest.raises(MribatchError) as caught,
    ):
        list(table.rows([0]))
    assert str(caught.value).startswith("t.csv, line 2: more than 1,048,576 characters")


def test_a_message_names_few_of_many_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(",".join(f"column{i}" for i in range(1000)) + "," + "x" * 500)
    with (
        open_csv(tmp_path / "t.csv", name="t.csv", fix="give a table") as table,
        pytest.raises(MribatchError) as caught,
    ):
        table.column("path")
    assert str(caught.value).endswith("column19 and 981 more. Fix: give a table")
