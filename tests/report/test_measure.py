"""A run folder to its report: what is written, what is said first, and what is refused."""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import sklearn.metrics as sk

from mribatch.core.errors import MribatchError
from mribatch.report.measure import ReportOptions, report
from tests.finished_run import CLASSES, Row, scores_for, write_run
from tests.report.reports import GLIOMA, MENINGIOMA, NO_TUMOR, PITUITARY, eight_rows, made, page_of, value


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", eight_rows())


PAGE = """\
# Classification report: run

> Research use only, not a medical device.

Model `tiny`, onnxruntime (fp32), decoder opencv, mribatch 0.1.0. Input: `slices`.

## Files

2 of 11 files could not be classified and are not part of any metric: empty 1, truncated 1. Labelled files among them: 1.

- `no_tumor/cut\\|off.jpg`: truncated, ends early
- `x.png`: empty

9 of 11 files are readable, and 8 of these have a label; the metrics cover the labelled ones. Readable files without a label: 1.

| status | files |
| --- | ---: |
| empty | 1 |
| ok | 9 |
| truncated | 1 |

## Figures per image

Intervals: 95 %, percentile bootstrap, 2,000 resamples of 8 images, seed 0.

| metric | value | 95 % interval | n |
| --- | ---: | :---: | ---: |
| accuracy | 0.8750 | 0.6250 to 1.0000 | 8 |
"""

MATRIX = """\
| label | glioma_tumor | meningioma_tumor | no_tumor | pituitary_tumor |
| --- | ---: | ---: | ---: | ---: |
| glioma_tumor | 2 | 0 | 0 | 0 |
| meningioma_tumor | 0 | 2 | 0 | 0 |
| no_tumor | 0 | 0 | 2 | 0 |
| pituitary_tumor | 1 | 0 | 0 | 1 |

Calibration: mean confidence 0.8625, accuracy 0.8750 (under-confident by 0.0125); ECE 0.1625 over 15 bins.
"""

WORTH = """\
## What the numbers are worth

- Protocol: not given. It is not known whether these images, copies of them or neighbouring slices were in the training data. If they were, the figures are too optimistic. State the protocol with --protocol.
- The intervals treat every image as independent. Slices of one patient are not. If the run has several slices per patient, the intervals are too narrow: give --groups or --group-by.
- With only 8 images the intervals are approximate and tend to be too narrow, as is known for fewer than 30.
- Sensitivity and specificity apply to images like these only. If the classes come from different sources, a model can tell them apart by image size or borders instead of content.
- Research use only, not a medical device.
"""


def test_the_page(run: Path) -> None:
    made(run)
    text = page_of(run)
    assert text.startswith(PAGE)
    assert MATRIX in text
    assert text.endswith(WORTH)
    assert "| glioma_tumor | 2 | 0.6667 | 1.0000 (0.1581 to 1.0000) | 0.8333 (" in text
    assert "| macro | 8 | 0.9167 | 0.8750 (" in text


def test_the_figures_are_those_of_the_readable_labelled_rows(run: Path) -> None:
    content = made(run)
    rows = [row for row in eight_rows() if row.scores and row.label]
    labels = [CLASSES.index(row.label or "") for row in rows]
    scores = np.array([row.scores for row in rows], dtype=np.float32)
    assert value(content, "accuracy")["value"] == pytest.approx(7 / 8)
    assert value(content, "log_loss")["value"] == pytest.approx(sk.log_loss(labels, scores, labels=range(4)), rel=1e-6)
    assert value(content, "support", GLIOMA) | {"note": None} == {
        "metric": "support",
        "class": GLIOMA,
        "value": 2.0,
        "low": None,
        "high": None,
        "n": 8,
        "note": None,
    }
    assert content["files"] == {
        "total": 11,
        "by_status": {"empty": 1, "ok": 9, "truncated": 1},
        "readable": 9,
        "labelled": 9,
        "scored": 8,
        "readable_without_label": 1,
        "unreadable_with_label": 1,
        "not_readable": [
            {"path": "no_tumor/cut|off.jpg", "status": "truncated", "error": "ends early"},
            {"path": "x.png", "status": "empty", "error": None},
        ],
    }
    assert content["predicted"]["counts"] == {GLIOMA: 3, MENINGIOMA: 3, NO_TUMOR: 2, PITUITARY: 1}
    assert content["predicted"]["confidence"]["min"] == pytest.approx(0.6, abs=1e-6)
    assert content["predicted"]["confidence"]["median"] == pytest.approx(0.9, abs=1e-6)


