"""The progress of a run on stderr: a bar in a terminal or notebook, a plain line now and then elsewhere, or nothing."""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TextIO, TypeVar

if TYPE_CHECKING:
    from mribatch.pipeline.work_rates import WorkRates

_SECONDS_BETWEEN_LINES = 10.0
_CLASSIFYING = "classifying"
_QUIET_SECONDS = 2.0  # what is over sooner needs no progress

Item = TypeVar("Item")


class Track(Protocol):
    """Shows how far a loop is. Not part of a run's Progress: for commands that read one."""

    def __call__(self, items: Iterable[Item], what: str, total: int | None, /) -> Iterable[Item]:
        """Pass items through.

        Args:
            items: Of the loop.
            what: For people, e.g. "drawing pictures".
            total: Number of items, where known.
        """


def track_silently(items: Iterable[Item], _what: str, _total: int | None, /) -> Iterable[Item]:
    """Show nothing."""
    return items


def track_on_terminal(items: Iterable[Item], what: str, total: int | None, /) -> Iterable[Item]:
    """Show a bar on stderr after two seconds, where that is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return items
    from tqdm import tqdm

    bar: Iterable[Item] = tqdm(
        items, what, total, file=sys.stderr, delay=_QUIET_SECONDS, leave=False, dynamic_ncols=True
    )
    return bar


class Progress(Protocol):
    """Receives the progress of a run. Every method may be called often."""

    def listed(self, files: int) -> None:
        """Show that so many files have been seen while walking the inputs."""

    def read_headers(self, files: int, total: int) -> None:
        """Show that the headers of so many files that may be DICOM or NIfTI have been read."""

    def start(self, files: int, done: int) -> None:
        """Begin to count rows; `done` of `files` images have theirs from an earlier attempt."""

    def advance(self, files: int, failed: int) -> None:
        """Count `files` more rows, `failed` of which are not ok."""

    def published(self, part: int, rows: int) -> None:
        """Show that a part file has appeared."""

    def worked(self, rates: "WorkRates") -> None:
        """Show how fast each process is, where several make the parts."""

    def note(self, text: str) -> None:
        """Show a message to the user."""

    def close(self) -> None: ...


class SilentProgress:
    """Shows nothing."""

    def listed(self, files: int) -> None: ...

    def read_headers(self, files: int, total: int) -> None: ...

    def start(self, files: int, done: int) -> None: ...

    def advance(self, files: int, failed: int) -> None: ...

    def published(self, part: int, rows: int) -> None: ...

    def worked(self, rates: "WorkRates") -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


class BarProgress:
    """One tqdm bar: rate, time left, failures.

    Args:
        stream: Where the bar is drawn.
        notebook: Draw a Jupyter widget instead, where ipywidgets is installed.
        doing: What is done to the images.
    """

    def __init__(self, stream: TextIO, notebook: bool = False, *, doing: str = _CLASSIFYING) -> None:
        self._stream = stream
        self._doing = doing
        self._notebook = notebook
        self._bar: Any = None
        self._reads_headers = False
        self._failed = 0
        self._rates = ""

    def listed(self, files: int) -> None:
        if self._bar is None:
            self._bar = self._new_bar("listing", " files", None, 0)
        self._bar.update(files - self._bar.n)

    def read_headers(self, files: int, total: int) -> None:
        if not self._reads_headers:
            self.close()
            self._bar, self._reads_headers = self._new_bar("reading headers", " files", total, 0), True
        self._bar.update(files - self._bar.n)

    def start(self, files: int, done: int) -> None:
        self.close()
        self._failed = 0
        self._bar = self._new_bar(self._doing, "img", files, done)

    def advance(self, files: int, failed: int) -> None:
        self._failed += failed
        if self._failed or self._rates:
            told = [f"failed={self._failed}"] if self._failed else []
            self._bar.set_postfix_str(", ".join([*told, *([self._rates] if self._rates else [])]), refresh=False)
        self._bar.update(files)

    def published(self, part: int, rows: int) -> None: ...

    def worked(self, rates: "WorkRates") -> None:
        self._rates = str(rates)

    def note(self, text: str) -> None:
        self._tqdm().write(text, file=self._stream)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _new_bar(self, what: str, unit: str, total: int | None, initial: int) -> Any:
        return self._tqdm()(
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

    def _tqdm(self) -> Any:
        """Return tqdm's class; tqdm.auto finds out whether this notebook has widgets, and warns where it has none."""
        if self._notebook:
            with warnings.catch_warnings(action="ignore"):
                from tqdm.auto import tqdm as automatic

            return automatic
        from tqdm import tqdm

        return tqdm


