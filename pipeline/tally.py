"""The rows of a run as they come, from this process or from several."""

from collections.abc import Sequence

from mribatch.core.errors import Interrupted
from mribatch.pipeline.executor.events import Lost, Remark, Told
from mribatch.pipeline.executor.messages import Rows
from mribatch.pipeline.failure_limits import FailureLimits
from mribatch.pipeline.progress import Progress
from mribatch.pipeline.records import Status
from mribatch.pipeline.run_record import RunRecord
from mribatch.pipeline.stop_signals import StopSignals
from mribatch.pipeline.work_rates import WorkWatch

RESUME = "type the same command again, without --overwrite; it continues from there"


class Tally:
    """Counts the rows of a run as they come, shows them, and tells when it must end.

    Args:
        record: Of the run; its `new_rows` grows.
        stop: Tells of signals.
        progress: Told of every row.
        limits: Tells when too many have failed.
        before: Rows that earlier processes have made.
    """

    def __init__(
        self,
        record: RunRecord,
        stop: StopSignals,
        progress: Progress,
        limits: FailureLimits,
        *,
        before: int,
    ) -> None:
        self._before = before
        self.work = WorkWatch()  # of the processes that make rows side by side
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

    def take(self, event: Told | Lost | Remark) -> None:
        """Count what several processes tell of.

        Raises:
            MribatchError: Too many rows have failed.
        """
        if isinstance(event, Told):
            self._take_told(event)
        elif isinstance(event, Lost):
            self.work.lose(event)
            lost = {Status(name): number for name, number in event.by_status.items()}
            self._limits.uncount(lost)
            self._count(-event.count, -sum(number for status, number in lost.items() if status.is_failure))
        else:
            self._progress.note(event.text)

    def _take_told(self, event: Told) -> None:
        message, rates = event.message, self.work.take(event)
        if isinstance(message, Rows):
            self.add([Status(name) for name, number in message.by_status.items() for _ in range(number)], message.error)
            return
        self._record.record_part(event.maker, message.part)
        self._progress.published(message.part, len(self._record.layout.rows(message.part)))
        if rates is not None:
            self._progress.worked(rates)

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
