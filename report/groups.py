"""Which rows belong together: groups for the intervals, and patients whose slices are aggregated."""

import csv
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32, float64, int64
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.report.rows import RunRows, group_columns

GROUP_COLUMNS = ("series_id", "group_id", "patient")  # which one counts where a table has several
PATIENT = "patient"


@dataclass(frozen=True)
class Grouping:
    """codes: int64 (rows,), equal for the rows of one group, -1 where a row has none."""

    codes: NDArray[int64]
    names: tuple[str, ...]  # by code
    source: str  # e.g. "series_id of groups.csv"

    def with_singles(self) -> NDArray[int64]:
        """The codes, with every row that has no group as a group of its own."""
        alone = self.codes < 0
        codes = self.codes.copy()
        codes[alone] = len(self.names) + np.arange(int(alone.sum()))
        return codes


@dataclass(frozen=True)
class Patients:
    """Slices aggregated to patients, those that have readable and labelled slices of one label only.

    labels: int64 (patients,). mean, worst: float32 (patients, classes).
    """

    labels: NDArray[int64]
    mean: NDArray[float32]
    worst: NDArray[float32]
    facts: Mapping[str, Any]  # how many there are, and who was left out and why


def column_of_predictions(option: str | None, run: Path) -> str | None:
    """The column of the predictions that --groups names; None where it names a table or is not given.

    Raises:
        MribatchError: It is neither.
    """
    if option is None or _table_and_column(option) is not None:
        return None
    usable = group_columns(run)
    if option in usable:
        return option
    raise MribatchError(
        f"--groups '{option}' is neither a CSV file nor a text or integer column of the predictions",
        f"give FILE.csv, FILE.csv:column, or one of {', '.join(usable)}",
    )


def groups_of(option: str, rows: RunRows, inputs: Sequence[Mapping[str, Any]]) -> Grouping:
    """The groups that --groups names.

    Raises:
        MribatchError: The table cannot be read, has no such column, or knows none of the rows.
    """
    found = _table_and_column(option)
    if found is None:
        return _grouping(rows.extra or [], f"column {option} of the predictions")
    table, column = found
    column = column or _group_column(table)
    return _from_table("--groups", table, column, rows, inputs)


def patients_of(option: str, rows: RunRows, inputs: Sequence[Mapping[str, Any]]) -> Grouping:
    """The patients that `--group-by patient=REGEX` or `patient=FILE.csv` names.

    A pattern is searched in each path; its first capture group is the patient.

    Raises:
        MribatchError: Not of that form, no capture group, an unreadable table, or no row has a patient.
    """
    name, equals, rule = option.partition("=")
    if name.strip() != PATIENT or not equals or not rule:
        raise MribatchError(
            f"--group-by '{option}' is not understood", "write patient=REGEX with a capture group, or patient=FILE.csv"
        )
    if Path(rule).is_file() or rule.lower().endswith(".csv"):
        return _from_table("--group-by", Path(rule), PATIENT, rows, inputs)
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise MribatchError(f"--group-by: '{rule}' is not a regular expression: {error}", "correct it") from error
    if pattern.groups < 1:
        raise MribatchError(
            f"--group-by: '{rule}' has no capture group",
            "put parentheses around what names the patient, e.g. patient='(P[0-9]+)_'",
        )
    matches = (pattern.search(path) for path in rows.paths)
    grouping = _grouping([match.group(1) or None if match else None for match in matches], f"pattern {rule}")
    if not grouping.names:
        raise MribatchError(
            f"--group-by: '{rule}' matches none of {len(rows):,} paths, e.g. '{rows.paths[0]}'",
            "write a pattern that fits the column path of the predictions",
        )
    return grouping


def aggregate(rows: RunRows, patients: Grouping, classes: Sequence[str]) -> Patients:
    """Slices to patients: the mean probability, and the worst slice.

    Worst slice: of every class the highest probability in any slice of the patient, divided by their sum. For a finding
    it is the most suspicious slice, for any list of classes; it is the maximum operator of multiple-instance learning
    (Ilse, Tomczak and Welling 2018, section 2). The mean is their mean operator.
    """
    used = rows.scored & (patients.codes >= 0)
    order = np.argsort(patients.codes[used], kind="stable")
    codes, labels = patients.codes[used][order], rows.labels[used][order]
    slices = rows.probabilities[used][order]
    present, starts = np.unique(codes, return_index=True)
    several: list[int] = []
    if len(present):
        lowest, highest = np.minimum.reduceat(labels, starts), np.maximum.reduceat(labels, starts)
        mixed = lowest != highest
        several = present[mixed].tolist()
        mean = np.add.reduceat(slices.astype(float64), starts, axis=0)[~mixed]
        worst = np.maximum.reduceat(slices, starts, axis=0).astype(float64)[~mixed]
        labels = lowest[~mixed]
    else:
        mean = worst = np.zeros((0, len(classes)))
    named = [
        {
            "patient": patients.names[code],
            "labels": [classes[k] for k in np.unique(rows.labels[used & (patients.codes == code)])],
        }
        for code in several[:20]
    ]
    damaged = np.unique(patients.codes[~rows.readable & (patients.codes >= 0)])
    facts = {
        "source": patients.source,
        "patients": len(patients.names),
        "scored": len(labels),
        "several_labels": {"count": len(several), "named": named},
        "nothing_to_score": len(patients.names) - len(present),
        "with_unreadable_slices": len(damaged),
        "slices_without_patient": int((patients.codes < 0).sum()),
    }
    return Patients(labels, _normalised(mean), _normalised(worst), facts)


