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


def cross_entropy(logits: NDArray[floating[Any]], labels: NDArray[int64], temperature: float = 1.0) -> float:
    """Return the mean of -log softmax(logits / temperature)[label], nats, computed in float64."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(labels)), labels]).mean())
