"""What the page shows first."""

from pathlib import Path

from mribatch.report.html.duplicates import find_duplicates
from mribatch.report.html.selection import Concern, choose_grid, choose_triage
from mribatch.report.html.strips import choose_strips
from mribatch.report.rows import RunRows, load_rows
from mribatch.report.run_facts import read_facts
from tests.finished_run import CLASSES, Row, scores_for, write_run

GLIOMA, _, NO_TUMOR, PITUITARY = CLASSES


def load(folder: Path, rows: list[Row]) -> RunRows:
    write_run(folder, rows)
    return load_rows(folder, read_facts(folder))


def test_missed_tumors_come_first_then_errors_then_doubt(tmp_path: Path) -> None:
    rows = load(
        tmp_path,
        [
            Row("sure.png", GLIOMA, scores_for(0, 0.99)),
            Row("doubtful.png", None, scores_for(0, 0.4)),
            Row("wrong.png", GLIOMA, scores_for(3, 0.9)),
            Row("missed, sure.png", PITUITARY, scores_for(2, 0.95)),
            Row("missed, doubtful.png", GLIOMA, scores_for(2, 0.5)),
            Row("false alarm.png", NO_TUMOR, scores_for(0, 0.6)),
            Row("broken.png", GLIOMA, None, "truncated", "ends early"),
        ],
    )
    chosen = choose_triage(rows, CLASSES)
    assert [(rows.paths[each.row], each.concern) for each in chosen] == [
        ("missed, doubtful.png", Concern.MISSED_TUMOR),
        ("missed, sure.png", Concern.MISSED_TUMOR),
        ("false alarm.png", Concern.WRONG),
        ("wrong.png", Concern.WRONG),
        ("doubtful.png", Concern.DOUBTFUL),
        ("sure.png", Concern.DOUBTFUL),
    ]
    assert [each.row for each in choose_triage(rows, CLASSES, 3)] == [each.row for each in chosen[:3]]


def test_the_grid_has_images_of_every_class_from_the_whole_run(tmp_path: Path) -> None:
    rows = load(tmp_path, [Row(f"{i:02d}.png", None, scores_for(i % 2, 0.9)) for i in range(40)])
    grid = choose_grid(rows, CLASSES, 5)
    assert list(grid) == list(CLASSES[:2])
    assert [each.row for each in grid[GLIOMA]] == [0, 10, 20, 28, 38]
    assert len({each.row for each in grid[CLASSES[1]]}) == 5


def test_images_unlike_training_come_after_errors(tmp_path: Path) -> None:
    rows = load(
        tmp_path,
        [
            Row("doubtful.png", None, scores_for(0, 0.4)),
            Row("unlike.png", None, scores_for(0, 0.9), flags=("unlike_training",)),
            Row("wrong.png", GLIOMA, scores_for(3, 0.9), flags=("unlike_training",)),
        ],
    )
    chosen = choose_triage(rows, CLASSES)
    assert [(rows.paths[each.row], each.concern) for each in chosen] == [
        ("wrong.png", Concern.WRONG),
        ("unlike.png", Concern.UNLIKE),
        ("doubtful.png", Concern.DOUBTFUL),
    ]


def of_series(path: str, tumor: float, series: str, instance: int, patient: str | None = "p") -> Row:
    more = {"series": series, "instance": instance, "patient": patient}
    return Row(path, None, scores_for(2, 1 - tumor), more=more)


def test_series_are_ordered_by_their_most_suspicious_slice_and_by_patient(tmp_path: Path) -> None:
    rows = load(
        tmp_path,
        [
            of_series("a2", 0.1, "quiet", 2),
            of_series("a1", 0.2, "quiet", 1),
            of_series("b1", 0.3, "other", 1, None),
            of_series("c1", 0.9, "loud", 1),
            Row("plain.png", None, scores_for(0, 0.9)),
        ],
    )
    strips = choose_strips(rows, CLASSES)
    assert [strip.series for strip in strips] == ["loud", "quiet", "other"]  # both of the patient first
    assert [rows.paths[row] for row in strips[1].rows] == ["a1", "a2"]
    assert [strip.patient for strip in strips] == ["p", "p", None]
    assert strips[1].mean is not None and abs(strips[1].mean[2] - 0.85) < 1e-6


def test_duplicates_are_copies_and_near_pictures_but_not_neighbours_of_a_series(tmp_path: Path) -> None:
    def picture(path: str, digest: str, value: int | None, label: str | None = None, series: str | None = None) -> Row:
        perceptual = None if value is None else f"{value:016x}"
        more = {"sha256": digest * 64, "perceptual_hash": perceptual, "series": series}
        return Row(path, label, scores_for(0, 0.9), more=more)

    far = 0xFFFF0000FFFF0000
    rows = load(
        tmp_path,
        [
            picture("first", "a", far, GLIOMA),
            picture("copy", "a", far, PITUITARY),
            picture("near", "b", far ^ 3),
            picture("slice 1", "c", 0xF0F0F0F0F0F0F0F0, series="s"),
            picture("slice 2", "d", 0xF0F0F0F0F0F0F0F0, series="s"),
            picture("flat 1", "e", None),
            picture("flat 2", "f", None),
        ],
    )
    found = find_duplicates(rows)
    named = [([rows.paths[row] for row in group.rows], group.exact, group.labels_differ) for group in found.groups]
    assert named == [(["first", "copy"], True, True), (["first", "near"], False, False)]
    assert (found.copies, found.near) == (1, 2)
