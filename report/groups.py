"""The one reader of groups tables, for the report and for training: which files belong together, by path.

A groups table is a CSV file with the column `path` and at least one column of COLUMN_NAMES. `docs/reference/metrics.md`
describes it for users.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mribatch.core.csv_rows import CsvTable, open_csv
from mribatch.core.errors import MribatchError

# What each kind of group may be called, by preference; case does not count. The report prefers the kinds in this order:
# what is resampled must be independent, so the largest unit is first. "group" and "study" alone are left out, since in
# clinical tables they name a trial arm or a source of the data.
PATIENT = "patient_id"
NEAR_DUPLICATES = "group_id"
COLUMN_NAMES: Mapping[str, tuple[str, ...]] = {
    PATIENT: ("patient_id", "patient", "PatientID", "subject_id", "subject", "participant_id"),
    "study_id": ("study_id", "StudyInstanceUID"),
    "series_id": ("series_id", "series", "SeriesInstanceUID"),
    NEAR_DUPLICATES: ("group_id", "near_duplicate_group"),
}
_PATH = "path"


@dataclass(frozen=True)
class GroupsTable:
    """What each listed path belongs to."""

    columns: tuple[str, ...]  # kinds of COLUMN_NAMES, or the name of a column that the user named
    ids: Mapping[str, tuple[str, ...]]  # path, with "/" -> one id per column, "" where there is none
    titles: tuple[str, ...] = ()  # the columns as the table spells them
    name: str = "the groups table"  # for errors
    fix: str = "write its column path like the paths of the files"  # for errors about paths

    def find_ids(self, paths: Sequence[str], roots: Iterable[str]) -> list[tuple[str, ...] | None]:
        """The ids of each path, or None where the table does not have it.

        A path may be listed as it is; with folders of its root before it, the nearest first, up to the absolute path
        (so a table for data/ fits files of data/Testing); an absolute path also by its last parts, a folder and the
        file's name at least. Backslashes count as slashes, a leading "./" is ignored. A name shorter than a relative
        path is never tried: it could be another file's.

        Args:
            paths: Relative to their root, or absolute.
            roots: One folder per path, absolute where known.

        Raises:
            MribatchError: The table has none of the paths, or one line fits two of them.
        """
        found: list[tuple[str, ...] | None] = []
        taken: dict[str, str] = {}
        for path, root in zip(paths, roots, strict=True):
            name = next((name for name in _names_of(_normalize(path), root) if name in self.ids), None)
            if name is not None and taken.setdefault(name, path) != path:
                raise MribatchError(f"{self.name}: '{name}' could be '{taken[name]}' or '{path}'", self.fix)
            found.append(None if name is None else self.ids[name])
        if found and not taken:
            raise self.unknown_paths(paths)
        return found

    def unknown_paths(self, paths: Sequence[str]) -> MribatchError:
        """The error of a table that says nothing about the files."""
        return MribatchError(f"{self.name} has none of the {len(paths):,} paths, e.g. '{paths[0]}'", self.fix)


def find_kinds(path: Path, *, name: str, fix: str) -> list[str]:
    """The kinds of groups that a table has, in the order of COLUMN_NAMES.

    Raises:
        MribatchError: Unreadable, or it has no known column.
    """
    with open_csv(path, name=name, fix=fix) as table:
        kinds = [kind for kind, names in COLUMN_NAMES.items() if table.find_column(*names) is not None]
        if not kinds:
            known = ", ".join(COLUMN_NAMES)
            raise table.error(f"has none of the columns {known}; its columns: {table.titles}")
        return kinds


def read_groups_table(
    path: Path, columns: Mapping[str, Collection[str]], *, name: str, fix: str, path_fix: str
) -> GroupsTable:
    """Read columns of a groups table.

    Args:
        path: The CSV file.
        columns: What the columns are for -> the names that each may have; all must be there.
        name: What errors call the table.
        fix: What errors about its form advise.
        path_fix: What errors about paths that do not fit advise.

    Raises:
        MribatchError: Unreadable, a column is missing, or it has two groups for one path.
    """
    with open_csv(path, name=name, fix=fix) as table:
        positions = [table.column(*names) for names in columns.values()]
        ids = _read_ids(table, positions)
        titles = tuple(table.header[i].strip() for i in positions)
    return GroupsTable(tuple(columns), ids, titles, name, path_fix)


def _read_ids(table: CsvTable, positions: Sequence[int]) -> dict[str, tuple[str, ...]]:
    ids: dict[str, tuple[str, ...]] = {}
    for line, (path, *cells) in table.rows([table.column(_PATH), *positions]):
        key, values = _normalize(path or ""), tuple((cell or "").strip() for cell in cells)
        if ids.setdefault(key, values) != values:
            problem = f"a second group for '{key}': '{', '.join(ids[key])}', then '{', '.join(values)}'"
            raise MribatchError(f"{table.name}, line {line}: {problem}", "keep one line for each file")
    return ids


def _normalize(path: str) -> str:
    return path.strip().replace("\\", "/").removeprefix("./")


def _names_of(path: str, root: str) -> Iterator[str]:
    """How a table may name the file, see `GroupsTable.find_ids`."""
    yield path
    folders = [part for part in root.split("/") if part not in ("", ".")]
    if root.startswith("/"):
        folders = ["", *folders]
    for count in range(1, len(folders) + 1):
        yield "/".join([*folders[-count:], path])
    if path.startswith("/"):
        parts = path.split("/")
        for start in range(1, len(parts) - 1):
            yield "/".join(parts[start:])
