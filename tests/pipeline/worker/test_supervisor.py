"""A worker process that dies in every way: each file still gets its row, and the other rows do not change."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mribatch.core.bundle import load_bundle
from mribatch.core.errors import MribatchError
from mribatch.pipeline import plan
from mribatch.pipeline.inference.order import WorkOrder
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.records import Choice, ClassifiedBatch, Flag, ImageFile, SliceSource, Status, StudyImage, Verdict
from mribatch.pipeline.run import classify
from mribatch.pipeline.stopwatch import Stopwatch
from mribatch.pipeline.worker.messages import Batch, OneByOne, read_request, request_bytes
from mribatch.pipeline.worker.process import interpreter_options
from mribatch.pipeline.worker.supervisor import Patience, SupervisedClassifier
from tests.folders import draw_images, rows

BATCH = 8
CRASHING = Path(__file__).with_name("crashing_worker.py")
Make = Callable[..., SupervisedClassifier]


@pytest.fixture
def order(tiny_model: Path) -> WorkOrder:
    """OpenCV and ONNX Runtime, the quickest pair to start."""
    return WorkOrder(
        model=str(tiny_model),
        bundle_sha256=load_bundle(str(tiny_model)).sha256,
        backend=Choice("onnxruntime", "a test"),
        decoder=Choice("opencv", "a test"),
        precision=Choice("fp32", "a test"),
        batch_size=BATCH,
        threads=2,
        max_pixels=10**8,
        timeout_s=60.0,
    )


@pytest.fixture
def make(order: WorkOrder, tmp_path: Path) -> Make:
    """A supervisor of that pair; `hook` as in crashing_worker."""

    def supervised(
        hook: str | None = None,
        log: Path | None = None,
        patience: Patience | None = None,
        command: Sequence[str] | None = None,
        **changes: Any,
    ) -> SupervisedClassifier:
        crashing = None if hook is None else (sys.executable, str(CRASHING), hook)
        return SupervisedClassifier(
            replace(order, **changes),
            log or tmp_path / "worker.log",
            pytest.fail,
            command=command or crashing,
            patience=patience,
        )

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
        assert supervised.gate().holds and supervised.runs_with.backend.name == "onnxruntime"
        got = answers(supervised.batches(groups(paths), watch))
        again = answers(supervised.batches(groups(paths[:20]), watch))
    assert list(got) == [path.name for path in paths]
    for name, (status, scores) in got.items():
        assert (status.value, here[name]["p_no_tumor"]) == ("ok", np.frombuffer(scores, np.float32)[2])
    assert again == {name: got[name] for name in list(got)[:20]}
    assert supervised.deaths == 0 and sum(watch.seconds.values()) > 0


def test_the_file_that_kills_it_alone_is_known_by_name(make: Make, tmp_path: Path) -> None:
    killers = (0, 5, 63)
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


@pytest.mark.parametrize("hook", ["killed_once", "sticky", "no_memory"])
def test_a_death_that_does_not_come_back_changes_nothing(hook: str, make: Make, tmp_path: Path) -> None:
    paths = drawn(tmp_path / "data", 48, killers=(20,))
    with make() as supervised:
        clean = answers(supervised.batches(groups(paths), Stopwatch()))
    with make(hook) as supervised:
        assert answers(supervised.batches(groups(paths), Stopwatch())) == clean
    assert supervised.deaths == 1


def test_kill_9_at_random_moments_changes_nothing(make: Make, tmp_path: Path) -> None:
    paths = drawn(tmp_path / "data", 60 * BATCH)
    random, kills = np.random.default_rng(3), list[threading.Timer]()
    with make() as supervised:
        clean = answers(supervised.batches(groups(paths), Stopwatch()))

        def kill() -> None:
            with contextlib.suppress(ProcessLookupError, TypeError):  # just ended, or none there
                os.kill(supervised.worker_pid, signal.SIGKILL)  # type: ignore[arg-type]

        def killed(batches: Iterator[ClassifiedBatch]) -> Iterator[ClassifiedBatch]:
            """Between two batches, and a little later: while it starts, decodes one by one, or is fast again."""
            for number, batch in enumerate(batches):
                yield batch
                if number in (2, 20):
                    kills.append(threading.Timer(random.uniform(0.1, 1.0), kill))
                    kills[-1].start()
                    kill()

        got = answers(killed(supervised.batches(groups(paths), Stopwatch())))
        for timer in kills:
            timer.cancel()
    assert got == clean
    assert 2 <= supervised.deaths <= 4


def test_a_file_over_which_it_hangs_is_a_timeout(make: Make, tmp_path: Path) -> None:
    paths = drawn(tmp_path / "data", 12, killers=(4,))
    with make("hangs", patience=lambda timeout_s, files: 2.0) as supervised:
        batches = list(supervised.batches(groups(paths), Stopwatch()))
    got = answers(iter(batches))
    assert [got[path.name][0] for path in paths] == [Status.OK] * 4 + [Status.TIMEOUT] + [Status.OK] * 7
    assert batches[0].files[4].verdict.error == "reading and decoding took longer than 60 s"
    assert batches[0].files[4].bytes is None, "what hung the worker is not read here"


def test_a_worker_that_reads_nothing_does_not_hold_up_its_parent(make: Make) -> None:
    """More is sent ahead than a pipe holds."""
    long = [[ImageFile(number, 0, "", b"/" + b"x" * 400_000)] for number in range(6)]
    with make(patience=lambda timeout_s, files: 3.0) as supervised:
        assert supervised.worker_pid is not None
        os.kill(supervised.worker_pid, signal.SIGSTOP)
        found = [batch.files[0].verdict.status for batch in supervised.batches(long, Stopwatch())]
    assert found == [Status.UNREADABLE] * 6 and supervised.deaths >= 1


def test_what_is_left_half_way_reaches_nobody_else(make: Make, tmp_path: Path) -> None:
    paths = drawn(tmp_path / "data", 4 * BATCH)
    with make() as supervised:
        for _ in supervised.batches(groups(paths), Stopwatch()):
            break
        again = answers(supervised.batches(groups(paths[::-1]), Stopwatch()))
        whole = answers(supervised.batches(groups(paths), Stopwatch()))
    assert len(set(whole.values())) > 4 and again == whole
    assert supervised.deaths == 0


def test_where_nothing_helps_it_gives_up_with_the_reason(make: Make, tmp_path: Path) -> None:
    paths = drawn(tmp_path / "data", 1)
    descriptors, threads = os.listdir("/proc/self/fd"), threading.active_count()
    with make("always_dies") as supervised:
        got = answers(supervised.batches(groups(paths), Stopwatch()))  # alone, the file is to blame
    assert {status for status, _ in got.values()} == {Status.DECODER_CRASH} and supervised.deaths == 4
    assert (os.listdir("/proc/self/fd"), threading.active_count()) == (descriptors, threads), "nothing is left open"
    with pytest.raises(
        MribatchError, match=r"died 3 times while it started; the last time it was ended with exit code 1"
    ):
        make("no_such_hook").__enter__()
    with pytest.raises(MribatchError, match="has changed since the run began"):
        make(bundle_sha256="0" * 64).__enter__()
    with make("bug") as supervised, pytest.raises(RuntimeError, match="ZeroDivisionError: a bug of ours"):
        answers(supervised.batches(groups(paths), Stopwatch()))


def test_it_does_not_outlive_its_parent(order: WorkOrder, tmp_path: Path) -> None:
    drawn(tmp_path / "data", 40)
    script = (
        "import sys, time; from tests.pipeline.worker.test_supervisor import *\n"
        f"order = {order!r}\n"
        "with SupervisedClassifier(order, None, print) as supervised:\n    print(supervised.worker_pid, flush=True); time.sleep(60)\n"
    )
    root = Path(__file__).parents[3]
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


def test_nothing_is_imported_from_the_current_folder(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder may be a stranger's: `python -m` alone would import this numpy."""
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "numpy.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(stranger)
    with make() as supervised:
        assert supervised.gate().holds
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("isolated", "options"), [(1, ["-E", "-s", "-P"]), (0, ["-P"])])
def test_it_imports_from_where_its_parent_does(isolated: int, options: list[str]) -> None:
    """`python -I` in the parent: no PYTHONPATH and no packages of the user in the worker, either."""
    assert interpreter_options(SimpleNamespace(ignore_environment=isolated, no_user_site=isolated)) == options


