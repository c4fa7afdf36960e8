"""The committed table of pydicom's test set says what is true of the files that are installed."""

import csv

import pytest

from benchmarks.conditions import RESULTS
from benchmarks.dicom_files import expect, find, find_files, relative_name

_LARGE = 200_000  # bytes; the larger files take most of the time and are of the same kinds
TABLE = max(RESULTS.glob("dicom_files-*.csv"))


def table() -> dict[str, dict[str, str]]:
    with TABLE.open(newline="", encoding="utf-8") as stream:
        return {row["file"]: row for row in csv.DictReader(stream)}


def test_every_file_is_as_expected_and_within_one_level_of_another_decoder() -> None:
    rows = table().values()
    assert len(rows) > 200
    assert all(row["found"] == row["expected"] for row in rows)
    levels = [int(row["levels"]) for row in rows if row["levels"]]
    assert len(levels) > 60
    assert max(levels) <= 1


@pytest.mark.filterwarnings("ignore")  # pydicom comments on damaged headers
def test_the_table_is_fresh() -> None:
    pytest.importorskip("imagecodecs")
    known = table()
    for path in find_files():
        row = known.get(relative_name(path))
        if row is not None and path.stat().st_size < _LARGE:  # another version of pydicom may bring other files
            assert expect(path)[0] == row["expected"], row["file"]
            found, frames, flags = find(path)
            assert (str(found), str(frames), flags) == (row["found"], row["frames"], row["flags"]), row["file"]
