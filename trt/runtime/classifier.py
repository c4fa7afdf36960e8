"""An engine on the GPU: a Classifier.

Every batch has the engine's full size, whatever the caller gives: the shape decides the kernels, and so the last bits.
Two slots of page-locked memory take turns, so that the host fills one while the GPU works on the other: within a call,
and between the calls of two threads. A batch that is on the GPU already is read in place.
"""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.bundle import Bundle
from mribatch.core.errors import MribatchError
from mribatch.core.model_spec import INPUT_NAME, OUTPUT_NAME
from mribatch.trt.library import (
    Flavor,
    Messages,
    forget_variables,
    load_library,
    make_logger,
    make_refusal,
    require_version,
)
from mribatch.trt.request import EngineRequest
from mribatch.trt.runtime.device import (
    Buffer,
    Device,
    Event,
    HostBuffer,
    OutOfGpuMemory,
    Stream,
    is_out_of_memory,
)
from mribatch.trt.runtime.device_array import DeviceArray, DeviceImages, check_device_images
from mribatch.trt.runtime.rtx import EagerContext, create_eager_context

SLOTS = 2

AnyBuffer = TypeVar("AnyBuffer", bound=Buffer)
Batch = NDArray[uint8] | DeviceImages


@dataclass(frozen=True)
class OpenEngine:
    """A deserialized engine and what must live as long as it does."""

    engine: Any  # ICudaEngine
    messages: Messages
    owners: tuple[Any, ...] = ()


Deserialize = Callable[[Flavor, bytes], OpenEngine]


def deserialize(flavor: Flavor, content: bytes) -> OpenEngine:
    """Deserialize an engine. This runs native code from it: only for engines that `mribatch.trt.engine.cache` accepted.

    Raises:
        MribatchError: The library refuses it, in its own words.
    """
    trt, messages = load_library(flavor), Messages()
    logger = make_logger(trt, messages)
    try:
        runtime = trt.Runtime(logger)
    except (TypeError, RuntimeError) as error:  # pybind11 says no more than that the factory returned nullptr
        raise _refuse(flavor, "start", messages, f"no usable GPU or driver ({error})") from error
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise _refuse(flavor, "load the engine", messages, "it gave no reason")
    return OpenEngine(engine, messages, (runtime, logger))


@dataclass
class _Slot:
    """Buffers of one batch on its way.

    Attributes:
        pixels, answers: Views of `host_in` and `host_out`.
        event: Recorded after the download; None while nothing is under way.
        reads: The caller's memory that the GPU reads from; released once the event has fired.
    """

    host_in: HostBuffer
    host_out: HostBuffer
    device_in: Buffer
    device_out: Buffer
    pixels: NDArray[uint8]
    answers: NDArray[float32]
    event: Event | None = None
    reads: DeviceImages | None = None


