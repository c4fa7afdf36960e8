"""What `mribatch engine tune` has measured to be fastest on this GPU, as part of a run's order."""

import contextlib
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

from mribatch.core.about import __version__
from mribatch.core.bundle import Bundle
from mribatch.core.cores import usable_cores
from mribatch.core.errors import MribatchError
from mribatch.pipeline.choices import DALI, TENSORRT
from mribatch.pipeline.inference.order import WorkOrder
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.workers import Workers
from mribatch.trt.gpu import Gpu, find_gpu
from mribatch.trt.library import find_installed_flavors, find_installed_version
from mribatch.trt.support import choose_flavor
from mribatch.trt.tuning import Tuning, TuningKey

_DALI_PACKAGES = ("nvidia-dali-cuda130", "nvidia-dali-cuda120")


def make_tuning_key(bundle: Bundle, gpu: Gpu) -> TuningKey:
    """What a tuning is for on this machine.

    Raises:
        MribatchError: No library builds engines for this GPU.
    """
    flavor = choose_flavor(gpu, find_installed_flavors())
    versions = {"mribatch": __version__, str(flavor): find_installed_version(flavor) or "", "driver": gpu.driver}
    for name in _DALI_PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return TuningKey(
        gpu=gpu.name,
        memory_bytes=gpu.memory_bytes,
        cores=usable_cores(),
        bundle_sha256=bundle.sha256,
        versions=versions,
    )


def find_tuning(bundle: Bundle, order: WorkOrder) -> Tuning | None:
    """What was measured for this GPU, bundle and libraries; None where nothing was, or the run does not use them."""
    gpu = find_gpu()
    if (order.backend.name, order.decoder.name) != (TENSORRT, DALI) or not isinstance(gpu, Gpu):
        return None
    from mribatch.trt.engine.cache import EngineCache  # slow to import

    try:
        return EngineCache().read_tuning(make_tuning_key(bundle, gpu))
    except MribatchError:  # there is no folder for engines, or no library: the backend says so itself
        return None


def apply_tuning(order: WorkOrder, tuning: Tuning, options: ClassifyOptions) -> WorkOrder:
    """The order with what was measured; what the user has said stays."""
    return replace(
        order,
        batch_size=options.batch_size or tuning.batch_size,
        threads=options.threads or tuning.threads * tuning.workers,
        any_batch=options.batch_size in (None, tuning.batch_size),
        hw_decoder_load=tuning.hw_decoder_load,
        huffman_threshold=tuning.huffman_threshold,
        usual_width=tuning.width,
        usual_height=tuning.height,
    )


def take_workers(options: ClassifyOptions, workers: Workers, tuning: Tuning) -> Workers:
    """As many workers for each GPU as were measured, unless the user has said how many, or a cluster has the GPUs."""
    if isinstance(options.workers, int) or options.on is not None:
        return workers
    reason = None if options.workers is None else "as mribatch engine tune has measured"
    return Workers(tuning.workers * max(1, len(workers.gpus)), workers.gpus, reason)
