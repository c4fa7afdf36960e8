"""Which rows of a run belong together, by the options --groups and --group-by."""

import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import int64
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError, OptionError
from mribatch.report.groups import COLUMN_NAMES, PATIENT, find_kinds, read_groups_table
from mribatch.report.rows import RunRows, list_group_columns

_KEY = "patient"  # of --group-by
_PATH_FIX = "write its column path like the column path of the predictions"


@dataclass(frozen=True)
class RowGroups:
    """The group of each row. codes: int64 (rows,), equal for the rows of one group, -1 where a row has none."""

    codes: NDArray[int64]
    names: tuple[str, ...]  # by code
    source: str  # e.g. "series_id of groups.csv"

    def codes_with_singles(self) -> NDArray[int64]:
        """The codes, with every row that has no group as a group of its own."""
        alone = self.codes < 0
        codes = self.codes.copy()
        codes[alone] = len(self.names) + np.arange(int(alone.sum()))
        return codes


def find_predictions_column(option: str | None, run: Path) -> str | None:
    """The column of the predictions that --groups names; None where it names a table or is not given.

    Raises:
        MribatchError: It is neither.
    """
    if option is None or _split_option(option) is not None:
        return None
    usable = list_group_columns(run)
    if option in usable:
        return option
    raise MribatchError(
        f"--groups '{option}' is neither a CSV file nor a text or integer column of the predictions",
        f"give FILE.csv, FILE.csv:COLUMN, or one of {', '.join(usable)}",
    )


def find_groups(option: str, rows: RunRows, roots: Sequence[str]) -> RowGroups:
    """The groups that --groups names.

    Raises:
        MribatchError: The table cannot be read, has no such column, or has none of the rows.
    """
    found = _split_option(option)
    if found is None:
        return _number_groups(rows.extra or [], f"column {option} of the predictions")
    table, column = found
    if column is not None:
        return _read_table("--groups", table, {column: (column,)}, rows, roots)
    fix = f"give a CSV file in UTF-8 with a groups column, or name the column: --groups {table}:COLUMN"
    kind = find_kinds(table, name=f"--groups {table}", fix=fix)[0]
    return _read_table("--groups", table, {kind: COLUMN_NAMES[kind]}, rows, roots)


def find_patients(option: str, rows: RunRows, roots: Sequence[str]) -> RowGroups:
    """The patients that `--group-by patient=REGEX` or `patient=FILE.csv` names.

    A pattern is searched in each path; its first capture group is the patient.

    Raises:
        MribatchError: Not of that form, no capture group, an unreadable table, or no row has a patient.
    """
    name, equals, rule = option.partition("=")
    if name.strip() != _KEY or not equals or not rule:
        raise OptionError(
            f"--group-by '{option}' is not understood", "write patient=REGEX with a capture group, or patient=FILE.csv"
        )
    if _is_table(rule):
        return _read_table("--group-by", Path(rule), {PATIENT: COLUMN_NAMES[PATIENT]}, rows, roots)
    return _match_paths(rule, rows)


def find_known_patients(rows: RunRows) -> RowGroups | None:
    """The patients that the rows know, from DICOM headers; a NIfTI volume, whose header names none, is one of its own.

    Returns:
        None for a run of plain images.
    """
    groups = _number_groups(rows.patients, "columns patient and series of the predictions")
    return groups if groups.names else None


def _match_paths(rule: str, rows: RunRows) -> RowGroups:
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise OptionError(
            f"--group-by: '{rule}' is not a regular expression: {error}", "correct the expression"
        ) from error
    if pattern.groups < 1:
        raise OptionError(
            f"--group-by: '{rule}' has no capture group",
            "put parentheses around what names the patient, e.g. patient='(P[0-9]+)_'",
        )
    matches = (pattern.search(path) for path in rows.paths)
    groups = _number_groups([match.group(1) or None if match else None for match in matches], f"pattern {rule}")
    if not groups.names:
        example = f", e.g. '{rows.paths[0]}'" if rows.paths else ""
        raise MribatchError(
            f"--group-by: '{rule}' matches none of {len(rows):,} paths{example}",
            "write a pattern that fits the column path of the predictions",
        )
    return groups


def _read_table(
    option: str, path: Path, columns: Mapping[str, Collection[str]], rows: RunRows, roots: Sequence[str]
) -> RowGroups:
    """Groups by the one column of `columns`."""
    name = f"{option} {path}"
    fix = f"give a CSV file in UTF-8 with the columns path and {next(iter(columns))}"
    table = read_groups_table(path, columns, name=name, fix=fix, path_fix=_PATH_FIX)
    known = dict(enumerate(roots))
    ids = table.find_ids(rows.paths, (known.get(i, "") for i in rows.inputs.tolist()))
    groups = _number_groups(
        [None if values is None else values[0] for values in ids], f"{table.titles[0]} of {path.name}"
    )
    if len(rows) and not groups.names:
        raise MribatchError(f"{name} has no {table.titles[0]} for any of the {len(rows):,} paths", fix)
    return groups


def _number_groups(values: Sequence[Hashable], source: str) -> RowGroups:
    """Codes in the order of first appearance; None and "" are no group."""
    codes: dict[str, int] = {}
    coded = [-1 if value in (None, "") else codes.setdefault(str(value), len(codes)) for value in values]
    return RowGroups(np.array(coded, dtype=int64), tuple(codes), source)


def _split_option(option: str) -> tuple[Path, str | None] | None:
    """FILE.csv or FILE.csv:COLUMN; None where it looks like neither."""
    name, colon, column = option.rpartition(":")
    if colon and column and _is_table(name):
        return Path(name), column
    return (Path(option), None) if _is_table(option) else None


def _is_table(name: str) -> bool:
    return name.lower().endswith(".csv") or Path(name).is_file()
