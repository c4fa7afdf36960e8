"""The audit of the real slices against the groups table beside them."""

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mribatch.report.audit.audit import Audit, audit
from mribatch.report.audit.options import AuditOptions
from mribatch.report.audit.shortcuts import ShortcutFigures


@pytest.fixture(scope="module")
def found(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    return audit([data_folder / "brain-mri"], tmp_path_factory.mktemp("audit") / "out", AuditOptions(html=False))


@pytest.mark.slow
def test_what_the_groups_table_says_is_found(found: Audit, data_folder: Path) -> None:
    with (data_folder / "groups.csv").open(encoding="utf-8") as stream:
        known = {row["path"]: row for row in csv.DictReader(stream)}
    rows = [row for row in pq.read_table(found.out / "audit.parquet").to_pylist() if row["path"] in known]
    assert len(rows) == len(known)
    contradictory = {row["path"] for row in rows if row["contradictory_label"]}
    assert {path for path, row in known.items() if row["contradictory_label"] == "True"} <= contradictory
    assert found.file.contradictions.groups == 3  # a third, where one is a crop of the other
    theirs, ours = (
        np.unique(ids, return_inverse=True)[1]
        for ids in ([known[row["path"]]["group_id"] for row in rows], [row["group_id"] for row in rows])
    )
    tested = np.array([row["part"] == "test" for row in rows])
    leaked = int(np.isin(theirs[tested], theirs[~tested]).sum())
    (leak,) = found.file.leaks
    assert (leak.images, leak.same_pixels) == (328, 178)
    assert leaked <= leak.duplicates <= leaked + 5
    first, second = np.triu_indices(len(rows), 1)
    together, meant = ours[first] == ours[second], theirs[first] == theirs[second]
    assert (together & meant).sum() / meant.sum() > 0.98
    assert (together & meant).sum() / together.sum() > 0.95


@pytest.mark.slow
def test_the_size_tells_a_tumor(found: Audit) -> None:
    def of(check: str) -> ShortcutFigures:
        return next(each for each in found.file.shortcuts if (each.check, each.target) == (check, "tumor"))

    size = of("size")
    assert size.majority == pytest.approx(0.847, abs=0.001)
    assert size.accuracy == pytest.approx(0.92, abs=0.015) and size.tells
    assert of("header").tells
