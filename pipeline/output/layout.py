"""Which rows of the listing each part file holds. A part never changes once the layout is decided.

A run has one increment: its listing. `--add-new` appends further ones, and each begins a new part, so that the last
part of an earlier increment stays as short as it was.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

PART_ROWS = 1024


@dataclass(frozen=True)
class PartLayout:
    """The parts of a run, numbered from 0 in the order of the listing.

    increments: Files of each increment, in the order in which they were added.
    """

    increments: tuple[int, ...]

    @property
    def files(self) -> int:
        return sum(self.increments)

    @property
    def parts(self) -> int:
        return sum(map(_parts_of, self.increments))

    def rows(self, part: int) -> range:
        """Return the listing's row numbers of a part: PART_ROWS of them, fewer in an increment's last part."""
        first_part = first_row = 0
        for files in self.increments:
            if part < first_part + _parts_of(files):
                begin = (part - first_part) * PART_ROWS
                return range(first_row + begin, first_row + min(begin + PART_ROWS, files))
            first_part, first_row = first_part + _parts_of(files), first_row + files
        raise ValueError(f"part {part} of {self.parts}")

    def part_of(self, row: int) -> int:
        """Return the part that holds a row of the listing."""
        first_part = 0
        for files, end in zip(self.increments, accumulate(self.increments), strict=True):
            if row < end:
                return first_part + (row - (end - files)) // PART_ROWS
            first_part += _parts_of(files)
        raise ValueError(f"row {row} of {self.files}")

    def span(self, parts: range) -> range:
        """Return the listing's row numbers of parts that follow each other; an empty range where there is none."""
        return range(self.rows(parts[0]).start, self.rows(parts[-1]).stop) if parts else range(0)

    def count_rows(self, parts: Iterable[int]) -> int:
        """Return how many rows the parts have together."""
        return sum(len(self.rows(part)) for part in parts)


def _parts_of(files: int) -> int:
    return -(-files // PART_ROWS)
