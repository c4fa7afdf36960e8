"""One process from its start to its end: seconds, peak memory of its whole tree, what it printed."""

import contextlib
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_MARK = "MRIBATCH_RACE_RUN"
_SAMPLE_S = 0.5
_GONE_S = 20.0
_PROC = Path("/proc")


class RunError(Exception):
    """A run failed; the message is its last line."""


@dataclass(frozen=True)
class Finished:
    """A run that ended well.

    Attributes:
        seconds: Wall time from the start of the process to its end.
        peak_bytes: Largest sum of the proportional set sizes (PSS: shared pages count once) of the process and all of
            its descendants, sampled twice a second; 0 if it ended before the first sample.
        last_line: Of standard output.
    """

    seconds: float
    peak_bytes: int
    last_line: str


def run_measured(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    folder: Path,
    log: Path,
    timeout_s: float,
    *,
    gone_s: float = _GONE_S,
) -> Finished:
    """Run a command and measure it.

    Args:
        command: Program and arguments.
        environment: Variables, all of them.
        folder: Working folder.
        log: File for standard error; standard output goes to one beside it that ends in .out.
        timeout_s: Seconds after which the process is killed.
        gone_s: Seconds that what it left behind has to end by itself.

    Raises:
        RunError: It failed or took too long.
    """
    mark = uuid.uuid4().hex
    sampler = _Sampler(mark)
    printed = log.with_suffix(".out")  # a file, not a pipe: what a run leaves behind may keep it open
    with log.open("wb") as errors, printed.open("wb") as output:
        begin = time.monotonic()
        process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env={**environment, _MARK: mark},
            cwd=folder,
            start_new_session=True,
        )
        sampler.start(process.pid)
        try:
            process.wait(timeout_s)
            seconds = time.monotonic() - begin
        except subprocess.TimeoutExpired as error:
            raise RunError(f"not finished after {timeout_s:.0f} s") from error
        finally:
            sampler.stop()
            _end(sampler, process, gone_s)
    if process.returncode:
        raise RunError(f"exit code {process.returncode}: {_last_line(log.read_bytes())}")
    return Finished(seconds, sampler.peak_bytes, _last_line(printed.read_bytes()))


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "no message"


def _end(sampler: "_Sampler", process: "subprocess.Popen[bytes]", gone_s: float) -> None:
    """Wait until all of a run's processes are gone; kill those that stay."""
    limit = time.monotonic() + (gone_s if process.poll() is not None else 0)
    while left := sampler.processes():
        if time.monotonic() >= limit:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.05)
    process.wait()


class _Sampler:
    """Sums the memory of a process and its descendants, also of those that became daemons."""

    def __init__(self, mark: str) -> None:
        self.peak_bytes = 0
        self._mark = f"{_MARK}={mark}".encode()
        self._before = set(_pids())
        self._root = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def start(self, root: int) -> None:
        self._root = root
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def processes(self) -> set[int]:
        """Those that have the run's mark in their environment, or a parent in the set; a zombie is not one."""
        parents = {pid: parent for pid in _pids() if pid not in self._before and (parent := _parent(pid)) is not None}
        found = {pid for pid in parents if pid == self._root or self._mark in _read(pid, "environ")}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return found

    def _sample(self) -> None:
        while not self._stopped.wait(_SAMPLE_S):
            self.peak_bytes = max(self.peak_bytes, sum(map(_memory, self.processes())))


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(_PROC) if name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    try:
        return (_PROC / str(pid) / name).read_bytes()
    except OSError:  # it ended, or is another user's
        return b""


def _parent(pid: int) -> int | None:
    """None for a process that is gone or a zombie."""
    state, parent, *_ = _read(pid, "stat").rpartition(b")")[2].split() or [b"Z", b"0"]
    return None if state == b"Z" else int(parent)


def _memory(pid: int) -> int:
    for line in _read(pid, "smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return 0