def test_it_starts_where_standard_streams_are_closed(order: WorkOrder) -> None:
    """`mribatch ... <&- >&- 2>&-`: the first descriptors that are opened get the numbers of these streams."""
    script = (
        "import os, sys; from tests.pipeline.worker.test_supervisor import *\n"
        f"order = {order!r}\n"
        "for stream in (0, 1, 2):\n    os.close(stream)\n"
        "with SupervisedClassifier(order, None, print) as supervised:\n    os._exit(42 if supervised.gate().holds else 1)\n"
    )
    parent = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[3], timeout=120, check=False)
    assert parent.returncode == 42


def test_a_full_disk_keeps_lines_out_of_the_log_and_ends_no_run(make: Make, tmp_path: Path) -> None:
    paths = drawn(tmp_path / "data", 3)
    with make(log=Path("/dev/full")) as supervised:
        assert len(answers(supervised.batches(groups(paths), Stopwatch()))) == 3


def test_what_cannot_start_is_one_line_with_its_fix_and_leaves_nothing_open(make: Make, tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(MribatchError, match=r"^cannot write .*worker.log: No such file or directory. Fix: check the o"):
        make(log=tmp_path / "gone" / "worker.log").__enter__()
    nowhere = make(command=(str(tmp_path / "no_such_program"),))
    with pytest.raises(MribatchError, match=r"^cannot start the worker process: No such file or directory. Fix: "):
        nowhere.__enter__()
    assert os.listdir("/proc/self/fd") == before


def test_overwrite_keeps_the_log_of_its_own_worker(
    make: Make, order: WorkOrder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(plan, "open_file_classifier", lambda *_, **__: make(log=out / "worker.log"))
    drawn(tmp_path / "data", 1)
    for overwrite in (False, True):
        classify([tmp_path / "data"], out, ClassifyOptions(model=order.model, overwrite=overwrite))
        assert (out / "worker.log").read_text().count(" started") == 1


@given(st.lists(st.binary()))
def test_every_name_that_a_file_system_takes_gets_through(names: list[bytes]) -> None:
    for kind in (Batch, OneByOne):
        request = kind(tuple(ImageFile(position, 0, "", name) for position, name in enumerate(names)))
        assert read_request(request_bytes(request)) == request


_SOURCES = st.builds(SliceSource, st.binary(), st.none() | st.integers(0, 9))
_STUDY_IMAGES = st.builds(
    StudyImage,
    format=st.just("dicom"),
    slice=st.none() | st.integers(0, 9),
    patient=st.none(),
    study=st.none(),
    series=st.none(),
    instance=st.none(),
    plane=st.none(),
    flags=st.lists(st.sampled_from(Flag), max_size=2).map(tuple),
    refused=st.none() | st.builds(Verdict, st.sampled_from(Status), st.text(), st.just("dicom")),
    range_from=st.lists(_SOURCES, max_size=3).map(tuple),
)


@given(st.lists(st.tuples(st.binary(), st.none() | _STUDY_IMAGES)))
def test_what_decides_the_pixels_of_a_slice_gets_through(images: list[tuple[bytes, StudyImage | None]]) -> None:
    request = Batch(tuple(ImageFile(place, 0, "", name, study=study) for place, (name, study) in enumerate(images)))
    assert read_request(request_bytes(request)) == request


@pytest.mark.parametrize("read_ahead, prefetch", [(9, 7)])
def test_no_depth_of_reading_ahead_lets_parent_and_worker_wait_for_each_other(
    make: Make, tmp_path: Path, read_ahead: int, prefetch: int
) -> None:
    pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed: pip install '.[dali]'")
    wanted = groups(draw_images(tmp_path, 24 * BATCH - 3))
    dali = Choice("dali", "a test")

    def patience(timeout_s: float, rounds: int) -> float:
        return 20.0  # a worker that waits for more than it gets is killed, which is counted

    with make(decoder=dali, read_ahead=read_ahead, prefetch=prefetch, patience=patience) as supervised:
        answers = [len(batch.files) for batch in supervised.batches(wanted, Stopwatch())]
        assert answers == [len(group) for group in wanted] and supervised.deaths == 0


def in_groups_of(size: int, paths: Sequence[Path]) -> list[list[ImageFile]]:
    files = [ImageFile(index, 0, path.name, bytes(path)) for index, path in enumerate(paths)]
    return [files[start : start + size] for start in range(0, len(files), size)]


def test_out_of_memory_halves_the_batch_and_every_row_is_as_it_would_have_been(
    order: WorkOrder, make: Make, tmp_path: Path
) -> None:
    wanted = in_groups_of(40, draw_images(tmp_path, 93))
    with make(batch_size=40) as supervised:
        expected = list(supervised.batches(wanted, Stopwatch()))
    notes = list[str]()
    command = (sys.executable, str(CRASHING), "little_gpu_memory")
    short = replace(order, batch_size=40)
    with SupervisedClassifier(short, None, notes.append, command=command) as supervised:
        got = list(supervised.batches(wanted, Stopwatch()))
        assert (supervised.batch_size, supervised.smallest_batch, supervised.deaths) == (40, 10, 2)
    for one, same in zip(got, expected, strict=True):
        assert [file.file for file in one.files] == [file.file for file in same.files]
        assert [file.verdict for file in one.files] == [file.verdict for file in same.files]
        assert one.probabilities is not None and same.probabilities is not None
        np.testing.assert_array_equal(one.probabilities[: len(one.files)], same.probabilities[: len(same.files)])
    assert [note.partition(": ended by")[0] for note in notes] == [
        "WARNING: the GPU has too little memory for batches of 40, so the run goes on with batches of 20",
        "WARNING: the GPU has too little memory for batches of 20, so the run goes on with batches of 10",
    ]


def test_a_gpu_without_any_memory_ends_the_run_with_the_reason(order: WorkOrder, tmp_path: Path) -> None:
    command = (sys.executable, str(CRASHING), "no_gpu_memory")
    notes = list[str]()
    files = in_groups_of(16, draw_images(tmp_path, 16))
    with (
        SupervisedClassifier(replace(order, batch_size=16), None, notes.append, command=command) as supervised,
        pytest.raises(MribatchError, match="could not allocate 9,000 bytes.*smaller --batch-size, or end what else"),
    ):
        list(supervised.batches(files, Stopwatch()))
    assert len(notes) == 1
