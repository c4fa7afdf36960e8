"""Labels come from folder names or a table, and only where the model knows the class."""

from pathlib import Path

import pytest

from mribatch.core.bundle import load_bundle
from mribatch.core.errors import MribatchError
from mribatch.core.model_spec import ModelSpec
from mribatch.pipeline.listing.discover import Input, InputKind
from mribatch.pipeline.listing.label_advice import find_closest_class, warn_of_unknown_labels
from mribatch.pipeline.listing.labels import FolderLabels, TableLabels, UnmatchedLines, add_aliases


@pytest.fixture(scope="module")
def spec(tiny_model: Path) -> ModelSpec:
    return load_bundle(str(tiny_model)).spec


def folder(root: bytes = b"/data/glioma") -> Input:
    return Input(InputKind.FOLDER, "x", root)


def test_the_parent_folder_is_the_label_where_the_model_knows_it(spec: ModelSpec) -> None:
    labels = FolderLabels(spec)
    paths = [b"no/1.jpg", b"Glioma Tumor/1.jpg", b"x/notumor/1.jpg", b"unsure/1.jpg", b"unsure/2.jpg", b"1.jpg"]
    assert [labels.of(folder(), path) for path in paths] == [
        "no_tumor",
        "glioma_tumor",
        "no_tumor",
        None,
        None,
        "glioma_tumor",
    ]
    assert labels.unknown == {"unsure": 2}


def test_a_thousand_unknown_names_are_counted_and_more_go_into_one(spec: ModelSpec) -> None:
    labels = FolderLabels(spec)
    for number in range(1500):
        labels.of(folder(), b"patient%d/1.jpg" % number)
    assert len(labels.unknown) <= 1001
    assert labels.unknown.total() == 1500


