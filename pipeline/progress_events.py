"""The progress of a run as events for schedulers and dashboards: one JSON object per line.

docs/reference/json-output.md lists the events and their keys. A line that is no JSON is the error of the command.
"""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from mribatch.core.about import JSON_SCHEMA_VERSION
from mribatch.core.errors import MribatchError
from mribatch.pipeline.output.summary import RunSummary
from mribatch.pipeline.work_rates import WorkRates

_SECONDS_BETWEEN_EVENTS = 1.0


class ProgressEvents:
    """A Progress that writes events.

    Args:
        stream: Where the lines go.
        clock: Seconds from any beginning.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._last = clock()
        self._begin = self._last
        self._told_workers = self._last - _SECONDS_BETWEEN_EVENTS
        self._images = self._before = self._new = self._failed = 0

    def listed(self, files: int) -> None:
        if self._is_due():
            self._write("listing", files=files)

    def read_headers(self, files: int, total: int) -> None:
        if self._is_due():
            self._write("reading_headers", files=files, total=total)

    def start(self, files: int, done: int) -> None:
        self._images, self._before, self._new, self._failed = files, done, 0, 0
        self._begin = self._last = self._clock()
        self._write("begun", images=files, done=done)

    def advance(self, files: int, failed: int) -> None:
        self._new += files
        self._failed += failed
        if self._is_due():
            self._write("progress", **self._figures())

    def published(self, part: int, rows: int) -> None:
        self._write("part", part=part, rows=rows)

    def worked(self, rates: WorkRates) -> None:
        now = self._clock()
        if now - self._told_workers < _SECONDS_BETWEEN_EVENTS:
            return
        self._told_workers = now
        workers = [
            {"worker": one.number, "host": one.host, "images_per_second": round(one.images_per_second, 1)}
            for one in rates.makers
        ]
        self._write("workers", workers=workers, bottleneck=rates.bottleneck)

    def note(self, text: str) -> None:
        self._write("note", text=text)

    def close(self) -> None: ...

    def finished(self, summary: RunSummary) -> None:
        """Say how a run ended that made all its rows."""
        self._write(
            "finished",
            images=summary.images,
            failed=summary.not_ok,
            new_rows=summary.new_rows,
            images_per_second=summary.images_per_second,
            bottleneck=summary.bottleneck,
            exit_code=int(summary.exit_code),
        )

    def stopped(self, error: MribatchError) -> None:
        """Say why a run ended before it had all its rows."""
        self._write("stopped", error=error.problem, fix=error.fix, exit_code=int(error.exit_code))

    def _figures(self) -> dict[str, Any]:
        rate = self._new / max(self._clock() - self._begin, 1e-9)
        done = self._before + self._new
        return {
            "images": self._images,
            "done": done,
            "failed": self._failed,
            "images_per_second": round(rate, 1),
            "seconds_left": round((self._images - done) / rate, 1) if rate else None,
        }

    def _write(self, event: str, **values: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        content = {"event": event, "schema_version": JSON_SCHEMA_VERSION, "time": now} | values
        print(json.dumps(content, allow_nan=False), file=self._stream, flush=True)

    def _is_due(self) -> bool:
        now = self._clock()
        if now - self._last < _SECONDS_BETWEEN_EVENTS:
            return False
        self._last = now
        return True
