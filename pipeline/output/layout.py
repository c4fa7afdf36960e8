"""Which rows of the listing each part file holds. A part never changes once the layout is decided.

A run has one increment: its listing. `--add-new` appends further ones, and each begins a new part, so that the last
part of an earlier increment stays as short as it was.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, groupby

PART_ROWS = 1024  # of a row group, and of a part at least
_MOST_PARTS = 10_000  # files that a folder on any file system bears
_MOST_GROUPS = 64
MOST_PART_ROWS = _MOST_GROUPS * PART_ROWS  # of a part, which is held in memory


def choose_part_rows(images: int) -> int:
    """Return the rows of each part of a run that begins with so many images.

    Small parts go round better among processes, and little is lost with one. So they have PART_ROWS, or as many times
    that as keeps the run at 10,000 files: parts of 10,240 rows for 100 million images.
    """
    groups = -(-images // (_MOST_PARTS * PART_ROWS))
    return PART_ROWS * min(max(groups, 1), _MOST_GROUPS)


def is_part_rows(value: object) -> bool:
    """Whether a run may have parts of so many rows."""
    return type(value) is int and value % PART_ROWS == 0 and 1 <= value // PART_ROWS <= _MOST_GROUPS


def format_parts(parts: Iterable[int]) -> str:
    """Write numbers of parts, those that follow each other as one range: "0-3,7"."""
    runs = groupby(enumerate(sorted(parts)), key=lambda item: item[1] - item[0])
    spans = [[part for _, part in run] for _, run in runs]
    return ",".join(str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in spans)


@dataclass(frozen=True)
class PartLayout:
    """The parts of a run, numbered from 0 in the order of the listing.

    increments: Files of each increment, in the order in which they were added. part_rows: Of each part but the last one
    of an increment.
    """

    increments: tuple[int, ...]
    part_rows: int = PART_ROWS

    @property
    def files(self) -> int:
        return sum(self.increments)

    @property
    def parts(self) -> int:
        return sum(map(self._count_parts, self.increments))

    def rows(self, part: int) -> range:
        """Return the listing's row numbers of a part; fewer in an increment's last part."""
        first_part = first_row = 0
        for files in self.increments:
            if part < first_part + self._count_parts(files):
                begin = (part - first_part) * self.part_rows
                return range(first_row + begin, first_row + min(begin + self.part_rows, files))
            first_part, first_row = first_part + self._count_parts(files), first_row + files
        raise ValueError(f"part {part} of {self.parts}")

    def part_of(self, row: int) -> int:
        """Return the part that holds a row of the listing."""
        first_part = 0
        for files, end in zip(self.increments, accumulate(self.increments), strict=True):
            if row < end:
                return first_part + (row - (end - files)) // self.part_rows
            first_part += self._count_parts(files)
        raise ValueError(f"row {row} of {self.files}")

    def span(self, parts: range) -> range:
        """Return the listing's row numbers of parts that follow each other; an empty range where there is none."""
        return range(self.rows(parts[0]).start, self.rows(parts[-1]).stop) if parts else range(0)

    def count_rows(self, parts: Iterable[int]) -> int:
        """Return how many rows the parts have together."""
        return sum(len(self.rows(part)) for part in parts)

    def _count_parts(self, files: int) -> int:
        return -(-files // self.part_rows)
