"""Cross-entropy: what training minimizes, and what is reported of finished logits."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import floating, int64
from numpy.typing import NDArray

from mribatch.training.frameworks import load_keras


def smoothed_cross_entropy(smoothing: float) -> Callable[[Any, Any], Any]:
    """Return the loss in TensorFlow: labels (n,) and logits (n, classes) -> losses (n,).

    Args:
        smoothing: The share of the truth that is spread over all classes.
    """
    tensorflow, _ = load_keras()

    def losses(labels: Any, logits: Any) -> Any:
        if not smoothing:
            return tensorflow.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        classes = logits.shape[-1]
        truth = tensorflow.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
        return tensorflow.nn.softmax_cross_entropy_with_logits(labels=truth, logits=logits)

    return losses


def taught_cross_entropy(smoothing: float, teacher_share: float, temperature: float) -> Callable[[Any, Any, Any], Any]:
    """Return the loss in TensorFlow: truth, a teacher's answers and logits, each (n, classes) -> losses (n,).

    The answers' part is the cross-entropy at the temperature, times its square, which keeps the size of the gradients
    (Hinton et al. 2015, section 2.1).

    Args:
        smoothing: The share of the truth that is spread over all classes.
        teacher_share: The weight of the answers; 0 ignores them.
        temperature: At which the answers were softened.
    """
    tensorflow, _ = load_keras()
    entropy = tensorflow.nn.softmax_cross_entropy_with_logits

    def losses(truth: Any, answers: Any, logits: Any) -> Any:
        smoothed = truth * (1 - smoothing) + smoothing / logits.shape[-1]
        own = entropy(labels=smoothed, logits=logits)
        if not teacher_share:
            return own
        taught = entropy(labels=answers, logits=logits / temperature) * temperature**2
        return (1 - teacher_share) * own + teacher_share * taught

    return losses


def cross_entropy(logits: NDArray[floating[Any]], labels: NDArray[int64], temperature: float = 1.0) -> float:
    """Return the mean of -log softmax(logits / temperature)[label], nats, computed in float64."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(labels)), labels]).mean())
