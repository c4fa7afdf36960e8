"""What an audit of a drawn data set finds and writes, against the faults that were drawn."""

import csv
import json
import random
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mribatch.core.about import RESEARCH_NOTICE
from mribatch.core.errors import MribatchError, OptionError, RequirementNotMetError
from mribatch.report.audit.audit import Audit, audit
from mribatch.report.audit.options import AuditOptions
from mribatch.report.audit.table import audit_schema, pairs_schema
from mribatch.report.groups import read_groups_table
from mribatch.training.data.split import group, leak, read_groups
from tests.report.audit.conftest import WANTED
from tests.report.audit.data_set import (
    BROKEN,
    CLASSES,
    CONTRADICTORY,
    FAULTS,
    GLIOMA,
    LEAKED,
    NO_TUMOR,
    OF_A_CLASS,
    draw,
)

ROOT = Path(__file__).parents[3]


def rows(found: Audit) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in pq.read_table(found.out / "audit.parquet").to_pylist()}


def partition(found: Audit) -> set[frozenset[str]]:
    """The groups of two images or more, by their contents, whatever the images are called."""
    members: dict[str, list[str]] = {}
    for row in rows(found).values():
        if row["group_id"] is not None:
            members.setdefault(row["group_id"], []).append(row["sha256"])
    return {frozenset(each) for each in members.values() if len(each) > 1}


def test_each_drawn_duplicate_is_found_and_nothing_else(audited: Audit) -> None:
    found = rows(audited)
    for copy, source in FAULTS.all.items():
        assert found[copy]["group_id"] == found[source]["group_id"], copy
    in_groups = {path for path, row in found.items() if (row["group_size"] or 0) > 1}
    assert in_groups == {*FAULTS.all, *FAULTS.all.values()}
    pairs = pq.read_table(audited.out / "pairs.parquet").to_pylist()
    kinds = {frozenset((row["first_path"], row["second_path"])): row["kind"] for row in pairs}
    for kind in ("same_file", "same_pixels", "near"):
        expected = {frozenset(pair) for pair in getattr(FAULTS, kind).items()}
        assert {pair for pair, each in kinds.items() if each == kind} == expected
    duplicates = audited.file.duplicates
    assert (duplicates.same_file, duplicates.same_pixels, duplicates.near) == (1, 2, 8)
    assert (duplicates.groups, duplicates.largest, duplicates.in_groups) == (6, 2, 12)


def test_leaks_and_contradictions_are_those_that_were_drawn(audited: Audit) -> None:
    found = rows(audited)
    assert {path for path, row in found.items() if row["leaked"]} == LEAKED
    assert {path for path, row in found.items() if row["contradictory_label"]} == CONTRADICTORY
    (leaks,) = audited.file.leaks
    assert (leaks.part, leaks.known_from, leaks.images) == ("test", ("train",), 13)
    assert (leaks.duplicates, leaks.same_pixels, leaks.patients) == (5, 2, None)
    assert audited.file.find("leak_rate").value == pytest.approx(5 / 13)
    contradictions = audited.file.contradictions
    assert (contradictions.groups, contradictions.images, contradictions.same_pixels) == (1, 2, 0)


def test_every_file_has_a_row_and_bad_ones_their_reason(audited: Audit, data_set: Path) -> None:
    found = rows(audited)
    assert set(found) == {str(path.relative_to(data_set)) for path in data_set.rglob("*") if path.is_file()}
    assert {path: row["status"] for path, row in found.items() if row["status"] != "ok"} == BROKEN
    assert all(found[path]["error"] and found[path]["group_id"] is None for path in BROKEN)
    assert (audited.file.files.readable, audited.file.files.failed) == (len(found) - 2, 2)
    counts = {each.name: (each.images, each.by_part) for each in audited.file.classes}
    assert counts[GLIOMA] == (OF_A_CLASS + 4, {"train": OF_A_CLASS, "test": 4})
    assert audited.file.files.by_status == {"empty": 1, "ok": len(found) - 2, "truncated": 1}


