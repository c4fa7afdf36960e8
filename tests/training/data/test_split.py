"""Units are never divided, proportions hold, and the leak rate is counted, not assumed."""

from hashlib import sha256
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mribatch.core.errors import MribatchError
from mribatch.report.groups import GroupsTable
from mribatch.training.data.split import FRACTIONS, check_parts, group, grouped_split, leak, read_groups

TRAIN, VALIDATION, TEST = range(3)


def digests(count: int) -> list[str]:
    return [sha256(str(number).encode()).hexdigest() for number in range(count)]


DrawnSet = tuple[np.ndarray, list[str], GroupsTable]


@st.composite
def data_sets(draw: st.DrawFn) -> DrawnSet:
    """(labels, pixel hashes, table): some files with equal pixels, some not in the table, some without an id."""
    count = draw(st.integers(1, 60))
    few = st.integers(0, draw(st.integers(1, 40)))
    column = st.lists(few, min_size=count, max_size=count)
    labels, series, groups, pixels = (
        draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)),
        *(draw(column) for _ in range(3)),
    )
    ids = {
        f"{number}.png": (
            f"g{groups[number]}" if groups[number] else "",
            f"s{series[number]}" if series[number] else "",
        )
        for number in range(count)
        if number % 7 or count == 1
    }
    if not ids:
        ids = {"0.png": ("", "")}
    hashes = [digests(61)[value] for value in pixels]
    return np.array(labels), hashes, GroupsTable(("group_id", "series_id"), ids | {"0.png": ("", "")})


@given(data_sets(), st.integers(0, 3))
@settings(deadline=None)
def test_no_unit_in_two_parts_and_nothing_shared_across_parts(data_set: DrawnSet, seed: int) -> None:
    labels, hashes, table = data_set
    paths = [f"{number}.png" for number in range(len(labels))]
    grouping = group(paths, hashes, table)
    parts = grouped_split(labels, grouping, hashes, seed=seed)
    assert len(parts) == len(labels) and set(parts) <= {TRAIN, VALIDATION, TEST}
    for shared in (grouping.units.tolist(), hashes, *zip(*(table.ids.get(p, ("", "")) for p in paths), strict=True)):
        homes: dict[object, set[int]] = {}
        for key, part in zip(shared, parts.tolist(), strict=True):
            if key != "":
                homes.setdefault(key, set()).add(part)
        assert all(len(found) == 1 for found in homes.values())
    assert leak(grouping.near_duplicates, parts == TRAIN, parts == TEST, "").leaked == 0