class TensorRTClassifier:
    """FP16 or FP32 on the GPU.

    Args:
        bundle: Whose graph the engine was built from.
        content: The engine's bytes, checked (`mribatch.trt.engine.cache`).
        request: What the engine is.
        kernels: What an earlier classifier of this engine compiled (`compiled_kernels`); only TensorRT for RTX uses it.
        device: The GPU; by default the first one, through CUDA.
        deserialize: Loads the engine.
    """

    name = "tensorrt"
    calls_at_once = SLOTS  # one stream: a thread queues its batch after another's and waits for its own event only

    def __init__(
        self,
        bundle: Bundle,
        content: bytes,
        request: EngineRequest,
        *,
        kernels: bytes | None = None,
        device: Device | None = None,
        deserialize: Deserialize = deserialize,
    ) -> None:
        self.precision = request.precision
        self._bundle = bundle
        self._content = content
        self._request = request
        self._device = device
        self._deserialize = deserialize
        self._kernels = kernels
        self._opened: OpenEngine | None = None
        self._context: Any = None
        self._eager: EagerContext | None = None
        self._stream: Stream | None = None
        self._slots: list[_Slot] = []
        self._free: queue.SimpleQueue[_Slot] = queue.SimpleQueue()  # those of them that no call uses
        self._launching = threading.Lock()
        self._buffers: list[Buffer] = []

    @property
    def library_version(self) -> str:
        """With the flavor where it is not TensorRT itself: "rtx 1.7.1.116"."""
        version = require_version(self._request.flavor)
        return version if self._request.flavor is Flavor.TENSORRT else f"rtx {version}"

    @property
    def _shape_in(self) -> tuple[int, ...]:
        """Of every batch."""
        spec = self._bundle.spec
        return (self._request.rows_per_batch, spec.height, spec.width, 1)

    def __enter__(self) -> Self:
        """Find the GPU, load the engine and allocate everything that calls will need.

        Raises:
            MribatchError: No GPU, another than the engine is for, too little memory, or an engine that does not fit.
        """
        assert self._opened is None, "entered already"
        if self._device is None:
            from mribatch.trt.runtime.cuda import CudaDevice

            self._device = CudaDevice()
        gpu = self._device.open()
        if gpu.target != self._request.target:
            raise MribatchError(
                f"the engine is for {self._request.target}, this GPU is {gpu}",
                "build one for it: mribatch engine build",
            )
        try:
            self._opened = self._deserialize(self._request.flavor, self._content)
            self._check_tensors(self._opened.engine)
            self._context = self._create_context(self._opened.engine)
            if self._context is None:
                raise self._refuse("make an execution context; it may lack memory")
            self._stream = self._device.stream()
            for _ in range(SLOTS):
                self._slots.append(self._allocate_slot(self._device, self._stream))
                self._free.put(self._slots[-1])
        except BaseException as error:
            self._release()
            forget_variables(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def __call__(self, images: NDArray[uint8] | DeviceArray) -> NDArray[float32]:
        """Probabilities, float32 (batch, classes), on the host, for uint8 (batch, height, width, 1), grey 0..255.

        Args:
            images: On the host any number of rows. On the GPU (`__cuda_array_interface__`, version 3) one full batch,
                the request's rows, C-contiguous, on the engine's GPU; it is not copied, and read once the stream
                that it names has written it. When the call returns, it may be written again.

        Raises:
            MribatchError: The GPU or TensorRT fails.
            TypeError: Neither kind of array.
            ValueError: Another dtype, shape or layout: TensorRT would read other memory than the images.
        """
        assert self._device is not None and self._stream is not None, "enter first"
        self._device.use()
        rows, batches = self._split(images)
        result = np.empty((rows, len(self._bundle.spec.classes)), float32)
        busy: deque[tuple[_Slot, int]] = deque()
        try:
            for start, batch in batches:
                busy.append((self._take_slot(busy, result), start))
                with self._launching:  # the context takes one batch at a time
                    self._launch(busy[-1][0], batch, self._device, self._stream)
            while busy:
                self._free.put(self._drain_oldest(busy, result))
        except BaseException as error:
            _try_quietly(self._stream.wait)  # whether it is done or has failed: the GPU reads nothing any more
            for slot, _ in busy:
                slot.event = slot.reads = None
                self._free.put(slot)
            forget_variables(error)
            raise
        return result

    def _take_slot(self, busy: "deque[tuple[_Slot, int]]", result: NDArray[float32]) -> _Slot:
        """A slot that nobody uses; this call's oldest, once it is done, before it waits for another call's."""
        with contextlib.suppress(queue.Empty):
            return self._free.get_nowait()
        return self._drain_oldest(busy, result) if busy else self._free.get()

    def _drain_oldest(self, busy: "deque[tuple[_Slot, int]]", result: NDArray[float32]) -> _Slot:
        slot = self._drain(*busy[0], result)  # still among the busy ones if this fails
        busy.popleft()
        return slot

    def _split(self, images: NDArray[uint8] | DeviceArray) -> tuple[int, Iterable[tuple[int, Batch]]]:
        """How many rows there are, and each batch with its first row."""
        shape = self._shape_in
        if not isinstance(images, np.ndarray):
            return shape[0], [(0, check_device_images(images, shape))]
        if images.dtype != uint8 or images.shape[1:] != shape[1:]:
            raise ValueError(f"{images.dtype} {images.shape} for uint8 (batch, {', '.join(map(str, shape[1:]))})")
        starts = range(0, len(images), shape[0])
        return len(images), ((start, images[start : start + shape[0]]) for start in starts)

    def _launch(self, slot: _Slot, batch: Batch, device: Device, stream: Stream) -> None:
        """Put one batch on the stream."""
        address = self._place(slot, batch, device, stream)
        context = self._context
        if not context.set_input_shape(INPUT_NAME, slot.pixels.shape):
            raise self._refuse(f"take images of shape {slot.pixels.shape}")
        if not context.set_tensor_address(INPUT_NAME, address):
            raise self._refuse("take the address of the images")
        if not context.set_tensor_address(OUTPUT_NAME, slot.device_out.address):
            raise self._refuse("take the address of the probabilities")
        if not context.execute_async_v3(stream.handle):
            raise self._refuse("run the engine")
        device.download(slot.device_out, slot.host_out, stream)
        slot.event = stream.record()

    @staticmethod
    def _place(slot: _Slot, batch: Batch, device: Device, stream: Stream) -> int:
        """The address at which the stream will find a full batch; from the host it is uploaded, padded with zeros."""
        if isinstance(batch, DeviceImages):
            slot.reads = batch
            if batch.stream is not None:
                stream.wait_for(batch.stream)
            return batch.address
        slot.pixels[: len(batch)] = batch
        slot.pixels[len(batch) :] = 0
        device.upload(slot.host_in, slot.device_in, stream)
        return slot.device_in.address

    @staticmethod
    def _drain(slot: _Slot, start: int, result: NDArray[float32]) -> _Slot:
        """Wait for a batch and copy its answers out of the slot, which is free then."""
        assert slot.event is not None
        slot.event.wait()
        rows = min(len(slot.answers), len(result) - start)
        result[start : start + rows] = slot.answers[:rows]
        slot.event = slot.reads = None
        return slot

    def _allocate_slot(self, device: Device, stream: Stream) -> _Slot:
        shape_in = self._shape_in
        shape_out = (shape_in[0], len(self._bundle.spec.classes))
        bytes_in, bytes_out = int(np.prod(shape_in)), int(np.prod(shape_out)) * float32().itemsize
        host_in = self._keep(device.pinned(bytes_in))
        host_out = self._keep(device.pinned(bytes_out))
        device_in = self._keep(device.allocate(bytes_in, stream))
        device_out = self._keep(device.allocate(bytes_out, stream))
        pixels, answers = host_in.view(uint8, shape_in), host_out.view(float32, shape_out)
        return _Slot(host_in, host_out, device_in, device_out, pixels, answers)

    def _keep(self, buffer: AnyBuffer) -> AnyBuffer:
        """Note a buffer at once, so that it is freed even if the next allocation fails."""
        self._buffers.append(buffer)
        return buffer

    def compiled_kernels(self) -> bytes | None:
        """What TensorRT for RTX has compiled so far, for the next classifier of this engine; None with TensorRT."""
        return self._eager.serialize_kernels() if self._eager is not None else None

    def _create_context(self, engine: Any) -> Any:
        """An IExecutionContext; None where the library refuses."""
        if self._request.flavor is Flavor.TENSORRT:
            return engine.create_execution_context()
        self._eager = create_eager_context(engine, self._kernels)
        return self._eager.context

    def _check_tensors(self, engine: Any) -> None:
        """Inputs and outputs must be what the bundle says: addresses carry neither type nor size."""
        shape = self._shape_in
        expected = {
            INPUT_NAME: ("INPUT", "UINT8", (-1, *shape[1:])),
            OUTPUT_NAME: ("OUTPUT", "FLOAT", (-1, len(self._bundle.spec.classes))),
        }
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        found = {
            name: (
                engine.get_tensor_mode(name).name,
                engine.get_tensor_dtype(name).name,
                tuple(engine.get_tensor_shape(name)),
            )
            for name in names
        }
        if found != expected:
            raise self._refuse(f"use this engine: its tensors are {found}, the bundle wants {expected}")
        largest = tuple(engine.get_tensor_profile_shape(INPUT_NAME, 0)[-1])
        if largest != (self._request.batch.maximum, *shape[1:]):
            wanted = self._request.batch.maximum
            raise self._refuse(f"use this engine: its largest batch is {largest}, wanted is {wanted} images")

    def _release(self) -> None:
        """Free everything, the engine last; also after a failure half way, and what one failure leaves to be freed."""
        if self._stream is not None:
            _try_quietly(self._stream.wait)
        self._slots, self._free = [], queue.SimpleQueue()
        while self._buffers:
            _try_quietly(self._buffers.pop().close)
        self._context = self._eager = None
        self._opened = None
        if self._stream is not None:
            _try_quietly(self._stream.close)
            self._stream = None

    def _refuse(self, action: str) -> MribatchError:
        messages = self._opened.messages if self._opened else Messages()
        return _refuse(self._request.flavor, action, messages, "")


def _try_quietly(action: Callable[[], None]) -> None:
    """A GPU that has failed refuses this too, and what failed first is what the user should read."""
    with contextlib.suppress(MribatchError):
        action()


def _refuse(flavor: Flavor, action: str, messages: Messages, otherwise: str) -> MribatchError:
    fix = "build the engine again: mribatch engine build, or use --backend onnxruntime"
    error = make_refusal(flavor, action, messages.errors() or otherwise, fix)
    return OutOfGpuMemory(error.problem) if is_out_of_memory(error.problem) else error