def test_the_console_table_says_what_the_page_says(run: Path) -> None:
    table = report(ReportOptions(run=run, html=False)).table
    assert table.startswith("2 of 11 files could not be classified")
    assert re.search(r"^accuracy +0\.8750 +0\.6250 to 1\.0000$", table, re.MULTILINE)
    assert re.search(r"^pituitary_tumor +1 +0 +0 +1$", table, re.MULTILINE)
    assert "resamples of 8 images" in table
    assert table.endswith("Research use only, not a medical device.")


def test_the_same_run_gives_the_same_bytes(run: Path) -> None:
    made(run)
    first = [(run / name).read_bytes() for name in ("metrics.parquet", "metrics.json", "report.md")]
    made(run)
    assert first == [(run / name).read_bytes() for name in ("metrics.parquet", "metrics.json", "report.md")]


def test_an_untrained_model_is_named_before_anything_else(tmp_path: Path) -> None:
    bundle = {"name": "placeholder", "classes": list(CLASSES), "trained": False}
    notice = "'placeholder' is not a trained model: its weights are random and its predictions mean nothing"
    run = write_run(tmp_path / "run", eight_rows(), bundle=bundle, notice=notice)
    content = made(run)
    assert content["notices"] == [notice]
    assert page_of(run).splitlines()[2] == f"> **Notice: {notice}.**"
    assert report(ReportOptions(run=run, html=False)).table.startswith(f"NOTE: {notice}.")
    assert "The model was never trained" in page_of(run)
    metadata = pq.read_schema(run / "metrics.parquet").metadata
    assert json.loads(metadata[b"mribatch.notices"]) == [notice]


def test_many_broken_files_are_counted_and_twenty_named(tmp_path: Path) -> None:
    broken = [Row(f"b{i:02d}.jpg", None, None, "truncated" if i % 3 else "empty", "why") for i in range(33)]
    content = made(write_run(tmp_path / "run", [*eight_rows()[:8], *broken]))
    assert [item["path"] for item in content["files"]["not_readable"]] == [f"b{i:02d}.jpg" for i in range(20)]
    text = page_of(tmp_path / "run")
    assert "33 of 41 files could not be classified and are not part of any metric: truncated 22, empty 11." in text
    assert "- `b19.jpg`: truncated, why\n- and 13 more\n" in text


def test_names_of_strangers_stay_on_one_line_and_in_their_cell(tmp_path: Path) -> None:
    rows = [*eight_rows()[:8], Row("a`b\n# c.jpg", None, None, "unsupported", "<b>*not* | image</b>\n")]
    made(write_run(tmp_path / "run", rows))
    assert r"- `` a`b\n# c.jpg ``: unsupported, \<b\>\*not\* \| image\</b\>\\n" in page_of(tmp_path / "run")


# ------------------------------------------------------------------------------------------ runs without an answer


def test_without_labels(tmp_path: Path) -> None:
    rows = [Row(f"a/{i}.png", None, scores_for(i % 4, 0.5 + i / 20)) for i in range(8)]
    run = write_run(tmp_path / "run", rows, listing={"unknown_labels": {"a": 8}})
    content = made(run)
    assert content["levels"] == []
    assert content["no_metrics"].startswith(
        "no label is known: no folder or given label (a) names a class of the model"
    )
    assert content["predicted"]["counts"] == dict.fromkeys(CLASSES, 2)
    assert content["predicted"]["confidence"]["max"] == pytest.approx(0.85, abs=1e-6)
    assert "## No accuracy\n\nNo accuracy could be computed: no label is known" in page_of(run)
    table = report(ReportOptions(run=run, html=False)).table
    assert "No accuracy: no label is known" in table and "Confidence: min 0.5000" in table
    assert "Protocol" not in table and "Protocol" not in page_of(run), "there is no figure that could be too optimistic"
    assert pq.read_table(run / "metrics.parquet").num_rows == 0


