"""A finished run is verified; whatever changes in it afterwards is found."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mribatch.core.errors import RunError
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.part_hashes import HASHES_FILE
from mribatch.pipeline.output.parts import part_path
from mribatch.pipeline.run import classify
from mribatch.report.measure import ReportOptions, report
from mribatch.report.verify import verify_run
from tests.broken_files import broken_files
from tests.cli.documented_json import check_documented
from tests.folders import draw_images, mribatch
from tests.studies import write_series

Change = Callable[[dict[str, list[Any]]], None]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A run over plain images, some of them broken, and a series of DICOM slices; the inputs are in data/."""
    folder = tmp_path_factory.mktemp("verify")
    draw_images(folder / "data", 12, classes=("glioma_tumor",))
    write_series(folder / "data" / "series", 5)
    for name in ("empty.jpg", "half.jpg", "checksum.png"):
        (folder / "data" / name).write_bytes(broken_files()[name][0])
    classify([folder / "data"], folder / "out", ClassifyOptions(model=str(tiny_model)))
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(finished / "out", tmp_path / "out"))


def test_an_untouched_run_is_verified(finished: Path) -> None:
    found = verify_run(finished / "out", inputs=True)
    assert (found.problems, found.findings, found.parts_without_hash) == (0, (), 0)
    assert (found.rows, found.parts, found.input_files) == (20, 1, 20)


@pytest.mark.parametrize("flips", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_flipped_byte_of_a_part_is_found(run: Path, flips: int) -> None:
    path, dice = part_path(run, 0), random.Random(0)
    whole = path.read_bytes()
    for _ in range(flips):
        place, change = dice.randrange(len(whole)), dice.randrange(1, 256)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
        found = verify_run(run)
        assert found.findings == (f"part-00000.parquet: its SHA-256 is not the one in {HASHES_FILE}",)
    path.write_bytes(whole)
    assert verify_run(run).problems == 0


def test_a_changed_part_stops_resume_and_report(run: Path, finished: Path, tiny_model: Path) -> None:
    path = part_path(run, 0)
    content = path.read_bytes()
    path.write_bytes(content[:2000] + bytes([content[2000] ^ 1]) + content[2001:])
    options = ClassifyOptions(model=str(tiny_model))
    with pytest.raises(RunError, match=r"part-00000\.parquet has changed since it was published"):
        classify([finished / "data"], run, options)
    with pytest.raises(RunError, match=r"has changed since it was published"):
        report(ReportOptions(run=run))
    path.unlink()  # as the message says
    classify([finished / "data"], run, replace(options, overwrite=True))
    assert verify_run(run).problems == 0


def without_hashes(run: Path, change: Change) -> None:
    """Rewrite the part with changed columns, as another program would, in a run that has no hashes."""
    table = pq.read_table(part_path(run, 0))
    columns = table.to_pydict()
    change(columns)
    changed = pa.Table.from_pydict(columns, schema=table.schema)
    pq.write_table(changed, part_path(run, 0))
    (run / HASHES_FILE).unlink()


def put(name: str, value: object, row: int = 0) -> Change:
    def change(columns: dict[str, list[Any]]) -> None:
        columns[name][row] = value

    return change


def drop_last(columns: dict[str, list[Any]]) -> None:
    for values in columns.values():
        values.pop()


def swap(columns: dict[str, list[Any]]) -> None:
    for values in columns.values():
        values[0], values[1] = values[1], values[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("status", "fine"), "no such status"),
        (put("flags", ["odd"]), "no such flag"),
        (put("path", "other.png"), "path is 'other.png', the listing has"),
        (put("label", "no_tumor"), "label is 'no_tumor', the listing has "),
        (put("p_no_tumor", 1.5, 3), "a probability is not between 0 and 1"),
        (put("p_no_tumor", None, 3), "p_no_tumor is null"),
        (put("confidence", 0.0, 3), "confidence does not fit"),
        (put("entropy", -1.0, 3), "entropy does not fit"),
        (put("margin", 1.0, 3), "margin does not fit"),
        (put("predicted", "nothing", 3), "predicted is not the class"),
        (put("error", "none", 3), "an error, and the status is ok"),
        (put("sha256", "0", 3), "sha256 is no hash"),
        (drop_last, "part 0 has 19 rows for 20 images"),
        (swap, "row 0: index is 1, the listing has 0"),
    ],
)
def test_rows_that_no_run_writes_are_found_without_hashes(run: Path, change: Change, words: str) -> None:
    without_hashes(run, change)
    found = verify_run(run)
    assert found.parts_without_hash == 1
    assert found.problems and any(words in text for text in found.findings), found.findings


