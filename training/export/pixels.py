"""How grey slices enter a model: repeated to its channels, then scaled."""

from dataclasses import dataclass

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.core.model_spec import MAX_SIDE
from mribatch.training.export.declarations import MeanAndStd, Scale

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, red green blue, 0..1
_CAFFE_MEAN = (103.939, 116.779, 123.68)  # of ImageNet, blue green red, 0..255
Scaling = Scale | MeanAndStd


def scale_constants(scale: Scaling, channels: int) -> tuple[NDArray[float32], NDArray[float32]]:
    """Return (shift, divisor), float32 (channels,): the model sees (pixel - shift) / divisor.

    Raises:
        MribatchError: The scale is for another number of channels.
    """
    if isinstance(scale, MeanAndStd):
        _check_mean_and_std(scale, channels)
        shift, divisor = ([255 * value for value in values] for values in (scale.mean, scale.std))
    elif channels == 1 and scale in (Scale.IMAGENET, Scale.CAFFE):
        problem = f"--scale {scale} is for three channels, the model takes one"
        raise MribatchError(problem, "give the scaling of its training: --scale none, 1/255 or -1..1")
    else:
        shift, divisor = {
            Scale.NONE: ([0.0], [1.0]),
            Scale.UNIT: ([0.0], [255.0]),
            Scale.SYMMETRIC: ([127.5], [127.5]),
            Scale.IMAGENET: ([255 * mean for mean in _MEAN], [255 * share for share in _DEVIATION]),
            Scale.CAFFE: (list(_CAFFE_MEAN), [1.0]),
        }[scale]
    given = (np.asarray(values, dtype=float32) for values in (shift, divisor))
    first, second = (np.broadcast_to(values, (channels,)) for values in given)
    return first, second


def _check_mean_and_std(scale: MeanAndStd, channels: int) -> None:
    for name, values in (("--mean", scale.mean), ("--std", scale.std)):
        if len(values) not in (1, channels):
            problem = f"{name} has {len(values)} numbers, the model takes {channels} channels"
            raise MribatchError(problem, f"give one number, or {channels} separated by commas")
    if not all(0 < value < 1e6 for value in scale.std) or not all(abs(value) < 1e6 for value in scale.mean):
        problem = f"{scale} does not scale pixels"
        raise MribatchError(problem, "give --mean and --std for pixels 0..1, with deviations above 0")


@dataclass(frozen=True)
class PixelInput:
    """How grey slices enter a model: grey repeated to its channels, then scaled."""

    height: int  # pixels
    width: int
    channels: int  # 1 or 3
    scale: Scaling
    scaling_layers: tuple[str, ...]  # layers of the model that scale, in order
    notes: tuple[str, ...] = ()  # what the user should know

    def to_array(self, images: NDArray[uint8]) -> NDArray[float32]:
        """Convert uint8 (n, height, width, 1) to float32 (n, height, width, channels) in NumPy."""
        shift, divisor = scale_constants(self.scale, self.channels)
        return (np.repeat(images.astype(float32), self.channels, axis=3) - shift) / divisor


def choose_scale(scaling: tuple[str, ...], declared: Scaling | None, *, scale_twice: bool) -> tuple[Scaling, list[str]]:
    """Return the scaling that the bundle's graph adds, and what the user should know about it.

    Args:
        scaling: Names of the model's own layers that scale the pixels.
        declared: As declared by the user; None: not declared.
        scale_twice: The user says that the model was trained on images scaled once outside and once by its own layers.

    Raises:
        MribatchError: The range is unknown, or the pixels would be scaled twice without the user's word.
    """
    outside = declared not in (None, Scale.NONE)
    if scale_twice and not (scaling and outside):
        problem = "--scale-twice is for a model that scales its pixels itself and was trained on scaled images as well"
        raise MribatchError(problem, "omit --scale-twice" if outside else "give --scale as well, or omit --scale-twice")
    if scaling and outside and not scale_twice:
        raise MribatchError(
            f"the model's own layer '{scaling[0]}' scales the pixels; --scale {declared} would scale them twice",
            "omit --scale: the model takes pixels 0..255 (keras.applications' EfficientNet always does); if it was"
            " trained on images that were scaled twice, add --scale-twice",
        )
    if not scaling and declared is None:
        raise MribatchError(
            "nothing in the model scales the pixels, so the range that it was trained on is unknown",
            "give the scaling of pixels 0..255 in its training: --scale 1/255, -1..1, imagenet, caffe, or none",
        )
    if scale_twice:
        return declared or Scale.NONE, [
            f"the pixels are scaled twice, by --scale {declared} and by the model's own '{scaling[0]}', as you say that"
            " it was trained"
        ]
    return declared or Scale.NONE, []


def choose_sides(height: int | None, width: int | None, size: int | None, shape: str) -> tuple[int, int]:
    """Return height and width in pixels; None: the model takes any.

    Raises:
        MribatchError: They are unknown, contradict --size, or are too large.
    """
    if size is not None and {height, width} - {None, size}:
        raise MribatchError(f"the model takes {shape}, --size says {size}", "omit --size")
    height, width = height or size, width or size
    if height is None or width is None:
        raise MribatchError(f"the model takes images of any size, {shape}", "give the --size of its training")
    if max(height, width) > MAX_SIDE:
        raise MribatchError(
            f"the model takes {height} x {width} pixels; the maximum is {MAX_SIDE}", "use a smaller model"
        )
    return height, width