def test_the_size_tells_the_healthy_slices(audited: Audit) -> None:
    shortcuts = {(each.check, each.target): each for each in audited.file.shortcuts}
    size = shortcuts["size", "tumor"]
    assert size.accuracy == 1.0 and size.tells and size.majority is not None and size.majority < 0.8
    assert size.units < size.images
    assert audited.file.find("tumor_shortcut_gain", "size").value == pytest.approx(1 - size.majority)
    assert any(
        text.startswith("The size of the image alone tells tumor or none in 100.0%") for text in audited.file.findings
    )


def test_training_reads_groups_csv_and_finds_the_same_leak(audited: Audit, data_set: Path) -> None:
    found = {path: row for path, row in rows(audited).items() if row["status"] == "ok"}
    paths = list(found)
    table = read_groups(audited.out / "groups.csv")
    assert set(table.columns) == {"group_id", "series_id"} and set(table.ids) == set(paths)
    grouping = group(paths, [found[path]["pixels_sha256"] for path in paths], table, data_set)
    tested = [path.startswith("Testing/") for path in paths]
    measured = leak(grouping.near_duplicates, ~np.array(tested), np.array(tested), grouping.duplicates_basis)
    assert (measured.tested, measured.leaked) == (13, 5)
    of_report = read_groups_table(
        audited.out / "groups.csv", {"series_id": ("series_id",)}, name="groups", fix="", path_fix=""
    )
    assert of_report.find_ids(paths, [str(data_set)] * len(paths))[0] is not None


def test_names_and_their_order_do_not_matter(audited: Audit, data_set: Path, tmp_path: Path) -> None:
    """The same images under shuffled names; series are estimated from names, and so are what forests keep together."""
    names = random.Random(5)
    for part in data_set.iterdir():
        for folder in part.iterdir():
            files = sorted(folder.iterdir())
            numbers = names.sample(range(10_000), len(files))
            for file, number in zip(files, numbers, strict=True):
                target = tmp_path / "shuffled" / part.name / folder.name / f"{number:05d}{file.suffix}"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
    again = audit([tmp_path / "shuffled"], tmp_path / "out", AuditOptions(html=False))
    assert partition(again) == partition(audited)
    for key in ("files", "classes", "duplicates", "contradictions", "random_split"):
        mine, theirs = again.file.to_json()[key], audited.file.to_json()[key]
        assert (mine | {"series": 0} if key == "random_split" else mine) == (
            theirs | {"series": 0} if key == "random_split" else theirs
        )
    assert [(each.duplicates, each.same_pixels) for each in again.file.leaks] == [(5, 2)]


def test_the_same_call_gives_the_same_files(audited: Audit, data_set: Path, tmp_path: Path) -> None:
    again = audit([data_set], tmp_path / "out", AuditOptions(require=WANTED))
    assert sorted(path.name for path in again.out.iterdir()) == [
        *("audit.html", "audit.json", "audit.parquet", "groups.csv", "pairs.parquet")
    ]
    for path in again.out.iterdir():
        assert path.read_bytes() == (audited.out / path.name).read_bytes(), path.name


def test_two_folders_are_named_from_what_they_have_in_common(data_set: Path, tmp_path: Path) -> None:
    found = audit(
        [data_set / "Training", data_set / "Testing"], tmp_path / "out", AuditOptions(html=False, labels="none")
    )
    with (found.out / "groups.csv").open(encoding="utf-8") as stream:
        paths = [row["path"] for row in csv.DictReader(stream)]
    assert {path.split("/")[0] for path in paths} == {"Training", "Testing"}
    assert [each.duplicates for each in found.file.leaks] == [5]
    assert found.file.find("contradictory_rate").value is None
    assert {each.note for each in found.file.shortcuts} == {"fewer than two classes have images"}