class LineProgress:
    """A plain line every ten seconds, for logs.

    Args:
        stream: Where the lines go.
        clock: Seconds from any beginning.
        doing: What is done to the images.
    """

    def __init__(
        self, stream: TextIO, clock: Callable[[], float] = time.monotonic, *, doing: str = _CLASSIFYING
    ) -> None:
        self._stream = stream
        self._doing = doing
        self._clock = clock
        self._last = clock() - _SECONDS_BETWEEN_LINES + _QUIET_SECONDS
        self._begin = self._last
        self._files = self._done = self._new = self._failed = 0
        self._rates = ""

    def listed(self, files: int) -> None:
        if self._is_due():
            self.note(f"listing: {files:,} files")

    def read_headers(self, files: int, total: int) -> None:
        if self._is_due():
            self.note(f"reading headers: {files:,} of {total:,} files")

    def start(self, files: int, done: int) -> None:
        self._files, self._done, self._new, self._failed = files, done, 0, 0
        self._begin = self._clock()

    def advance(self, files: int, failed: int) -> None:
        self._new += files
        self._failed += failed
        if self._is_due():
            rate = self._new / max(self._clock() - self._begin, 1e-9)
            done = self._done + self._new
            left = (self._files - done) / rate if rate else float("inf")
            share = f"{done:,} of {self._files:,} images ({done / self._files:.1%})"
            text = f"{self._doing}: {share}, {rate:.0f} images/s, {left:.0f} s left, {self._failed:,} failed"
            self.note(f"{text} ({self._rates})" if self._rates else text)

    def published(self, part: int, rows: int) -> None: ...

    def worked(self, rates: "WorkRates") -> None:
        self._rates = str(rates)

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def close(self) -> None: ...

    def _is_due(self) -> bool:
        now = self._clock()
        if now - self._last < _SECONDS_BETWEEN_LINES:
            return False
        self._last = now
        return True


class LogProgress(LineProgress):
    """The lines of LineProgress as log lines of the logger "mribatch"."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(sys.stderr, clock)

    def note(self, text: str) -> None:
        logging.getLogger("mribatch").info("%s", text)


class SeveralProgress:
    """Shows progress in several ways at once."""

    def __init__(self, *ways: Progress) -> None:
        self._ways = ways

    def listed(self, files: int) -> None:
        for way in self._ways:
            way.listed(files)

    def read_headers(self, files: int, total: int) -> None:
        for way in self._ways:
            way.read_headers(files, total)

    def start(self, files: int, done: int) -> None:
        for way in self._ways:
            way.start(files, done)

    def advance(self, files: int, failed: int) -> None:
        for way in self._ways:
            way.advance(files, failed)

    def published(self, part: int, rows: int) -> None:
        for way in self._ways:
            way.published(part, rows)

    def worked(self, rates: "WorkRates") -> None:
        for way in self._ways:
            way.worked(rates)

    def note(self, text: str) -> None:
        for way in self._ways:
            way.note(text)

    def close(self) -> None:
        for way in self._ways:
            way.close()


def progress_for(
    stream: TextIO | None = None,
    quiet: bool = False,
    *,
    log: bool = False,
    verbose: bool = False,
    doing: str = _CLASSIFYING,
) -> Progress:
    """Return the progress that fits a stream (stderr by default), for the command line.

    Args:
        stream: Where it is drawn.
        quiet: Draw nothing.
        log: Also write log lines.
        verbose: Write log lines only; they are on stderr already.
        doing: What is done to the images.
    """
    if verbose:
        return LogProgress()
    if log:
        return SeveralProgress(progress_for(stream, quiet), LogProgress())
    target = stream if stream is not None else sys.stderr
    if quiet:
        return SilentProgress()
    return BarProgress(target, doing=doing) if target.isatty() else LineProgress(target, doing=doing)


def progress_in_python(doing: str = _CLASSIFYING) -> Progress:
    """Return the progress for callers in Python: a bar in a notebook or a terminal, else nothing."""
    if _in_notebook():
        return BarProgress(sys.stderr, notebook=True, doing=doing)
    return BarProgress(sys.stderr, doing=doing) if sys.stderr is not None and sys.stderr.isatty() else SilentProgress()


def _in_notebook() -> bool:
    return "ipykernel.zmqshell" in sys.modules  # as tqdm tells it; the kernel has loaded it already
