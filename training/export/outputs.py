"""What the last numbers of a model are, and how they become probabilities of exclusive classes."""

from dataclasses import dataclass

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.training.export.declarations import OutputKind

SMALLEST = np.float32(2.0**-126)  # the smallest float32 that keeps all its digits
_SUM_TOLERANCE = 1e-3  # how far the sum of a row of probabilities may be from one


@dataclass(frozen=True)
class Ending:
    """What the model's outputs are. `single`: one number for two classes, which speaks for the second."""

    kind: OutputKind
    single: bool = False

    def to_probabilities(self, outputs: NDArray[float32]) -> NDArray[float32]:
        """Convert float32 (n, outputs) to float32 (n, classes), in NumPy."""
        if self.kind is OutputKind.PROBABILITIES:
            return outputs
        if self.kind is OutputKind.LOGITS:
            return softmax(np.concatenate([np.zeros_like(outputs), outputs], axis=1) if self.single else outputs)
        return np.concatenate([1 - outputs, outputs], axis=1) if self.single else normalise_sigmoids(outputs)


def softmax(logits: NDArray[float32]) -> NDArray[float32]:
    """Return the softmax of every row, float32, computed in float64."""
    raised = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=float32)


def normalise_sigmoids(sigmoids: NDArray[float32]) -> NDArray[float32]:
    """Divide each sigmoid by the sum of its row: p_i / (p_1 + … + p_k), float32 (n, classes).

    Keras' categorical cross-entropy does the same to outputs before it takes their logarithm
    (`keras.ops.categorical_crossentropy`), so these are the probabilities that such a fit optimizes. The largest stays
    the largest. A sigmoid under 2^-126 counts as 2^-126: a row of zeros becomes 1 / k everywhere, never 0 / 0.
    """
    floored = np.maximum(sigmoids, SMALLEST)
    return np.asarray(floored / floored.sum(axis=1, keepdims=True), dtype=float32)


def check_width(outputs: int, classes: int) -> None:
    """Refuse a model whose outputs do not fit the classes; one output speaks for the second of two.

    Raises:
        MribatchError: They do not fit.
    """
    if outputs == classes or (outputs, classes) == (1, 2):
        return
    fix = "name every class once, in the order of the model's outputs (image_dataset_from_directory: alphabetical)"
    if outputs == 1:
        fix = "name two classes: the one that the output is 0 for, then the one that it is 1 for"
    raise MribatchError(f"the model gives {outputs} numbers per image, --classes names {classes}", fix)


def find_ending(activation: str | None, sample: NDArray[float32], declared: OutputKind | None) -> Ending:
    """Find out what the outputs are.

    Args:
        activation: Name of the last activation, in Keras' spelling; "linear" for none, None where it is unknown.
        sample: Outputs for some slices, float32 (n, outputs).
        declared: As declared by the user, one of DECLARABLE; None: not declared.

    Raises:
        MribatchError: It is unknown, contradicts what was declared, or is not finite.
    """
    if not np.isfinite(sample).all():
        raise MribatchError("the model gives NaN or infinity for synthetic slices", "check its weights and --scale")
    if sample.shape[1] == 1:
        return Ending(_find_single(activation, sample, declared), single=True)
    adds_up = bool((sample >= 0).all() and (np.abs(sample.sum(axis=1) - 1) <= _SUM_TOLERANCE).all())
    if declared is OutputKind.SIGMOID:
        return Ending(_check_sigmoid(activation, sample, adds_up))
    if activation == "softmax" or (activation is None and adds_up):
        return Ending(_check_probabilities(sample, declared, adds_up))
    if activation in ("linear", "log_softmax") or (activation is None and declared is OutputKind.LOGITS):
        return Ending(OutputKind.LOGITS)  # the softmax of log probabilities is the probabilities
    if activation is None:
        raise MribatchError(
            "whether the model gives probabilities or logits cannot be seen in its last layer",
            "give --outputs logits if it was trained with from_logits=True; otherwise end the model in a softmax",
        )
    fix = "end its last layer in a softmax, train that layer again and save the model"
    if activation == "sigmoid":
        fix += "; or give --outputs sigmoid: each output is then divided by their sum"
    raise MribatchError(
        f"the model ends in '{activation}', so its outputs are not probabilities of exclusive classes", fix
    )


def _find_single(activation: str | None, sample: NDArray[float32], declared: OutputKind | None) -> OutputKind:
    """Judge one output for two classes: a sigmoid, or the logit of one if the user says so."""
    if activation == "sigmoid" or (activation is None and declared is OutputKind.SIGMOID):
        if declared is OutputKind.LOGITS:
            problem = "the model ends in a sigmoid; --outputs logits would add a second one"
            raise MribatchError(problem, "omit --outputs")
        return _check_sigmoid(activation, sample, adds_up=False)
    if activation in ("linear", None):
        if declared is OutputKind.LOGITS:
            return OutputKind.LOGITS
        problem = "the model gives one number per image, and whether it is a logit of the second class cannot be seen"
        raise MribatchError(
            problem, "give --outputs logits if it was trained with BinaryCrossentropy(from_logits=True)"
        )
    problem = f"the model ends in one '{activation}', which is not a probability of the second class"
    raise MribatchError(problem, "end it in one sigmoid, or in one output per class and a softmax")


def _check_probabilities(sample: NDArray[float32], declared: OutputKind | None, adds_up: bool) -> OutputKind:
    """Refuse a softmax that is declared as something else, or that is not over the classes."""
    if declared is OutputKind.LOGITS:
        problem = "the model's outputs are probabilities; --outputs logits would add a second softmax"
        raise MribatchError(problem, "omit --outputs")
    if not adds_up:
        low, high = float(sample.sum(axis=1).min()), float(sample.sum(axis=1).max())
        problem = f"the model ends in a softmax, but its outputs add up to {low:.4g} to {high:.4g}, not to 1"
        raise MribatchError(problem, "apply the softmax over the classes (axis -1), as the last step")
    return OutputKind.PROBABILITIES


def _check_sigmoid(activation: str | None, sample: NDArray[float32], adds_up: bool) -> OutputKind:
    """Refuse --outputs sigmoid for a model that has other outputs."""
    if activation not in ("sigmoid", None):
        raise MribatchError(f"the model ends in '{activation}', --outputs says sigmoid", "omit --outputs")
    if adds_up:
        problem = "the model's outputs add up to 1 already, --outputs says sigmoid"
        raise MribatchError(problem, "omit --outputs")
    if sample.min() < 0 or sample.max() > 1:
        problem = f"the model gives {sample.min():.4g} to {sample.max():.4g}, --outputs says sigmoid, which is 0 to 1"
        raise MribatchError(problem, "give --outputs logits if no activation follows the last layer")
    return OutputKind.SIGMOID
