"""What happens around a run while it is under way: to its inputs, its folder, its clock, its limits, its terminal."""

import errno
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mribatch.core.errors import ExitCode
from tests.faults.processes import (
    finish,
    is_one_line_with_a_fix,
    rows_are_under_way,
    run,
    start,
    wait_for,
)
from tests.faults.shim import Control, Fault
from tests.folders import draw_images, rows, table

FILES = 2200


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,200 files in three parts. Not to be changed."""
    folder = tmp_path_factory.mktemp("many")
    images = [path.read_bytes() for path in draw_images(folder / "few", 16, size=64)]
    data = folder / "data" / "no"
    data.mkdir(parents=True)
    for number in range(FILES):
        (data / f"{number:05d}.jpg").write_bytes(images[number % 16])
    return data.parent


@pytest.fixture(scope="module")
def whole(many: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The table of an undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert run(*classify(many, out, tiny_model)) == (ExitCode.OK, "")
    return table(out)


def classify(data: Path, out: Path, model: Path, *more: object) -> list[object]:
    return ["classify", data, "--out", out, "--model", model, "--batch-size", 8, "--threads", 2, "--quiet", *more]


def go_on(data: Path, out: Path, model: Path, whole: Any) -> None:
    """The same command again, undisturbed, gives the undisturbed table."""
    assert run(*classify(data, out, model)) == (ExitCode.OK, "")
    assert table(out).equals(whole)
    assert [path.name for path in out.rglob(".*")] == [".lock"]


def replace_by_rename(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.replace(other, path)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


CHANGES: tuple[tuple[Callable[[Path], object], str, list[str]], ...] = (
    (Path.unlink, "unreadable", []),
    (truncate, "truncated", ["changed_since_listing"]),
    (replace_by_rename, "ok", ["changed_since_listing"]),
    (lambda path: os.utime(path, (1, 1)), "ok", ["changed_since_listing"]),
)


def test_inputs_that_change_after_they_were_listed_are_told(many: Path, tiny_model: Path, tmp_path: Path) -> None:
    data, out = Path(shutil.copytree(many, tmp_path / "data")), tmp_path / "out"
    last = sorted((data / "no").iterdir())[-len(CHANGES) :]
    process = start(*classify(data, out, tiny_model, "--threads", 1))
    assert wait_for(lambda: rows_are_under_way(out), process)
    process.send_signal(signal.SIGSTOP)
    for path, (change, _, _) in zip(last, CHANGES, strict=True):
        change(path)
    process.send_signal(signal.SIGCONT)
    assert finish(process) == (ExitCode.ROWS_NOT_OK, "")
    got = rows(out)
    seen = [(row["status"], row["flags"]) for row in got[-len(CHANGES) :]]
    assert seen == [(status, flags) for _, status, flags in CHANGES]
    others = got[: -len(CHANGES)]
    assert {row["status"] for row in others} == {"ok"} and not any(row["flags"] for row in others)


@pytest.mark.slow
def test_an_output_folder_that_is_removed_is_one_line(many: Path, tiny_model: Path, tmp_path: Path, whole: Any) -> None:
    out = tmp_path / "out"
    process = start(*classify(many, out, tiny_model))
    assert wait_for(lambda: rows_are_under_way(out), process)
    process.send_signal(signal.SIGSTOP)
    shutil.rmtree(out)
    process.send_signal(signal.SIGCONT)
    code, stderr = finish(process)
    assert code == ExitCode.USER_ERROR and is_one_line_with_a_fix(stderr), stderr
    assert "was removed or replaced while it was written to" in stderr and not out.exists()
    go_on(many, out, tiny_model, whole)


@pytest.mark.slow
def test_an_output_folder_that_is_replaced_is_left_alone(
    many: Path, tiny_model: Path, tmp_path: Path, whole: Any
) -> None:
    out, moved = tmp_path / "out", tmp_path / "moved"
    process = start(*classify(many, out, tiny_model))
    assert wait_for(lambda: rows_are_under_way(out), process)
    process.send_signal(signal.SIGSTOP)
    out.rename(moved)
    (out / "predictions").mkdir(parents=True)
    process.send_signal(signal.SIGCONT)
    code, stderr = finish(process)
    assert code == ExitCode.USER_ERROR and is_one_line_with_a_fix(stderr), stderr
    assert [path.name for path in out.rglob("*")] == ["predictions"]
    go_on(many, moved, tiny_model, whole)


@pytest.mark.slow
def test_a_clock_that_goes_back_changes_nothing(
    control: Control, many: Path, tiny_model: Path, tmp_path: Path, whole: Any
) -> None:
    out = tmp_path / "out"
    control.watch([])
    control.set_clock(3600)
    process = start(*classify(many, out, tiny_model), env=control.environment)
    assert wait_for(lambda: rows_are_under_way(out), process)
    control.set_clock(-86_400 * 365)
    assert finish(process) == (ExitCode.OK, "")
    go_on(many, out, tiny_model, whole)
    assert run("verify", out)[0] == ExitCode.OK


@pytest.mark.parametrize("answer", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_told_so(
    answer: int, control: Control, many: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    control.watch([out], Fault("lock", 1, answer, sticky=True))
    code, stderr = run(*classify(many, out, tiny_model), env=control.environment)
    assert code == ExitCode.USER_ERROR and is_one_line_with_a_fix(stderr)
    assert "has no file locks" in stderr and "choose an --out on a local disk" in stderr


def limited(kind: int, limit: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (limit, limit))


@pytest.mark.slow
def test_forty_descriptors_are_enough(many: Path, tiny_model: Path, tmp_path: Path, whole: Any) -> None:
    out = tmp_path / "out"
    before = limited(resource.RLIMIT_NOFILE, 40)
    assert run(*classify(many, out, tiny_model), preexec_fn=before) == (ExitCode.OK, "")
    assert table(out).equals(whole)


@pytest.mark.slow
@pytest.mark.parametrize("descriptors", [8, 12, 16])
def test_too_few_descriptors_are_one_line(
    descriptors: int, many: Path, tiny_model: Path, tmp_path: Path, whole: Any
) -> None:
    out = tmp_path / "out"
    before = limited(resource.RLIMIT_NOFILE, descriptors)
    code, stderr = run(*classify(many, out, tiny_model), preexec_fn=before)
    assert code == ExitCode.OK or (code == ExitCode.USER_ERROR and "ulimit -n" in stderr), stderr
    assert stderr == "" or is_one_line_with_a_fix(stderr)
    go_on(many, out, tiny_model, whole)


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [200, 600, 900, 1350, 1500, 2000])
def test_little_address_space_is_one_line(
    megabytes: int, many: Path, tiny_model: Path, tmp_path: Path, whole: Any
) -> None:
    out = tmp_path / "out"
    before = limited(resource.RLIMIT_AS, megabytes * 1_000_000)
    code, stderr = run(*classify(many, out, tiny_model), preexec_fn=before)
    assert code == ExitCode.OK or (code == ExitCode.USER_ERROR and "ulimit -v" in stderr), (code, stderr)
    assert stderr == "" or is_one_line_with_a_fix(stderr), stderr
    go_on(many, out, tiny_model, whole)


@pytest.mark.slow
def test_a_stopped_run_goes_on_where_it_was(many: Path, tiny_model: Path, tmp_path: Path, whole: Any) -> None:
    out = tmp_path / "out"
    process = start(*classify(many, out, tiny_model))
    for _ in range(3):
        assert wait_for(lambda: rows_are_under_way(out), process)
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
    assert finish(process) == (ExitCode.OK, "")
    assert table(out).equals(whole)


@pytest.mark.slow
def test_a_closed_terminal_keeps_all_rows(many: Path, tiny_model: Path, tmp_path: Path, whole: Any) -> None:
    out = tmp_path / "out"
    process = start(*classify(many, out, tiny_model))
    assert wait_for(lambda: rows_are_under_way(out), process)
    process.send_signal(signal.SIGHUP)
    code, stderr = finish(process)
    assert code == ExitCode.HUNG_UP and is_one_line_with_a_fix(stderr) and "images are kept" in stderr
    go_on(many, out, tiny_model, whole)


@pytest.mark.slow
def test_nohup_is_obeyed(many: Path, tiny_model: Path, tmp_path: Path, whole: Any) -> None:
    out = tmp_path / "out"
    before: Callable[[], object] = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    process = start(*classify(many, out, tiny_model), preexec_fn=before)
    assert wait_for(lambda: rows_are_under_way(out), process)
    process.send_signal(signal.SIGHUP)
    assert finish(process) == (ExitCode.OK, "")
    assert table(out).equals(whole)


@pytest.mark.slow
@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_streams_change_nothing(
    closed: tuple[int, ...], many: Path, tiny_model: Path, tmp_path: Path, whole: Any
) -> None:
    out = tmp_path / "out"

    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    arguments = [word for word in classify(many, out, tiny_model) if word != "--quiet"]
    assert run(*arguments, preexec_fn=close, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)[0] == ExitCode.OK
    assert table(out).equals(whole)


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_nothing(many: Path, tiny_model: Path, tmp_path: Path, whole: Any) -> None:
    """stderr leads to a pipe that nobody reads any more, as after `2>&1 | head`."""
    out = tmp_path / "out"
    reading, writing = os.pipe()
    process = start(*classify(many, out, tiny_model, "-v"), stdout=subprocess.DEVNULL, stderr=writing)
    os.close(reading)
    os.close(writing)
    assert finish(process)[0] == ExitCode.OK
    assert table(out).equals(whole)


@pytest.mark.slow
def test_ctrl_c_twice_loses_at_most_the_unfinished_part(
    many: Path, tiny_model: Path, tmp_path: Path, whole: Any
) -> None:
    out = tmp_path / "out"
    process = start(*classify(many, out, tiny_model))
    assert wait_for(lambda: rows_are_under_way(out), process)
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGINT)
    code, stderr = finish(process)
    assert code in (ExitCode.INTERRUPTED, -signal.SIGINT) and "Traceback" not in stderr
    go_on(many, out, tiny_model, whole)
