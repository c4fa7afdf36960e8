"""--shard and merge: an array job gives the same folder as one process, and nothing else passes for a whole run."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mribatch.core.errors import MribatchError
from mribatch.pipeline.merge import merge
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.run_file import RunState, read_finished_run, read_run_file, run_file_schema
from mribatch.pipeline.output.summary import RunSummary
from mribatch.pipeline.progress import SilentProgress
from mribatch.pipeline.run import classify
from mribatch.report.measure import ReportOptions, report
from mribatch.report.verify import verify_run
from tests.folders import draw_images, mribatch, rows
from tests.studies import write_series

_COUNT = 4
_FILES = 3200  # four parts, the last one short
_SAME = ("listing.parquet", "skipped.parquet", "parts.sha256", "series.parquet", "predictions.csv")
_OF_A_PROCESS = ("attempts",)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    few = [path.read_bytes() for path in draw_images(tmp_path_factory.mktemp("few"), 16, size=16)]
    folder = tmp_path_factory.mktemp("data")
    for number in range(_FILES):
        path = folder / ("glioma", "no")[number % 2] / f"{number:05d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(few[number % 16] if number != 1500 else b"not an image")
    (folder / "notes.txt").touch()
    return folder


@pytest.fixture(scope="module")
def run(tiny_model: Path) -> Callable[..., RunSummary]:
    def call(data: Path, out: Path, **options: Any) -> RunSummary:
        return classify([data], out, ClassifyOptions(model=str(tiny_model), batch_size=8, **options))

    return call


@pytest.fixture(scope="module")
def whole(run: Callable[..., RunSummary], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(data, tmp_path_factory.mktemp("whole"), csv=True).folder


@pytest.fixture(scope="module")
def shards(run: Callable[..., RunSummary], data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    return [run(data, folder / f"shard-{number}", shard=f"{number}/{_COUNT}").folder for number in range(1, _COUNT + 1)]


def _contents(run: Path) -> dict[str, bytes]:
    names = [name for name in _SAME if (run / name).exists()]
    parts = sorted((run / "predictions").iterdir())
    return {name: (run / name).read_bytes() for name in names} | {path.name: path.read_bytes() for path in parts}


def test_the_merged_folder_is_that_of_one_run(whole: Path, shards: list[Path], tmp_path: Path) -> None:
    summary = merge(list(reversed(shards)), tmp_path / "merged", csv=True)
    assert _contents(summary.folder) == _contents(whole)
    alone, merged = (json.loads((folder / "run.json").read_bytes()) for folder in (whole, summary.folder))
    for name in _OF_A_PROCESS:
        del alone[name], merged[name]
    assert merged == alone
    assert (summary.exit_code, summary.images, summary.not_ok, summary.new_rows) == (3, _FILES, 1, 0)
    assert verify_run(summary.folder).problems == 0
    assert len(read_finished_run(summary.folder).attempts) == _COUNT
    report(ReportOptions(run=summary.folder, html=False))


def test_a_shard_says_that_it_is_one(shards: list[Path], data: Path) -> None:
    content = read_run_file(shards[1])
    assert (content.shard, content.state, content.own_rows) == ("2/4", RunState.SHARD_COMPLETE, range(1024, 2048))
    jsonschema.validate(json.loads((shards[1] / "run.json").read_bytes()), run_file_schema())
    assert content.counts is not None and content.counts.rows == 1024
    with pytest.raises(MribatchError, match=r"holds shard 2/4 of a run, not all of its rows\. Fix: .* mribatch merge"):
        read_finished_run(shards[1])


def test_a_finished_shard_is_not_made_again_and_is_no_other_shard(
    run: Callable[..., RunSummary], shards: list[Path], data: Path
) -> None:
    before = _contents(shards[0])
    assert run(data, shards[0], shard="1/4").new_rows == 0
    for other in ("2/4", "1/5", None):
        with pytest.raises(MribatchError, match=r"holds shard 1/4 of a run\. Fix: give each shard an --out of its own"):
            run(data, shards[0], shard=other)
    assert _contents(shards[0]) == before


def test_more_shards_than_parts(run: Callable[..., RunSummary], tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 8)
    outs = [run(tmp_path / "data", tmp_path / f"s{number}", shard=f"{number}/3").folder for number in (1, 2, 3)]
    assert [read_run_file(out).own_rows for out in outs] == [range(0), range(0), range(8)]
    assert len(rows(merge(outs, tmp_path / "merged").folder)) == 8


def test_what_does_not_make_a_run_is_refused_and_nothing_is_written(
    run: Callable[..., RunSummary], whole: Path, shards: list[Path], data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    five, other, empty = tmp_path / "five", tmp_path / "other", tmp_path / "empty"
    run(data, five, shard="5/5")
    run(data, other, shard="2/4", exclude=("*.png",))
    empty.mkdir()
    for given, problem in (
        (shards[:2], r"shards are missing: 3/4, 4/4\. Fix: name the folders of all shards"),
        ([*shards, shards[2]], "are the same shard, 3/4. Fix: name each shard once"),
        ([*shards[:3], five], "divide the run differently"),
        ([shards[0], other, *shards[2:]], "is of another run than .*: its patterns of files to leave out were none"),
        ([whole], "holds a whole run, not a shard of one"),
        ([empty], "is not the output folder of a run"),
        ([], "there is no shard to merge"),
    ):
        with pytest.raises(MribatchError, match=problem):
            merge(given, out)
        assert not out.exists()
    with pytest.raises(MribatchError, match="is one of the shards"):
        merge(shards, shards[0])


def test_an_unfinished_shard_is_refused(run: Callable[..., RunSummary], shards: list[Path], tmp_path: Path) -> None:
    copy = shutil.copytree(shards[3], tmp_path / "copy")
    content = json.loads((copy / "run.json").read_bytes()) | {"state": "running"}
    (copy / "run.json").write_text(json.dumps(content))
    with pytest.raises(MribatchError, match=r"the shard 4/4 in .* is not complete: .* repeat its classify command"):
        merge([*shards[:3], copy], tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("predictions/part-00003.parquet", "has changed since it was published"),
        ("listing.parquet", "listing.parquet differs from that of"),
    ],
)
def test_a_shard_that_changed_on_its_way_is_refused(
    shards: list[Path], tmp_path: Path, name: str, problem: str
) -> None:
    copy = shutil.copytree(shards[3], tmp_path / "copy")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 3] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(MribatchError, match=problem):
        merge([*shards[:3], copy], tmp_path / "out")
    shutil.copy(shards[3] / name, copy / name)
    assert merge([*shards[:3], copy], tmp_path / "out").images == _FILES, "mended, the same call goes on"


def test_an_interrupted_merge_is_resumed_and_a_complete_one_stays(
    whole: Path, shards: list[Path], tmp_path: Path
) -> None:
    class Stop(SilentProgress):
        def advance(self, files: int, failed: int) -> None:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        merge(shards, out, progress=Stop())
    first = out / "predictions/part-00000.parquet"
    kept = first.stat().st_mtime_ns
    assert merge(shards, out).images == _FILES
    assert first.stat().st_mtime_ns == kept
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert merge(shards, out).new_rows == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    assert _contents(out) == {name: content for name, content in _contents(whole).items() if name != "predictions.csv"}


def test_another_run_is_replaced_only_when_asked(
    run: Callable[..., RunSummary], shards: list[Path], tmp_path: Path
) -> None:
    draw_images(tmp_path / "data", 8)
    out = run(tmp_path / "data", tmp_path / "out").folder
    with pytest.raises(MribatchError, match="holds another run.*--overwrite"):
        merge(shards, out)
    assert len(rows(out)) == 8
    assert merge(shards, out, overwrite=True).images == _FILES
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    with pytest.raises(MribatchError, match="is not a run folder of mribatch: it holds 'thesis.txt'"):
        merge(shards, tmp_path / "mine", overwrite=True)


def test_shards_of_studies_share_a_key(run: Callable[..., RunSummary], tmp_path: Path) -> None:
    write_series(tmp_path / "data/head", 6)
    key = tmp_path / "key"
    for chosen in ({}, {"pseudonym_key": str(key)}):
        with pytest.raises(MribatchError, match="need the same key .* --pseudonym-key FILE"):
            run(tmp_path / "data", tmp_path / "s1", shard="1/2", **chosen)
    key.write_bytes(os.urandom(16).hex().encode())
    options = {"pseudonym_key": str(key), "anonymize_paths": True}
    outs = [run(tmp_path / "data", tmp_path / f"s{number}", shard=f"{number}/2", **options).folder for number in (1, 2)]
    merged, alone = (
        merge(outs, tmp_path / "merged").folder,
        run(tmp_path / "data", tmp_path / "alone", **options).folder,
    )
    assert _contents(merged) == _contents(alone) and "series.parquet" in _contents(merged)
    assert (merged / "paths.parquet").read_bytes() == (alone / "paths.parquet").read_bytes()
    assert (merged / "paths.parquet").stat().st_mode & 0o777 == 0o600


def test_on_the_command_line(tiny_model: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 12)
    shared = [tmp_path / "data", "--model", tiny_model]
    first = mribatch("classify", *shared, "--out", tmp_path / "s1", "--shard", "1/2", "--quiet")
    assert (first.returncode, first.stdout) == (0, "")
    second = mribatch("classify", *shared, "--out", tmp_path / "s2", "--shard", "2/2")
    assert "Shard 2/2: 12 images of 12 listed files: 12 ok, 0 failed" in second.stdout
    assert "mribatch report" not in second.stdout
    merged = mribatch("merge", tmp_path / "s1", tmp_path / "s2", "--out", tmp_path / "out", "--json")
    assert (merged.returncode, json.loads(merged.stdout)["images"]) == (0, 12)
    wrong = mribatch("classify", *shared, "--out", tmp_path / "s3", "--shard", "1/2", "--csv")
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "Error: --shard makes only some of the rows. Fix: give --csv and --xlsx to mribatch merge instead\n",
    )
