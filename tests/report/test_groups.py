"""Which columns and which spellings of a path the one reader of groups tables knows."""

from pathlib import Path

import pytest

from mribatch.core.errors import MribatchError
from mribatch.report.groups import COLUMN_NAMES, GroupsTable, find_kinds, read_groups_table

ROOT = "/data/set/slices"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "groups.csv"
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path, kind: str) -> GroupsTable:
    return read_groups_table(path, {kind: COLUMN_NAMES[kind]}, name="groups.csv", fix="a", path_fix="b")


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in COLUMN_NAMES.items() for name in names])
def test_every_name_is_known_in_any_case(tmp_path: Path, kind: str, name: str) -> None:
    for spelling in (name, name.upper(), f" {name.capitalize()} "):
        path = write(tmp_path, f"path,other,{spelling}\na/1.png,x, g1 \n")
        assert find_kinds(path, name="n", fix="f") == [kind]
        table = read(path, kind)
        assert (table.columns, table.titles, table.ids) == ((kind,), (spelling.strip(),), {"a/1.png": ("g1",)})


def test_the_largest_unit_is_the_first(tmp_path: Path) -> None:
    path = write(tmp_path, "group_id,series_id,study_id,path,subject\n")
    assert find_kinds(path, name="n", fix="f") == ["patient_id", "study_id", "series_id", "group_id"]


def test_names_of_a_trial_arm_are_not_groups(tmp_path: Path) -> None:
    with pytest.raises(MribatchError, match="has none of the columns .*; its columns: path, group, study"):
        find_kinds(write(tmp_path, "path,group,study\n"), name="n", fix="f")


@pytest.mark.parametrize(
    "listed",
    ["a/1.png", "./a/1.png", "a\\1.png", ".\\a\\1.png", " a/1.png ", "slices/a/1.png", "set/slices/a/1.png"]
    + ["/data/set/slices/a/1.png", "slices\\a\\1.png"],
)
def test_spellings_of_one_path(tmp_path: Path, listed: str) -> None:
    table = read(write(tmp_path, f"path,patient\n{listed},p1\n"), "patient_id")
    assert table.find_ids(["a/1.png", "b/2.png"], [ROOT, ROOT]) == [("p1",), None]


@pytest.mark.parametrize("listed", ["1.png", "other/a/1.png", "lices/a/1.png", "A/1.png"])
def test_other_paths(tmp_path: Path, listed: str) -> None:
    table = read(write(tmp_path, f"path,patient\n{listed},p1\n"), "patient_id")
    with pytest.raises(MribatchError) as caught:
        table.find_ids(["a/1.png"], [ROOT])
    assert str(caught.value) == "groups.csv has none of the 1 paths, e.g. 'a/1.png'. Fix: b"


def test_an_absolute_path_by_its_last_parts() -> None:
    table = GroupsTable(("patient_id",), {"a/1.png": ("p1",)})
    assert table.find_ids(["/x/a/1.png"], [""]) == [("p1",)]
    with pytest.raises(MribatchError, match=r"'a/1\.png' could be '/x/a/1\.png' or '/y/a/1\.png'"):
        table.find_ids(["/x/a/1.png", "/y/a/1.png"], ["", ""])


def test_a_name_with_a_backslash_is_found(tmp_path: Path) -> None:
    """How a run writes a byte that is not UTF-8."""
    table = read(write(tmp_path, "path,patient\na\\xff.png,p1\n"), "patient_id")
    assert table.find_ids(["a\\xff.png"], [ROOT]) == [("p1",)]


def test_one_line_for_each_path(tmp_path: Path) -> None:
    assert read(write(tmp_path, "path,patient\na,1\n./a,1\n"), "patient_id").ids == {"a": ("1",)}
    with pytest.raises(MribatchError, match="groups.csv, line 3: a second group for 'a': '1', then '2'"):
        read(write(tmp_path, "path,patient\na,1\n.\\a,2\n"), "patient_id")


def test_a_run_without_files_needs_no_line() -> None:
    assert GroupsTable(("patient_id",), {}).find_ids([], []) == []
