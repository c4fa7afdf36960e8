"""Where the model looked: a map of each image that says how much every place speaks for a class.

Two methods, and a map says which one it is:

- *Class activation map* (Zhou et al. 2016, "Learning Deep Features for Discriminative Localization", section 2), for
  a network that ends in global average pooling and one dense layer. It is exact: the mean of the map is the class's
  logit. It needs no gradient, only the last feature map, which becomes a second output of a copy of the graph.
- *Occlusion* (Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2), for every
  other network: how much the class's probability falls where a square of the image is painted over.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.bundle import Bundle
from mribatch.core.errors import MribatchError
from mribatch.core.frame import Box, find_box
from mribatch.core.model_spec import INPUT_NAME, OUTPUT_NAME, SOFTMAX, ModelSpec
from mribatch.core.onnx_head import PoolingHead, add_output, find_pooling_head

_SQUARES = 8  # that cover a side of the image; each moves by half its side
_ROWS = 8  # images that are given to ONNX Runtime at once
_CELL = 8  # pixels of a side for which a map in a frame has one value


class MapMethod(StrEnum):
    """How a map is made."""

    CLASS_ACTIVATION = "class activation map"
    OCCLUSION = "occlusion"


@dataclass(frozen=True)
class ActivationMap:
    """What speaks for one class in one image.

    values: float32, shape (rows, columns), over the whole image, coarser than its pixels. Class activation map: shares
    of the logit, whose mean is the logit; 0 outside what a network with a frame sees. Occlusion: how much the
    probability falls, 0..1 or slightly below 0.
    """

    class_name: str
    method: MapMethod
    values: NDArray[float32]
    probabilities: NDArray[float32]  # (classes,), of the unchanged image


class MapMaker:
    """Makes maps with a bundle's graph in ONNX Runtime on the CPU.

    Args:
        bundle: Checked.
        threads: Cores to use.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._bundle = bundle
        self._threads = threads
        head = find_pooling_head(bundle.model, OUTPUT_NAME) if bundle.spec.activation == SOFTMAX else None
        fits = head is not None and head.weights.shape[1] == len(bundle.spec.classes)
        self._head: PoolingHead | None = head if fits else None
        self._session: Any = None

    @property
    def spec(self) -> ModelSpec:
        """Of the bundle: classes, and the size of the pixels."""
        return self._bundle.spec

    @property
    def method(self) -> MapMethod:
        """Class activation maps where the network allows it, else occlusion."""
        return MapMethod.OCCLUSION if self._head is None else MapMethod.CLASS_ACTIVATION

    def __enter__(self) -> Self:
        """Load the graph.

        Raises:
            MribatchError: ONNX Runtime does not accept it.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        model = self._bundle.model if self._head is None else add_output(self._bundle.model, self._head.feature_map)
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base class
            raise MribatchError(
                f"ONNX Runtime cannot load {self._bundle.folder}: {str(error).splitlines()[0]}",
                "export the model again",
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None

    def make_map(self, pixels: NDArray[uint8], class_name: str | None = None) -> ActivationMap:
        """Explain one image.

        Args:
            pixels: uint8, shape (height, width, 1), as the decoder gives them.
            class_name: A class of the bundle; None: the one that is predicted.

        Raises:
            ValueError: The bundle has no such class.
        """
        classes = self._bundle.spec.classes
        wanted = None if class_name is None else classes.index(class_name)
        if self._head is None:
            return self._occlude(pixels, wanted)
        probabilities, features = self._session.run([OUTPUT_NAME, self._head.feature_map], {INPUT_NAME: pixels[None]})
        position = int(probabilities[0].argmax()) if wanted is None else wanted
        values = weigh_features(features[0], self._head, position)
        if self._bundle.spec.training.get("fit", {}).get("recipe.frame"):
            values = place_in_slice(values, find_box(pixels[..., 0]), (pixels.shape[0], pixels.shape[1]))
        return ActivationMap(classes[position], MapMethod.CLASS_ACTIVATION, values, probabilities[0])

    def _occlude(self, pixels: NDArray[uint8], wanted: int | None) -> ActivationMap:
        whole = self._session.run([OUTPUT_NAME], {INPUT_NAME: pixels[None]})[0][0]
        position = int(whole.argmax()) if wanted is None else wanted
        covered = list(_cover(pixels))
        scores: list[float] = []
        for start in range(0, len(covered), _ROWS):
            batch = np.stack([image for image, _, _ in covered[start : start + _ROWS]])
            scores += self._session.run([OUTPUT_NAME], {INPUT_NAME: batch})[0][:, position].tolist()
        side = 2 * _SQUARES - 1
        values = (whole[position] - np.array(scores, float32)).reshape(side, side)
        return ActivationMap(self._bundle.spec.classes[position], MapMethod.OCCLUSION, values, whole)


def weigh_features(features: NDArray[float32], head: PoolingHead, position: int) -> NDArray[float32]:
    """The class activation map of one image: its channels, weighted as the dense layer weighs their means.

    Args:
        features: float32, one image of the head's feature map, in its layout without the batch axis.
        head: Of the same graph.
        position: Of the class.

    Returns:
        float32, shape (rows, columns), whose mean is the class's logit.
    """
    axis = 0 if head.layout == "NCHW" else -1
    weighted = np.tensordot(np.moveaxis(features, axis, -1), head.weights[:, position], axes=1)
    return np.asarray(head.scale * weighted + head.bias[position], float32)


def place_in_slice(values: NDArray[float32], box: Box, shape: tuple[int, int]) -> NDArray[float32]:
    """Place the map of a network with a frame where the network saw it; 0 around.

    Args:
        values: float32, shape (rows, columns), over the box.
        box: Of the content, in pixels.
        shape: Height and width of the image, pixels.

    Returns:
        float32, one value for each 8 x 8 pixels of the image, interpolated linearly.
    """
    top, bottom, left, right = box
    down = _sample(values.shape[0], top, bottom, shape[0])
    across = _sample(values.shape[1], left, right, shape[1])
    return np.asarray(down @ values @ across.T, float32)


def _sample(count: int, start: int, end: int, side: int) -> NDArray[float32]:
    """The weights of `count` values between two pixels for the cells of one side, (cells, count); 0 outside."""
    centres = (np.arange(-(-side // _CELL)) + 0.5) * _CELL
    places = ((centres - start) / (end - start) * count - 0.5).clip(0, count - 1)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(count)))
    inside = (centres >= start) & (centres <= end)
    return np.asarray(weights * inside[:, None], float32)


def _cover(pixels: NDArray[uint8]) -> Iterator[tuple[NDArray[uint8], int, int]]:
    """Copies of an image, each with one square painted in its mean grey, and the square's place among them."""
    height, width = pixels.shape[:2]
    grey = np.uint8(round(float(pixels.mean())))
    for row in range(2 * _SQUARES - 1):
        top, bottom = row * height // (2 * _SQUARES), (row + 2) * height // (2 * _SQUARES)
        for column in range(2 * _SQUARES - 1):
            left, right = column * width // (2 * _SQUARES), (column + 2) * width // (2 * _SQUARES)
            copy = pixels.copy()
            copy[top:bottom, left:right] = grey
            yield copy, row, column