def test_labels_none_is_given_as_the_reason(tmp_path: Path) -> None:
    content = made(write_run(tmp_path / "run", [Row("a.png", None, scores_for(0, 0.8))], labels="none"))
    assert content["no_metrics"].startswith("the run was made with --labels none")


def test_all_unreadable(tmp_path: Path) -> None:
    rows = [Row(f"no_tumor/{i}.jpg", NO_TUMOR, None, "empty") for i in range(3)]
    content = made(write_run(tmp_path / "run", rows), group_by="patient=(.)\\.jpg")
    assert content["no_metrics"] == "none of the 3 files could be read"
    assert content["predicted"] == {"counts": dict.fromkeys(CLASSES, 0), "confidence": None}
    assert content["patients"]["nothing_to_score"] == 3


def test_only_the_unreadable_have_a_label(tmp_path: Path) -> None:
    rows = [Row("no_tumor/0.jpg", NO_TUMOR, None, "empty"), Row("a.jpg", None, scores_for(0, 0.8))]
    assert made(write_run(tmp_path / "run", rows))["no_metrics"] == "every file with a label could not be read"


def test_one_class_only(tmp_path: Path) -> None:
    content = made(write_run(tmp_path / "run", [Row(f"{i}.png", GLIOMA, scores_for(i % 2, 0.8)) for i in range(10)]))
    assert value(content, "accuracy")["value"] == 0.5
    assert value(content, "auroc", GLIOMA)["value"] is None
    text = page_of(tmp_path / "run")
    assert "| pituitary_tumor | 0 | undefined | undefined | " in text
    assert (
        r"- specificity\[glioma\_tumor\], auroc\[glioma\_tumor\], auprc\[glioma\_tumor\]: no other class occurs" in text
    )


def test_labels_of_the_users_own_classes(tmp_path: Path) -> None:
    classes = ("cat", "dog")
    rows = [Row(f"{i}.png", classes[i % 2], scores_for(i % 2 if i else 1, 0.8, 2)) for i in range(10)]
    content = made(write_run(tmp_path / "run", rows, classes))
    assert value(content, "accuracy")["value"] == 0.9
    assert value(content, "brier")["value"] == pytest.approx((9 * 2 * 0.04 + 2 * 0.64) / 10, rel=1e-5)


# ------------------------------------------------------------------------------------------ groups and patients


def series_rows(series: int = 40, slices: int = 5) -> list[Row]:
    """Series of one label and fate each; every fifth is wrong."""
    rows = []
    for s in range(series):
        label = s % 4
        predicted = (label + 1) % 4 if s % 5 == 0 else label
        rows += [
            Row(f"{CLASSES[label]}/P{s:02d}_{i}.png", CLASSES[label], scores_for(predicted, 0.7)) for i in range(slices)
        ]
    return rows


def group_table(path: Path, rows: Sequence[Row], prefix: str = "", header: str = "path,group_id,series_id") -> Path:
    lines = [f"{prefix}{row.path},g{i},s{row.path.split('/P')[1][:2]}" for i, row in enumerate(rows)]
    path.write_text("\n".join([header, *lines, ""]), encoding="utf-8")
    return path


