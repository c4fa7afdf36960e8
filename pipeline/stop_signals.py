"""SIGINT, SIGTERM and SIGHUP as a request that is read between two batches."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from mribatch.core.errors import ExitCode

_EXITS = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}
_ALWAYS = frozenset(_EXITS)
if hasattr(signal, "SIGHUP"):  # not on Windows
    _EXITS[signal.SIGHUP] = ExitCode.HUNG_UP


class StopSignals:
    """While entered, the first of these signals is remembered; a second one acts as it would have without us.

    A SIGHUP that is ignored stays so, as under nohup.

    Outside the main thread Python delivers no signals; then this does nothing.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _EXITS:
                if number in _ALWAYS or signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    @property
    def exit_code(self) -> ExitCode | None:
        """The exit code for the signal that came, or None."""
        return _EXITS[self._received] if self._received is not None else None

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
