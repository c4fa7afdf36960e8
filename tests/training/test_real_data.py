"""Facts of the real data set, where it is there: units, parts, and the leak of a split that ignores them."""

from pathlib import Path

import numpy as np

from mribatch.training.data.classes import BRAIN_TUMORS
from mribatch.training.data.images import load
from mribatch.training.data.protocols import find_reference_test
from mribatch.training.data.split import check_parts, group, grouped_split, leak, read_groups


def test_the_grouped_split_does_not_leak_and_a_random_one_does(data_folder: Path) -> None:
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


def test_the_references_split_is_the_one_whose_test_part_is_held_back(data_folder: Path) -> None:
    """In the whole set, whose files are numbered without gaps, its test part is exactly what the folder lacks."""
    counts = {"gg": (826, 100), "m": (822, 115), "no": (395, 105), "p": (827, 74)}  # Training, Testing
    paths, labels = [], []
    for label, (name, (training, testing)) in enumerate(counts.items()):
        paths += [f"Training/{name}/{name} ({number}).jpg" for number in range(1, training + 1)]
        paths += [f"Testing/{name}/{number:04}.jpg" for number in range(testing)]
        labels += [label] * (training + testing)
    tested = find_reference_test(paths, np.array(labels))
    assert tested.sum() == 490
    for name, folder in (("gg", "glioma_tumor"), ("p", "pituitary_tumor")):
        here = {path.name for path in (data_folder / "brain-mri" / "Training" / folder).iterdir()}
        expected = {
            path.rsplit("/", 1)[1]
            for path, chosen in zip(paths, tested, strict=True)
            if chosen and path.startswith(f"Training/{name}/")
        }
        whole = {f"{name} ({number}).jpg" for number in range(1, counts[name][0] + 1)}
        assert whole - here == expected