def _normalised(sums: NDArray[float64]) -> NDArray[float32]:
    normalised: NDArray[float32] = (sums / sums.sum(axis=1, keepdims=True)).astype(float32)
    return normalised


def _grouping(values: Sequence[Hashable], source: str) -> Grouping:
    """Codes in the order of first appearance; None and "" are no group."""
    codes: dict[str, int] = {}
    coded = [-1 if value in (None, "") else codes.setdefault(str(value), len(codes)) for value in values]
    return Grouping(np.array(coded, dtype=int64), tuple(codes), source)


def _table_and_column(option: str) -> tuple[Path, str | None] | None:
    """FILE.csv or FILE.csv:column; None where it looks like neither."""
    name, colon, column = option.rpartition(":")
    if colon and column and (Path(name).is_file() or name.lower().endswith(".csv")):
        return Path(name), column
    return (Path(option), None) if Path(option).is_file() or option.lower().endswith(".csv") else None


def _group_column(table: Path) -> str:
    header = next(_lines("--groups", table))
    for column in GROUP_COLUMNS:
        if column in header:
            return column
    raise MribatchError(
        f"{table} has none of the columns {', '.join(GROUP_COLUMNS)}", f"name the column: --groups {table}:COLUMN"
    )


def _from_table(option: str, table: Path, column: str, rows: RunRows, inputs: Sequence[Mapping[str, Any]]) -> Grouping:
    lines = _lines(option, table)
    header = next(lines)
    for needed in ("path", column):
        if needed not in header:
            raise MribatchError(f"{table} has no column '{needed}'", f"give a table with the columns path,{column}")
    known: dict[str, str] = {}
    for line in lines:
        path, value = _normal(line["path"] or ""), (line[column] or "").strip()
        if known.setdefault(path, value) != value:
            raise MribatchError(
                f"{table} names two groups for '{path}': '{known[path]}' and '{value}'", "keep one line for each file"
            )
    roots = [_root(item) for item in inputs]
    values: list[str | None] = []
    taken: dict[str, str] = {}
    for path, position in zip(rows.paths, rows.inputs.tolist(), strict=True):
        names = _names_of(path, roots[position] if position < len(roots) else [])
        name = next((name for name in names if name in known), None)
        if name is not None and taken.setdefault(name, path) != path:
            raise MribatchError(
                f"{table}: '{name}' could be '{taken[name]}' or '{path}'",
                "write its column path like the column path of the predictions",
            )
        values.append(known[name] if name is not None else None)
    grouping = _grouping(values, f"{column} of {table.name}")
    if len(rows) and not grouping.names:
        raise MribatchError(
            f"{option} {table} knows none of the {len(rows):,} paths, e.g. '{rows.paths[0]}'",
            "write its column path like the column path of the predictions",
        )
    return grouping


def _lines(option: str, table: Path) -> Iterator[dict[str, Any]]:
    """The header as a dictionary of its names, then every line."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            yield dict.fromkeys(reader.fieldnames or ())
            yield from reader
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise MribatchError(f"cannot read {option} {table}: {reason}", "give a CSV file in UTF-8") from error


def _normal(path: str) -> str:
    return path.strip().replace("\\", "/").removeprefix("./")


def _root(item: Mapping[str, Any]) -> list[str]:
    """Folders that an input's paths are relative to, the nearest last."""
    text = item.get("root") or (item.get("path") if item.get("kind") == "folder" else None) or ""
    parts = [part for part in str(text).split("/") if part not in ("", ".")]
    return ["", *parts] if str(text).startswith("/") else parts


def _names_of(path: str, root: Sequence[str]) -> Iterator[str]:
    """How a table may name the file: its path, then with one folder of its root after the other before it.

    So a table made for data/ fits a run on data/Testing. An absolute path, from a list of files, may be named by its
    last parts, a folder and the file's name at least. A name shorter than a relative path is never tried: it could be
    another file's.
    """
    yield path
    for count in range(1, len(root) + 1):
        yield "/".join([*root[-count:], path])
    if path.startswith("/"):
        parts = path.split("/")
        for start in range(1, len(parts) - 1):
            yield "/".join(parts[start:])
