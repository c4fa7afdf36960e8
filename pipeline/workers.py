"""How many processes make parts side by side on this machine. `auto` is resolved here, once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from mribatch.pipeline.choices import DALI, ONNXRUNTIME
from mribatch.pipeline.inference.order import WorkOrder
from mribatch.pipeline.options import AUTO, ClassifyOptions
from mribatch.trt.gpu import Gpu, NoGpu, find_gpu

FILES_PER_SECOND = 9_000
"""That the Python code of one process reads and checks: `read_images_per_second` of benchmarks/stages.py."""

CORES_EACH = 32  # beyond which one process cannot keep them busy: at 250 images/s a core, it is at that limit
CORES_BESIDE_GPU = 8  # for each process that decodes for a GPU
_MOST_PER_GPU = 2
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Workers:
    """Processes side by side. gpus: that they use in turn. reason: of their number; None where the user gave it."""

    count: int
    gpus: tuple[str, ...] = ()
    reason: str | None = None


def choose_workers(
    options: ClassifyOptions,
    order: WorkOrder,
    gpu: Gpu | NoGpu | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Workers:
    """Resolve --workers and --gpus.

    Args:
        options: What the user asked for.
        order: With backend, decoder and cores as chosen.
        gpu: None: as it is found.
        environment: May name the visible GPUs.
    """
    given = options.gpu_numbers
    if options.workers != AUTO:
        return Workers(int(options.workers or len(given) or 1), given)
    gpu = gpu or find_gpu()
    works_on_gpu = order.backend.name != ONNXRUNTIME or order.decoder.name == DALI
    if isinstance(gpu, NoGpu) or not works_on_gpu:
        return _choose_for_cpu(order.threads)
    return _choose_for_gpus(given or _list_gpus(gpu, environment), order.threads)


def _choose_for_cpu(cores: int) -> Workers:
    count = -(-cores // CORES_EACH)
    if count == 1:
        return Workers(1, reason=f"one process keeps {cores} cores busy with threads")
    return Workers(count, reason=f"one process keeps about {CORES_EACH} of the {cores} cores busy")


def _choose_for_gpus(gpus: tuple[str, ...], cores: int) -> Workers:
    each = max(1, min(_MOST_PER_GPU, cores // (len(gpus) * CORES_BESIDE_GPU)))
    why = "" if each == 1 else f", since one process reads {FILES_PER_SECOND:,} files a second"
    return Workers(each * len(gpus), gpus, f"{each} for each of {len(gpus)} GPUs{why}; {cores} cores")


def _list_gpus(gpu: Gpu, environment: Mapping[str, str]) -> tuple[str, ...]:
    named = [name.strip() for name in environment.get(_VISIBLE, "").split(",") if name.strip()]
    return tuple(named[: gpu.visible]) if named else tuple(map(str, range(gpu.visible)))
