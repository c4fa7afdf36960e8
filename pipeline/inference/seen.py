"""Flags images that the model was trained on, by the hashes in its bundle."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.core.training_images import TrainingImages, TrainingMatch
from mribatch.pipeline.records import DecodedBatch, DecodedFile, Flag, Status

_FLAGS = {
    TrainingMatch.EXACT: (Flag.SEEN_IN_TRAINING,),
    TrainingMatch.NEAR: (Flag.SEEN_IN_TRAINING, Flag.NEAR_MATCH),
}


def flag_training_images(batch: DecodedBatch, known: TrainingImages | None) -> tuple[DecodedFile, ...]:
    """Return the batch's files, flagged where the model was trained on the image.

    Args:
        batch: Pixels on the host or on the GPU; from there they are copied.
        known: The bundle's hashes; None: nothing can be flagged.
    """
    good = [position for position, file in enumerate(batch.files) if file.verdict.status is Status.OK]
    if known is None or not good:
        return batch.files
    files = list(batch.files)
    for position, match in zip(good, known.find(_on_host(batch.pixels)[good]), strict=True):
        if match is not None:
            verdict = files[position].verdict
            files[position] = replace(files[position], verdict=replace(verdict, flags=(*verdict.flags, *_FLAGS[match])))
    return tuple(files)


def _on_host(pixels: Any) -> NDArray[uint8]:
    return pixels if isinstance(pixels, np.ndarray) else np.asarray(pixels.to_host(), uint8)
