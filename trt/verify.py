"""Does FP16 answer as the model does, on the golden slices and on a user's own images?"""

import contextlib
import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from numpy import uint8
from numpy.typing import NDArray

from mribatch.core.bundle import Bundle
from mribatch.core.classifier import Classifier
from mribatch.core.errors import MribatchError
from mribatch.trt.engine.build import BatchProfile, BuildStep, OnStep, interrupted
from mribatch.trt.engine.cache import EngineCache
from mribatch.trt.engine.maker import EngineMaker, Note, gate_sizes, tell_nobody
from mribatch.trt.engine.sidecar import EngineRequest
from mribatch.trt.gate import (
    CPU_EMULATED,
    GOAL,
    ON_GPU,
    GateReport,
    ImageAgreement,
    agreement_on_images,
    emulate,
    gate,
)
from mribatch.trt.gpu import NoGpu, find_gpu
from mribatch.trt.graph.emulation import RoundingClassifier
from mribatch.trt.graph.fp16 import fp16_graph_of
from mribatch.trt.library import installed_flavours, nothing_installed
from mribatch.trt.runtime.classifier import TensorRTClassifier


@dataclass(frozen=True)
class Verification:
    """What `mribatch engine verify` found. images: None where no folder was given."""

    bundle: str
    verified: str  # ON_GPU or CPU_EMULATED
    gate: GateReport
    images: ImageAgreement | None

    @property
    def holds(self) -> bool:
        """True where the golden answers are reproduced and, with images, the goal is reached."""
        return self.gate.holds and (self.images is None or self.images.reaches_goal)

    def to_json(self) -> dict[str, Any]:
        images = self.images
        shown = (
            None
            if images is None
            else {
                "images": images.images,
                "same_class": images.same,
                "share": images.share,
                "max_difference": _finite(images.max_difference),
            }
        )
        return {
            "bundle": self.bundle,
            "verified": self.verified,
            "holds": self.holds,
            "goal": GOAL,
            "golden_max_difference": _finite(self.gate.max_difference),
            "images": shown,
        }

    def to_text(self) -> str:
        lines = [f"{self.bundle}: {self.gate}"]
        if self.images is not None:
            goal = "reached" if self.images.reaches_goal else "MISSED"
            lines += [f"{self.bundle}: {self.images}; goal of {GOAL:.1%} {goal} ({self.verified})"]
        return "\n".join(lines)


@dataclass(frozen=True)
class UserImages:
    """A user's own images.

    reference: the model in FP32, not entered. files: how many there are to try. batches: of uint8 (batch, height,
    width, 1), each file that can be decoded once.
    """

    reference: Classifier
    files: int
    batches: Generator[NDArray[uint8], None, None]


def verify(
    bundle: Bundle,
    batch: BatchProfile,
    cache: EngineCache,
    images: UserImages | None = None,
    note: Note = tell_nobody,
    on_step: OnStep | None = None,
) -> Verification:
    """On the GPU that is here, with the engine from the cache or built; else emulated in ONNX Runtime.

    Raises:
        MribatchError: The engine cannot be had, or a classifier fails. That the answers differ is no error here.
        Interrupted: `on_step` returned False.
    """
    gpu = find_gpu()
    if isinstance(gpu, NoGpu):
        half = fp16_graph_of(bundle)
        report = emulate(bundle, half)
        compared = _on_images(images, RoundingClassifier(half), on_step)
        return Verification(bundle.spec.name, CPU_EMULATED, report, compared)
    if not installed_flavours():
        raise nothing_installed()
    request = EngineRequest(flavour=installed_flavours()[0], target=gpu.target, batch=batch)
    found = EngineMaker(bundle, cache, note, on_step).obtain(request).engine
    with TensorRTClassifier(bundle, found.content, request) as classify:
        report = gate(classify, bundle, batch_sizes=gate_sizes(batch))
    compared = _on_images(images, TensorRTClassifier(bundle, found.content, request), on_step)
    return Verification(bundle.spec.name, ON_GPU, report, compared)


def _watched(images: UserImages, on_step: OnStep | None) -> Generator[NDArray[uint8], None, None]:
    """The batches, with progress; closed with this, so that the decoder's threads end before the process does."""
    done = 0
    with contextlib.closing(images.batches):
        for batch in images.batches:
            if on_step is not None and not on_step(BuildStep(done, images.files, "comparing images")):
                raise interrupted("comparing images")
            yield batch
            done += len(batch)


def _finite(number: float) -> float | None:
    """JSON has no NaN."""
    return number if math.isfinite(number) else None


def _on_images(
    images: UserImages | None, trial: RoundingClassifier | TensorRTClassifier, on_step: OnStep | None
) -> ImageAgreement | None:
    if images is None:
        return None
    with images.reference as reference, trial as candidate, contextlib.closing(_watched(images, on_step)) as batches:
        result = agreement_on_images(reference, candidate, batches)
    if not result.images:
        raise MribatchError("no image of --data could be decoded", "check the folder with mribatch classify")
    return result
