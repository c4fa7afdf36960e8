"""Each protocol's law: what it divides, what it keeps together, and what its leak rate then is."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mribatch.core.errors import MribatchError
from mribatch.report.groups import GroupsTable
from mribatch.training.data.classes import BRAIN_TUMORS
from mribatch.training.data.images import DataSet
from mribatch.training.data.protocols import deal_folds, divide, find_reference_test, fold_parts, parts_by_folder
from mribatch.training.data.split import group, leak
from mribatch.training.data.split_names import SPLITS
from tests.training.data.test_split import digests

TRAIN, VALIDATION, TEST = range(3)
LABELS = np.repeat(np.arange(4), 40)


def data_set(paths: list[str], labels: np.ndarray = LABELS) -> DataSet:
    return DataSet(
        root=Path("brain"),
        classes=BRAIN_TUMORS,
        paths=tuple(paths),
        files=tuple(path.encode() for path in paths),
        labels=labels,
        pixels=np.zeros((len(paths), 1, 1, 1), np.uint8),
        pixel_sha256=tuple(digests(len(paths))),
        content_sha256=tuple(digests(len(paths))),
        stored_sizes=((1, 1),) * len(paths),
        left_out=(),
        other_folders={},
    )


PATHS = [f"{('Training', 'Testing')[number % 4 == 0]}/c{label}/{number}.png" for number, label in enumerate(LABELS)]
DATA = data_set(PATHS)
PAIRS = GroupsTable(("group_id",), {path: (f"g{number // 2}",) for number, path in enumerate(PATHS)})
GROUPING = group(DATA.paths, DATA.content_sha256, PAIRS)


def leaked(parts: np.ndarray) -> int:
    return leak(GROUPING.near_duplicates, parts == TRAIN, parts == TEST, "").leaked


def test_holdout_keeps_pairs_together() -> None:
    division = divide("holdout", DATA, GROUPING, 0, chooses=True)
    assert division.keeps_units and leaked(division.parts) == 0
    assert np.bincount(division.parts).tolist() == [112, 24, 24]


@pytest.mark.parametrize("split", ["reference", "official"])
def test_a_split_that_ignores_pairs_leaks_and_says_how_much(split: str) -> None:
    division = divide(split, DATA, GROUPING, 0, chooses=False)
    assert not division.keeps_units and not (division.parts == VALIDATION).any()
    assert leaked(division.parts) > 0 and split in division.protocol


def test_the_reference_tests_15_in_100_of_each_class_whatever_the_order_of_files() -> None:
    tested = find_reference_test(PATHS, LABELS)
    assert np.bincount(LABELS[tested]).tolist() == [6, 6, 6, 6]
    order = np.random.default_rng(0).permutation(len(PATHS))
    assert (find_reference_test([PATHS[place] for place in order], LABELS[order]) == tested[order]).all()


def test_the_references_draws_are_scikit_learns_of_the_pooled_list() -> None:
    """Twenty files in the order in which the reference lists them: what it tests on, written down from its own calls."""
    from sklearn.model_selection import train_test_split
    from sklearn.utils import shuffle

    listed = [
        f"{part}/c{label}/{name}.png"
        for label in range(2)
        for part in ("Training", "Testing")
        for name in ("a", "B", "c", "D", "e")
    ]
    labels = np.repeat([0, 1], 10)
    files, classes = shuffle(np.array(listed), labels, random_state=42)
    _, expected, _, _ = train_test_split(files, classes, test_size=0.15, random_state=42, stratify=classes)
    mixed = np.random.default_rng(1).permutation(20)
    paths = [listed[place] for place in mixed]
    tested = find_reference_test(paths, labels[mixed])
    assert {path for path, chosen in zip(paths, tested, strict=True) if chosen} == set(expected)


def test_official_is_what_the_folders_say() -> None:
    parts = divide("official", DATA, GROUPING, 0, chooses=False).parts
    assert [PATHS[place].startswith("Testing") for place in range(len(PATHS))] == (parts == TEST).tolist()


@pytest.mark.parametrize("split", ["reference", "official"])
def test_an_epoch_is_chosen_by_units_of_the_training_part_alone(split: str) -> None:
    plain, chosen = (divide(split, DATA, GROUPING, 0, chooses=chooses) for chooses in (False, True))
    assert ((plain.parts == TEST) == (chosen.parts == TEST)).all()
    validated, trained = (set(GROUPING.units[chosen.parts == part]) for part in (VALIDATION, TRAIN))
    assert validated and not validated & trained
    assert "epoch chosen on 15 % of the training part" in chosen.protocol


def test_folders_by_their_usual_names() -> None:
    parts = parts_by_folder(["train/a/1", "Val/a/2", "TEST/a/3", "validation/b/4"], official=False)
    assert parts.tolist() == [TRAIN, VALIDATION, TEST, VALIDATION]
    folders = data_set([f"{('train', 'valid', 'test')[number % 3]}/{number}" for number in range(160)])
    division = divide("folder", folders, group(folders.paths, folders.content_sha256, None), 0, chooses=True)
    assert (division.parts == VALIDATION).sum() == 53 and "epoch chosen" not in division.protocol


@pytest.mark.parametrize(
    ("paths", "official", "message"),
    [
        (["train/a/1", "glioma/2"], False, r"'glioma/2' is in no folder that names a part"),
        (["train/a/1", "val/a/2"], False, "no image is in a test folder"),
        (["test/a/1"], False, "no image is in a train folder"),
        (["Training/a/1", "test/a/1"], True, r"'test/a/1' is in no folder .* use top folders Training and Testing"),
    ],
)
def test_other_folders_are_refused(paths: list[str], official: bool, message: str) -> None:
    with pytest.raises(MribatchError, match=message):
        parts_by_folder(paths, official=official)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(MribatchError, match=f"choose one of: {', '.join(SPLITS)}"):
        divide("random", DATA, GROUPING, 0, chooses=False)


@given(folds=st.integers(2, 6), seed=st.integers(0, 5), size=st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_folds_divide_no_unit_and_test_every_image_once(folds: int, seed: int, size: int) -> None:
    table = GroupsTable(("series_id",), {path: (f"s{place // size}",) for place, path in enumerate(PATHS)})
    grouping = group(DATA.paths, DATA.content_sha256, table)
    dealt = deal_folds(DATA, grouping, folds, seed)
    assert all(len(set(dealt[grouping.units == unit])) == 1 for unit in set(grouping.units))
    counts = np.array([np.bincount(dealt[label == LABELS], minlength=folds) for label in range(4)])
    assert np.ptp(counts, axis=1).max() <= 2 * size
    tested = np.zeros(len(PATHS), dtype=int)
    for fold in range(folds):
        for chooses in (False, True):
            parts = fold_parts(dealt, fold, chooses=chooses)
            assert ((parts == TEST) == (dealt == fold)).all() and (parts == VALIDATION).any() == chooses
            if folds > 2:
                assert (parts == TRAIN).any()
        tested += parts == TEST
    assert (tested == 1).all()


def test_too_many_folds_are_refused() -> None:
    few = data_set(PATHS[:4], np.arange(4))
    with pytest.raises(MribatchError, match="class 'glioma_tumor' has 1 images, none of them in fold"):
        deal_folds(few, group(few.paths, few.content_sha256, None), 2, 0)
