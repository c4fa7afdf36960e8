"""Part files are whole or absent, belong to one run, and add up to one row per file."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mribatch.core.errors import MribatchError
from mribatch.pipeline.output import parts as parquet
from mribatch.pipeline.output.layout import PART_ROWS, PartLayout
from mribatch.pipeline.output.partial import read_partials
from mribatch.pipeline.records import DecodedFile, Flag, ImageFile, Prediction, Status, Verdict
from tests.folders import rows

CLASSES = ("a", "b")
FACTS = parquet.PartFacts(CLASSES, {"backend": "test", "batch_size": 4}, "run")


def prediction(index: int) -> Prediction:
    file = ImageFile(index, 0, f"{index}.jpg", b"", "a", name_escaped=index == 1)
    if index % 2:
        verdict = Verdict(Status.TRUNCATED, "ends early", "jpeg", 10, 20, (Flag.FIRST_PAGE,))
        return Prediction(DecodedFile(file, verdict, 5, "00"), Status.TRUNCATED, "ends early")
    decoded = DecodedFile(file, Verdict(Status.OK, None, "jpeg", 10, 20), 5, "00")
    return Prediction(decoded, Status.OK, None, "b", 0.75, 0.5, 0.1, (0.25, 0.75))


def write(run: Path, files: int, step: int = 100) -> None:
    writer = parquet.PartWriter(run, PartLayout((files,)), FACTS)
    for part in range(-(-files // PART_ROWS)):
        first, last = part * PART_ROWS, min((part + 1) * PART_ROWS, files)
        for start in range(first, last, step):
            writer.write([prediction(index) for index in range(start, min(start + step, last))])


def test_parts_have_1024_rows_and_one_row_group_each(tmp_path: Path) -> None:
    write(tmp_path, 2500)
    parts = sorted((tmp_path / "predictions").iterdir())
    assert [path.name for path in parts] == [f"part-0000{number}.parquet" for number in range(3)]
    metadata = [pq.read_metadata(path) for path in parts]
    assert [(one.num_rows, one.num_row_groups) for one in metadata] == [(1024, 1), (1024, 1), (452, 1)]
    assert parquet.done_parts(tmp_path, PartLayout((2500,)), "run") == {0, 1, 2}
    counts = parquet.count_rows(tmp_path, range(2500))
    assert (counts.rows, counts.by_status, counts.by_class) == (2500, {"ok": 1250, "truncated": 1250}, {"b": 1250})
    assert (counts.labelled, counts.labelled_ok, counts.correct) == (2500, 1250, 0)


def test_rows_that_are_not_ok_have_null_and_never_nan(tmp_path: Path) -> None:
    write(tmp_path, 4)
    good, bad = rows(tmp_path)[0], rows(tmp_path)[1]
    assert good == {
        "index": 0,
        "input": 0,
        "path": "0.jpg",
        **dict.fromkeys(("slice", "patient", "study", "series", "instance", "plane")),
        "label": "a",
        "status": "ok",
        "error": None,
        "flags": [],
        "predicted": "b",
        "confidence": 0.75,
        "margin": 0.5,
        "entropy": pytest.approx(0.1),
        "p_a": 0.25,
        "p_b": 0.75,
        "width": 10,
        "height": 20,
        "bytes": 5,
        "sha256": "00",
    }
    assert bad["flags"] == ["name_escaped", "first_page"]
    assert [bad[name] for name in ("predicted", "confidence", "margin", "entropy", "p_a", "p_b")] == [None] * 6
    assert (bad["status"], bad["error"], bad["width"]) == ("truncated", "ends early", 10)


def test_every_part_says_where_it_comes_from(tmp_path: Path) -> None:
    write(tmp_path, 4)
    metadata = pq.read_schema(parquet.part_path(tmp_path, 0)).metadata
    assert metadata[b"mribatch.classes"] == b'["a", "b"]'
    assert metadata[b"mribatch.schema_version"] == b"2"
    assert metadata[b"mribatch.backend"] == b"test"


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, 1500, step=100 if name == "one" else 64)
    for part in (0, 1):
        assert (
            parquet.part_path(tmp_path / "one", part).read_bytes()
            == parquet.part_path(tmp_path / "two", part).read_bytes()
        )


def test_rows_out_of_order_are_a_bug_and_not_a_result(tmp_path: Path) -> None:
    writer = parquet.PartWriter(tmp_path, PartLayout((10,)), FACTS)
    writer.write([prediction(0)])
    with pytest.raises(ValueError, match="row 2 where row 1 was due"):
        writer.write([prediction(2)])


@pytest.mark.parametrize("kept", [(1,), (7, 8, 700), (1024, 1499)])
def test_rows_that_were_kept_give_the_same_bytes_as_rows_written_at_once(tmp_path: Path, kept: tuple[int, ...]) -> None:
    layout = PartLayout((1500,))
    for name in ("whole", "kept"):
        (tmp_path / name).mkdir()
    write(tmp_path / "whole", 1500)
    begin = 0
    for end in (*kept, 1500):  # one process after the other
        done = parquet.done_parts(tmp_path / "kept", layout, "run")
        writer = parquet.PartWriter(
            tmp_path / "kept", layout, FACTS, read_partials(tmp_path / "kept", layout, FACTS, done)
        )
        for index in range(begin, end):
            writer.write([prediction(index)])
        writer.keep()
        begin = end
    names = ["part-00000.parquet", "part-00001.parquet"]
    assert sorted(path.name for path in (tmp_path / "kept" / "predictions").iterdir()) == names
    for name in names:
        kept_bytes = (tmp_path / "kept" / "predictions" / name).read_bytes()
        assert kept_bytes == (tmp_path / "whole" / "predictions" / name).read_bytes()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.write_bytes(b""),
        lambda path: pq.write_table(pq.read_table(path).slice(1), path),
        lambda path: pq.write_table(pq.read_table(path).drop_columns(["label"]), path),
        lambda path: of_another_run(path),
        lambda path: path.rename(path.with_name(".part-00007.partial")),
        lambda path: path.rename(path.with_name(".part-x.partial")),
    ],
)
def test_a_partial_file_that_does_not_fit_is_deleted(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    layout = PartLayout((1500,))
    writer = parquet.PartWriter(tmp_path, layout, FACTS)
    writer.write([prediction(index) for index in range(5)])
    writer.keep()
    path = parquet.partial_path(tmp_path, 0)
    assert read_partials(tmp_path, layout, FACTS, ())[0].num_rows == 5
    spoil(path)
    assert read_partials(tmp_path, layout, FACTS, ()) == {}
    assert list((tmp_path / "predictions").iterdir()) == []


def test_a_layout_gives_each_row_one_part_and_increments_parts_of_their_own() -> None:
    for increments in ((0,), (1,), (1024,), (1025, 1), (2200, 10, 1024, 1), (3, 0, 2)):
        layout = PartLayout(increments)
        rows = [row for part in range(layout.parts) for row in layout.rows(part)]
        assert rows == list(range(sum(increments)))
        assert all(layout.part_of(row) == part for part in range(layout.parts) for row in layout.rows(part))
        assert layout.count_rows(range(layout.parts)) == layout.files
    assert [layout.rows(part) for layout in [PartLayout((1025, 2))] for part in range(3)] == [
        range(1024),
        range(1024, 1025),
        range(1025, 1027),
    ]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def of_another_run(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"mribatch.run_id": "other"}), path)


def with_a_row_less(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (cut, "is damaged"),
        (of_another_run, "belongs to another run"),
        (with_a_row_less, "has 3 rows instead of 4"),
        (lambda path: path.rename(path.with_name("part-00007.parquet")), "is no part of this run"),
    ],
)
def test_a_part_that_does_not_belong_is_named(tmp_path: Path, damage: object, problem: str) -> None:
    write(tmp_path, 4)
    damage(parquet.part_path(tmp_path, 0))  # type: ignore[operator]
    with pytest.raises(MribatchError, match=rf"part-0000\d\.parquet {problem}.* Fix: delete that file"):
        parquet.done_parts(tmp_path, PartLayout((4,)), "run")


def test_missing_and_doubled_rows_are_found(tmp_path: Path) -> None:
    write(tmp_path, 2500)
    os.rename(parquet.part_path(tmp_path, 1), tmp_path / "kept")
    with pytest.raises(MribatchError, match="lacks row 1024"):
        parquet.count_rows(tmp_path, range(2500))
    os.rename(tmp_path / "kept", parquet.part_path(tmp_path, 1))
    with pytest.raises(MribatchError, match="holds 2500 rows for 2501 images"):
        parquet.count_rows(tmp_path, range(2501))


def test_the_documented_schema_is_the_real_one() -> None:
    page = (Path(__file__).parents[3] / "docs/reference/parquet-schema.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \| ([\w<>]+) \| (yes|no) \|", page, re.M)
    schema = parquet.predictions_schema(["<class>"])
    real = [
        (
            field.name,
            str(field.type)
            .replace("list<element: string>", "list<string>")
            .replace("list<item: string>", "list<string>"),
            "yes" if field.nullable else "no",
        )
        for field in schema
    ]
    expected = [("p_CLASS" if name == "p_<class>" else name, kind, null) for name, kind, null in real]
    assert documented[: len(expected)] == expected
    assert isinstance(schema, pa.Schema)
