"""Facts of the real data set, where it is there: units, parts, and the leak of a split that ignores them."""

from pathlib import Path

import numpy as np

from mribatch.training.classes import BRAIN_TUMORS
from mribatch.training.data import load
from mribatch.training.split import check_parts, group, grouped_split, leak, read_groups


def test_the_grouped_split_does_not_leak_and_a_random_one_does(data_folder: Path):
    data = load(data_folder / "brain-mri", BRAIN_TUMORS, 64)
    assert len(data.paths) == 2774 and data.left_out == () and data.other_folders == {}
    grouping = group(data.paths, data.pixel_sha256, read_groups(data_folder / "groups.csv"))
    assert grouping.listed == 2774 and len(set(grouping.units.tolist())) == 952

    parts = grouped_split(data.labels, grouping, data.pixel_sha256, seed=0)
    check_parts(data.labels, parts, BRAIN_TUMORS.names)
    assert np.bincount(parts).tolist() == [1942, 416, 416]
    assert leak(grouping.near_duplicates, parts == 0, parts == 2, "").leaked == 0

    random = np.random.default_rng(0).choice(3, 2774, p=(0.70, 0.15, 0.15))
    assert 0.1 < leak(grouping.near_duplicates, random == 0, random == 2, "").rate < 0.3
