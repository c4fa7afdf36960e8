"""Images of a run that are there more than once: the same bytes, or nearly the same picture."""

from collections.abc import Iterable
from dataclasses import dataclass

from mribatch.core.training_images import group_near
from mribatch.report.rows import RunRows

MAX_GROUPS = 12
MAX_OF_GROUP = 6  # images that are shown


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Rows that show the same. exact: whether their files have the same bytes. labels_differ: of those with a label."""

    rows: tuple[int, ...]
    exact: bool
    labels_differ: bool


@dataclass(frozen=True)
class Duplicates:
    """All groups, those whose labels differ first, then the largest."""

    groups: tuple[DuplicateGroup, ...]

    @property
    def copies(self) -> int:
        """Images that are the same as an earlier one, byte for byte."""
        return sum(len(group.rows) - 1 for group in self.groups if group.exact)

    @property
    def near(self) -> int:
        """Images that are nearly the same picture as another one, whose bytes differ."""
        return sum(len(group.rows) for group in self.groups if not group.exact)

    @property
    def shown(self) -> tuple[DuplicateGroup, ...]:
        return self.groups[:MAX_GROUPS]


def find_duplicates(rows: RunRows) -> Duplicates:
    """Find files with equal SHA-256 (of a file with several images: the same slice), and near-duplicates.

    Near-duplicates are by the perceptual hash in the rows; neighbours of one series are not, since they are alike by
    their nature, and of copies only the first counts.
    """
    same: dict[tuple[str, int | None], list[int]] = {}
    for row, (digest, position) in enumerate(zip(rows.hashes, rows.slices, strict=True)):
        if digest is not None:
            same.setdefault((digest, position), []).append(row)
    firsts = [members[0] for members in same.values() if rows.pictures[members[0]]]
    alike: dict[int, list[int]] = {}
    for row, group in zip(firsts, group_near(rows.pictures[firsts]).tolist(), strict=True):
        alike.setdefault(group, []).append(row)
    groups = [
        *(_group(members, rows, exact=True) for members in same.values() if len(members) > 1),
        *(_group(members, rows, exact=False) for members in alike.values() if _has_several_sources(members, rows)),
    ]
    return Duplicates(tuple(sorted(groups, key=lambda group: (not group.labels_differ, -len(group.rows), group.rows))))


def _group(members: Iterable[int], rows: RunRows, *, exact: bool) -> DuplicateGroup:
    found = tuple(members)
    labels = {int(rows.labels[row]) for row in found} - {-1}
    return DuplicateGroup(found, exact, len(labels) > 1)


def _has_several_sources(members: Iterable[int], rows: RunRows) -> bool:
    return len({rows.series[row] or row for row in members}) > 1