def test_groups_widen_the_interval_and_are_named(tmp_path: Path) -> None:
    rows = series_rows()
    run, table = write_run(tmp_path / "run", rows, part_rows=64), group_table(tmp_path / "groups.csv", rows)
    alone, grouped = made(run), made(run, groups=str(table))
    widths = [value(c, "accuracy")["high"] - value(c, "accuracy")["low"] for c in (alone, grouped)]
    assert widths[1] / widths[0] == pytest.approx(5**0.5, rel=0.15)
    intervals = grouped["levels"][0]["intervals"]
    assert (intervals["unit"], intervals["units"], intervals["largest"]) == ("group", 40, 5)
    assert intervals["source"] == "series_id of groups.csv"
    assert grouped["levels"][0]["protocol"] == (
        "protocol not given; per image; intervals over 40 groups (series_id of groups.csv)"
    )
    assert "resamples of 40 groups (series\\_id of groups.csv; the largest has 5 images)" in page_of(run)


def test_groups_by_another_column_of_the_table(tmp_path: Path) -> None:
    rows = series_rows(4, 5)
    run, table = write_run(tmp_path / "run", rows), group_table(tmp_path / "groups.csv", rows)
    assert made(run, groups=f"{table}:group_id")["levels"][0]["intervals"]["units"] == 20


def test_groups_by_a_column_of_the_predictions(run: Path) -> None:
    intervals = made(run, groups="label")["levels"][0]["intervals"]
    assert (intervals["units"], intervals["source"]) == (4, "column label of the predictions")


def test_rows_that_the_table_does_not_know_are_counted(tmp_path: Path) -> None:
    rows = series_rows(10, 5)
    run, table = write_run(tmp_path / "run", rows, part_rows=16), group_table(tmp_path / "groups.csv", rows[:40])
    intervals = made(run, groups=str(table))["levels"][0]["intervals"]
    assert (intervals["units"], intervals["without_group"]) == (8 + 10, 10)
    assert "Images without a group, each treated as a group of its own: 10." in page_of(run)


@pytest.mark.parametrize("prefix", ["slices/", "set/slices/", "/data/set/slices/", "./"])
def test_a_table_may_name_files_from_further_up(tmp_path: Path, prefix: str) -> None:
    rows = series_rows(4, 5)
    run, table = write_run(tmp_path / "run", rows), group_table(tmp_path / "groups.csv", rows, prefix)
    assert made(run, groups=str(table))["levels"][0]["intervals"]["units"] == 4


def test_a_name_shorter_than_the_path_is_no_match(tmp_path: Path) -> None:
    rows = series_rows(4, 5)
    table = tmp_path / "groups.csv"
    table.write_text("path,group_id\nP00_0.png,g1\n", encoding="utf-8")
    with pytest.raises(MribatchError, match="has none of the 20 paths"):
        report(ReportOptions(run=write_run(tmp_path / "run", rows), groups=str(table), html=False))


def test_absolute_paths_of_a_list_may_be_named_by_their_last_parts(tmp_path: Path) -> None:
    rows = series_rows(4, 5)
    table = group_table(tmp_path / "groups.csv", rows)
    absolute = [dataclasses.replace(row, path=f"/data/set/slices/{row.path}") for row in rows]
    run = write_run(tmp_path / "run", absolute, inputs=[{"path": "list", "kind": "list", "root": "/home"}])
    assert made(run, groups=str(table))["levels"][0]["intervals"]["units"] == 4


def test_a_name_that_fits_two_files_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text("path,group_id\nglioma/1.png,g1\n", encoding="utf-8")
    rows = [Row(f"/{site}/glioma/1.png", GLIOMA, scores_for(0, 0.9)) for site in ("a", "b")]
    with pytest.raises(MribatchError, match=r"'glioma/1\.png' could be '/a/glioma/1\.png' or '/b/glioma/1\.png'"):
        report(ReportOptions(run=write_run(tmp_path / "run", rows), groups=str(table), html=False))


