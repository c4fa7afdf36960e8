"""A worker process that dies in every way: each file still gets its row, and the other rows do not change."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from mribatch.bundle import load_bundle
from mribatch.errors import MribatchError
from mribatch.pipeline import supervisor
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.records import Choice, ClassifiedBatch, ImageFile, Status
from mribatch.pipeline.run import classify
from mribatch.pipeline.stopwatch import Stopwatch
from mribatch.pipeline.supervisor import Supervised
from mribatch.pipeline.worker_messages import WorkOrder
from tests.folders import draw_images, rows

BATCH = 8
CRASHING = Path(__file__).with_name("crashing_worker.py")
Make = Callable[..., Supervised]


@pytest.fixture
def make(tiny_model: Path, tmp_path: Path) -> Make:
    """A supervisor of OpenCV and ONNX Runtime, the quickest pair to start; `hook` as in crashing_worker."""

    def supervised(hook: str | None = None, **changes: object) -> Supervised:
        facts: dict[str, object] = {
            "model": str(tiny_model), "bundle_sha256": load_bundle(str(tiny_model)).sha256,
            "backend": Choice("onnxruntime", "a test"), "decoder": Choice("opencv", "a test"), "batch_size": BATCH,
            "threads": 2, "max_pixels": 10**8, "timeout_s": 60.0,
        }  # fmt: skip
        command = None if hook is None else (sys.executable, str(CRASHING), hook)
        return Supervised(WorkOrder(**(facts | changes)), tmp_path / "worker.log", command=command)  # type: ignore[arg-type]

    return supervised


def groups(paths: Sequence[Path]) -> list[list[ImageFile]]:
    files = [ImageFile(index, 0, path.name, bytes(path)) for index, path in enumerate(paths)]
    return [files[start : start + BATCH] for start in range(0, len(files), BATCH)]


def answers(batches: Iterator[ClassifiedBatch]) -> dict[str, tuple[Status, bytes]]:
    """Path -> status and the very bytes of its probabilities."""
    found: dict[str, tuple[Status, bytes]] = {}
    for batch in batches:
        for place, decoded in enumerate(batch.files):
            ok = decoded.verdict.status is Status.OK
            scores = batch.probabilities[place].tobytes() if ok and batch.probabilities is not None else b""
            found[decoded.file.path] = (decoded.verdict.status, scores)
    return found


def drawn(folder: Path, count: int, killers: Sequence[int] = ()) -> list[Path]:
    paths = draw_images(folder, count)
    for place in killers:
        renamed = paths[place].with_name(f"killer_{paths[place].name}")
        paths[place].rename(renamed)
        paths[place] = renamed
    return paths


def test_many_batches_come_back_in_order_as_from_this_process(make: Make, tmp_path: Path, tiny_model: Path) -> None:
    drawn(tmp_path / "data", 37 * BATCH + 3)
    options = ClassifyOptions(model=str(tiny_model), batch_size=BATCH)
    classify([tmp_path / "data"], tmp_path / "here", options)
    here = {row["path"].split("/")[-1]: row for row in rows(tmp_path / "here")}
    paths = sorted((tmp_path / "data").rglob("*.jpg"), key=lambda path: path.name)
    watch = Stopwatch()
    with make() as supervised:
        assert supervised.prove().holds and supervised.runs_with.backend.name == "onnxruntime"
        got = answers(supervised.batches(groups(paths), watch))
        again = answers(supervised.batches(groups(paths[:20]), watch))
    assert list(got) == [path.name for path in paths]
    for name, (status, scores) in got.items():
        assert (status.value, here[name]["p_no_tumor"]) == ("ok", np.frombuffer(scores, np.float32)[2])
    assert again == {name: got[name] for name in list(got)[:20]}
    assert supervised.deaths == 0 and sum(watch.seconds.values()) > 0


def test_the_file_that_kills_it_alone_is_known_by_name(make: Make, tmp_path: Path) -> None:
    killers = (0, 5, 6, 30, 63)
    paths = drawn(tmp_path / "data", 64, killers)
    with make() as supervised:
        clean = answers(supervised.batches(groups(paths), Stopwatch()))
    with make("killer") as supervised:
        batches = list(supervised.batches(groups(paths), Stopwatch()))
    got = answers(iter(batches))
    assert list(got) == [path.name for path in paths]
    crashed = [place for place, path in enumerate(paths) if got[path.name][0] is Status.DECODER_CRASH]
    assert crashed == list(killers)
    assert all(got[path.name] == clean[path.name] for place, path in enumerate(paths) if place not in killers)
    (first, *_) = batches[0].files
    assert first.verdict.error == "The decoding process died 3 times on this file alone; it was ended by SIGSEGV."
    assert first.bytes == paths[0].stat().st_size and first.sha256 is not None
    log = (tmp_path / "worker.log").read_text()
    assert log.count("died: it was ended by SIGSEGV") == supervised.deaths >= 3 * len(killers)


@pytest.mark.parametrize("hook", ["killed_once", "sticky"])
def test_a_death_that_does_not_come_back_changes_nothing(hook: str, make: Make, tmp_path: Path) -> None:
    paths = drawn(tmp_path / "data", 48, killers=(3, 20, 47))
    with make() as supervised:
        clean = answers(supervised.batches(groups(paths), Stopwatch()))
    with make(hook) as supervised:
        assert answers(supervised.batches(groups(paths), Stopwatch())) == clean
    assert 1 <= supervised.deaths <= 3


def test_kill_9_at_random_moments_changes_nothing(make: Make, tmp_path: Path) -> None:
    paths = drawn(tmp_path / "data", 4000)
    with make() as supervised:
        clean = answers(supervised.batches(groups(paths), Stopwatch()))
        done, random = threading.Event(), np.random.default_rng(3)

        def kill_now_and_then() -> None:
            while not done.wait(random.uniform(0.02, 0.4)):
                pid = supervised.worker_pid
                if pid is not None and supervised.deaths < 6:  # some of these come while it starts
                    os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill_now_and_then)
        killer.start()
        try:
            got = answers(supervised.batches(groups(paths), Stopwatch()))
        finally:
            done.set()
            killer.join()
    assert got == clean
    assert supervised.deaths >= 1


def test_a_file_over_which_it_hangs_is_a_timeout(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_SPARE_S", 1.0)
    paths = drawn(tmp_path / "data", 12, killers=(4,))
    with make("hangs", timeout_s=0.5) as supervised:
        got = answers(supervised.batches(groups(paths), Stopwatch()))
    assert [got[path.name][0] for path in paths] == [Status.OK] * 4 + [Status.TIMEOUT] + [Status.OK] * 7


def test_where_nothing_helps_it_gives_up_with_the_reason(make: Make, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    paths = drawn(tmp_path / "data", 3)
    with make("always_dies") as supervised:
        got = answers(supervised.batches(groups(paths), Stopwatch()))  # one by one, each is to blame
    assert {status for status, _ in got.values()} == {Status.DECODER_CRASH}
    with pytest.raises(
        MribatchError, match=r"died 3 times while it started; the last time it was ended with exit code 1"
    ):
        make("no_such_hook").__enter__()
    with pytest.raises(MribatchError, match="has changed since the run began"):
        make(bundle_sha256="0" * 64).__enter__()
    with make("bug") as supervised, pytest.raises(RuntimeError, match="ZeroDivisionError: a bug of ours"):
        answers(supervised.batches(groups(paths), Stopwatch()))


def test_it_does_not_outlive_its_parent(make: Make, tmp_path: Path, tiny_model: Path) -> None:
    drawn(tmp_path / "data", 40)
    script = (
        "import sys, time; from tests.pipeline.test_supervisor import *\n"
        f"order = {make()._order!r}\n"
        "with Supervised(order, None) as supervised:\n    print(supervised.worker_pid, flush=True); time.sleep(60)\n"
    )
    root = Path(__file__).parents[2]
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 20
    while _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _is_running(pid)


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_nothing_is_imported_from_the_current_folder(make: Make, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """The folder may be a stranger's: `python -m` alone would import this numpy."""
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "numpy.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(stranger)
    with make() as supervised:
        assert supervised.prove().holds
    assert not (tmp_path / "ran").exists()
