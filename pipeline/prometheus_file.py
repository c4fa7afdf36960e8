"""The progress of a run as a text file for Prometheus: `--metrics-file`, for the textfile collector of node_exporter.

The file is replaced as a whole. docs/how-to/cluster.md lists the metrics.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mribatch.core.errors import MribatchError, OptionError
from mribatch.core.install import install_command
from mribatch.pipeline.output.summary import RunSummary
from mribatch.pipeline.progress import SilentProgress
from mribatch.pipeline.work_rates import WorkRates

SUFFIX = ".prom"  # node_exporter reads no other files
STATES = ("listing", "running", "finished", "stopped")
_SECONDS_BETWEEN_FILES = 5.0


class PrometheusFile(SilentProgress):
    """A Progress that writes metrics.

    Args:
        path: Of the file.
        run: The output folder: a label of every metric, so that the files of several runs do not contradict each other.
        clock: Seconds from any beginning.

    Raises:
        MribatchError: The library is not installed, or the file cannot be written.
    """

    def __init__(self, path: Path, run: str, clock: Callable[[], float] = time.monotonic) -> None:
        if path.suffix != SUFFIX:
            raise OptionError(f"--metrics-file {path} does not end in {SUFFIX}", f"name it {path.stem}{SUFFIX}")
        self._library = _load_library()
        self._path, self._run, self._clock = path, os.path.abspath(run), clock
        self._begin = self._last = clock()
        self._before = self._new = 0
        self._registry = self._library.CollectorRegistry()
        gauge = self._gauge
        self._images = gauge("mribatch_images", "Images that the run or shard has.")
        self._done = gauge("mribatch_images_done", "Images that have a row.")
        self._failed = gauge("mribatch_images_failed", "Rows of this call that are neither ok nor blank.")
        self._rate = gauge("mribatch_images_per_second", "Rows of this call by the seconds that it makes rows.")
        self._parts = gauge("mribatch_parts_made", "Part files of this call.")
        self._state = gauge("mribatch_run_state", "1 for the state of the run, 0 for the others.", "state")
        self._updated = gauge("mribatch_updated_seconds", "When this file was written, seconds since 1970.")
        self._worker = gauge(
            *("mribatch_worker_images_per_second", "Rate of a process in its last part."), "worker", "host"
        )
        self._worker_made = gauge(
            *("mribatch_worker_part_seconds", "When its last part appeared, seconds since 1970."), "worker", "host"
        )
        self._stage = gauge("mribatch_bottleneck", "1 for the stage that takes most of the time.", "stage")
        self._enter("listing")
        try:
            self._publish()
        except OSError as error:
            reason = error.strerror or error
            raise MribatchError(
                f"cannot write --metrics-file {path}: {reason}", "name a file in a folder that you may write to"
            ) from error

    def start(self, files: int, done: int) -> None:
        self._set(self._images, files)
        self._before, self._new, self._begin = done, 0, self._clock()
        self._set(self._done, done)
        self._set(self._failed, 0)
        self._set(self._parts, 0)
        self._write("running")

    def advance(self, files: int, failed: int) -> None:
        self._new += files
        self._set(self._done, self._before + self._new)
        self._failed.labels(self._run).inc(failed)
        self._set(self._rate, self._new / max(self._clock() - self._begin, 1e-9))
        if self._clock() - self._last >= _SECONDS_BETWEEN_FILES:
            self._write("running")

    def published(self, part: int, rows: int) -> None:
        self._parts.labels(self._run).inc()

    def worked(self, rates: WorkRates) -> None:
        for metric in (self._worker, self._worker_made, self._stage):
            metric.clear()
        for one in rates.makers:
            self._worker.labels(self._run, one.number, one.host).set(one.images_per_second)
            self._worker_made.labels(self._run, one.number, one.host).set(one.made)
        self._stage.labels(self._run, rates.bottleneck).set(1)

    def finished(self, summary: RunSummary) -> None:
        """Write the last figures of a run that has all its rows."""
        self._set(self._images, summary.images)
        self._set(self._done, summary.images)
        if summary.bottleneck is not None:
            self._stage.clear()
            self._stage.labels(self._run, summary.bottleneck).set(1)
        self._write("finished")

    def stopped(self, error: MribatchError) -> None:
        """Write that the run ended before it had all its rows."""
        self._write("stopped")

    def _gauge(self, name: str, what: str, *labels: str) -> Any:
        return self._library.Gauge(name, what, ("run", *labels), registry=self._registry)

    def _set(self, gauge: Any, value: float) -> None:
        gauge.labels(self._run).set(value)

    def _write(self, state: str) -> None:
        self._enter(state)
        with contextlib.suppress(OSError):  # a disk that is full for a while ends no run
            self._publish()

    def _enter(self, state: str) -> None:
        for one in STATES:
            self._state.labels(self._run, one).set(one == state)

    def _publish(self) -> None:
        self._last = self._clock()
        self._updated.labels(self._run).set_to_current_time()
        self._library.write_to_textfile(str(self._path), self._registry)


def _load_library() -> Any:
    try:
        import prometheus_client
    except ImportError as error:
        raise MribatchError("--metrics-file needs prometheus-client", install_command("metrics")) from error
    return prometheus_client