PATIENT_ROWS = [
    Row("A_1.png", GLIOMA, (0.6, 0.1, 0.2, 0.1)),
    Row("A_2.png", GLIOMA, (0.2, 0.1, 0.6, 0.1)),
    Row("B_1.png", NO_TUMOR, (0.1, 0.0, 0.9, 0.0)),
    Row("B_2.png", NO_TUMOR, (0.2, 0.0, 0.8, 0.0)),
    Row("B_3.png", NO_TUMOR, None, "empty"),
    Row("C_1.png", GLIOMA, scores_for(0, 0.9)),
    Row("C_2.png", PITUITARY, scores_for(3, 0.9)),
    Row("D_1.png", None, scores_for(3, 0.9)),
    Row("odd.png", GLIOMA, scores_for(0, 0.9)),
    Row("E_1.png", PITUITARY, (0.2, 0.2, 0.15, 0.45)),
    Row("E_2.png", PITUITARY, (0.8, 0.0, 0.1, 0.1)),
]


def test_patients(tmp_path: Path) -> None:
    """By hand: mean A (.4, .1, .4, .1) ties to glioma; E: mean (.5, .1, .125, .275), maxima (.8, .2, .15, .45)."""
    run = write_run(tmp_path / "run", PATIENT_ROWS)
    content = made(run, group_by="patient=^([A-Z])_")
    assert content["patients"] == {
        "source": "pattern ^([A-Z])_",
        "patients": 5,
        "scored": 3,
        "several_labels": {"count": 1, "named": [{"patient": "C", "labels": [GLIOMA, PITUITARY]}]},
        "nothing_to_score": 1,
        "with_unreadable_slices": 1,
        "slices_without_patient": 1,
    }
    assert [level["level"] for level in content["levels"]] == ["image", "patient_mean", "patient_worst"]
    mean = -(np.log(0.4) + np.log(0.85) + np.log(0.275)) / 3
    worst = -(np.log(0.6 / 1.4) + np.log(0.9 / 1.1) + np.log(0.45 / 1.6)) / 3
    assert value(content, "log_loss", level="patient_mean")["value"] == pytest.approx(mean, rel=1e-5)
    assert value(content, "log_loss", level="patient_worst")["value"] == pytest.approx(worst, rel=1e-5)
    assert value(content, "accuracy", level="patient_mean")["value"] == pytest.approx(2 / 3)
    assert content["levels"][0]["intervals"]["unit"] == "group"  # patients cluster the images too
    assert content["levels"][1]["intervals"]["unit"] == "patient"
    text = page_of(run)
    assert r"Left out because their slices have different labels: C (glioma\_tumor, pituitary\_tumor)." in text
    assert "- Patients with unreadable slices, whose other slices are used: 1." in text