@given(data_sets(), st.integers(0, 3), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_parts_do_not_depend_on_the_order_of_files(data_set: DrawnSet, seed: int, random: Random) -> None:
    labels, hashes, table = data_set
    paths = [f"{number}.png" for number in range(len(labels))]
    order = list(range(len(labels)))
    random.shuffle(order)
    parts = grouped_split(labels, group(paths, hashes, table), hashes, seed=seed)
    mixed_hashes = [hashes[place] for place in order]
    mixed = grouped_split(labels[order], group([paths[i] for i in order], mixed_hashes, table), mixed_hashes, seed=seed)
    assert parts[order].tolist() == mixed.tolist()


def test_proportions_hold_for_every_class() -> None:
    labels = np.repeat([0, 1, 2], [400, 100, 40])
    hashes = digests(540)
    parts = grouped_split(labels, group([str(i) for i in range(540)], hashes, None), hashes, seed=1)
    for label in range(3):
        counts = np.bincount(parts[labels == label], minlength=3)
        assert np.abs(counts - np.array(FRACTIONS) * counts.sum()).max() <= 1


def test_large_units_go_to_every_part() -> None:
    sizes = [20] * 10 + [1] * 200
    units = np.repeat(np.arange(len(sizes)), sizes)
    table = GroupsTable(("series_id",), {str(i): (str(unit),) for i, unit in enumerate(units)})
    hashes = digests(len(units))
    parts = grouped_split(
        np.zeros(len(units), int), group([str(i) for i in range(len(units))], hashes, table), hashes, seed=0
    )
    assert [len(set(units[(parts == part) & (units < 10)])) for part in range(3)] == [7, 2, 1] or [
        len(set(units[(parts == part) & (units < 10)])) for part in range(3)
    ] == [7, 1, 2]
    assert np.bincount(parts).tolist() == [280, 60, 60]


def test_another_seed_gives_other_parts() -> None:
    labels, hashes = np.zeros(100, int), digests(100)
    grouping = group([str(i) for i in range(100)], hashes, None)
    first, again, other = (grouped_split(labels, grouping, hashes, seed=seed) for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()


def test_units_are_connected_through_any_column() -> None:
    table = GroupsTable(
        ("group_id", "series_id"), {"a": ("g1", "s1"), "b": ("g1", "s2"), "c": ("g2", "s2"), "d": ("g3", "s3")}
    )
    grouping = group(["a", "b", "c", "d", "e"], ["1", "2", "3", "4", "4"], table)
    assert grouping.units[0] == grouping.units[1] == grouping.units[2] != grouping.units[3]
    assert grouping.units[3] == grouping.units[4]  # e is in no table, but its pixels are d's
    assert grouping.near_duplicates[0] == grouping.near_duplicates[1] != grouping.near_duplicates[2]
    assert grouping.listed == 4


def test_leak_rate_of_a_split_that_ignores_the_groups() -> None:
    near_duplicates = np.array([0, 0, 1, 1, 2, 3, 3, 4])
    parts = np.array([TRAIN, TEST, TEST, TEST, TEST, TRAIN, VALIDATION, TRAIN])
    found = leak(near_duplicates, parts == TRAIN, parts == TEST, "group_id")
    assert (found.tested, found.leaked, found.rate) == (4, 1, 0.25)
    assert str(found) == "25.0% (1 of 4 test images; group_id)"
    assert leak(near_duplicates, parts != TEST, parts == VALIDATION, "").rate == 1.0


def test_every_kind_of_group_is_read_near_duplicates_first(tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    path.write_text("path,sha256_pixels,series_id,group_id\na/1.jpg,00,s1,g1\na/2.jpg,01,,g2\n")
    table = read_groups(path)
    assert table.columns == ("group_id", "series_id")
    assert table.ids == {"a/1.jpg": ("g1", "s1"), "a/2.jpg": ("g2", "")}
    path.write_text("PATH,Patient,StudyInstanceUID\na/1.jpg,p1,s1\n")
    assert read_groups(path).columns == ("study_id", "patient_id")


@pytest.mark.parametrize("prefix", ["", "./", "brain/", "/data/brain/"])
def test_the_table_may_name_files_from_further_up(prefix: str) -> None:
    table = GroupsTable(("patient_id",), {f"{prefix.removeprefix('./')}a/{i}.jpg": ("p",) for i in range(2)})
    grouping = group(["a/0.jpg", "a/1.jpg", "a/2.jpg"], digests(3), table, Path("/data/brain"))
    assert grouping.units.tolist() == [0, 0, 1] and grouping.listed == 2


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            "path,cluster\na,1\n",
            "has none of the columns patient_id, study_id, series_id, group_id; its columns: path, cluster",
        ),
        ("group_id\n1\n", "has no column 'path'"),
        ("", "its columns: none"),
        ("path,group_id\na,1\na,2\n", "line 3: a second group for 'a': '1', then '2'"),
        (b"path,group_id\n\xff,1\n", "line 2: byte 0xff is not UTF-8"),
    ],
)
def test_a_groups_file_that_does_not_fit_is_refused(tmp_path: Path, content: str | bytes, problem: str) -> None:
    path = tmp_path / "groups.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(MribatchError, match=problem.replace("(", r"\(").replace(")", r"\)")):
        read_groups(path)


def test_a_groups_file_of_other_images_is_refused() -> None:
    with pytest.raises(MribatchError, match="has none of the 1 paths, e.g. 'a.png'"):
        group(["a.png"], ["00"], GroupsTable(("group_id",), {"b.png": ("g",)}))


def test_a_missing_groups_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MribatchError, match=r"cannot read .*none.csv: No such file"):
        read_groups(tmp_path / "none.csv")


def test_a_class_without_a_test_image_is_refused() -> None:
    labels, parts = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 0, 1])
    with pytest.raises(MribatchError, match="class 'b' has 2 images, none of them in the test part"):
        check_parts(labels, parts, ("a", "b"))
