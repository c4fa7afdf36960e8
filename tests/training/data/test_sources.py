"""Sources: what the folder and the sizes say, one for each unit, and only where every class can be held out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mribatch.core.errors import MribatchError
from mribatch.training.data.sources import Sources, check_sources, find_sources

BIG, SMALL = (512, 512), (236, 236)


def test_the_folder_testing_the_commonest_size_and_the_rest() -> None:
    paths = ["Training/a/1", "Training/a/2", "Training/b/3", "Testing/a/4", "testing/b/5"]
    found = find_sources(paths, [BIG, BIG, SMALL, BIG, SMALL], np.arange(5))
    assert found.names == ("512 x 512", "other sizes", "Testing")
    assert found.of_slices.tolist() == [0, 0, 1, 2, 2]


def test_sizes_alone_divide_a_folder_without_testing() -> None:
    found = find_sources(["a/1", "a/2", "b/3"], [BIG, BIG, SMALL], np.arange(3))
    assert found.names == ("512 x 512", "other sizes") and found.of_slices.tolist() == [0, 0, 1]


def test_one_source_is_refused() -> None:
    with pytest.raises(MribatchError, match="all images are of one source.* Fix: give --split grouped"):
        find_sources(["a/1", "b/2"], [BIG, BIG], np.arange(2))


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Training", "Testing", "a"]), st.sampled_from([BIG, SMALL, (9, 9)]), st.integers(0, 4)
        ),
        min_size=2,
        max_size=30,
    )
)
def test_no_unit_is_in_two_sources_and_none_is_empty(slices: list[tuple[str, tuple[int, int], int]]) -> None:
    folders, sizes, units = zip(*slices, strict=True)
    paths = [f"{folder}/{number}" for number, folder in enumerate(folders)]
    try:
        found = find_sources(paths, sizes, np.array(units))
    except MribatchError:
        return
    assert set(found.of_slices.tolist()) == set(range(len(found.names)))
    for unit in set(units):
        assert len(set(found.of_slices[np.array(units) == unit])) == 1
    testing = np.array([folder == "Testing" for folder in folders])
    assert all(found.names[source] == "Testing" for source in found.of_slices[testing])


def test_a_class_that_only_one_source_has_cannot_be_held_out() -> None:
    sources = Sources(np.array([0, 0, 1, 1]), ("512 x 512", "Testing"))
    check_sources(sources, np.array([0, 1, 0, 1]), ("glioma", "none"))
    with pytest.raises(MribatchError, match=r"all images of 'none' are of one source \(Testing\), so it cannot"):
        check_sources(sources, np.array([0, 0, 0, 1]), ("glioma", "none"))
