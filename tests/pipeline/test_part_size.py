"""The size of parts: chosen once, when a run begins, and kept by everything that comes later."""

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mribatch.core.errors import RunError
from mribatch.core.files import write_json
from mribatch.pipeline.merge import merge
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output import layout
from mribatch.pipeline.output.layout import PART_ROWS, PartLayout, choose_part_rows, format_parts
from mribatch.pipeline.output.run_file import read_run_file
from mribatch.pipeline.run import classify
from mribatch.report.verify import verify_run
from tests.folders import draw_images, rows


def test_a_run_has_ten_thousand_parts_at_most_and_parts_of_1024_rows_at_least() -> None:
    for images in (1, 1024, 20_000, 10_240_000):
        assert choose_part_rows(images) == PART_ROWS
    for images in (10_240_001, 50_000_000, 100_000_000, 600_000_000):
        chosen = PartLayout((images,), choose_part_rows(images))
        assert 5_000 <= chosen.parts <= 10_000 and chosen.part_rows % PART_ROWS == 0
    assert choose_part_rows(100_000_000) == 10_240
    assert choose_part_rows(10**12) == layout.MOST_PART_ROWS, "a part is held in memory"


@pytest.mark.parametrize(
    ("parts", "text"), [([], ""), ([3], "3"), ([0, 1, 2, 7, 9, 10], "0-2,7,9-10"), ([5, 4], "4-5")]
)
def test_numbers_of_parts_as_text(parts: list[int], text: str) -> None:
    assert format_parts(parts) == text


@pytest.fixture
def large_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What 20 million images have, for 3,000: parts of 2,048."""
    monkeypatch.setattr(layout, "_MOST_PARTS", 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    draw_images(folder, 3000, size=16)
    return folder


@pytest.fixture
def run(tiny_model: Path, data: Path) -> Callable[..., Path]:
    def call(out: Path, **options: object) -> Path:
        chosen = ClassifyOptions(model=str(tiny_model), batch_size=64, threads=1, **options)  # type: ignore[arg-type]
        return classify([data], out, chosen).folder

    return call


def sizes(run: Path) -> list[int]:
    return [pq.read_metadata(path).num_rows for path in sorted(run.glob("predictions/part-*.parquet"))]


def test_a_run_keeps_its_size_when_it_is_resumed_grows_or_is_divided(
    run: Callable[..., Path], data: Path, large_parts: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = run(tmp_path / "whole")
    assert sizes(whole) == [2048, 952]
    assert read_run_file(whole).part_rows == 2048
    assert pq.read_metadata(whole / "predictions/part-00000.parquet").num_row_groups == 2
    assert verify_run(whole).problems == 0
    merged = merge([run(tmp_path / "1", shard="1/2"), run(tmp_path / "2", shard="2/2")], tmp_path / "merged").folder
    beside = run(tmp_path / "beside", workers=2)
    for other in (merged, beside):
        assert [path.read_bytes() for path in sorted(other.glob("predictions/*"))] == [
            path.read_bytes() for path in sorted(whole.glob("predictions/*"))
        ]
    monkeypatch.undo()  # the rule would now give 1,024
    content = read_run_file(whole).to_json()
    write_json(whole / "run.json", content | {"state": "stopped", "counts": {}})
    (whole / "predictions/part-00001.parquet").unlink()
    assert len(rows(run(whole))) == 3000 and sizes(whole) == [2048, 952]


def test_a_size_that_no_run_has_is_damage(run: Callable[..., Path], tmp_path: Path) -> None:
    out = run(tmp_path / "out")
    content = read_run_file(out).to_json()
    for rows_of_a_part in (0, -1024, 1000, 1024.0, "1024", True, 10**9):
        write_json(out / "run.json", content | {"fingerprint": content["fingerprint"] | {"part_rows": rows_of_a_part}})
        with pytest.raises(RunError, match=r"'fingerprint\.part_rows' is no number of rows that a part has"):
            read_run_file(out)
