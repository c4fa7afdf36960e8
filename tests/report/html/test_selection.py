"""What the page shows first."""

from pathlib import Path

from mribatch.report.html.selection import Concern, choose_grid, choose_triage
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
