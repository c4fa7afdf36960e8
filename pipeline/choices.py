"""Which backend and decoder a run uses, and why. `auto` is resolved here, once."""

import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path

from mribatch.core.bundle import Bundle
from mribatch.core.classifier import Classifier
from mribatch.core.errors import Interrupted, MribatchError
from mribatch.pipeline.inference.in_process import ClassifyHere
from mribatch.pipeline.options import BATCH_SIZE_PER_CORE, MAX_BATCH_SIZE, ClassifyOptions
from mribatch.pipeline.records import Choice, Decoder, FileClassifier
from mribatch.pipeline.worker.messages import WorkOrder
from mribatch.pipeline.worker.supervisor import Supervised
from mribatch.trt.engine.build import BuildStep, OnStep
from mribatch.trt.engine.maker import Note
from mribatch.trt.engine.sidecar import DEFAULT_BATCH
from mribatch.trt.gpu import NoGpu, find_gpu
from mribatch.trt.library import installed_flavours, nothing_installed

ONNXRUNTIME, TENSORRT = "onnxruntime", "tensorrt"
OPENCV, DALI = "opencv", "dali"
_SECONDS_BETWEEN_NOTES = 10.0


@dataclass(frozen=True)
class Stages:
    """Files to probabilities, made but not entered."""

    batch_size: int
    classify: FileClassifier


def choose_backend(wanted: str) -> Choice:
    """Resolve --backend.

    Raises:
        MribatchError: The backend is not available; says what is missing.
    """
    if wanted == TENSORRT:
        from mribatch.trt.backend import usable_flavour

        return Choice(TENSORRT, f"asked for; {usable_flavour()}")
    if wanted == ONNXRUNTIME:
        return Choice(ONNXRUNTIME, "asked for")
    gpu, flavours = find_gpu(), installed_flavours()
    if isinstance(gpu, NoGpu):
        return Choice(ONNXRUNTIME, f"runs on every CPU; no GPU: {gpu.reason}")
    if not flavours:
        return Choice(ONNXRUNTIME, f"runs on every CPU; for the {gpu}, {nothing_installed().problem}")
    return Choice(TENSORRT, f"{flavours[0]} on the {gpu}")


def choose_decoder(wanted: str) -> Choice:
    """Resolve --decoder.

    Raises:
        MribatchError: The decoder is not available; says what is missing.
    """
    gpu, installed = find_gpu(), _dali_installed()
    where = f"on the {gpu}" if not isinstance(gpu, NoGpu) else f"on the CPU (no GPU: {gpu.reason})"
    if wanted == DALI:
        if not installed:
            raise MribatchError(
                "--decoder dali needs NVIDIA DALI, and it is not installed",
                "pip install 'mribatch[dali]', or use --decoder opencv (the same within a level or two)",
            )
        return Choice(DALI, f"asked for; {where}")
    if wanted == OPENCV:
        return Choice(OPENCV, "asked for")
    if installed and not isinstance(gpu, NoGpu):
        return Choice(DALI, where)
    return Choice(OPENCV, "the fastest on a CPU" if isinstance(gpu, NoGpu) else "NVIDIA DALI is not installed")


def build_stages(bundle: Bundle, options: ClassifyOptions, threads: int, log: Path | None, note: Note) -> Stages:
    """Make the stages, not entered: in this process for OpenCV with ONNX Runtime, else in one that may die.

    Args:
        bundle: Checked.
        options: What the user asked for.
        threads: Cores to use.
        log: Where a worker process's stderr goes; None: nowhere.
        note: Told what takes long, such as building an engine.
    """
    backend, decoder = choose_backend(options.backend), choose_decoder(options.decoder)
    default = min(BATCH_SIZE_PER_CORE * threads, MAX_BATCH_SIZE)
    if backend.name == TENSORRT or decoder.name == DALI:
        default = DEFAULT_BATCH.maximum
    order = WorkOrder(
        model=str(bundle.folder.absolute()),
        bundle_sha256=bundle.sha256,
        backend=backend,
        decoder=decoder,
        batch_size=options.batch_size or default,
        threads=threads,
        max_pixels=options.max_pixels,
        timeout_s=options.timeout_s,
    )
    if (backend.name, decoder.name) == (ONNXRUNTIME, OPENCV):
        return Stages(order.batch_size, build_here(bundle, order, note))
    return Stages(order.batch_size, Supervised(order, log, note))


def build_here(bundle: Bundle, order: WorkOrder, note: Note) -> ClassifyHere:
    """The pair, not entered. The TensorRT backend builds or loads its engine here and proves it on the GPU."""
    backend, classify = order.backend, None
    if backend.name == TENSORRT:
        backend, classify = _tensorrt(bundle, order, note)
    classify = classify or _onnxruntime(bundle, order)
    decode = dali_decoder(bundle, order, backend) if order.decoder.name == DALI else opencv_decoder(bundle, order)
    return ClassifyHere(bundle, order.batch_size, backend, order.decoder, classify, decode)


def _tensorrt(bundle: Bundle, order: WorkOrder, note: Note) -> tuple[Choice, Classifier | None]:
    """An engine that reproduces the golden answers; ONNX Runtime, with the reason, where none does."""
    from mribatch.trt.backend import ready

    try:
        made = ready(bundle, order.batch_size, note=note, on_step=_told_now_and_then(note))
    except Interrupted:
        raise
    except MribatchError as error:
        return Choice(ONNXRUNTIME, f"fell back from tensorrt: {error.problem}"), None
    return Choice(TENSORRT, made.reason), made.classifier


def _told_now_and_then(note: Note) -> OnStep:
    """A build's steps as a note every ten seconds; a build that is over sooner says nothing."""
    last = time.monotonic()

    def on_step(step: BuildStep) -> bool:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_NOTES:
            last = time.monotonic()
            note(f"building a TensorRT engine, once for this model and GPU: {step.done / step.total:.0%}")
        return True

    return on_step


def _onnxruntime(bundle: Bundle, order: WorkOrder) -> Classifier:
    from mribatch.pipeline.inference.onnxruntime import OnnxRuntimeClassifier

    return OnnxRuntimeClassifier(bundle, order.threads)


def opencv_decoder(bundle: Bundle, order: WorkOrder) -> Decoder:
    """On the CPU, not entered."""
    from mribatch.pipeline.decode.opencv import DecodeAhead

    return DecodeAhead(
        height=bundle.spec.height,
        width=bundle.spec.width,
        batch_size=order.batch_size,
        threads=order.threads,
        max_pixels=order.max_pixels,
        timeout_s=order.timeout_s,
    )


def dali_decoder(bundle: Bundle, order: WorkOrder, backend: Choice) -> Decoder:
    """On the GPU where there is one, else on the CPU; not entered."""
    from mribatch.pipeline.decode.dali import DecodeDali, on_gpu, to_host
    from mribatch.pipeline.decode.dali_graph import CPU, FIRST_GPU, GraphOptions

    device = CPU if isinstance(find_gpu(), NoGpu) else FIRST_GPU
    graph = GraphOptions(device=device, height=bundle.spec.height, width=bundle.spec.width, threads=order.threads)
    return DecodeDali(
        graph,
        batch_size=order.batch_size,
        max_pixels=order.max_pixels,
        timeout_s=order.timeout_s,
        place=on_gpu if backend.name == TENSORRT and device is FIRST_GPU else to_host,
    )


def _dali_installed() -> bool:
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ImportError:  # there is no package `nvidia` at all
        return False
