"""The temperature is found where it is known, and it is the best one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mribatch.core.errors import MribatchError
from mribatch.report.metrics import find, headline
from mribatch.training.fit.losses import cross_entropy
from mribatch.training.fit.temperature import fit_temperature


def drawn(temperature: float, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose labels were drawn from softmax(logits / temperature)."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 4, (count, 4)).astype(np.float32)
    labels = (logits / temperature + random.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    logits, labels = drawn(temperature, 40_000, seed=1)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.03)


def test_confidence_becomes_right() -> None:
    logits, labels = drawn(2.0, 5_000, seed=2)
    scale = [1.0, fit_temperature(logits, labels)]
    errors = []
    for temperature in scale:
        powers = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
        probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        error = find(headline(labels, probabilities, "abcd"), "ece").value
        assert error is not None
        errors.append(error)
    assert errors[0] > 0.1 and errors[1] < 0.02


@given(st.integers(0, 1000), st.integers(1, 50), st.floats(0.1, 10))
@settings(deadline=None, max_examples=50)
def test_no_other_temperature_is_better(seed: int, count: int, other: float) -> None:
    logits, labels = drawn(1.0, count, seed)
    exact = logits.astype(np.float64)
    best = cross_entropy(exact, labels, fit_temperature(logits, labels))
    assert best <= cross_entropy(exact, labels, other) + 1e-9


def test_what_is_not_a_logit_is_refused() -> None:
    for numbers in (np.empty((0, 4)), [[np.nan, 1.0]], [[np.inf, 1.0]]):
        logits = np.array(numbers, np.float32)
        with pytest.raises(MribatchError, match="a temperature needs finite logits"):
            fit_temperature(logits, np.zeros(len(logits), np.int64))
