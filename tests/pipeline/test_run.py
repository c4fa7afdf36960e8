"""The whole way: a folder in, one row per file out; killed, interrupted, resumed, refused."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mribatch.core.bundle import GOLDEN_FILE
from mribatch.core.errors import ExitCode, Interrupted, MribatchError
from mribatch.pipeline.executor.part_maker import make_rows
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.parts import part_path
from mribatch.pipeline.output.summary import RunSummary
from mribatch.pipeline.progress import SilentProgress
from mribatch.pipeline.records import Prediction, Status
from mribatch.pipeline.run import classify
from tests.broken_files import broken_files, good_files
from tests.folders import draw_images, rows, table
from tests.make_models import make_tiny, set_golden
from tests.studies import write_report, write_slice

Classify = Callable[..., RunSummary]


@pytest.fixture
def tiny(tiny_model: Path) -> Classify:
    """classify with the tiny model."""

    def call(inputs: Path | Sequence[Path | str], out: Path, progress: Any = None, **options: Any) -> RunSummary:
        asked: dict[str, Any] = {"model": str(tiny_model), "batch_size": 8} | options
        return classify([inputs] if isinstance(inputs, Path) else inputs, out, ClassifyOptions(**asked), progress)

    return call


def state(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "run.json").read_text())
    return content


def test_one_row_per_file_in_listing_order(tiny: Classify, tmp_path: Path) -> None:
    paths = draw_images(tmp_path / "data", 37)
    summary = tiny(tmp_path / "data", tmp_path / "out")
    got = rows(tmp_path / "out")
    assert [row["path"] for row in got] == [str(path.relative_to(tmp_path / "data")) for path in paths]
    assert [row["index"] for row in got] == list(range(37))
    assert {row["status"] for row in got} == {"ok"}
    assert [row["label"] for row in got] == [path.parent.name for path in paths]
    assert all(row["width"] == row["height"] == 24 and len(row["sha256"]) == 64 for row in got)
    assert (summary.files, summary.exit_code, summary.new_rows) == (37, ExitCode.OK, 37)
    run_json = state(tmp_path / "out")
    assert (run_json["state"], run_json["backend"], run_json["decoder"]) == ("complete", "onnxruntime", "opencv")
    assert run_json["counts"]["by_status"] == {"ok": 37}
    assert run_json["proof"]["max_difference"] <= 1e-4


def test_every_broken_file_has_its_row_and_changes_no_other(tiny: Classify, tmp_path: Path) -> None:
    data = tmp_path / "data"
    draw_images(data, 30)
    tiny(data, tmp_path / "clean")
    expected = {}
    for name, (content, status) in broken_files().items():
        path = data / CLASS_OF_BROKEN / f"{name}.jpg"
        path.write_bytes(content)
        expected[f"{CLASS_OF_BROKEN}/{name}.jpg"] = status
    for name, content in good_files().items():
        (data / CLASS_OF_BROKEN / f"good_{name}.png").write_bytes(content)
    summary = tiny(data, tmp_path / "out")
    got = {row["path"]: row for row in rows(tmp_path / "out")}
    assert len(got) == 30 + len(expected) + len(good_files())
    assert {path: row["status"] for path, row in got.items() if row["status"] != "ok"} == expected
    assert all(row["error"] for row in got.values() if row["status"] != "ok")
    assert summary.exit_code is ExitCode.ROWS_NOT_OK
    for row in rows(tmp_path / "clean"):
        assert {**got[row["path"]], "index": 0} == {**row, "index": 0}


CLASS_OF_BROKEN = "glioma_tumor"


def test_a_row_does_not_depend_on_batch_size_or_threads(tiny: Classify, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 29)
    first = tiny(tmp_path / "data", tmp_path / "a", batch_size=8, threads=1)
    second = tiny(tmp_path / "data", tmp_path / "b", batch_size=5, threads=3)
    assert first.files == second.files
    assert table(tmp_path / "a").equals(table(tmp_path / "b"))


def test_files_of_every_odd_kind_have_a_row(tiny: Classify, tmp_path: Path) -> None:
    data = tmp_path / "data"
    draw_images(data, 3)
    os.mkfifo(data / "pipe.jpg")
    (data / "broken_link.jpg").symlink_to("nowhere")
    (data / "dark\nline.jpg").write_bytes(b"")
    with open(bytes(data) + b"/\xff.jpg", "wb") as stream:
        stream.write((next((data / "no_tumor").iterdir())).read_bytes())
    tiny(data, tmp_path / "out")
    got = {row["path"]: row for row in rows(tmp_path / "out")}
    assert got["pipe.jpg"]["status"] == got["broken_link.jpg"]["status"] == "unreadable"
    assert "No such file" in got["broken_link.jpg"]["error"]
    assert got["dark\nline.jpg"]["status"] == "empty"
    assert (got["\\xff.jpg"]["status"], got["\\xff.jpg"]["flags"]) == ("ok", ["name_escaped"])


def test_a_file_gone_between_listing_and_reading_is_unreadable(tiny: Classify, tmp_path: Path) -> None:
    paths = draw_images(tmp_path / "data", 6)

    class Remover(SilentProgress):
        def start(self, files: int, done: int) -> None:
            paths[2].unlink()

    tiny(tmp_path / "data", tmp_path / "out", Remover())
    assert [row["status"] for row in rows(tmp_path / "out")] == ["ok", "ok", "unreadable", "ok", "ok", "ok"]


def test_a_file_that_takes_too_long_is_a_timeout(tiny: Classify, tmp_path: Path) -> None:
    import cv2

    draw_images(tmp_path / "data", 6)
    noise = np.random.default_rng(1).integers(0, 256, (3000, 3000), np.uint8)
    cv2.imwrite(str(tmp_path / "data" / "noise.jp2"), noise)  # seconds of decoding
    tiny(tmp_path / "data", tmp_path / "out", timeout_s=0.3, threads=1)
    got = {row["path"]: row for row in rows(tmp_path / "out")}
    assert got["noise.jp2"]["status"] == "timeout"
    assert got["noise.jp2"]["error"] == "reading and decoding took longer than 0.3 s"
    assert sum(row["status"] == "ok" for row in got.values()) == 6


def test_an_answer_that_is_no_number_is_a_row_of_its_own(tmp_path: Path) -> None:
    import cv2

    model = make_tiny(tmp_path / "nan", trained=True, nan_on_white=True)
    draw_images(tmp_path / "data", 4)
    cv2.imwrite(str(tmp_path / "data" / "white.png"), np.full((8, 8), 255, np.uint8))
    summary = classify([tmp_path / "data"], tmp_path / "out", ClassifyOptions(model=str(model)))
    got = rows(tmp_path / "out")
    assert [row["status"] for row in got] == ["ok"] * 4 + ["invalid_output"]
    assert got[-1]["confidence"] is None
    assert summary.exit_code is ExitCode.ROWS_NOT_OK


def test_a_model_that_does_not_reproduce_its_golden_answers_writes_no_row(tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 4)
    model = make_tiny(tmp_path / "tiny", trained=True)
    golden = dict(np.load(model / GOLDEN_FILE))
    golden["probabilities"] = np.ascontiguousarray(golden["probabilities"][:, ::-1])
    np.savez(model / GOLDEN_FILE, **golden)
    set_golden(model, (model / GOLDEN_FILE).read_bytes())
    with pytest.raises(
        MribatchError, match=r"does not reproduce the golden answers of 'tiny': max \|Δp\| .*limit 1e-04"
    ):
        classify([tmp_path / "data"], tmp_path / "out", ClassifyOptions(model=str(model)))
    assert not list((tmp_path / "out" / "predictions").glob("*"))
    assert state(tmp_path / "out")["state"] == "stopped"


def test_a_complete_run_is_only_summed_up_again(tiny: Classify, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 10)
    (tmp_path / "data" / "broken.jpg").write_bytes(b"text")
    first = tiny(tmp_path / "data", tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    again = tiny(tmp_path / "data", tmp_path / "out")
    assert (again.exit_code, again.counts, again.new_rows) == (first.exit_code, first.counts, 0)
    assert "The run was complete already." in again.to_text()
    assert before.items() <= {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}.items()


class StopAfter(SilentProgress):
    """Sends this process a signal once so many files have their row."""

    def __init__(self, files: int, number: signal.Signals) -> None:
        self._left = files
        self._number = number

    def advance(self, files: int, failed: int) -> None:
        self._left -= files
        if self._left <= 0:
            os.kill(os.getpid(), self._number)
            self._left = 10**9


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,200 files: three parts, the last of them short. Not to be changed."""
    folder = tmp_path_factory.mktemp("many")
    data = folder / "data"
    images = [path.read_bytes() for path in draw_images(folder / "few", 16, size=16)]
    for number in range(2200):
        path = data / ("no" if number % 2 else "glioma") / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images[number % 16] if number % 97 else b"broken")
    return data


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_between_batches_and_the_same_command_goes_on(
    tiny: Classify, many: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    tiny(many, tmp_path / "whole")
    with pytest.raises(Interrupted) as caught:
        tiny(many, tmp_path / "out", StopAfter(1500, number))
    assert caught.value.exit_code == code
    assert "1,504 of 2,200 images are kept. Fix: type the same command again" in str(caught.value)
    assert state(tmp_path / "out")["state"] == "interrupted"
    first_part = part_path(tmp_path / "out", 0)
    kept = first_part.stat()
    assert not part_path(tmp_path / "out", 1).exists()
    summary = tiny(many, tmp_path / "out")
    assert summary.new_rows == 2200 - 1504
    assert (first_part.stat().st_mtime_ns, first_part.stat().st_ino) == (kept.st_mtime_ns, kept.st_ino)
    assert table(tmp_path / "out").equals(table(tmp_path / "whole"))
    assert [attempt["rows"] for attempt in state(tmp_path / "out")["attempts"]] == [1504, 696]


def test_stopped_at_any_moment_a_run_keeps_all_rows_and_ends_with_the_same_bytes(
    tiny: Classify, many: Path, tmp_path: Path
) -> None:
    tiny(many, tmp_path / "whole")
    random = np.random.default_rng(5)
    for attempt in range(2):
        out, kept = tmp_path / f"out{attempt}", 0
        frozen: dict[Path, int] = {}
        while kept < 2200:
            progress = StopAfter(int(random.integers(1, 900)), signal.SIGTERM)
            try:
                kept += tiny(many, out, progress).new_rows
            except Interrupted as interrupted:
                kept = sum(one["rows"] for one in state(out)["attempts"])
                assert f"{kept:,} of 2,200 images are kept" in str(interrupted)
            now = {path: path.stat().st_mtime_ns for path in out.glob("predictions/part-*.parquet")}
            assert frozen.items() <= now.items(), "a finished part was touched"
            frozen = now
        assert kept == 2200
        assert folder_bytes(out / "predictions") == folder_bytes(tmp_path / "whole" / "predictions")


def test_what_was_kept_counts_among_the_first_thousand_failures(
    tiny: Classify, all_broken: Path, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted, match="640 of 1,200 images are kept"):
        tiny(all_broken, tmp_path / "out", StopAfter(640, signal.SIGINT))
    with pytest.raises(MribatchError, match=r"the first 1,000 files all failed \(empty 1,000\)"):
        tiny(all_broken, tmp_path / "out")


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_auto_means_what_it_meant_when_the_run_began(tiny: Classify, many: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        tiny(many, tmp_path / "out", StopAfter(1100, signal.SIGINT), batch_size=4)
    summary = tiny(many, tmp_path / "out", batch_size=None)
    assert (state(tmp_path / "out")["batch_size"], summary.files) == (4, 2200)


def touch_one(data: Path) -> dict[str, Any]:
    os.utime(next((data / "no").iterdir()), (1, 1))
    return {}


def one_more(data: Path) -> dict[str, Any]:
    (data / "new.png").write_bytes(b"")
    return {}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (touch_one, "the listing differs: a name, size, time or label of the 2,200 files has changed"),
        (one_more, "the listing differs: 2,200 files then, 2,201 now"),
        (lambda data: {"batch_size": 16}, "the batch size was 8, now it is 16"),
        (lambda data: {"labels": "none"}, "the listing differs: a name, size, time or label"),
        (lambda data: {"max_pixels": 5}, "the maximum of pixels per image was 100000000, now it is 5"),
        (
            lambda data: {"model": str(make_tiny(data.parent / "other", seed=2))},
            "the model tiny has changed since: its bundle was ",
        ),
    ],
)
def test_anything_else_is_refused_and_named(
    tiny: Classify, many: Path, tmp_path: Path, change: Callable[[Path], dict[str, Any]], field: str
) -> None:
    many = Path(shutil.copytree(many, tmp_path / "copy"))
    with pytest.raises(Interrupted):
        tiny(many, tmp_path / "out", StopAfter(1100, signal.SIGINT))
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    options = change(many)
    with pytest.raises(MribatchError) as caught:
        tiny(many, tmp_path / "out", **options)
    assert f"{tmp_path / 'out'} holds another run: {field}" in str(caught.value)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_a_library_of_another_version_is_refused(tiny: Classify, many: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        tiny(many, tmp_path / "out", StopAfter(1100, signal.SIGINT))
    content = state(tmp_path / "out")
    content["fingerprint"]["backend_version"] = "0.0.1"
    (tmp_path / "out" / "run.json").write_text(json.dumps(content))
    with pytest.raises(MribatchError, match=r"the version of the backend.s library was 0\.0\.1, now it is "):
        tiny(many, tmp_path / "out")


def test_overwrite_replaces_our_run_and_leaves_other_files(tiny: Classify, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 5)
    tiny(tmp_path / "data", tmp_path / "out", csv=True)
    (tmp_path / "out" / "my notes.txt").write_text("keep me")
    draw_images(tmp_path / "data", 9)
    assert tiny(tmp_path / "data", tmp_path / "out", overwrite=True).files == 9
    assert not (tmp_path / "out" / "predictions.csv").exists()
    assert (tmp_path / "out" / "my notes.txt").read_text() == "keep me"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "content", ['{"tool": "another"}', '{"tool": "mribatch"}', '{"tool": "mribatch", "state": "x"}']
)
@pytest.mark.parametrize("foreign", ["thesis.docx", "run.json"])
def test_a_folder_that_is_not_ours_is_never_touched(
    tiny: Classify, tmp_path: Path, overwrite: bool, foreign: str, content: str
) -> None:
    draw_images(tmp_path / "data", 5)
    out = tmp_path / "out"
    out.mkdir()
    (out / foreign).write_text(content)
    with pytest.raises(MribatchError, match="is not a run folder of mribatch"):
        tiny(tmp_path / "data", out, overwrite=overwrite)
    assert [path.name for path in out.iterdir()] == [foreign]