def test_a_table_gives_labels_by_relative_or_absolute_path(spec: ModelSpec, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("\ufeffPath, Label\na.jpg,glioma\n/data/glioma/b.jpg,No Tumor\nc.jpg,unknown\nd.jpg,\n", "utf-8")
    labels = TableLabels(spec, table, tmp_path / "labels.sqlite")
    assert [labels.of(folder(), path) for path in (b"a.jpg", b"b.jpg", b"c.jpg", b"d.jpg", b"e.jpg")] == [
        "glioma_tumor",
        "no_tumor",
        None,
        None,
        None,
    ]
    assert labels.unknown == {"unknown": 1}
    labels.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.csv"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"path,class\na.jpg,glioma\n", "has no column 'label'"),
        (b"", "has no column 'path'"),
        (b"path,label\na.jpg,glioma\na.jpg,no\n", "line 3: a second, different label for 'a.jpg'"),
        (b"path,label\n\xff.jpg,glioma\n", "line 2: byte 0xff is not UTF-8"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(spec: ModelSpec, tmp_path: Path, content: bytes, problem: str) -> None:
    table = tmp_path / "labels.csv"
    table.write_bytes(content)
    with pytest.raises(MribatchError, match=problem):
        TableLabels(spec, table, tmp_path / "labels.sqlite")
    assert not (tmp_path / "labels.sqlite").exists()


def test_a_table_may_write_names_as_the_results_show_them(spec: ModelSpec, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,label\na\\b.jpg,glioma\n\\xff\\xe9.jpg,no\na/b.jpg,pituitary\n", "utf-8")
    labels = TableLabels(spec, table, tmp_path / "labels.sqlite")
    paths = (b"a\\b.jpg", b"\xff\xe9.jpg", b"a/b.jpg")
    assert [labels.of(folder(), path) for path in paths] == ["glioma_tumor", "no_tumor", "pituitary_tumor"]
    assert labels.unmatched() == UnmatchedLines(0, ())
    labels.close()


def test_a_table_may_write_separators_as_windows_does_and_paths_as_find_does(spec: ModelSpec, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,label\r\ng\\a.jpg,glioma\r\n./g/b.jpg,no\r\ng/c.jpg,no\r\n", "utf-8")
    labels = TableLabels(spec, table, tmp_path / "labels.sqlite")
    paths = (b"g/a.jpg", b"g/b.jpg", b"./g/c.jpg", b"/data/glioma/g/a.jpg")
    assert [labels.of(folder(), path) for path in paths] == ["glioma_tumor", "no_tumor", "no_tumor", None]
    assert labels.unmatched() == UnmatchedLines(0, ())
    labels.close()


def test_lines_of_a_table_that_match_no_file_are_counted(spec: ModelSpec, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    gone = "".join(f"gone{number}.jpg,no\n" for number in range(7, 0, -1))
    table.write_text(f"path,label\na.jpg,glioma\n{gone}b.jpg,what\n", "utf-8")
    labels = TableLabels(spec, table, tmp_path / "labels.sqlite")
    assert [labels.of(folder(), path) for path in (b"a.jpg", b"b.jpg")] == ["glioma_tumor", None]
    assert labels.unmatched() == UnmatchedLines(7, tuple(f"gone{number}.jpg" for number in range(7, 2, -1)))
    labels.close()


def test_two_spellings_of_a_path_with_different_labels_are_refused(spec: ModelSpec, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,label\ng\\a.jpg,glioma\n./g/a.jpg,no\n")
    with pytest.raises(MribatchError, match="line 3: a second, different label"):
        TableLabels(spec, table, tmp_path / "labels.sqlite")


# --------------------------------------------------------------------------------------------- other names of a class


def test_an_alias_of_the_user_comes_first(spec: ModelSpec) -> None:
    labels = FolderLabels(add_aliases(spec, ["GBM=glioma", "normal=pituitary_tumor", "glioma=Glioma Tumor"]))
    paths = [b"gbm/1.jpg", b"Normal/1.jpg", b"glioma/1.jpg", b"no/1.jpg"]
    assert [labels.of(folder(), path) for path in paths] == [
        "glioma_tumor",
        "pituitary_tumor",
        "glioma_tumor",
        "no_tumor",
    ]
    assert add_aliases(spec, []) == spec


@pytest.mark.parametrize(
    ("aliases", "problem"),
    [
        (["gbm=gliom"], "'gliom' is not a class of the model. Fix: name one of glioma_tumor, "),
        (["No Tumor=glioma"], "'No Tumor' is a class of the model itself"),
        (["gbm=glioma", "GBM=no"], "'GBM' was given another class before"),
    ],
)
def test_an_alias_that_cannot_be_is_refused(spec: ModelSpec, aliases: list[str], problem: str) -> None:
    with pytest.raises(MribatchError, match=problem):
        add_aliases(spec, aliases)


def test_a_warning_names_the_closest_class(spec: ModelSpec) -> None:
    warning = warn_of_unknown_labels({"glioam": 3, "astrocytoma": 2, "p1": 9}, 4, spec.classes)
    assert warning is not None
    assert warning.splitlines() == [
        "WARNING: 5 of 18 files have no label, since no class of the model is named like these:",
        "  glioam (3): did you mean glioma_tumor? --alias 'glioam=glioma_tumor'",
        "  astrocytoma (2)",
        "  Classes of the model: glioma_tumor, meningioma_tumor, no_tumor, pituitary_tumor. Give other names with "
        "--alias FOLDER=CLASS.",
    ]


@pytest.mark.parametrize(
    ("unknown", "labelled", "warned"),
    [
        ({}, 0, False),
        ({"scans": 100}, 0, False),  # one folder of images without labels
        ({"patient1": 5, "patient2": 5}, 0, False),
        ({f"name{'x' * count}": 1 for count in range(30)}, 0, False),
        ({"unsure": 2}, 4, False),  # most are known
        ({"unsure": 5}, 4, True),
        ({"benign": 5, "malignant": 5}, 0, True),
        ({"meningoma": 5}, 0, True),
    ],
)
def test_only_what_looks_like_labels_is_warned_of(
    spec: ModelSpec, unknown: dict[str, int], labelled: int, warned: bool
) -> None:
    assert (warn_of_unknown_labels(unknown, labelled, spec.classes) is not None) is warned


def test_the_closest_class_may_be_close_to_a_usual_spelling(spec: ModelSpec) -> None:
    assert find_closest_class("not_umor", spec.classes) == "no_tumor"
    assert find_closest_class("Healty", spec.classes) == "no_tumor"
    assert find_closest_class("xyz", spec.classes) is None
