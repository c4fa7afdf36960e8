"""Puts the backend and the decoder of a WorkOrder together, in this process."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from mribatch.core.bundle import Bundle
from mribatch.core.errors import Interrupted, MribatchError
from mribatch.core.gate import ON_CPU, GateFailed, gate
from mribatch.core.model_spec import FP32
from mribatch.pipeline.choices import (
    DALI,
    ONNXRUNTIME,
    ONNXRUNTIME_CUDA,
    OPENCV,
    TENSORRT,
    has_cuda_provider,
    warn_of_idle_gpu,
)
from mribatch.pipeline.decode.study import StudyDecoder
from mribatch.pipeline.decode.values import Window
from mribatch.pipeline.inference.in_process import Backend, DecoderAtWork, InProcessClassifier
from mribatch.pipeline.inference.order import WorkOrder
from mribatch.pipeline.records import Choice, Decoder
from mribatch.trt.engine.progress import BuildProgress, BuildStep
from mribatch.trt.gpu import NoGpu, find_gpu
from mribatch.trt.request import TUNED_BATCH
from mribatch.trt.runtime.device import OutOfGpuMemory

_SECONDS_BETWEEN_NOTES = 10.0


def assemble(bundle: Bundle, order: WorkOrder, note: Callable[[str], None]) -> InProcessClassifier:
    """The backend and the decoder of an order, not entered.

    Args:
        bundle: Checked.
        order: What to use.
        note: Receives a line about what takes long, such as building an engine.
    """

    return InProcessClassifier(
        bundle,
        order.batch_size,
        open_backend=partial(open_backend, bundle, order, note),
        open_decoder=partial(open_decoder, bundle, order, note),
    )


@contextlib.contextmanager
def open_backend(bundle: Bundle, order: WorkOrder, note: Callable[[str], None]) -> Iterator[Backend]:
    """The backend of an order at work. Where none on the GPU can be had it is ONNX Runtime on the CPU, with a warning.

    Raises:
        MribatchError: No backend can be had, or not the one that is required.
    """
    choice, precision = order.backend, order.precision
    refusals: list[MribatchError] = []
    with contextlib.ExitStack() as stack:
        for name in _list_on_gpu(order):
            try:
                backend = stack.enter_context(_ON_GPU[name](bundle, order, note))
            except (Interrupted, OutOfGpuMemory):  # the supervisor tries smaller batches
                raise
            except MribatchError as error:
                if order.backend_required:
                    raise
                refusals.append(error)
                continue
            if refusals:
                backend = replace(backend, choice=Choice(name, f"fell back from tensorrt: {refusals[0].problem}"))
            yield backend
            return
        if refusals:
            warning = warn_of_idle_gpu(find_gpu(), refusals[0])
            note(f"WARNING: {warning}")
            fell_back = f"fell back from {order.backend.name}"
            choice = Choice(ONNXRUNTIME, f"{fell_back}: {refusals[0].problem}", warning)
            precision = Choice(FP32, fell_back)
        yield stack.enter_context(_open_onnxruntime(bundle, order, choice, precision))


def _list_on_gpu(order: WorkOrder) -> list[str]:
    """The backends to try on the GPU, in order."""
    if order.backend.name == TENSORRT and not order.backend_required and has_cuda_provider():
        return [TENSORRT, ONNXRUNTIME_CUDA]
    return [order.backend.name] if order.backend.name in _ON_GPU else []


@contextlib.contextmanager
def _open_tensorrt(bundle: Bundle, order: WorkOrder, note: Callable[[str], None]) -> Iterator[Backend]:
    from mribatch.trt import backend as tensorrt

    profile = TUNED_BATCH if order.any_batch and order.batch_size <= TUNED_BATCH.maximum else None
    progress = NotedProgress(note)
    with tensorrt.open_backend(bundle, order.batch_size, profile=profile, progress=progress) as engine:
        yield Backend(engine.classifier, Choice(TENSORRT, engine.reason), lambda: engine.report)


@contextlib.contextmanager
def _open_cuda_provider(bundle: Bundle, order: WorkOrder) -> Iterator[Backend]:
    from mribatch.pipeline.inference.cuda_provider import CudaProviderClassifier

    with CudaProviderClassifier(bundle, order.batch_size) as classifier:
        # Every call has the full size, whatever is asked, so one size says all but the place.
        report = gate(classifier, bundle, batch_sizes=(order.batch_size,))
        if not report.holds:
            raise GateFailed(str(report), "use --backend onnxruntime (the CPU)")
        yield Backend(classifier, order.backend, lambda: report)


_Open = Callable[[Bundle, WorkOrder, Callable[[str], None]], contextlib.AbstractContextManager[Backend]]
_ON_GPU: dict[str, _Open] = {
    TENSORRT: _open_tensorrt,
    ONNXRUNTIME_CUDA: lambda bundle, order, _: _open_cuda_provider(bundle, order),
}


@contextlib.contextmanager
def _open_onnxruntime(bundle: Bundle, order: WorkOrder, choice: Choice, precision: Choice) -> Iterator[Backend]:
    from mribatch.pipeline.inference.onnxruntime import OnnxRuntimeClassifier

    with OnnxRuntimeClassifier(bundle, order.threads, precision.name) as classifier:
        # Every row is computed in a call of the same shape, so one batch size says all, and no place in it matters.
        ask = partial(gate, classifier, bundle, batch_sizes=(order.batch_size,), verified=ON_CPU, slices_repeated=0)
        yield Backend(classifier, choice, ask, precision.reason)


@contextlib.contextmanager
def open_decoder(
    bundle: Bundle, order: WorkOrder, note: Callable[[str], None], backend: Choice
) -> Iterator[DecoderAtWork]:
    """The decoder of an order at work. Where DALI does not work on the GPU it is OpenCV, with a warning.

    Raises:
        MribatchError: No decoder can be had, or not the one that is required.
    """
    choice = order.decoder
    with contextlib.ExitStack() as stack:
        if choice.name == DALI:
            try:
                decoder = stack.enter_context(make_dali_decoder(bundle, order, backend))
            except OutOfGpuMemory:
                raise
            except MribatchError as error:
                if order.decoder_required:
                    raise
                warning = warn_of_idle_gpu(find_gpu(), error, what="Images are decoded")
                note(f"WARNING: {warning}")
                choice = Choice(OPENCV, f"fell back from dali: {error.problem}", warning)
            else:
                yield DecoderAtWork(decoder, choice)
                return
        yield DecoderAtWork(stack.enter_context(make_opencv_decoder(bundle, order)), choice)


class NotedProgress(BuildProgress):
    """Turns a long build into a line every ten seconds; says nothing of one that ends sooner.

    Args:
        note: Receives the lines.
        clock: Gives seconds.
    """

    def __init__(self, note: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._note = note
        self._clock = clock
        self._last = clock()

    def note(self, text: str) -> None:
        self._note(text)

    def step(self, step: BuildStep) -> bool:
        if self._clock() - self._last >= _SECONDS_BETWEEN_NOTES:
            self._last = self._clock()
            self._note(f"building a TensorRT engine, once for this model and GPU: {step.done / step.total:.0%}")
        return True


def make_opencv_decoder(bundle: Bundle, order: WorkOrder) -> Decoder:
    """OpenCV on the CPU, not entered."""
    from mribatch.pipeline.decode.opencv import OpenCvDecoder

    return OpenCvDecoder(
        height=bundle.spec.height,
        width=bundle.spec.width,
        batch_size=order.batch_size,
        threads=order.readers,
        max_pixels=order.max_pixels,
        timeout_s=order.timeout_s,
        studies=_study_decoder(bundle, order),
    )


def _study_decoder(bundle: Bundle, order: WorkOrder) -> StudyDecoder:
    return StudyDecoder(
        height=bundle.spec.height,
        width=bundle.spec.width,
        window=Window.parse(order.window),
        options=order.header_options,
    )


def make_dali_decoder(bundle: Bundle, order: WorkOrder, backend: Choice) -> Decoder:
    """DALI on the GPU where there is one, else on the CPU; not entered. Its pixels stay on the GPU for an engine."""
    from mribatch.pipeline.decode.dali import DaliDecoder, on_gpu, to_host
    from mribatch.pipeline.decode.dali_graph import CPU, FIRST_GPU, GraphOptions

    device = CPU if isinstance(find_gpu(), NoGpu) else FIRST_GPU
    graph = GraphOptions(
        device=device,
        height=bundle.spec.height,
        width=bundle.spec.width,
        threads=order.threads,
        prefetched=order.prefetch,
        on_gpu=order.gpu_decoding,
    )
    return DaliDecoder(
        graph,
        batch_size=order.batch_size,
        max_pixels=order.max_pixels,
        timeout_s=order.timeout_s,
        studies=_study_decoder(bundle, order),
        place=on_gpu if backend.name == TENSORRT and device is FIRST_GPU else to_host,
        read_ahead=order.read_ahead,
        readers=order.readers,
        checks_data=order.checks_data,
    )
