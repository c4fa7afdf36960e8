"""What the summary of a run says on a terminal of 80 columns."""

import re
from pathlib import Path

from mribatch.core.tables import Screen
from mribatch.pipeline.demo_folder import add_demo_study
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.run import classify
from tests.folders import draw_images, rows


def test_the_three_most_doubtful_images_and_where_to_look_next(tiny_model: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 12)
    summary = classify([tmp_path / "data"], tmp_path / "my run", ClassifyOptions(model=str(tiny_model)))
    text = summary.to_text(Screen(80))
    least = sorted(rows(tmp_path / "my run"), key=lambda row: row["margin"])[:3]
    found = text.split("most doubtful")[1].splitlines()[1:4]
    assert [line.split() for line in found] == [
        [row["path"], row["predicted"], f"{row['margin']:.3f}"] for row in least
    ]
    assert f"mribatch report '{tmp_path}/my run' --open" in text


def test_a_few_images_have_no_list_of_doubtful_ones(tiny_model: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 10)
    summary = classify([tmp_path / "data"], tmp_path / "run", ClassifyOptions(model=str(tiny_model)))
    assert "most doubtful" not in summary.to_text()


def test_tables_fit_a_narrow_terminal_and_name_every_series(tiny_model: Path, tmp_path: Path) -> None:
    add_demo_study(tmp_path)
    summary = classify([tmp_path], tmp_path / "run", ClassifyOptions(model=str(tiny_model)))
    narrow, wide = summary.to_text(Screen(80)), summary.to_text(Screen(140))
    assert max(len(line) for line in narrow.splitlines() if line.startswith("  ")) <= 80
    assert "blank" in wide.split("by mean probability")[1] and "blank" not in narrow.split("by mean probability")[1]
    names = {row["series"] for row in rows(tmp_path / "run")} - {None}
    assert len(names) == 4 and all(re.search(rf"^  {name} ", narrow, re.MULTILINE) for name in names)