def test_nothing_is_written_where_there_is_no_image(tiny: Classify, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.txt").write_text("x")
    with pytest.raises(MribatchError, match="there is no image in the inputs"):
        tiny(tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_second_run_is_kept_out_while_the_first_lives(tiny: Classify, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 5)
    out = tmp_path / "out"
    code = (
        "import sys, time; from pathlib import Path; from mribatch.core.files import FolderLock\n"
        "with FolderLock(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    )
    out.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"locked\n"
        with pytest.raises(MribatchError, match="another mribatch run is writing to"):
            tiny(tmp_path / "data", out)
    finally:
        holder.kill()
        holder.communicate()
    assert tiny(tmp_path / "data", out).files == 5


@pytest.fixture
def all_broken(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(1200):
        (data / f"{number:04d}.jpg").write_bytes(b"")
    return data


def test_a_thousand_failures_at_the_start_stop_the_run(tiny: Classify, all_broken: Path, tmp_path: Path) -> None:
    with pytest.raises(MribatchError, match=r"the first 1,000 files all failed \(empty 1,000\).*--keep-going"):
        tiny(all_broken, tmp_path / "out")
    assert state(tmp_path / "out")["state"] == "stopped"
    assert tiny(all_broken, tmp_path / "out", keep_going=True).not_ok == 1200


def test_one_good_file_among_the_first_thousand_is_enough(tiny: Classify, all_broken: Path, tmp_path: Path) -> None:
    (image,) = draw_images(tmp_path / "one", 1)
    (all_broken / "0500.jpg").write_bytes(image.read_bytes())
    assert tiny(all_broken, tmp_path / "out").not_ok == 1199


def test_labels_that_match_in_part_are_said(tiny: Classify, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 6, classes=("glioma", "unsure", "no"))
    summary = tiny(tmp_path / "data", tmp_path / "out")
    assert [row["label"] for row in rows(tmp_path / "out")] == ["glioma_tumor"] * 2 + ["no_tumor"] * 2 + [None] * 2
    assert summary.unknown_labels == {"unsure": 2}
    assert "No label, since no class of the model: unsure (2)" in summary.to_text()


def test_labels_from_a_table_and_none(tiny: Classify, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 3, classes=("flat",))
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\nflat/slice_00001.jpg,pituitary\n")
    tiny(tmp_path / "data", tmp_path / "out", labels=str(labels))
    assert [row["label"] for row in rows(tmp_path / "out")] == [None, "pituitary_tumor", None]
    labels.write_text("path,label\nelsewhere.jpg,pituitary\n")
    with pytest.raises(MribatchError, match="no line of .* gives one of the 3 files a class"):
        tiny(tmp_path / "data", tmp_path / "other", labels=str(labels))
    assert not (tmp_path / "other").exists()


def test_lines_of_a_table_without_a_file_are_told_and_counted(tiny: Classify, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 2, classes=("flat",))
    labels = tmp_path / "labels.csv"
    labels.write_text("\ufeffpath,label\r\nflat\\slice_00001.jpg,no\r\ngone.jpg,no\r\nC:\\x.jpg,glioma\r\n", "utf-8")
    summary = tiny(tmp_path / "data", tmp_path / "out", labels=str(labels))
    assert "Lines of the labels table that match no listed file: 2 (gone.jpg, C:\\x.jpg)" in summary.to_text()
    assert summary.to_json()["unmatched_lines"] == 2
    listing = state(tmp_path / "out")["listing"]
    assert (listing["unmatched_lines"], listing["unmatched_first"]) == (2, ["gone.jpg", "C:\\x.jpg"])
    assert [row["label"] for row in rows(tmp_path / "out")] == [None, "no_tumor"]
    labels.write_text("path,label\ngone.jpg,no\nflat/slice_00000.jpg,gliom\n")
    with pytest.raises(
        MribatchError, match="1 paths are not in the listing, such as 'gone.jpg'; the labels 'gliom' are"
    ):
        tiny(tmp_path / "data", tmp_path / "other", labels=str(labels))


def test_classes_in_another_spelling_than_the_folders_are_matched(tmp_path: Path) -> None:
    model = make_tiny(tmp_path / "tiny", trained=True, classes=("glioma", "meningioma", "no_tumor", "pituitary"))
    draw_images(tmp_path / "data", 12, classes=("glioma_tumor", "meningioma_tumor", "notumor", "pituitary_tumor"))
    summary = classify([tmp_path / "data"], tmp_path / "out", ClassifyOptions(model=str(model)))
    assert (summary.counts.labelled, summary.unknown_labels) == (12, {})
    assert "WARNING" not in summary.to_text()


def test_labels_that_match_no_class_are_said_first_and_an_alias_gives_them(tiny: Classify, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 6, classes=("gliomaa", "Astro", "no"))
    summary = tiny(tmp_path / "data", tmp_path / "out")
    text = summary.to_text().splitlines()
    assert text[0] == "WARNING: 4 of 6 files have no label, since no class of the model is named like these:"
    assert text[2] == "  gliomaa (2): did you mean glioma_tumor? --alias 'gliomaa=glioma_tumor'"
    assert not any(line.startswith("No label, since") for line in text)
    chosen = {"alias": ("gliomaa=glioma_tumor", "astro=glioma")}
    with pytest.raises(MribatchError, match="its aliases of classes were none, now they are astro=glioma_tumor"):
        tiny(tmp_path / "data", tmp_path / "out", **chosen)
    summary = tiny(tmp_path / "data", tmp_path / "out", overwrite=True, **chosen)
    assert summary.counts.labelled == 6 and "WARNING" not in summary.to_text()
    assert tiny(tmp_path / "data", tmp_path / "out", **chosen).new_rows == 0
    with pytest.raises(MribatchError, match="holds another run"):
        tiny(tmp_path / "data", tmp_path / "out")


def test_what_is_excluded_is_part_of_what_a_resumed_run_must_match(tiny: Classify, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 8)
    before = tiny(tmp_path / "data", tmp_path / "whole")
    assert set(state(tmp_path / "whole")["fingerprint"]).isdisjoint({"exclude", "alias"})
    summary = tiny(tmp_path / "data", tmp_path / "out", exclude=("glioma*/",))
    assert (before.files, summary.files, summary.skipped) == (8, 6, {"excluded": 1})
    assert tiny(tmp_path / "data", tmp_path / "out", exclude=["glioma*/"]).new_rows == 0
    with pytest.raises(MribatchError, match="holds another run"):
        tiny(tmp_path / "data", tmp_path / "out")
    tiny(tmp_path / "data", tmp_path / "idle", exclude="nothing-like-it")
    with pytest.raises(MribatchError, match="its patterns of files to leave out were nothing-like-it, now they are"):
        tiny(tmp_path / "data", tmp_path / "idle")


def test_a_thousand_companions_do_not_stop_the_run(tiny: Classify, tmp_path: Path) -> None:
    (image,) = draw_images(tmp_path / "one", 1)
    (tmp_path / "data").mkdir()
    for number in range(1100):
        (tmp_path / "data" / f"._{number:04d}.jpg").write_bytes(bytes.fromhex("00051607") + b"\0" * 4092)
    for number in range(3):
        (tmp_path / "data" / f"{number:04d}.jpg").write_bytes(image.read_bytes())
    summary = tiny(tmp_path / "data", tmp_path / "out")
    assert (summary.files, summary.skipped, summary.exit_code) == (3, {"other_program": 1100}, ExitCode.OK)
    assert "Not listed (other_program 1,100): see" in summary.to_text()
    names = tmp_path / "names"
    names.write_text("".join(f"{path}\n" for path in sorted((tmp_path / "data").iterdir())))
    with pytest.raises(MribatchError, match=r"AppleDouble.*Fix: leave these files out \(see --exclude\)"):
        tiny([], tmp_path / "listed", from_file=str(names))
    assert tiny([], tmp_path / "without", from_file=str(names), exclude=("._*",)).files == 3


def test_strict_wants_every_file_that_may_be_an_image(tiny: Classify, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 4)
    for name in ("notes.txt", ".DS_Store", "mask.png"):
        (tmp_path / "data" / name).touch()
    (tmp_path / "data" / "z.jpg").symlink_to("no_tumor/slice_00002.jpg")
    options = {"strict": True, "exclude": ("mask.png",)}
    summary = tiny(tmp_path / "data", tmp_path / "out", **options)
    assert summary.skipped == {"suffix": 1, "other_program": 1, "excluded": 1, "duplicate": 1}
    assert summary.exit_code is ExitCode.OK
    write_slice(tmp_path / "data" / "ct.dcm", Modality="CT")
    assert tiny(tmp_path / "data", tmp_path / "out", **options).exit_code is ExitCode.OK  # the listing is the first's
    assert tiny(tmp_path / "data", tmp_path / "new", **options).exit_code is ExitCode.ROWS_NOT_OK
    assert tiny(tmp_path / "data", tmp_path / "new", exclude=("mask.png",)).exit_code is ExitCode.OK


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"alias": ("gbm",)}, "--alias 'gbm' is not FOLDER=CLASS"),
        ({"alias": "=glioma"}, "--alias '=glioma' is not FOLDER=CLASS"),
        ({"alias": ("gbm=glioma",), "labels": "none"}, "--alias names labels, and there are none"),
        ({"exclude": ("!x",)}, "the pattern '!x' begins with '!'"),
        ({"null": True}, "--null says how the names in a list end"),
    ],
)
def test_options_of_the_listing_are_checked(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(MribatchError, match=problem):
        ClassifyOptions(**options)


def test_skipped_files_are_counted_by_suffix_with_their_first_names(tiny: Classify, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 2)
    for number in range(30):
        (tmp_path / "data" / f"{number:02d}.txt").write_text("x")
    write_report(tmp_path / "data" / "scan.dcm")
    (tmp_path / "data" / "README").write_text("x")
    summary = tiny(tmp_path / "data", tmp_path / "out")
    listing = state(tmp_path / "out")["listing"]
    assert listing["skipped_by_suffix"] == {".txt": 30, "(none)": 1}
    assert listing["skipped_first"] == [f"{number:02d}.txt" for number in range(20)]
    assert summary.skipped == {"suffix": 31, "dicom_no_pixels": 1}
    skipped = pq.read_table(tmp_path / "out" / "skipped.parquet").to_pylist()
    assert {row["path"]: row["reason"] for row in skipped}["scan.dcm"] == "dicom_no_pixels"
    assert len(skipped) == 32


def test_the_csv_copy_has_the_same_rows_and_runs_no_formula(tiny: Classify, tmp_path: Path) -> None:
    import csv

    draw_images(tmp_path / "data", 3)
    (tmp_path / "data" / "=cmd|' C calc'!A0.jpg").write_bytes(b"")
    tiny(tmp_path / "data", tmp_path / "out")
    tiny(tmp_path / "data", tmp_path / "out", csv=True)  # also afterwards
    with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8-sig", newline="") as stream:
        got = list(csv.DictReader(stream))
    assert [row["status"] for row in got] == ["empty", "ok", "ok", "ok"]
    assert got[0]["path"] == "'=cmd|' C calc'!A0.jpg"
    assert got[0]["confidence"] == ""
    assert got[1]["model"] == "tiny"


def test_every_output_of_an_untrained_model_says_so(tmp_path: Path) -> None:
    model = make_tiny(tmp_path / "tiny", trained=False)
    draw_images(tmp_path / "data", 3)
    summary = classify([tmp_path / "data"], tmp_path / "out", ClassifyOptions(model=str(model), csv=True))
    text = "is not a trained model"
    assert text in summary.to_text() and text in summary.to_json()["notice"]
    assert text in state(tmp_path / "out")["notice"]
    assert text in pq.read_schema(part_path(tmp_path / "out", 0)).metadata[b"mribatch.notice"].decode()
    assert "not trained" in (tmp_path / "out" / "predictions.csv").read_text()
    assert "Labels agree" not in summary.to_text()


class FakePair:
    """A five-line decoder that is a five-line classifier, too."""

    calls_at_once = 1
    training_images = training_look = None  # it stands for the bundle as well

    def __init__(self, fails: bool) -> None:
        self.fails = fails

    def __enter__(self) -> "FakePair":
        return self

    def __exit__(self, *_: object) -> None: ...

    def batches(self, groups: Any) -> Iterator[Any]:
        from mribatch.pipeline.records import DecodedBatch, DecodedFile, Verdict

        for group in groups:
            verdict = Verdict(Status.EMPTY, "no bytes") if self.fails else Verdict(Status.OK)
            yield DecodedBatch(tuple(DecodedFile(file, verdict) for file in group), np.zeros((4, 2, 2, 1), np.uint8))

    def __call__(self, images: Any) -> Any:
        assert not self.fails, "a batch without a good file needs no inference"
        return np.full((4, 2), 0.5, np.float32)


@pytest.mark.parametrize("fails", [False, True])
def test_run_passes_each_batch_through_every_stage(fails: bool) -> None:
    from mribatch.pipeline.inference.in_process import Backend, DecoderAtWork, InProcessClassifier
    from mribatch.pipeline.records import Choice, ImageFile
    from mribatch.pipeline.stopwatch import Stopwatch

    class Sink(list[Prediction]):
        def write(self, rows: Sequence[Prediction]) -> None:
            self.extend(rows)

    groups = [[ImageFile(index, 0, str(index), b"") for index in group] for group in ((0, 1, 2, 3), (4, 5))]
    sink = Sink()
    pair: Any = FakePair(fails)
    chosen = Choice("fake", "for a test")
    backend = Backend(pair, chosen, pytest.fail)
    with InProcessClassifier(
        pair,
        4,
        open_backend=lambda: contextlib.nullcontext(backend),
        open_decoder=lambda choice: contextlib.nullcontext(DecoderAtWork(pair, chosen)),
    ) as classify_files:
        got = [len(batch) for batch in make_rows(groups, classify_files, ("a", "b"), sink, Stopwatch())]
    assert got == [4, 2]
    assert [row.decoded.file.index for row in sink] == list(range(6))
    assert {row.predicted for row in sink} == ({None} if fails else {"a"})


def kill_at(command: list[str], seconds: float) -> None:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def killed_again_and_again(many: Path, model: Path, tmp_path: Path, kills: int, longest_s: float) -> None:
    """SIGKILL at random moments, then the same command: the uninterrupted run's table, finished parts untouched."""
    random = np.random.default_rng(7)
    command = [
        sys.executable,
        "-m",
        "mribatch.cli",
        "classify",
        str(many),
        "--model",
        str(model),
        "--batch-size",
        "8",
        "--out",
    ]
    classify([many], tmp_path / "whole", ClassifyOptions(model=str(model), batch_size=8))
    seen: dict[Path, tuple[int, int]] = {}
    whole, finished = table(tmp_path / "whole"), 0
    for kill in range(kills):
        out = tmp_path / f"out{finished}"
        kill_at([*command, str(out)], float(random.uniform(0.1, longest_s)))
        now = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.glob("predictions/part-*.parquet")}
        assert seen.items() <= now.items(), f"kill {kill} touched a finished part"
        seen = now
        if len(now) == 3:  # complete: begin another run
            assert classify([many], out, ClassifyOptions(model=str(model), batch_size=8)).files == 2200
            assert table(out).equals(whole)
            finished, seen = finished + 1, {}
    out = tmp_path / f"out{finished}"
    end = subprocess.run([*command, str(out)], capture_output=True, text=True, check=False)
    assert end.returncode == ExitCode.ROWS_NOT_OK, end.stderr
    assert table(out).equals(whole)
    assert {path.name for path in out.iterdir()} == {
        ".lock",
        "listing.parquet",
        "parts.sha256",
        "predictions",
        "run.json",
        "skipped.parquet",
    }
    assert len(list((out / "predictions").iterdir())) == 3