def test_patients_from_a_table(tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    lines = [f"{row.path},{row.path[0]}" for row in PATIENT_ROWS if row.path[1] == "_"]
    table.write_text("\n".join(["path,patient", *lines]), encoding="utf-8")
    by_table = made(write_run(tmp_path / "a", PATIENT_ROWS), group_by=f"patient={table}")
    by_pattern = made(write_run(tmp_path / "b", PATIENT_ROWS), group_by="patient=^([A-Z])_")
    assert by_table["patients"] | {"source": ""} == by_pattern["patients"] | {"source": ""}
    assert by_table["levels"][1]["metrics"] == by_pattern["levels"][1]["metrics"]


# ------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("state", ["listing", "running", "interrupted", "stopped"])
def test_a_run_that_is_not_complete(tmp_path: Path, state: str) -> None:
    run = write_run(tmp_path / "run", eight_rows(), state=state)
    with pytest.raises(MribatchError) as caught:
        report(ReportOptions(run=run, html=False))
    assert str(caught.value) == (
        f"the run in {run} is not complete: its state is '{state}'. "
        "Fix: repeat the classify command; it continues where it stopped"
    )
    assert sorted(path.name for path in run.iterdir()) == ["predictions", "run.json"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"groups": "missing.csv"}, "cannot read --groups missing.csv: No such file or directory"),
        ({"groups": "nothing"}, "is neither a CSV file nor a text or integer column"),
        ({"groups": "p_no_tumor"}, "is neither a CSV file nor a text or integer column"),
        (
            {"groups": "{here}/plain.csv"},
            "has none of the columns patient_id, study_id, series_id, group_id; its columns: path, tone",
        ),
        ({"groups": "{here}/plain.csv:colour"}, "has no column 'colour'"),
        ({"groups": "{here}/twice.csv"}, "line 3: a second group for 'x.png': '1', then '2'"),
        ({"groups": "{here}/foreign.csv"}, "has none of the 11 paths, e.g. 'glioma_tumor/P00.png'"),
        ({"groups": "{here}/latin.csv"}, "line 2: byte 0xe9 is not UTF-8"),
        ({"groups": "{here}/blank.csv"}, "has no group_id for any of the 11 paths"),
        ({"group_by": "P(.)"}, "is not understood"),
        ({"group_by": "study=(.)"}, "is not understood"),
        ({"group_by": "patient="}, "is not understood"),
        ({"group_by": "patient=P."}, "has no capture group"),
        ({"group_by": "patient=P(."}, "is not a regular expression"),
        ({"group_by": "patient=Z(.)"}, "matches none of 11 paths"),
        ({"group_by": "patient={here}/plain.csv"}, "has no column 'patient_id'; its columns: path, tone"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, run: Path, options: dict[str, str], problem: str) -> None:
    (tmp_path / "plain.csv").write_text("path,tone\nx.png,1\n", encoding="utf-8")
    (tmp_path / "twice.csv").write_text("path,group_id\nx.png,1\nx.png,2\n", encoding="utf-8")
    (tmp_path / "foreign.csv").write_text("path,group_id\nelse.png,1\n", encoding="utf-8")
    (tmp_path / "blank.csv").write_text("path,group_id\nx.png,\n", encoding="utf-8")
    (tmp_path / "latin.csv").write_bytes(b"path,group_id\nx.png,\xe9\n")
    placed: dict[str, Any] = {key: text.format(here=tmp_path) for key, text in options.items()}
    with pytest.raises(MribatchError) as caught:
        report(ReportOptions(run=run, **placed, html=False))
    assert problem in caught.value.problem
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in run.iterdir()) == ["predictions", "run.json"]


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(MribatchError, match="is not the output folder of a run"):
            report(ReportOptions(run=folder, html=False))


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"state": "complete"}', '{"state": "complete", "bundle": {"classes": 3}}']
)
def test_a_damaged_run_json(run: Path, text: str) -> None:
    (run / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(MribatchError, match="is damaged or of another version"):
        report(ReportOptions(run=run, html=False))


def test_a_missing_part_is_noticed(run: Path) -> None:
    (run / "predictions" / "part-00001.parquet").unlink()
    with pytest.raises(MribatchError) as caught:
        report(ReportOptions(run=run, html=False))
    assert "holds 8 rows (ok 6, empty 1, truncated 1), its run.json counts 11 (ok 9, " in str(caught.value)


def test_a_damaged_part_is_noticed(run: Path) -> None:
    part = run / "predictions" / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(MribatchError, match=r"part-00001\.parquet is damaged"):
        report(ReportOptions(run=run, html=False))


def test_a_part_of_another_model_is_noticed(tmp_path: Path) -> None:
    bundle = {"name": "other", "classes": ["cat", "dog"], "trained": True}
    with pytest.raises(MribatchError, match="have no column 'p_cat'"):
        report(ReportOptions(run=write_run(tmp_path / "run", eight_rows(), bundle=bundle), html=False))


def test_a_label_that_is_no_class_is_noticed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [Row("a.png", "glioma", scores_for(0, 0.9))])
    with pytest.raises(MribatchError, match="holds the label 'glioma', which is not a class of its model"):
        report(ReportOptions(run=run, html=False))


def test_an_ok_row_without_probabilities_is_noticed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [Row("a.png", GLIOMA, scores_for(0, 0.9)), Row("b.png", GLIOMA)])
    with pytest.raises(MribatchError, match="is ok and has no probabilities"):
        report(ReportOptions(run=run, html=False))