def test_counts_series_and_stray_parts(run: Path) -> None:
    content = json.loads((run / "run.json").read_text())
    content["counts"]["labelled"] += 1
    (run / "run.json").write_text(json.dumps(content))
    assert verify_run(run).findings == ("run.json has labelled 13, the rows give 12",)
    content["counts"]["labelled"] -= 1
    (run / "run.json").write_text(json.dumps(content))
    table = pq.read_table(run / "series.parquet")
    pq.write_table(table.slice(1), run / "series.parquet")
    assert verify_run(run).findings == ("series.parquet has 0 series of 1",)
    columns = table.to_pydict() | {"ok": [4]}
    pq.write_table(pa.Table.from_pydict(columns, schema=table.schema), run / "series.parquet")
    assert verify_run(run).findings == ("series.parquet is not what the rows give",)
    shutil.copy(part_path(run, 0), part_path(run, 1))
    assert "part-00001.parquet is no part of this run" in verify_run(run).findings
    part_path(run, 0).unlink()
    assert "part-00000.parquet is missing" in verify_run(run).findings


def test_inputs_that_changed_are_named(finished: Path, run: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(finished / "data", tmp_path / "data"))
    content = json.loads((run / "run.json").read_text())
    content["inputs"][0]["root"] = str(data)
    (run / "run.json").write_text(json.dumps(content))
    first, second = sorted((data / "glioma_tumor").iterdir())[:2]
    first.write_bytes(first.read_bytes() + b"\0")
    second.unlink()
    assert verify_run(run).problems == 0
    assert verify_run(run, inputs=True).findings == (
        f"input glioma_tumor/{first.name} has changed since it was classified",
        f"input glioma_tumor/{second.name} cannot be read: No such file or directory",
    )


def test_half_a_line_of_a_killed_process_does_no_harm(finished: Path, run: Path, tiny_model: Path) -> None:
    hashes = run / HASHES_FILE
    line = hashes.read_text()
    hashes.write_text(line[:30])
    part_path(run, 0).unlink()
    content = json.loads((run / "run.json").read_text()) | {"state": "running"}
    (run / "run.json").write_text(json.dumps(content))
    classify([finished / "data"], run, ClassifyOptions(model=str(tiny_model)))
    assert hashes.read_text() == line[:30] + "\n" + line, "the part has the same bytes, and a line of its own"
    assert verify_run(run).problems == 0


def test_a_run_that_is_not_finished_is_refused(run: Path) -> None:
    content = json.loads((run / "run.json").read_text()) | {"state": "running"}
    (run / "run.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match="is not complete"):
        verify_run(run)


def test_on_the_command_line(run: Path) -> None:
    good = mribatch("verify", run, "--inputs")
    assert (good.returncode, good.stderr) == (0, "")
    assert "20 rows in 1 part verified, 20 input files unchanged" in good.stdout
    without_hashes(run, put("status", "fine", 3))
    bad = mribatch("verify", run)
    assert bad.returncode == 1 and "no such status" in bad.stdout and bad.stderr.count("\n") == 1, bad.stderr
    printed = mribatch("verify", run, "--json")
    assert printed.returncode == 1
    check_documented("verify", json.loads(printed.stdout))