def test_kill_9_at_any_moment_loses_nothing(many: Path, tiny_model: Path, tmp_path: Path) -> None:
    killed_again_and_again(many, tiny_model, tmp_path, kills=3, longest_s=1.6)


@pytest.mark.slow
def test_kill_9_at_a_hundred_moments_loses_nothing(many: Path, tiny_model: Path, tmp_path: Path) -> None:
    killed_again_and_again(many, tiny_model, tmp_path, kills=100, longest_s=2.0)


FULL_DISK = """
import resource, signal, sys
from mribatch.core.errors import MribatchError
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.progress import SilentProgress
from mribatch.pipeline.run import classify

class Full(SilentProgress):
    def listed(self, files):
        if sys.argv[1] == "listing": self.fill()
    def start(self, files, done):
        if sys.argv[1] == "rows": self.fill()
    def fill(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write past the limit then fails with EFBIG, as on a full disk
try:
    classify([sys.argv[2]], sys.argv[3], ClassifyOptions(model=sys.argv[4]), Full())
except MribatchError as error:
    print(error)
"""


@pytest.mark.parametrize("stage", ["listing", "rows"])
def test_a_full_disk_leaves_a_run_that_goes_on(many: Path, tiny_model: Path, tmp_path: Path, stage: str) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", FULL_DISK, stage, str(many), str(out), str(tiny_model)]
    full = subprocess.run(command, capture_output=True, text=True, check=True)
    assert full.stdout.startswith("could not ") and "Fix: free some space" in full.stdout
    assert full.stdout.count("\n") == 1 and full.stderr == ""
    assert not list(out.glob("predictions/*"))
    assert classify([many], out, ClassifyOptions(model=str(tiny_model))).files == 2200
    assert len(rows(out)) == 2200


def test_ctrl_c_on_the_command_line(many: Path, tiny_model: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mribatch.cli",
        "classify",
        str(many),
        "--model",
        str(tiny_model),
        "--out",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    first_part = part_path(tmp_path / "out", 0)
    while not first_part.exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    if process.returncode != ExitCode.ROWS_NOT_OK:  # it may have been faster than the signal
        assert process.returncode == ExitCode.INTERRUPTED
        assert stderr.splitlines()[-1].startswith("Error: stopped by a signal; ")


def test_inputs_are_looked_at_before_an_engine_is_built(tiny: Classify, tmp_path: Path) -> None:
    """Without a GPU, choosing TensorRT is refused, too: what is said first shows what is looked at first."""
    (tmp_path / "empty").mkdir()
    for inputs, problem in (
        (tmp_path / "gone", "there is no file or folder"),
        (tmp_path / "empty", "there is no image"),
    ):
        with pytest.raises(MribatchError, match=problem):
            tiny(inputs, tmp_path / "out", backend="tensorrt")
