"""Labels come from folder names or a table, and only where the model knows the class."""

from pathlib import Path

import pytest

from mribatch.core.bundle import load_bundle
from mribatch.core.errors import MribatchError
from mribatch.core.model_spec import ModelSpec
from mribatch.pipeline.listing.discover import Input, InputKind
from mribatch.pipeline.listing.labels import FolderLabels, TableLabels


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
