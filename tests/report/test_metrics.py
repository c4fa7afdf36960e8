"""Metrics against scikit-learn, intervals against cases whose answer is known, and every table that has no answer."""

import math
import warnings

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import float32, int64
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.report.metrics import (
    CLASS_METRICS,
    Metric,
    calibration,
    confusion,
    ece_bins,
    exact_bound,
    find,
    headline,
    metric_keys,
)

NAMES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")


def table_of(seed: int, rows: int, classes: int, signal: float = 2.0) -> tuple[NDArray[int64], NDArray[float32]]:
    """Random labels and softmax probabilities that know something of them."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, rows)
    logits = generator.normal(size=(rows, classes))
    logits[np.arange(rows), labels] += signal
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return labels, (raised / raised.sum(axis=1, keepdims=True)).astype(float32)


def bounds(row: Metric) -> list[float]:
    """[low, high] of a metric that has an interval."""
    assert row.low is not None and row.high is not None, row.name
    return [row.low, row.high]


def width(row: Metric) -> float:
    low, high = bounds(row)
    return high - low


def values(metrics: list[Metric]) -> dict[tuple[str, str | None], float | None]:
    return {(row.metric, row.class_): row.value for row in metrics}


@pytest.mark.parametrize("seed", range(50))
def test_equal_to_scikit_learn(seed: int) -> None:
    """50 random tables; some lack a class, in some a class is never predicted."""
    generator = np.random.default_rng(1_000 + seed)
    classes = int(generator.integers(2, 6))
    labels, scores = table_of(seed, int(generator.integers(2, 120)), classes, signal=float(generator.uniform(0, 3)))
    if seed % 3 == 0:
        scores = np.round(scores, 1) + float32(0.01)  # many ties
        scores /= scores.sum(axis=1, keepdims=True)
    names, every = [f"c{k}" for k in range(classes)], range(classes)
    found = values(headline(labels, scores, names, resamples=0))
    predicted = scores.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected: dict[tuple[str, str | None], float] = {
            ("accuracy", None): sk.accuracy_score(labels, predicted),
            ("balanced_accuracy", None): sk.balanced_accuracy_score(labels, predicted),
            ("log_loss", None): sk.log_loss(labels, scores, labels=every),
            ("brier", None): sk.brier_score_loss(labels, scores, labels=every, scale_by_half=False),
            ("f1", "macro"): sk.f1_score(labels, predicted, average="macro"),
        }
        for average in (None, "macro", "weighted"):
            report = sk.precision_recall_fscore_support(
                labels, predicted, labels=every, average=average, zero_division=np.nan
            )
            for metric, column in zip(("precision", "sensitivity", "f1"), report[:3], strict=True):
                pairs = zip(names, column, strict=True) if average is None else [(average, column)]
                expected |= {(metric, name): value for name, value in pairs}
        for k, name in enumerate(names):
            truth = labels == k
            expected[("specificity", name)] = sk.recall_score(~truth, predicted != k, zero_division=np.nan)
            several = truth.any() and not truth.all()
            expected[("auroc", name)] = sk.roc_auc_score(truth, scores[:, k]) if several else math.nan
            expected[("auprc", name)] = sk.average_precision_score(truth, scores[:, k]) if several else math.nan
            expected[("support", name)] = truth.sum()
        if classes > 2 and len(set(labels.tolist())) == classes:
            for average in ("macro", "weighted"):
                area = sk.roc_auc_score(labels, scores, multi_class="ovr", average=average)
                expected[("auroc", average)] = area
    for key, value in expected.items():
        if math.isnan(value):
            assert found[key] is None, key
        else:
            assert found[key] == pytest.approx(value, rel=1e-5, abs=1e-6), key


@pytest.mark.parametrize(("grouped", "ties"), [(False, False), (True, False), (True, True)])
def test_intervals_are_those_of_resampled_tables(grouped: bool, ties: bool) -> None:
    """The sums per group give the same bounds as scikit-learn called on each resampled table."""
    labels, scores = table_of(7, 90, 3, signal=1.0)
    if ties:
        scores = (
            np.random.default_rng(0).multinomial(6, scores / scores.sum(axis=1, dtype=float)[:, None]) / 6
        ).astype(float32)
    names = ["a", "b", "c"]
    codes = np.arange(90) // 6 if grouped else np.arange(90)
    found = headline(labels, scores, names, codes if grouped else None, seed=3, resamples=40)
    count = int(codes.max()) + 1
    draws = np.random.default_rng(3).integers(0, count, size=(40, count), dtype=np.int32)
    drawn: dict[tuple[str, str | None], list[float]] = {}
    for draw in draws:
        rows = np.concatenate([np.flatnonzero(codes == group) for group in draw])
        truth, probabilities = labels[rows], scores[rows]
        for key, value in values(headline(truth, probabilities, names, resamples=0)).items():
            drawn.setdefault(key, []).append(math.nan if value is None else value)
    for row in found:
        if row.metric in ("support",):
            assert row.low is None
        else:
            low, high = np.nanpercentile(drawn[(row.metric, row.class_)], [2.5, 97.5])
            assert bounds(row) == pytest.approx([low, high], rel=1e-5), row.name


def test_interval_of_an_accuracy_is_the_binomial_one() -> None:
    """2,000 independent images at 80 %: the normal approximation p ± 1.96 sqrt(p (1 - p) / n)."""
    labels = np.zeros(2_000, dtype=int)
    labels[1_000:] = 1
    scores = np.where(labels[:, None] == np.arange(2), 0.9, 0.1).astype(float32)
    scores[::5] = scores[::5, ::-1]
    row = find(headline(labels, scores, ["a", "b"]), "accuracy")
    half = 1.96 * math.sqrt(0.8 * 0.2 / 2_000)
    assert row.value == pytest.approx(0.8)
    assert bounds(row) == pytest.approx([0.8 - half, 0.8 + half], abs=2e-3)


def test_groups_of_equal_images_widen_the_interval_by_the_design_effect() -> None:
    """With m copies of each image the information is that of n / m, so the interval is sqrt(m) times as wide."""
    labels = np.repeat(np.arange(400) % 2, 9)
    scores = np.where(labels[:, None] == np.arange(2), 0.9, 0.1).astype(float32)
    wrong = np.repeat(np.arange(400) % 5 == 0, 9)
    scores[wrong] = scores[wrong, ::-1]
    groups = np.repeat(np.arange(400), 9)
    alone, grouped = (find(headline(labels, scores, ["a", "b"], g), "accuracy") for g in (None, groups))
    assert alone.value == grouped.value == pytest.approx(0.8)
    assert width(grouped) / width(alone) == pytest.approx(3, rel=0.1)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """100 tables of 60 clusters whose images share their fate: 95 % intervals hold the true accuracy."""
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(100):
        right = np.repeat(generator.random(60) < 0.7, 5)
        labels = np.arange(300) % 2
        scores = np.where(right[:, None] == (labels[:, None] == np.arange(2)), 0.8, 0.2).astype(float32)
        row = find(headline(labels, scores, ["a", "b"], np.repeat(np.arange(60), 5), resamples=200), "accuracy")
        low, high = bounds(row)
        covered += low <= 0.7 <= high
    assert 0.88 <= covered / 100 <= 1.0


def test_same_seed_same_rows_and_the_names_of_groups_do_not_matter() -> None:
    labels, scores = table_of(1, 60, 4)
    groups = np.arange(60) // 3
    first = headline(labels, scores, NAMES, groups, seed=4, resamples=200)
    assert first == headline(labels, scores, NAMES, [f"s{g:03d}" for g in groups], seed=4, resamples=200)
    assert first != headline(labels, scores, NAMES, groups, seed=5, resamples=200)


def test_ece_by_hand() -> None:
    """Bins of a fifteenth: 0.95 twice (one right), 0.70 (right), 0.55 (wrong): gaps 0.9, 0.3 and 0.55 over 4 images."""
    scores = np.array([[0.95, 0.05], [0.95, 0.05], [0.30, 0.70], [0.45, 0.55]], dtype=float32)
    labels = [0, 1, 1, 0]
    found = find(headline(labels, scores, ["a", "b"]), "ece")
    assert found.value == pytest.approx((abs(1 - 1.9) + abs(1 - 0.70) + abs(0 - 0.55)) / 4, abs=1e-6)
    bins = calibration(labels, scores, ["a", "b"])
    assert [(each.n, round(each.confidence, 4), each.accuracy) for each in bins] == [
        (1, 0.55, 0.0),
        (1, 0.70, 1.0),
        (2, 0.95, 0.5),
    ]


def test_ece_bins_include_their_right_edge() -> None:
    edges = np.array([1 / 15, 3 / 15, 0.2001, 14 / 15, 1.0], dtype=float32)
    assert ece_bins(edges).tolist() == [0, 2, 3, 13, 14]


def test_brier_is_the_sum_over_classes_also_for_two() -> None:
    found = headline([0, 1], np.array([[0.8, 0.2], [0.8, 0.2]], dtype=float32), ["a", "b"])
    assert find(found, "brier").value == pytest.approx((2 * 0.04 + 2 * 0.64) / 2)


def test_log_loss_of_a_certain_mistake_is_finite() -> None:
    """A float32 zero counts as the smallest step of float32, as in scikit-learn on the same array."""
    scores = np.array([[1, 0], [1, 0]], dtype=float32)
    found = find(headline([0, 1], scores, ["a", "b"]), "log_loss")
    assert found.value == pytest.approx(sk.log_loss([0, 1], scores), rel=1e-5)
    assert found.value == pytest.approx(-math.log(np.finfo(float32).eps) / 2, rel=1e-5)


def test_ties_take_the_lowest_class() -> None:
    scores = np.full((4, 4), 0.25, dtype=float32)
    assert confusion([0, 1, 2, 3], scores, NAMES).tolist() == [[1, 0, 0, 0]] * 4


def test_one_class_only() -> None:
    """What one class can tell is told, the rest is undefined with its reason, and nothing warns."""
    scores = np.array([[0.9, 0.05, 0.03, 0.02]] * 8 + [[0.1, 0.7, 0.1, 0.1]] * 2, dtype=float32)
    found = headline([0] * 10, scores, NAMES)
    assert find(found, "accuracy").value == pytest.approx(0.8)
    assert find(found, "sensitivity", "glioma_tumor").value == pytest.approx(0.8)
    for metric, class_, note in (
        ("auroc", "glioma_tumor", "no other class occurs"),
        ("specificity", "glioma_tumor", "no other class occurs"),
        ("sensitivity", "no_tumor", "this class never occurs"),
        ("precision", "no_tumor", "this class was never predicted"),
        ("f1", "no_tumor", "this class never occurs and was never predicted"),
        ("auroc", "macro", "undefined for every class that it would average"),
    ):
        row = find(found, metric, class_)
        assert (row.value, row.low, row.high, row.note) == (None, None, None, note)


def test_a_class_that_never_occurs_is_left_out_of_averages_by_name() -> None:
    labels, scores = table_of(3, 90, 3)
    scores = np.hstack([scores * float32(0.99), np.full((90, 1), 0.01, dtype=float32)])
    found = headline(labels, scores, NAMES, resamples=50)
    row = find(found, "sensitivity", "macro")
    assert row.value == pytest.approx(sk.recall_score(labels, scores.argmax(axis=1), average="macro"))
    assert row.note == "mean over 3 of 4 classes; undefined for pituitary_tumor"
    assert row.low is not None


def test_ten_rows() -> None:
    labels, scores = table_of(0, 10, 4)
    found = headline(labels, scores, NAMES)
    assert [(row.metric, row.class_) for row in found] == metric_keys(NAMES)
    for row in found:
        assert all(bound is None or math.isfinite(bound) for bound in (row.value, row.low, row.high))
        assert row.value is not None or row.note


def test_all_right_is_not_certain() -> None:
    """Resampling ten right answers gives ten right answers; the exact binomial bound is shown instead."""
    labels = np.arange(10) % 2
    scores = np.where(labels[:, None] == np.arange(2), 0.9, 0.1).astype(float32)
    found = headline(labels, scores, ["a", "b"])
    accuracy, sensitivity = find(found, "accuracy"), find(found, "sensitivity", "a")
    assert accuracy.value == 1.0 and bounds(accuracy) == pytest.approx([0.6915, 1.0], abs=1e-4)  # R: binom.test
    assert bounds(sensitivity) == pytest.approx([0.4782, 1.0], abs=1e-4)
    assert find(found, "f1", "macro").low is None
    assert "not a measure of certainty" in (find(found, "f1", "macro").note or "")
    wrong = find(headline(1 - labels, scores, ["a", "b"]), "accuracy")
    assert wrong.value == 0.0 and bounds(wrong) == pytest.approx([0.0, 0.3085], abs=1e-4)
    two = find(headline(labels, scores, ["a", "b"], np.arange(10) // 5), "accuracy")
    assert two.low == exact_bound(2) == pytest.approx(0.1581, abs=1e-4)


def test_the_exact_bound_counts_the_groups_that_matter() -> None:
    """Three images predicted as b, all of them b, in two groups; all else in ten groups of its own."""
    labels = np.array([1, 1, 1, 1] + [0] * 10)
    scores = np.where(labels[:, None] == np.arange(2), 0.9, 0.1).astype(float32)
    scores[3] = scores[3, ::-1]
    found = headline(labels, scores, ["a", "b"], [0, 0, 1, 2, *range(3, 13)])
    assert find(found, "precision", "b").low == exact_bound(2)
    assert find(found, "specificity", "b").low == exact_bound(10)
    assert find(found, "sensitivity", "a").low == exact_bound(10)


def test_the_interval_of_ece_holds_its_value() -> None:
    """Well calibrated answers: the ECE of nearly every resample is larger than that of the table."""
    labels = np.array(([0] * 4 + [1]) * 12)
    scores = np.full((60, 2), [0.8, 0.2], dtype=float32)
    row = find(headline(labels, scores, ["a", "b"], resamples=20), "ece")
    assert row.value == row.low == pytest.approx(0, abs=1e-6) and (row.high or 0) > 0.03


def test_one_group_has_no_interval() -> None:
    labels, scores = table_of(2, 40, 4, signal=1.0)
    row = find(headline(labels, scores, NAMES, np.zeros(40, dtype=int)), "accuracy")
    assert row.value is not None and 0 < row.value < 1
    assert (row.low, row.high) == (None, None)
    assert "every resample gives the same value" in (row.note or "")


def test_nothing_to_score() -> None:
    found = headline([], np.zeros((0, 4), dtype=float32), NAMES)
    assert len(found) == len(metric_keys(NAMES))
    assert all(row.value is None and row.note for row in found)
    assert confusion([], np.zeros((0, 4)), NAMES).shape == (4, 4)


def test_probabilities_that_do_not_sum_to_one_have_no_loss() -> None:
    labels, scores = table_of(2, 40, 4)
    found = headline(labels, scores * float32(0.5), NAMES, resamples=10)
    assert find(found, "log_loss").value is None and find(found, "brier").value is None
    assert "do not sum to 1" in (find(found, "log_loss").note or "")
    assert find(found, "accuracy").value is not None
    half = scores.astype(np.float16).astype(float32)  # FP16 outputs are off by rounding only
    assert find(headline(labels, half, NAMES, resamples=10), "log_loss").value is not None


def test_n_is_what_the_value_is_a_share_of() -> None:
    found = headline([0, 0, 0, 1], np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=float32), ["a", "b"])
    shares = {(m, "a"): find(found, m, "a").n for m in ("sensitivity", "specificity", "precision", "f1", "auroc")}
    assert list(shares.values()) == [3, 1, 2, 4, 4]


def test_protocol_names_the_groups() -> None:
    labels, scores = table_of(1, 12, 4)
    assert headline(labels, scores, NAMES, resamples=5)[0].protocol == "per image; intervals over 12 single images"
    grouped = headline(labels, scores, NAMES, np.arange(12) // 4, resamples=5)[0]
    assert grouped.protocol == "per image; intervals over 3 groups"
    assert headline(labels, scores, NAMES, protocol="mine", resamples=5)[-1].protocol == "mine"


@pytest.mark.parametrize(
    ("labels", "scores", "groups"),
    [
        ([0, 4], np.full((2, 4), 0.25), None),
        ([0, -1], np.full((2, 4), 0.25), None),
        ([0.0, 1.0], np.full((2, 4), 0.25), None),
        ([0], np.full((2, 4), 0.25), None),
        ([0, 1], np.full((2, 3), 0.25), None),
        ([0, 1], np.array([[np.nan] * 4, [0.25] * 4]), None),
        ([0, 1], np.full((2, 4), 0.25), [1]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    labels: list[int], scores: NDArray[float32], groups: list[int] | None
) -> None:
    with pytest.raises(ValueError):
        headline(labels, scores, NAMES, groups)


def test_a_class_named_like_an_average_is_refused() -> None:
    with pytest.raises(MribatchError, match="'macro', which is the name of an average"):
        headline([0], np.array([[1, 0]]), ["macro", "b"])


def test_many_classes_have_no_interval_of_their_curves_and_the_rest_has() -> None:
    labels, scores = table_of(1, 200, 25, signal=4)
    found = headline(labels, scores, [f"c{k:02d}" for k in range(25)], resamples=50)
    row = find(found, "auroc", "macro")
    assert row.value is not None and row.low is None and row.note == "no interval with more than 20 classes"
    assert find(found, "f1", "macro").low is not None


def test_a_rare_class_among_many_images_keeps_an_exact_curve() -> None:
    """10 positives in 20,000: more distinct scores than steps, and the average precision's interval holds its value."""
    generator = np.random.default_rng(0)
    labels = (np.arange(20_000) < 10).astype(int)
    score = 1 / (1 + np.exp(-(generator.normal(size=20_000) + 3.5 * labels)))
    scores = np.stack([1 - score, score], axis=1).astype(float32)
    row = find(headline(labels, scores, ["a", "b"], resamples=200), "auprc", "b")
    assert row.low < row.value < row.high  # type: ignore[operator]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.1, 0.3, 0.5, 0.9]), st.integers(0, 3)), max_size=12))
def test_laws_of_any_small_table(rows: list[tuple[int, float, int]]) -> None:
    """Bounds surround values, shares lie in 0..1, and the order of images does not matter."""
    labels = np.array([label for label, _, _ in rows], dtype=int)
    first = np.array([score for _, score, _ in rows], dtype=float32).reshape(-1, 1)
    scores = np.hstack([first, (1 - first) / 2, (1 - first) / 2])
    groups = np.array([group for _, _, group in rows], dtype=int)
    found = headline(labels, scores, ["a", "b", "c"], groups, resamples=60)
    turned = headline(labels[::-1], scores[::-1], ["a", "b", "c"], groups[::-1], resamples=60)
    for row, other in zip(found, turned, strict=True):
        assert (row.value is None) == (other.value is None)
        assert row.value is None or row.value == pytest.approx(other.value)
        assert (row.low is None) == (row.high is None)
        if row.low is not None:
            assert row.low <= row.high  # type: ignore[operator]
        if row.metric in (*CLASS_METRICS, "accuracy", "balanced_accuracy", "ece"):
            assert all(number is None or -1e-9 <= number <= 1 + 1e-9 for number in (row.value, row.low, row.high))
