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
from mribatch.core.gate import CPU_EMULATED, ON_GPU, GateReport
from mribatch.trt.engine.cache import EngineCache
from mribatch.trt.engine.progress import BuildProgress, BuildStep, interrupted
from mribatch.trt.engine.provider import EngineProvider
from mribatch.trt.gpu import NoGpu, find_gpu
from mribatch.trt.graph.emulation import RoundingClassifier, gate_emulated
from mribatch.trt.graph.fp16 import convert_bundle
from mribatch.trt.image_agreement import GOAL, ImageAgreement, compare_on_images
from mribatch.trt.library import find_installed_flavors
from mribatch.trt.request import BatchProfile, EngineRequest
from mribatch.trt.support import make_unusable_error, select_usable


@dataclass(frozen=True)
class Verification:
    """What `mribatch engine verify` found. images: None where no folder was given."""

    bundle: str
    verified: str  # where it was compared: ON_GPU or CPU_EMULATED
    gate: GateReport
    images: ImageAgreement | None

    @property
    def holds(self) -> bool:
        """True where the golden answers are reproduced and, with images, the goal is reached."""
        return self.gate.holds and (self.images is None or self.images.reaches_goal)

    def to_json(self) -> dict[str, Any]:
        images = self.images
        agreement = (
            None
            if images is None
            else {
                "images": images.images,
                "same_class": images.same,
                "share": images.share,
                "max_difference": _to_json_number(images.max_difference),
            }
        )
        return {
            "bundle": self.bundle,
            "verified": self.verified,
            "holds": self.holds,
            "goal": GOAL,
            "golden_max_difference": _to_json_number(self.gate.max_difference),
            "images": agreement,
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
    *,
    images: UserImages | None = None,
    progress: BuildProgress | None = None,
) -> Verification:
    """Compare FP16 with the model: on this machine's GPU, with the engine found or built; else emulated on the CPU.

    Args:
        bundle: Checked.
        batch: Batch sizes of the engine.
        cache: Where engines are found and kept.
        images: To compare as well; None: the golden slices only.
        progress: Receives the steps; None: nobody does.

    Raises:
        MribatchError: There is no such engine, or a classifier fails. Answers that differ are not an error here.
        Interrupted: `progress.step` returned False.
    """
    gpu, progress = find_gpu(), progress or BuildProgress()
    if isinstance(gpu, NoGpu):
        half = convert_bundle(bundle)
        report, compared = gate_emulated(bundle, half.model), None
        if images:
            with RoundingClassifier(half.model) as emulated:
                compared = _compare(images, emulated, progress)
        return Verification(bundle.spec.name, CPU_EMULATED, report, compared)
    usable = select_usable(gpu, find_installed_flavors())
    if not usable:
        raise make_unusable_error(gpu, find_installed_flavors())
    request = EngineRequest(flavor=usable[0], target=gpu.target, batch=batch)
    with EngineProvider(bundle, cache, progress).open(request) as gated:
        compared = _compare(images, gated.classifier, progress) if images else None
        return Verification(bundle.spec.name, ON_GPU, gated.report, compared)


def _watch(images: UserImages, progress: BuildProgress) -> Generator[NDArray[uint8], None, None]:
    """The batches, with progress; closed with this, so that the decoder's threads end before the process does."""
    done = 0
    with contextlib.closing(images.batches):
        for batch in images.batches:
            if not progress.step(BuildStep(done, images.files, "comparing images")):
                raise interrupted("comparing images")
            yield batch
            done += len(batch)


def _to_json_number(number: float) -> float | None:
    """JSON has no NaN."""
    return number if math.isfinite(number) else None


def _compare(images: UserImages, candidate: Classifier, progress: BuildProgress) -> ImageAgreement:
    with images.reference as reference, contextlib.closing(_watch(images, progress)) as batches:
        result = compare_on_images(reference, candidate, batches)
    if not result.images:
        raise MribatchError("no image of --data could be decoded", "check the folder with mribatch classify")
    return result
