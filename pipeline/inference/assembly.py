"""Puts the backend and the decoder of a WorkOrder together, in this process."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial

from mribatch.core.bundle import Bundle
from mribatch.core.errors import Interrupted, MribatchError
from mribatch.core.gate import ON_CPU, gate
from mribatch.core.model_spec import FP32
from mribatch.pipeline.choices import DALI, ONNXRUNTIME, OPENCV, TENSORRT, warn_of_idle_gpu
from mribatch.pipeline.decode.study import StudyDecoder
from mribatch.pipeline.decode.values import Window
from mribatch.pipeline.inference.in_process import Backend, DecoderAtWork, InProcessClassifier
from mribatch.pipeline.inference.order import WorkOrder
from mribatch.pipeline.records import Choice, Decoder
from mribatch.trt.engine.progress import BuildProgress, BuildStep
from mribatch.trt.gpu import NoGpu, find_gpu
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
    """The backend of an order at work. Where no TensorRT engine holds it is ONNX Runtime, with a warning.

    Raises:
        MribatchError: No backend can be had, or not the one that is required.
    """
    choice, precision = order.backend, order.precision
    with contextlib.ExitStack() as stack:
        if choice.name == TENSORRT:
            from mribatch.trt import backend as tensorrt

            try:
                engine = stack.enter_context(
                    tensorrt.open_backend(bundle, order.batch_size, progress=NotedProgress(note))
                )
            except (Interrupted, OutOfGpuMemory):  # the supervisor tries smaller batches
                raise
            except MribatchError as error:
                if order.backend_required:
                    raise
                warning = warn_of_idle_gpu(find_gpu(), error)
                note(f"WARNING: {warning}")
                choice = Choice(ONNXRUNTIME, f"fell back from tensorrt: {error.problem}", warning)
                precision = Choice(FP32, "fell back from tensorrt")
            else:
                yield Backend(engine.classifier, Choice(TENSORRT, engine.reason), lambda: engine.report)
                return
        yield stack.enter_context(_open_onnxruntime(bundle, order, choice, precision))


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
        threads=order.threads,
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
    )
    return DaliDecoder(
        graph,
        batch_size=order.batch_size,
        max_pixels=order.max_pixels,
        timeout_s=order.timeout_s,
        studies=_study_decoder(bundle, order),
        place=on_gpu if backend.name == TENSORRT and device is FIRST_GPU else to_host,
        read_ahead=order.read_ahead,
    )
