"""--workers: several processes side by side make the part files that one process makes, whatever happens to them."""

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mribatch.core.errors import Interrupted, MribatchError, RequirementNotMetError
from mribatch.pipeline.executor import processes
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.run_file import RunState, read_run_file
from mribatch.pipeline.output.summary import RunSummary
from mribatch.pipeline.progress import SilentProgress
from mribatch.pipeline.run import classify
from mribatch.report.verify import verify_run
from tests.folders import draw_images, mribatch, rows
from tests.studies import write_series

CRASHING = Path(__file__).with_name("crashing_process.py")
_FILES = 3200  # four parts, the last one short

Classify = Callable[..., RunSummary]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    few = [path.read_bytes() for path in draw_images(tmp_path_factory.mktemp("few"), 16, size=16)]
    folder = tmp_path_factory.mktemp("data") / "glioma"
    folder.mkdir()
    for number in range(_FILES):
        (folder / f"{number:05d}.jpg").write_bytes(few[number % 16] if number != 1500 else b"not an image")
    return folder.parent


@pytest.fixture(scope="module")
def run(tiny_model: Path) -> Classify:
    def call(data: Path, out: Path, progress: Any = None, **options: Any) -> RunSummary:
        chosen: dict[str, Any] = {"model": str(tiny_model), "batch_size": 8, "threads": 2} | options
        return classify([data], out, ClassifyOptions(**chosen), progress)

    return call


@pytest.fixture(scope="module")
def alone(run: Classify, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(data, tmp_path_factory.mktemp("alone")).folder


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have the processes do what a hook of crashing_process.py does."""

    def call(hook: str) -> None:
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        monkeypatch.setattr(processes, "COMMAND", (sys.executable, str(CRASHING), hook))

    return call


class Notes(SilentProgress):
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.done = 0
        self.parts: list[int] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    def advance(self, files: int, failed: int) -> None:
        self.done += files

    def published(self, part: int, rows: int) -> None:
        self.parts.append(part)


def parts(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / "predictions").iterdir())}


def children() -> Iterator[int]:
    """Processes of this one that make parts."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            words = (entry / "cmdline").read_bytes()
            if int(fields[1]) == os.getpid() and fields[0] != "Z" and b"mribatch.pipeline.executor" in words:
                yield int(entry.name)


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_the_parts_are_those_of_one_process(
    run: Classify, data: Path, alone: Path, tmp_path: Path, workers: int
) -> None:
    progress = Notes()
    summary = run(data, tmp_path / "out", progress, workers=workers)
    assert parts(summary.folder) == parts(alone)
    assert (summary.exit_code, summary.images, summary.new_rows, progress.done) == (3, _FILES, _FILES, _FILES)
    assert sorted(progress.parts) == [0, 1, 2, 3]
    assert summary.images_per_second and summary.seconds["inference"] > 0
    assert verify_run(summary.folder).problems == 0
    assert read_run_file(summary.folder).run_id == read_run_file(alone).run_id
    assert not list(children())


def test_studies_and_hidden_paths(run: Classify, tmp_path: Path) -> None:
    write_series(tmp_path / "data/head", 9)
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef0123456789abcdef")
    options = {"pseudonym_key": str(key), "anonymize_paths": True, "window": "auto"}
    one, two = (
        run(tmp_path / "data", tmp_path / "one", **options),
        run(tmp_path / "data", tmp_path / "two", workers=2, **options),
    )
    assert parts(one.folder) == parts(two.folder)


def test_names_that_are_not_utf8(run: Classify, tmp_path: Path) -> None:
    (image,) = draw_images(tmp_path / "few", 1, size=16)
    folder = os.fsencode(tmp_path / "data") + b"/\xff\xfe"
    os.makedirs(folder)
    Path(os.fsdecode(folder + b"/\xe9.jpg")).write_bytes(image.read_bytes())
    (row,) = rows(run(tmp_path / "data", tmp_path / "out", workers=2).folder)
    assert row["status"] == "ok" and row["flags"] == ["name_escaped"]


class _Killer(SilentProgress):
    """Kills one of the processes, again and again, while rows come."""

    def __init__(self, every_s: float) -> None:
        self.kills = 0
        self._random = random.Random(0)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._kill, args=(every_s,))

    def start(self, files: int, done: int) -> None:
        self._thread.start()

    def close(self) -> None:
        self._end.set()
        self._thread.join()

    def _kill(self, every_s: float) -> None:
        while not self._end.wait(every_s):
            if found := list(children()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._random.choice(found), signal.SIGKILL)
                    self.kills += 1


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_one_is_killed_every_two_seconds(run: Classify, alone: Path, data: Path, tmp_path: Path, workers: int) -> None:
    killer = _Killer(2.0)
    summary = run(data, tmp_path / "out", killer, workers=workers, batch_size=1)
    assert killer.kills >= 1
    assert [row["sha256"] for row in rows(summary.folder)] == [row["sha256"] for row in rows(alone)]
    assert not list(children()) and not list((summary.folder / "predictions").glob(".*"))


