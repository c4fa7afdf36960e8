"""The rows of a run as they come, from this process or from several."""

from collections.abc import Sequence

from mribatch.core.errors import Interrupted
from mribatch.pipeline.executor.events import Lost, Remark
from mribatch.pipeline.executor.messages import PartMade, Rows
from mribatch.pipeline.failure_limits import FailureLimits
from mribatch.pipeline.progress import Progress
from mribatch.pipeline.records import Status
from mribatch.pipeline.run_record import RunRecord
from mribatch.pipeline.stop_signals import StopSignals
from mribatch.pipeline.stopwatch import DECODING, Stopwatch

RESUME = "type the same command again, without --overwrite; it continues from there"


class Tally:
    """Counts the rows of a run as they come, shows them, and tells when it must end.

    Args:
        record: Of the run; its `new_rows` grows.
        stop: Tells of signals.
        progress: Told of every row.
        limits: Tells when too many have failed.
        before: Rows that earlier processes have made.
        processes: That make rows side by side.
    """

    def __init__(
        self,
        record: RunRecord,
        stop: StopSignals,
        progress: Progress,
        limits: FailureLimits,
        *,
        before: int,
        processes: int,
    ) -> None:
        self._before = before
        self._processes = processes
        self._record = record
        self._stop = stop
        self._progress = progress
        self._limits = limits

    def add(self, statuses: Sequence[Status], error: str | None) -> None:
        """Count new rows.

        Args:
            statuses: One for each row.
            error: Of the last of them.

        Raises:
            MribatchError: Too many have failed.
        """
        self._count(len(statuses), sum(status.is_failure for status in statuses))
        self._limits.check(statuses, error)

    def take(self, event: Rows | PartMade | Lost | Remark, watch: Stopwatch) -> None:
        """Count what several processes tell of.

        Raises:
            MribatchError: Too many rows have failed.
        """
        if isinstance(event, Rows):
            self.add([Status(name) for name, number in event.by_status.items() for _ in range(number)], event.error)
        elif isinstance(event, Lost):
            lost = {Status(name): number for name, number in event.by_status.items()}
            self._limits.uncount(lost)
            self._count(-event.count, -sum(number for status, number in lost.items() if status.is_failure))
        elif isinstance(event, PartMade):
            self._progress.published(event.part, len(self._record.layout.rows(event.part)))
            for stage, seconds in event.seconds.items():  # side by side: a second of each is one second
                watch.seconds[stage] += seconds if stage == DECODING else seconds / self._processes
        else:
            self._progress.note(event.text)

    @property
    def is_stopped(self) -> bool:
        """Whether a signal came, and rows are missing."""
        return self._stop.exit_code is not None and self._done < len(self._record.own_rows)

    def interrupt(self, lost: int) -> Interrupted:
        """Return the error of a run that a signal ended; `lost` of its rows could not be kept."""
        assert self._stop.exit_code is not None, "a signal came"
        shown = f"{self._done - lost:,} of {len(self._record.own_rows):,}"
        return Interrupted(self._stop.exit_code, f"stopped by a signal; {shown} images are kept", RESUME)

    @property
    def _done(self) -> int:
        return self._before + self._record.new_rows

    def _count(self, rows: int, failed: int) -> None:
        self._record.new_rows += rows
        self._progress.advance(rows, failed)
