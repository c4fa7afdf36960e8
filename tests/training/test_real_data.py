"""Facts of the real data set, where it is there: units, parts, and the leak of a split that ignores them."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mribatch.core.bundle import shipped_models
from mribatch.core.data_sets import CONTENT_SIZE
from mribatch.training.data.classes import BRAIN_TUMORS
from mribatch.training.data.images import DataSet, load
from mribatch.training.data.protocols import divide_in_folds, find_reference_test
from mribatch.training.data.split import Grouping, check_parts, group, grouped_split, leak, read_groups


@pytest.fixture(scope="module")
def real(data_folder: Path) -> tuple[DataSet, Grouping]:
    data = load(data_folder / "brain-mri", BRAIN_TUMORS, CONTENT_SIZE)
    return data, group(data.paths, data.content_sha256, read_groups(data_folder / "groups.csv"))


def test_the_grouped_split_does_not_leak_and_a_random_one_does(real: tuple[DataSet, Grouping]) -> None:
    data, grouping = real
    assert len(data.paths) == 2774 and data.left_out == () and data.other_folders == {}
    assert grouping.listed == 2774 and len(set(grouping.units.tolist())) == 952

    parts = grouped_split(data.labels, grouping, data.content_sha256, seed=0)
    check_parts(data.labels, parts, BRAIN_TUMORS.names)
    assert np.bincount(parts).tolist() == [1942, 416, 416]
    assert leak(grouping.near_duplicates, parts == 0, parts == 2, "").leaked == 0

    random = np.random.default_rng(0).choice(3, 2774, p=(0.70, 0.15, 0.15))
    assert 0.1 < leak(grouping.near_duplicates, random == 0, random == 2, "").rate < 0.3


def test_each_source_is_held_out_once_and_nothing_leaks(real: tuple[DataSet, Grouping]) -> None:
    data, grouping = real
    folds = divide_in_folds("sources", data, grouping, 5, 0)
    assert folds.names == ("512 x 512", "other sizes", "Testing")
    counts = [np.bincount(data.labels[folds.dealt == fold], minlength=4).tolist() for fold in range(3)]
    assert counts == [[623, 572, 4, 677], [0, 40, 246, 17], [164, 184, 175, 72]]
    for fold in range(3):
        assert leak(grouping.near_duplicates, folds.dealt != fold, folds.dealt == fold, "").leaked == 0


def test_the_folds_of_the_shipped_model_are_still_dealt(real: tuple[DataSet, Grouping]) -> None:
    data, grouping = real
    folds = divide_in_folds("grouped", data, grouping, 5, 0)
    shipped = pq.read_table(shipped_models()["efficientnet-lite2"] / "out_of_fold.parquet")
    known = dict(zip(shipped["path"].to_pylist(), shipped["fold"].to_pylist(), strict=True))
    assert [known[path] for path in data.paths] == (folds.dealt + 1).tolist()


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
