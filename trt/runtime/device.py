"""What the inference loop needs of a GPU: memory, copies, one stream and its events. `cuda.CudaDevice` is the real one.

Everything on a stream happens in order and later: a call that puts work there returns before the work is done. Until an
event that was recorded after it has been waited for, no buffer that the work uses may be read, written or closed.
"""

import re
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.trt.gpu import Gpu

_OUT_OF_MEMORY = re.compile(
    r"out.of.memory|MemoryAllocation|CUDA allocation failed|can't allocate .* on device|(unable|failed) to allocate"
    r"|could not be allocated|ALLOCATOR_FAILURE",
    re.IGNORECASE,
)


class OutOfGpuMemory(MribatchError):
    """The GPU has too little memory; with smaller batches it may have enough."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, "use a smaller --batch-size, or end what else uses the GPU")


def is_out_of_memory(error: Exception | str) -> bool:
    """Whether an error of CUDA, TensorRT, DALI or nvJPEG, in their own words, is a lack of memory."""
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


class Buffer(Protocol):
    """Memory. address: as the GPU sees it."""

    @property
    def address(self) -> int: ...

    def close(self) -> None:
        """Free it. Raises MribatchError: CUDA refuses, as it does once some work has failed."""
        ...


class HostBuffer(Buffer, Protocol):
    """Page-locked memory of the host, which the GPU copies from and to while the host continues."""

    def view(self, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
        """The memory as an array; valid until `close`."""
        ...


class Event(Protocol):
    """A mark on a stream."""

    def wait(self) -> None:
        """Block until everything before the mark is done. Raises MribatchError: some of it failed."""
        ...


class Stream(Protocol):
    """A queue of work on the GPU; never the default one, with which TensorRT would synchronize everything."""

    @property
    def handle(self) -> int: ...

    def record(self) -> Event: ...

    def wait_for(self, producer: int) -> None:
        """Let what is put here from now on start after all that is on another stream now; the host does not block.

        Args:
            producer: The other stream's handle; 1 is the legacy default stream, 2 the calling thread's.
        """
        ...

    def wait(self) -> None:
        """Block until the queue is empty. Raises MribatchError: some of it failed."""
        ...

    def close(self) -> None:
        """Raises MribatchError as `Buffer.close`."""
        ...


class Device(Protocol):
    """One GPU. Every method raises MribatchError where CUDA refuses, and OutOfGpuMemory where that is the reason."""

    def open(self) -> Gpu:
        """Find the GPU and make it current in this thread; nothing touches it before."""
        ...

    def use(self) -> None:
        """Make it current in the calling thread, which every thread must do by itself."""
        ...

    def stream(self) -> Stream: ...

    def pinned(self, size: int) -> HostBuffer: ...

    def allocate(self, size: int, stream: Stream) -> Buffer: ...

    def upload(self, source: HostBuffer, target: Buffer, stream: Stream) -> None:
        """Put a copy of the whole buffer on the stream; both have the same size."""
        ...

    def download(self, source: Buffer, target: HostBuffer, stream: Stream) -> None:
        """As `upload`, to the host."""
        ...
