"""--add-new: a folder that has grown is added to its run in parts of their own; nothing that was there changes."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow.parquet as pq
import pytest

from mribatch.core.errors import ExitCode, Interrupted, MribatchError
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.run_file import read_finished_run, run_file_schema
from mribatch.pipeline.output.summary import RunSummary
from mribatch.pipeline.progress import SilentProgress
from mribatch.pipeline.run import classify
from mribatch.report.measure import ReportOptions, report
from tests.folders import draw_images, mribatch, rows

Classify = Callable[..., RunSummary]


@pytest.fixture
def tiny(tiny_model: Path) -> Classify:
    def call(inputs: Sequence[Path], out: Path, progress: Any = None, **options: Any) -> RunSummary:
        chosen: dict[str, Any] = {"model": str(tiny_model), "batch_size": 8} | options
        return classify(inputs, out, ClassifyOptions(**chosen), progress)

    return call


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return [path.read_bytes() for path in draw_images(tmp_path_factory.mktemp("few"), 16, size=16)]


@pytest.fixture
def put(images: list[bytes], tmp_path: Path) -> Callable[..., Path]:
    """Write so many files more into a folder; names begin with a letter, so that later files may sort first."""

    def call(letter: str, count: int) -> Path:
        folder = tmp_path / "data" / "glioma"
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (folder / f"{letter}{number:05d}.jpg").write_bytes(images[number % 16])
        return tmp_path / "data"

    return call


def frozen(out: Path) -> dict[str, tuple[int, int, bytes]]:
    """What must not change of the part files."""
    parts = sorted((out / "predictions").iterdir())
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) for path in parts}


class Notes(SilentProgress):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def test_each_night_adds_parts_of_its_own(tiny: Classify, put: Callable[..., Path], tmp_path: Path) -> None:
    out, notes = tmp_path / "out", Notes()
    data, parts = put("m", 1100), {}
    assert tiny([data], out, notes, add_new=True, csv=True).new_rows == 1100  # the same command on the first day
    report(ReportOptions(run=out, html=False))
    for letter, count in (("z", 30), ("a", 1100), ("n", 1)):
        parts = frozen(out)
        put(letter, count)
        (data / f"{letter}.txt").touch()
        assert tiny([data], out, notes, add_new=True).new_rows == count
        assert parts.items() <= frozen(out).items()
        assert not list(out.glob("metrics.*")) and not (out / "predictions.csv").exists()
    assert [len(pq.read_table(path)) for path in sorted(out.glob("predictions/*"))] == [1024, 76, 30, 1024, 76, 1]
    got = rows(out)
    assert [row["index"] for row in got] == list(range(2231))
    assert [row["path"][7] for row in got] == ["m"] * 1100 + ["z"] * 30 + ["a"] * 1100 + ["n"]
    assert {row["status"] for row in got} == {"ok"} and {row["label"] for row in got} == {"glioma_tumor"}
    assert pq.read_table(out / "listing.parquet").column("path").to_pylist() == [row["path"] for row in got]
    assert pq.read_table(out / "skipped.parquet").num_rows == 3
    assert notes.texts == [
        f"added to the run: {new} new, {files} files in all"
        for new, files in (("30", "1,130"), ("1,100", "2,230"), ("1", "2,231"))
    ]
    facts = read_finished_run(out)
    jsonschema.validate(json.loads((out / "run.json").read_bytes()), run_file_schema())
    assert facts.increments is not None and facts.counts is not None
    assert [(one.first_index, one.files) for one in facts.increments] == [
        (0, 1100),
        (1100, 30),
        (1130, 1100),
        (2230, 1),
    ]
    assert facts.increments[0].listing_sha256 == facts.fingerprint["listing"]
    assert facts.increments[-1].listing_sha256 == facts.listing.sha256
    assert (facts.counts.rows, facts.listing.files, len(facts.attempts)) == (2231, 2231, 4)
    measured = report(ReportOptions(run=out, html=False)).file
    assert measured.levels[0].n == 2231


def test_nothing_new_changes_nothing_and_says_so(tiny: Classify, put: Callable[..., Path], tmp_path: Path) -> None:
    out, notes = tmp_path / "out", Notes()
    data = put("m", 20)
    tiny([data], out)
    put("a", 5)
    tiny([data], out, add_new=True)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for add_new in (True, True, False):
        summary = tiny([data], out, notes, add_new=add_new)
        assert (summary.new_rows, summary.files) == (0, 25)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert notes.texts == ["nothing to add: the inputs hold the 25 files that the run has"] * 2


def test_changed_and_vanished_files_are_named_and_refused(
    tiny: Classify, put: Callable[..., Path], tmp_path: Path
) -> None:
    out, data = tmp_path / "out", put("m", 20)
    tiny([data], out)
    put("a", 5)
    for number in range(7):
        os.utime(data / f"glioma/m{number:05d}.jpg", (1, 1))
    (data / "glioma/m00019.jpg").unlink()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(MribatchError) as caught:
        tiny([data], out, add_new=True)
    first = ", ".join(f"'glioma/m{number:05d}.jpg'" for number in range(5))
    assert str(caught.value) == (
        "only new files can be added, but files of the run differ: "
        f"7 changed (size, time or label): {first} and 2 more; 1 gone: 'glioma/m00019.jpg'. "
        "Fix: restore them, or classify the images again into another folder"
    )
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_without_the_option_a_grown_folder_is_another_run_and_the_fix_names_it(
    tiny: Classify, put: Callable[..., Path], tmp_path: Path
) -> None:
    data = put("m", 20)
    tiny([data], tmp_path / "out")
    put("a", 1)
    with pytest.raises(MribatchError, match=r"20 files then, 21 now. Fix: add the new files with --add-new, name"):
        tiny([data], tmp_path / "out")
    with pytest.raises(MribatchError, match="the batch size was 8, now it is 4"):
        tiny([data], tmp_path / "out", add_new=True, batch_size=4)
    with pytest.raises(MribatchError, match="--add-new and --overwrite exclude each other"):
        tiny([data], tmp_path / "out", add_new=True, overwrite=True)


@pytest.mark.parametrize("add_new", [False, True])
def test_an_interrupted_growth_is_resumed(
    tiny: Classify, put: Callable[..., Path], tmp_path: Path, add_new: bool
) -> None:
    class Stop(SilentProgress):
        def advance(self, files: int, failed: int) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    data, out = put("m", 1050), tmp_path / "out"
    with pytest.raises(Interrupted, match="8 of 1,050 images are kept"):
        tiny([data], out, Stop())
    put("a", 10)
    with pytest.raises(Interrupted, match="16 of 1,060 images are kept"):
        tiny([data], out, Stop(), add_new=True)
    assert tiny([data], out, add_new=add_new).new_rows == 1044
    assert [row["index"] for row in rows(out)] == list(range(1060))
    assert [len(pq.read_table(path)) for path in sorted(out.glob("predictions/*"))] == [1024, 26, 10]


def test_a_growth_that_was_killed_before_it_was_recorded_begins_again(
    tiny: Classify, put: Callable[..., Path], tmp_path: Path
) -> None:
    data, out = put("m", 20), tmp_path / "out"
    tiny([data], out)
    shutil.copytree(out, tmp_path / "before")
    put("a", 5)
    tiny([data], out, add_new=True)
    shutil.copy(out / "listing.parquet", tmp_path / "before")  # replaced, and then run.json was not
    tiny([data], tmp_path / "before", add_new=True)
    assert (tmp_path / "before" / "listing.parquet").read_bytes() == (out / "listing.parquet").read_bytes()
    assert rows(tmp_path / "before") == rows(out)


def test_names_that_are_not_utf8_and_labels_from_a_table(
    tiny: Classify, put: Callable[..., Path], images: list[bytes], tmp_path: Path
) -> None:
    data, labels, out = put("m", 3), tmp_path / "labels.csv", tmp_path / "out"
    for name in (b"\xff.jpg", b"\\xff.jpg"):  # two names that look the same
        with open(bytes(data / "glioma") + b"/" + name, "wb") as stream:
            stream.write(images[0])
    labels.write_text("path,label\nglioma/m00000.jpg,glioma\n")
    tiny([data], out, labels=str(labels))
    put("z", 1)
    labels.write_text("path,label\nglioma/m00000.jpg,glioma\nglioma/z00000.jpg,no\n")
    assert tiny([data], out, labels=str(labels), add_new=True).new_rows == 1
    assert rows(out)[-1]["label"] == "no_tumor"
    labels.write_text("path,label\nglioma/m00000.jpg,no\n")
    with pytest.raises(MribatchError, match=r"2 changed .*: 'glioma/m00000.jpg', 'glioma/z00000.jpg'\. Fix"):
        tiny([data], out, labels=str(labels), add_new=True)


def test_on_the_command_line(put: Callable[..., Path], tiny_model: Path, tmp_path: Path) -> None:
    arguments = ("classify", put("m", 3), "--out", tmp_path / "out", "--model", tiny_model, "--add-new")
    assert mribatch(*arguments).returncode == ExitCode.OK
    put("a", 2)
    grown = mribatch(*arguments)
    assert grown.returncode == ExitCode.OK, grown.stderr
    assert "added to the run: 2 new, 5 files in all" in grown.stderr and "5 files: 5 ok" in grown.stdout
