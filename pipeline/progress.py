"""How far a run is, on stderr: a bar in a terminal, a plain line now and then elsewhere, or nothing."""

import sys
import time
from typing import Any, Protocol, TextIO

_SECONDS_BETWEEN_LINES = 10.0
_QUIET_SECONDS = 2.0  # what is over sooner needs no progress


class Progress(Protocol):
    """What a run tells whoever watches. Every method may be called often."""

    def listed(self, files: int) -> None:
        """So many files were seen while walking the inputs."""

    def start(self, files: int, done: int) -> None:
        """Rows begin; `done` of `files` stand there from an earlier run."""

    def advance(self, files: int, failed: int) -> None:
        """So many more files have their row; `failed` of them are not ok."""

    def note(self, text: str) -> None:
        """Something the user should read."""

    def close(self) -> None: ...


class SilentProgress:
    """Says nothing; for --quiet and for Python."""

    def listed(self, files: int) -> None: ...

    def start(self, files: int, done: int) -> None: ...

    def advance(self, files: int, failed: int) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


class BarProgress:
    """One tqdm bar: rate, time left, failures."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: Any = None
        self._failed = 0

    def listed(self, files: int) -> None:
        if self._bar is None:
            self._bar = self._new_bar("listing", " files", None, 0)
        self._bar.update(files - self._bar.n)

    def start(self, files: int, done: int) -> None:
        self.close()
        self._failed = 0
        self._bar = self._new_bar("classifying", "img", files, done)

    def advance(self, files: int, failed: int) -> None:
        self._failed += failed
        if self._failed:
            self._bar.set_postfix(failed=self._failed, refresh=False)
        self._bar.update(files)

    def note(self, text: str) -> None:
        from tqdm import tqdm

        tqdm.write(text, file=self._stream)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _new_bar(self, what: str, unit: str, total: int | None, initial: int) -> Any:
        from tqdm import tqdm

        return tqdm(
            desc=what,
            unit=unit,
            total=total,
            initial=initial,
            file=self._stream,
            delay=_QUIET_SECONDS / 4,
            leave=False,
            dynamic_ncols=True,
            smoothing=0.1,
        )


class LineProgress:
    """A plain line every ten seconds, for logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = time.monotonic() - _SECONDS_BETWEEN_LINES + _QUIET_SECONDS
        self._begin = self._last
        self._files = self._done = self._new = self._failed = 0

    def listed(self, files: int) -> None:
        if self._due():
            self.note(f"listing: {files:,} files")

    def start(self, files: int, done: int) -> None:
        self._files, self._done, self._new, self._failed = files, done, 0, 0
        self._begin = time.monotonic()

    def advance(self, files: int, failed: int) -> None:
        self._new += files
        self._failed += failed
        if self._due():
            rate = self._new / max(time.monotonic() - self._begin, 1e-9)
            done = self._done + self._new
            left = (self._files - done) / rate if rate else float("inf")
            share = f"{done:,} of {self._files:,} files ({done / self._files:.1%})"
            self.note(f"classifying: {share}, {rate:.0f} images/s, {left:.0f} s left, {self._failed:,} failed")

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def close(self) -> None: ...

    def _due(self) -> bool:
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES:
            return False
        self._last = now
        return True


def progress_for(stream: TextIO | None = None, quiet: bool = False) -> Progress:
    """The progress that fits a stream (stderr by default)."""
    target = stream if stream is not None else sys.stderr
    if quiet:
        return SilentProgress()
    return BarProgress(target) if target.isatty() else LineProgress(target)
