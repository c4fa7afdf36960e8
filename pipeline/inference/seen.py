"""Hashes pictures, and flags those that the model was trained on and those that look like none of these."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy import uint8, uint64
from numpy.typing import NDArray

from mribatch.core.bundle import Bundle
from mribatch.core.training_images import TrainingImages, TrainingMatch, perceptual_hashes
from mribatch.core.training_look import TrainingLook
from mribatch.pipeline.records import DecodedBatch, DecodedFile, Flag, Status, Verdict

_MATCHES: dict[TrainingMatch | None, tuple[Flag, ...]] = {
    TrainingMatch.EXACT: (Flag.SEEN_IN_TRAINING,),
    TrainingMatch.NEAR: (Flag.SEEN_IN_TRAINING, Flag.NEAR_MATCH),
    None: (),
}


def flag_images(batch: DecodedBatch, bundle: Bundle) -> tuple[DecodedFile, ...]:
    """Return the files with their perceptual hashes, flagged where the model knows the image, or nothing that looks so.

    Args:
        batch: Pixels on the host or on the GPU; from there they are copied.
        bundle: Without hashes and statistics of its training images, nothing can be flagged.
    """
    good = [position for position, file in enumerate(batch.files) if file.verdict.status is Status.OK]
    if not good:
        return batch.files
    files, pixels = list(batch.files), _on_host(batch.pixels)[good]
    verdicts = [files[position].verdict for position in good]
    hashes = perceptual_hashes(pixels)
    matches = _find_matches(bundle.training_images, pixels, hashes)
    unlike = _find_unlike(bundle.training_look, pixels, verdicts)
    for position, verdict, value, match, odd in zip(good, verdicts, hashes.tolist(), matches, unlike, strict=True):
        # A training image is like training, whatever the statistics say of it.
        added = _MATCHES[match] or ((Flag.UNLIKE_TRAINING,) if odd else ())
        flagged = replace(verdict, flags=(*verdict.flags, *added)) if added else verdict
        files[position] = replace(files[position], verdict=flagged, perceptual_hash=value or None)
    return tuple(files)


def _find_matches(
    known: TrainingImages | None, pixels: NDArray[uint8], hashes: NDArray[uint64]
) -> list[TrainingMatch | None]:
    return [None] * len(pixels) if known is None else known.find(pixels, hashes)


def _find_unlike(look: TrainingLook | None, pixels: NDArray[uint8], verdicts: list[Verdict]) -> list[bool]:
    if look is None:
        return [False] * len(pixels)
    found: list[bool] = look.find_unlike(pixels, [(verdict.width, verdict.height) for verdict in verdicts]).tolist()
    return found


def _on_host(pixels: Any) -> NDArray[uint8]:
    return pixels if isinstance(pixels, np.ndarray) else np.asarray(pixels.to_host(), uint8)
