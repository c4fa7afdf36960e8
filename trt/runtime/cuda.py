"""The real Device, with `cuda-core` (https://nvidia.github.io/cuda-python/cuda-core/latest/)."""

import contextlib
import ctypes
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.trt.gpu import Gpu, NoGpu, find_gpu, format_cuda_install
from mribatch.trt.runtime.device import Buffer, HostBuffer, OutOfGpuMemory, Stream, is_out_of_memory


def require_cuda() -> None:
    """Load what the device needs besides the driver.

    Raises:
        MribatchError: It is not installed, or not usable.
    """
    try:
        import_module("cuda.core")
    except ImportError as error:
        raise MribatchError(f"cuda-core and cuda-bindings cannot be used: {error}", format_cuda_install()) from error


class CudaDevice:
    """The first GPU that CUDA_VISIBLE_DEVICES leaves. Nothing is touched before `open`."""

    def __init__(self) -> None:
        self._device: Any = None
        self._pinned: Any = None

    def open(self) -> Gpu:
        gpu = find_gpu()
        if isinstance(gpu, NoGpu):
            raise MribatchError(
                f"there is no GPU to run on: {gpu.reason}",
                f"{gpu.fix}; or use --backend onnxruntime (the same results on the CPU)",
            )
        require_cuda()
        from cuda.core import Device, LegacyPinnedMemoryResource

        with _translating_errors("open the GPU"):
            self._device = Device(0)
            self._device.set_current()
            self._pinned = LegacyPinnedMemoryResource()
        return gpu

    def use(self) -> None:
        with _translating_errors("use the GPU"):
            self._device.set_current()

    def stream(self) -> "_CudaStream":
        from cuda.core import StreamOptions

        with _translating_errors("make a stream"):
            return _CudaStream(self._device.create_stream(options=StreamOptions(nonblocking=True)))

    def pinned(self, size: int) -> "_CudaHostBuffer":
        with _translating_errors(f"allocate {size:,} bytes of page-locked memory"):
            return _CudaHostBuffer(self._pinned.allocate(size))

    def allocate(self, size: int, stream: Stream) -> "_CudaBuffer":
        assert isinstance(stream, _CudaStream)
        with _translating_errors(f"allocate {size:,} bytes on the GPU"):
            return _CudaBuffer(self._device.allocate(size, stream=stream.stream))

    def upload(self, source: HostBuffer, target: Buffer, stream: Stream) -> None:
        _enqueue_copy(source, target, stream)

    def download(self, source: Buffer, target: HostBuffer, stream: Stream) -> None:
        _enqueue_copy(source, target, stream)


class _CudaBuffer:
    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer
        self.address = int(buffer.handle)

    def close(self) -> None:
        with _translating_errors("free memory"):
            self.buffer.close()


class _CudaHostBuffer(_CudaBuffer):
    def view(self, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
        memory = (ctypes.c_uint8 * int(self.buffer.size)).from_address(self.address)
        flat: NDArray[Any] = np.frombuffer(memory, np.uint8)  # type: ignore[call-overload]  # ctypes has the buffer protocol
        return flat.view(dtype).reshape(shape)


class _CudaStream:
    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.handle = int(stream.handle)

    def record(self) -> "_CudaEvent":
        from cuda.core import EventOptions

        with _translating_errors("record an event"):
            # whoever waits sleeps: spinning would take a core from the threads that read files
            return _CudaEvent(self.stream.record(options=EventOptions(blocking_sync=True)))

    def wait_for(self, producer: int) -> None:
        from cuda.core import LEGACY_DEFAULT_STREAM, PER_THREAD_DEFAULT_STREAM, Stream

        default = {1: LEGACY_DEFAULT_STREAM, 2: PER_THREAD_DEFAULT_STREAM}
        with _translating_errors("wait for the stream that writes the images"):
            self.stream.wait(default[producer] if producer in default else Stream.from_handle(producer))

    def wait(self) -> None:
        with _translating_errors("finish its work"):
            self.stream.sync()

    def close(self) -> None:
        with _translating_errors("close a stream"):
            self.stream.close()


class _CudaEvent:
    def __init__(self, event: Any) -> None:
        self._event = event

    def wait(self) -> None:
        with _translating_errors("finish its work"):
            self._event.sync()


def _enqueue_copy(source: Buffer, target: Buffer, stream: Stream) -> None:
    assert isinstance(source, _CudaBuffer) and isinstance(target, _CudaBuffer) and isinstance(stream, _CudaStream)
    with _translating_errors("copy"):
        source.buffer.copy_to(target.buffer, stream=stream.stream)


@contextlib.contextmanager
def _translating_errors(action: str) -> Iterator[None]:
    """Turn what CUDA raises into one line; cuda-core's CUDAError is an Exception without a base of its own."""
    try:
        yield
    except MribatchError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        problem = f"the GPU could not {action}: {reason}"
        if is_out_of_memory(error):
            raise OutOfGpuMemory(problem) from error
        raise MribatchError(problem, "see docs/how-to/gpu.md") from error
