"""When too many failures end a run: the first thousand files, or more than `--max-failures` allows."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from mribatch.core.errors import MribatchError, OptionError, RequirementNotMetError
from mribatch.pipeline.records import Status

FIRST_FAILURES = 1000
_BUDGET = re.compile(r"(\d{1,12})|(\d{1,3}(?:\.\d{1,6})?)\s*%")


@dataclass(frozen=True)
class FailureBudget:
    """How many images of a run may fail: a number, or a share of all its images.

    Args:
        text: As the user gave it, e.g. "20" or "2.5%".
        number: Images that may fail; None for a share.
        percent: Of all images; None for a number.
    """

    text: str
    number: int | None
    percent: Fraction | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "20" or "2.5%".

        Raises:
            OptionError: It is neither a number nor a share from 0 to 100 %.
        """
        found = _BUDGET.fullmatch(text.strip())
        percent = Fraction(found[2]) if found and found[2] else None
        if found is None or (percent is not None and percent > 100):
            raise OptionError(
                f"--max-failures '{text}' is neither a number nor a percentage", "write it like 20, or like 2.5%"
            )
        return cls(text.strip(), int(found[1]) if found[1] else None, percent)

    def allowed(self, images: int) -> int:
        """Return how many of so many images may fail."""
        if self.percent is None:
            return self.number or 0
        return int(self.percent * images / 100)


class FailureLimits:
    """Counts the rows of a run, and ends it where too many of its files failed.

    Args:
        images: Of the whole run.
        budget: What the user allows; None: everything.
        first: Whether the run ends where the first thousand files all fail: a folder that is not mounted, not a
            thousand bad images.
    """

    def __init__(self, images: int, budget: FailureBudget | None, *, first: bool) -> None:
        self._images = images
        self._budget = budget
        self._first = first
        self._reasons: Counter[Status] = Counter()

    def count(self, statuses: Iterable[Status]) -> None:
        """Count rows that are there already, without a verdict on them."""
        self._reasons.update(statuses)

    def uncount(self, lost: Mapping[Status, int]) -> None:
        """Forget rows that are to be made again."""
        self._reasons.subtract(lost)

    def check(self, statuses: Iterable[Status] = (), last_error: str | None = None) -> None:
        """Count new rows, too.

        Args:
            statuses: Of the new rows.
            last_error: Of the last of them.

        Raises:
            MribatchError: FIRST_FAILURES rows have come and none is ok.
            RequirementNotMetError: More rows have failed than the user allows.
        """
        self.count(statuses)
        self._check_first(last_error)
        self._check_budget()

    def _check_first(self, last_error: str | None) -> None:
        if not self._first:
            return
        if not all(status.is_failure for status in self._reasons):
            self._first = False
        elif last_error is not None and self._reasons.total() >= FIRST_FAILURES:
            raise MribatchError(
                f"the first {self._reasons.total():,} files all failed ({self._describe()}): {last_error}",
                f"{self._advice()}, or add --keep-going",
            )

    def _check_budget(self) -> None:
        if self._budget is None:
            return
        failed = sum(number for status, number in self._reasons.items() if status.is_failure)
        if failed <= self._budget.allowed(self._images):
            return
        raise RequirementNotMetError(
            f"{failed:,} of the first {self._reasons.total():,} images failed ({self._describe()}), more than"
            f" --max-failures {self._budget.text} allows in a run of {self._images:,}",
            "type the same command again with a higher --max-failures, which continues from there; or correct the files"
            " and add --overwrite",
        )

    def _describe(self) -> str:
        failures = ((status, number) for status, number in self._reasons.items() if status.is_failure)
        return ", ".join(f"{status} {number:,}" for status, number in failures)

    def _advice(self) -> str:
        if self._reasons.keys() <= {Status.UNSUPPORTED, Status.DECODE_FAILED}:  # they were read, so the folder is there
            return "leave these files out (see --exclude)"
        return "check that the folder is mounted and readable"