def test_requirements_hold_or_are_named(audited: Audit) -> None:
    assert [each.met for each in audited.file.requirements] == [False, True, True, False]
    assert audited.file.unmet[1] == "patient_leak_rate is undefined (no header names a patient), required < 1"
    with pytest.raises(RequirementNotMetError, match=r"leak_rate = 0\.3846 > 0\.01"):
        audited.check()
    content = json.loads((audited.out / "audit.json").read_text(encoding="utf-8"))
    assert [each["met"] for each in content["requirements"]] == [False, True, True, False]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"require": ("leek_rate<1",)}, "there is no metric 'leek_rate'"),
        ({"require": ("shortcut_gain<1",)}, "shortcut_gain needs a class"),
        ({"classes": ("one", "One")}, "--classes one,One are not two or more different names"),
        ({"alias": ("x=nothing",)}, "'nothing' is not a class of the model"),
        ({"timeout_s": 0}, "--timeout 0 is out of range"),
        ({"labels": "none", "alias": ("x=no_tumor",)}, "--alias names labels"),
    ],
)
def test_a_wrong_option_is_named_and_nothing_is_written(
    data_set: Path, tmp_path: Path, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(OptionError, match=re.escape(problem)):
        audit([data_set], tmp_path / "out", AuditOptions(**options))
    assert not (tmp_path / "out").exists()


def test_other_classes_and_other_names_of_them(tmp_path: Path) -> None:
    for number, folder in enumerate(("sick", "ill", "well", "well")):
        draw(tmp_path / f"data/{folder}/{number}.jpg", number, 64)
    chosen = AuditOptions(classes=("sick", "well"), alias=("ill=sick",), html=False)
    found = audit([tmp_path / "data"], tmp_path / "out", chosen)
    assert {each.name: each.images for each in found.file.classes} == {"sick": 2, "well": 2}
    unknown = audit([tmp_path / "data"], tmp_path / "out", AuditOptions(html=False))
    assert unknown.file.files.unknown_labels == {"ill": 1, "sick": 1, "well": 2}


def test_hidden_paths_stay_hidden(data_set: Path, tmp_path: Path) -> None:
    found = audit([data_set], tmp_path / "out", AuditOptions(anonymize_paths=True, labels="none"))
    assert [each.duplicates for each in found.file.leaks] == [5]
    shown = b"".join(path.read_bytes() for path in found.out.iterdir() if path.name != "paths.parquet")
    assert b"slice (" not in shown and b"relabelled" not in shown and str(data_set).encode() not in shown
    assert b"data:image" not in shown
    assert not (found.out / "groups.csv").exists()
    real = pq.read_table(found.out / "paths.parquet").to_pylist()
    assert {row["path"] for row in real} == set(rows(found))
    assert {row["real_path"].decode() for row in real} >= set(FAULTS.all)
    assert (found.out / "paths.parquet").stat().st_mode & 0o777 == 0o600
    plain = audit([data_set], tmp_path / "out", AuditOptions(html=False, labels="none"))
    assert sorted(path.name for path in plain.out.iterdir()) == [
        *("audit.json", "audit.parquet", "groups.csv", "pairs.parquet")
    ]


def test_no_image_is_an_error_that_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/notes.txt").write_text("x")
    with pytest.raises(MribatchError, match="there is no image in the inputs"):
        audit([tmp_path / "data"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_reference_names_every_column_and_key(audited: Audit) -> None:
    page = (ROOT / "docs/reference/audit.md").read_text(encoding="utf-8")
    named = set(re.findall("`(.+?)`", page))
    for schema in (audit_schema(), pairs_schema()):
        for name in schema.names:
            assert {name, re.sub("^(first|second)_", "…_", name)} & named, name
    content = audited.file.to_json()
    assert content["schema_version"] == 1 and content["research_notice"] == RESEARCH_NOTICE
    keys = set(content)
    for value in content.values():
        records = value if isinstance(value, list) else [value]
        keys |= {key for record in records if isinstance(record, dict) for key in record}
    assert keys <= named | {*CLASSES, "name"}, keys - named
    figures = {re.sub(r"\[.*", "", each["name"]) for each in content["figures"]}
    assert figures <= named, figures - named


def test_classes_are_counted_as_they_are_labelled(audited: Audit) -> None:
    labels = Counter(row["label"] for row in rows(audited).values() if row["status"] == "ok")
    assert labels == {each.name: each.images for each in audited.file.classes}
    assert labels[NO_TUMOR] == OF_A_CLASS + 2