class _KilledOnce(Notes):
    def advance(self, files: int, failed: int) -> None:
        super().advance(files, failed)
        if files > 0 and self.done > 200 and not self.texts:
            self.texts.append("killed")
            os.kill(next(children()), signal.SIGKILL)


def test_a_killed_process_costs_at_most_its_part(run: Classify, data: Path, alone: Path, tmp_path: Path) -> None:
    progress = _KilledOnce()
    summary = run(data, tmp_path / "out", progress, workers=2)
    assert progress.texts == ["killed"]
    assert parts(summary.folder) == parts(alone)
    assert (summary.new_rows, progress.done) == (_FILES, _FILES), "rows that were lost are counted once"


def test_an_image_that_kills_its_process_gets_a_row_that_says_so(
    run: Classify, crashing: Callable[[str], None], tmp_path: Path
) -> None:
    for path in draw_images(tmp_path / "data", 40, size=16)[7:8]:
        path.rename(path.with_name("killer.jpg"))
    crashing("killer")
    summary = run(tmp_path / "data", tmp_path / "out", workers=2)
    statuses = {row["path"].rpartition("/")[2]: row["status"] for row in rows(summary.folder)}
    assert statuses.pop("killer.jpg") == "decoder_crash"
    assert set(statuses.values()) == {"ok"} and len(statuses) == 39


@pytest.mark.parametrize("hook", ["no_second_gpu", "second_gpu_kills"])
def test_a_gpu_that_cannot_be_used_is_given_up_and_told(
    run: Classify, crashing: Callable[[str], None], data: Path, alone: Path, tmp_path: Path, hook: str
) -> None:
    progress = Notes()
    crashing(hook)
    summary = run(data, tmp_path / "out", progress, gpus="0,1")
    assert parts(summary.folder) == parts(alone)
    (text,) = progress.texts
    assert text.startswith("WARNING: process 2 is given up, the others go on: ")
    assert ("cudaErrorDevicesUnavailable" in text) == (hook == "no_second_gpu")


def test_where_no_process_starts_the_reason_is_the_error(
    run: Classify, crashing: Callable[[str], None], data: Path, tmp_path: Path
) -> None:
    crashing("no_gpu")
    with pytest.raises(MribatchError, match="cudaErrorDevicesUnavailable. Fix: check the GPU"):
        run(data, tmp_path / "out", gpus="0,1")
    assert read_run_file(tmp_path / "out").state is RunState.STOPPED


def test_a_bug_in_a_process_keeps_its_traceback(
    run: Classify, crashing: Callable[[str], None], data: Path, tmp_path: Path
) -> None:
    crashing("bug")
    with pytest.raises(RuntimeError, match="ZeroDivisionError: a bug of ours"):
        run(data, tmp_path / "out", workers=2)
    assert not list(children())


class _Stop(Notes):
    """Sends SIGTERM to this process once some rows have come."""

    def advance(self, files: int, failed: int) -> None:
        super().advance(files, failed)
        if self.done > 100 and not self.texts:
            self.texts.append("stopped")
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("later", [1, 2])
def test_an_interrupted_run_keeps_its_rows_and_is_resumed_by_any_number(
    run: Classify, data: Path, alone: Path, tmp_path: Path, later: int
) -> None:
    out, progress = tmp_path / "out", _Stop()
    with pytest.raises(Interrupted, match="images are kept") as caught:
        run(data, out, progress, workers=2)
    kept = int(str(caught.value).split("; ")[1].split(" of")[0].replace(",", ""))
    assert 100 < kept < _FILES and not list(children())
    assert run(data, out, workers=later).new_rows == _FILES - kept
    assert parts(out) == parts(alone)


def test_too_many_failures_end_it(run: Classify, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(1100):
        (tmp_path / f"data/{number}.jpg").write_bytes(b"x")
    with pytest.raises(RequirementNotMetError, match="more than --max-failures 5 allows"):
        run(tmp_path / "data", tmp_path / "out", workers=2, max_failures="5")
    with pytest.raises(MribatchError, match="files all failed"):
        run(tmp_path / "data", tmp_path / "other", workers=2)
    assert not list(children())


def test_the_processes_end_with_their_parent(data: Path, tiny_model: Path, tmp_path: Path) -> None:
    import subprocess

    command = [sys.executable, "-m", "mribatch.cli", "classify", data, "--out", tmp_path / "out", "--model", tiny_model]
    with subprocess.Popen([*map(str, command), "--workers", "2", "--batch-size", "1"]) as parent:
        deadline = time.monotonic() + 60
        marks: list[int] = []
        while len(marks) < 2 and time.monotonic() < deadline:
            marks = [pid for pid in _all_processes() if _parent_of(pid) == parent.pid]
            time.sleep(0.05)
        parent.kill()
    assert len(marks) == 2
    while any(map(_lives, marks)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_lives, marks))


def _all_processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _parent_of(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize("value", ["", "a", "0,,1", "0,-1", "0;1"])
def test_what_is_no_gpu_is_refused(value: str, tmp_path: Path) -> None:
    result = mribatch("classify", tmp_path, "--out", tmp_path / "out", "--gpus", value)
    assert (result.returncode, "are no numbers of GPUs" in result.stderr) == (2, True)
