"""A GPU in the host's memory: no CUDA, no TensorRT. It enforces the rules that the real ones do not check, or not at once.

- Work on a stream is done when an event behind it, or the stream, is waited for; never before.
- Until then no buffer of that work may be written, read or closed: an upload takes the bytes that the host buffer has
  when the work is done, and fails if they have changed since; a download leaves garbage until then.
- TensorRT's methods report failure by False or None. Whoever does not look and goes on meets an AssertionError.
- Addresses carry no type and no size: what the context is given is checked against the buffer behind the address.
- A producer's array (`MemoryDevice.produced`) is garbage until the stream that it names has been waited for. Its memory
  goes with the last reference, as a caching allocator's does: without a word, and whoever still reads it is caught.
"""

import threading
import weakref
from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.bundle import Bundle
from mribatch.core.errors import MribatchError
from mribatch.trt.gpu import Gpu
from mribatch.trt.library import Flavor, Messages
from mribatch.trt.runtime.classifier import OpenEngine

GPU = Gpu("memory", "8.9", 1 << 30, "13.0", "13.0")
_GARBAGE = 0xFF  # as float32: NaN


class RuleBroken(AssertionError):
    """The loop did what a real GPU would punish, or would not notice."""


class MemoryBuffer:
    """owner: the list of live buffers that it is in. complete: whether its producer has written it."""

    def __init__(self, device: "MemoryDevice", size: int, address: int, owner: "list[MemoryBuffer]") -> None:
        self.device, self.size, self.address, self.owner = device, size, address, owner
        self.bytes: NDArray[uint8] | None = np.full(size, _GARBAGE, uint8)
        self.complete = True

    @property
    def alive(self) -> NDArray[uint8]:
        if self.bytes is None:
            raise RuleBroken(f"a closed buffer of {self.size} bytes is used")
        return self.bytes

    def view(self, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
        return self.alive.view(dtype).reshape(shape)

    def close(self) -> None:
        self.idle("closed")
        if self.bytes is None:
            raise RuleBroken("a buffer is closed twice")
        self.forget()

    def idle(self, what: str) -> None:
        if any(self in work.buffers for work in self.device.queue):
            raise RuleBroken(f"a buffer is {what} while work that uses it is in flight")

    def forget(self) -> None:
        """Free it whatever happens to it; a second time does nothing."""
        self.bytes = None
        if self in self.owner:
            self.owner.remove(self)


class MemoryArray:
    """A producer's uint8 array on the GPU, complete once the stream that it is written on has been waited for."""

    def __init__(self, buffer: MemoryBuffer, interface: dict[str, Any]) -> None:
        self.buffer, self.interface = buffer, interface
        weakref.finalize(self, buffer.forget)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.interface

    def to_host(self) -> NDArray[uint8]:
        """A copy of the pixels in this process, as DALI's arrays give it."""
        pixels: NDArray[uint8] = self.buffer.alive.reshape(self.interface["shape"]).copy()
        return pixels

    def write(self, pixels: NDArray[uint8]) -> None:
        """As a producer that uses its buffer again at once."""
        self.buffer.idle("written to")
        self.buffer.alive[:] = pixels.reshape(-1)


class _Work:
    def __init__(self, buffers: tuple[MemoryBuffer, ...], do: Callable[[], object]) -> None:
        self.buffers, self.do = buffers, do


class MemoryStream:
    def __init__(self, device: "MemoryDevice") -> None:
        self.device, self.handle, self.open = device, 4711, True

    def record(self) -> "MemoryEvent":
        with self.device._lock:
            return MemoryEvent(self.device, len(self.device.queue) + self.device.done)

    def wait_for(self, producer: int) -> None:
        if not self.device.streams_wait:
            return
        if producer not in self.device.producers:
            raise RuleBroken(f"no stream {producer} to wait for")
        writes = list(self.device.producers[producer])
        self.device.put((), lambda: [write() for write in writes])

    def wait(self) -> None:
        self.device.run_until(len(self.device.queue) + self.device.done)

    def fail(self) -> None:
        """What `wait` does once some work has failed."""
        raise MribatchError("the GPU could not finish its work: CUDA_ERROR_ILLEGAL_ADDRESS", "see docs")

    def close(self) -> None:
        if self.device.queue or self.device.buffers:
            raise RuleBroken("a stream is closed before its work is done and its buffers are closed")
        self.open = False


class MemoryEvent:
    def __init__(self, device: "MemoryDevice", mark: int) -> None:
        self.device, self.mark = device, mark

    def wait(self) -> None:
        if self.device.events_wait:
            self.device.run_until(self.mark)


class MemoryDevice:
    """memory: bytes in all. fail_at: number of the piece of work that fails, as a faulty kernel would.

    events_wait, streams_wait: False: to the loop it is as if it did not wait for events, or for a producer's stream.
    """

    def __init__(
        self,
        memory: int = 1 << 30,
        gpu: Gpu = GPU,
        fail_at: int | None = None,
        *,
        events_wait: bool = True,
        streams_wait: bool = True,
    ) -> None:
        self.memory, self.gpu, self.fail_at = memory, gpu, fail_at
        self.events_wait, self.streams_wait = events_wait, streams_wait
        self.buffers: list[MemoryBuffer] = []
        self.foreign: list[MemoryBuffer] = []
        self.producers: dict[int, list[Callable[[], None]]] = {1: [], 2: []}  # the default streams are always there
        self.uploads = 0
        self.queue: list[_Work] = []
        self.done = 0
        self.most_in_flight = 0
        self.opened = self.used = 0
        self.streams: list[MemoryStream] = []
        self._next_address = 0x10000
        self._lock = threading.RLock()  # CUDA may be called from several threads

    def open(self) -> Gpu:
        self.opened += 1
        return self.gpu

    def use(self) -> None:
        self.used += 1

    def stream(self) -> MemoryStream:
        self.streams.append(MemoryStream(self))
        return self.streams[-1]

    def pinned(self, size: int) -> MemoryBuffer:
        return self._new(size)

    def allocate(self, size: int, stream: Any) -> MemoryBuffer:
        return self._new(size)

    def produced(self, pixels: NDArray[uint8], stream: int | None, /, **changes: Any) -> MemoryArray:
        """An array that a producer has put on its stream to write, or has written already (None).

        changes: what its interface says instead of the truth.
        """
        self._next_address += 0x10000000
        buffer = MemoryBuffer(self, pixels.size, self._next_address, self.foreign)
        self.foreign.append(buffer)
        buffer.complete = False

        def write() -> None:
            if buffer.bytes is not None and not buffer.complete:
                buffer.bytes[:], buffer.complete = pixels.reshape(-1), True

        if stream is None:
            write()
        else:
            self.producers.setdefault(stream, []).append(write)
        truth = {
            "shape": pixels.shape,
            "typestr": "|u1",
            "data": (buffer.address, False),
            "version": 3,
            "strides": None,
            "stream": stream,
        }
        return MemoryArray(buffer, truth | changes)

    def upload(self, source: Any, target: Any, stream: Any) -> None:
        self.uploads += 1
        self._same_size(source, target)
        then = source.alive.copy()

        def do() -> None:
            if not np.array_equal(source.alive, then):
                raise RuleBroken("a slot was written to before its event had been waited for")
            target.alive[:] = then

        self.put((source, target), do)

    def download(self, source: Any, target: Any, stream: Any) -> None:
        self._same_size(source, target)
        target.alive[:] = _GARBAGE
        self.put((source, target), lambda: target.alive.__setitem__(slice(None), source.alive))

    def put(self, buffers: tuple[MemoryBuffer, ...], do: Callable[[], object]) -> None:
        with self._lock:
            self.queue.append(_Work(buffers, do))
            self.most_in_flight = max(self.most_in_flight, len(self.queue))

    def run_until(self, mark: int) -> None:
        with self._lock:
            while self.queue and self.done < mark:
                work = self.queue.pop(0)
                self.done += 1
                if self.done == self.fail_at:
                    self.queue.clear()
                    self.streams[0].fail()
                work.do()

    def at(self, address: int) -> MemoryBuffer:
        for buffer in self.buffers + self.foreign:
            if buffer.address == address:
                return buffer
        raise RuleBroken(f"no buffer at {address:#x}")

    def _new(self, size: int) -> MemoryBuffer:
        if sum(buffer.size for buffer in self.buffers) + size > self.memory:
            raise MribatchError(
                f"the GPU could not allocate {size:,} bytes on the GPU: CUDA_ERROR_OUT_OF_MEMORY",
                "use a smaller --batch-size",
            )
        self._next_address += 0x10000000
        self.buffers.append(MemoryBuffer(self, size, self._next_address, self.buffers))
        return self.buffers[-1]

    @staticmethod
    def _same_size(source: Any, target: Any) -> None:
        if source.size != target.size:
            raise RuleBroken(f"a copy of {source.size} bytes into {target.size}")


class DataType(Enum):
    UINT8 = 1
    FLOAT = 4
    HALF = 2


class TensorIOMode(Enum):
    INPUT = 1
    OUTPUT = 2


class MemoryRuntimeConfig:
    """An IRuntimeConfig of TensorRT for RTX, which compiles lazily unless it is told otherwise."""

    class Strategy(Enum):
        LAZY = 0
        EAGER = 1
        NONE = 2

    def __init__(self) -> None:
        self.dynamic_shapes_kernel_specialization_strategy = self.Strategy.LAZY
        self.cache: MemoryRuntimeCache | None = None

    def create_runtime_cache(self) -> "MemoryRuntimeCache":
        return MemoryRuntimeCache()

    def set_runtime_cache(self, cache: "MemoryRuntimeCache") -> bool:
        self.cache = cache
        return True


class MemoryRuntimeCache:
    """An IRuntimeCache. It takes nothing that another GPU or version has compiled."""

    _HEAD = b"compiled for "

    def __init__(self) -> None:
        self.shapes: list[str] = []

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(self._HEAD):
            return False
        self.shapes = blob.removeprefix(self._HEAD).decode().split(";")
        return True

    def serialize(self) -> bytes | None:
        return self._HEAD + ";".join(self.shapes).encode() if self.shapes else None


class MemoryEngine:
    """An ICudaEngine whose kernels are a NumPy function: uint8 (batch, h, w, 1) -> float32 (batch, classes).

    refuse: name of the method of its context that returns False, and at which call (from 1). compiled: how often a
    context of TensorRT for RTX has compiled kernels for a shape. batch: that every call must have; largest: that the
    engine would take, where it takes more.
    """

    def __init__(
        self,
        device: MemoryDevice,
        bundle: Bundle,
        batch: int,
        compute: Callable[[NDArray[uint8]], NDArray[float32]],
        refuse: tuple[str, int] | None = None,
        no_context: bool = False,
        largest: int | None = None,
    ) -> None:
        spec = bundle.spec
        self.largest = largest
        self.device, self.compute, self.refuse, self.no_context = device, compute, refuse, no_context
        self.compiled = 0
        self.shape_in, self.shape_out = (batch, spec.height, spec.width, 1), (batch, len(spec.classes))
        self.tensors: dict[str, tuple[TensorIOMode, DataType, tuple[int, ...]]] = {
            "images": (TensorIOMode.INPUT, DataType.UINT8, (-1, spec.height, spec.width, 1)),
            "probabilities": (TensorIOMode.OUTPUT, DataType.FLOAT, (-1, len(spec.classes))),
        }
        self.messages = Messages()

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self.tensors[name][0]

    def get_tensor_dtype(self, name: str) -> DataType:
        return self.tensors[name][1]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name][2]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(1, *self.shape_in[1:]), self.shape_in, (self.largest or self.shape_in[0], *self.shape_in[1:])]

    def create_runtime_config(self) -> MemoryRuntimeConfig:
        return MemoryRuntimeConfig()

    def create_execution_context(self, runtime_config: MemoryRuntimeConfig | None = None) -> "MemoryContext | None":
        return None if self.no_context else MemoryContext(self, runtime_config)

    def open(self, flavor: Flavor, plan: bytes) -> OpenEngine:
        """To be given as `deserialize`."""
        return OpenEngine(self, self.messages)


class MemoryContext:
    """An IExecutionContext. shapes: of every batch that was run."""

    def __init__(self, engine: MemoryEngine, config: MemoryRuntimeConfig | None) -> None:
        self._engine = engine
        self._config = config
        self._addresses: dict[str, int] = {}
        self._shape: tuple[int, ...] = ()
        self._calls: dict[str, int] = {}
        self._refused: str | None = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape = tuple(shape)
        return self._allowed("set_input_shape")

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return self._allowed("set_tensor_address")

    def execute_async_v3(self, handle: int) -> bool:
        if not self._allowed("execute_async_v3"):
            return False
        engine, device = self._engine, self._engine.device
        if handle == 0:
            raise RuleBroken("the default stream")
        if self._shape != engine.shape_in:
            raise RuleBroken(f"a batch of shape {self._shape}, not the full {engine.shape_in}")
        pixels, answers = device.at(self._addresses["images"]), device.at(self._addresses["probabilities"])
        if pixels.size != int(np.prod(engine.shape_in)) or answers.size != int(np.prod(engine.shape_out)) * 4:
            raise RuleBroken(f"buffers of {pixels.size} and {answers.size} bytes for this engine")

        general = self._compile()

        def do() -> None:
            if not pixels.complete:
                raise RuleBroken("an array is read before its producer's stream has been waited for")
            result = engine.compute(pixels.alive.reshape(engine.shape_in)) + float32(1e-4 if general else 0)
            answers.alive[:] = np.ascontiguousarray(result, float32).view(uint8).reshape(-1)

        device.put((pixels, answers), do)
        return True

    def _compile(self) -> bool:
        """Whether the next batch is answered by general kernels, since those for its shape are not compiled yet."""
        if self._config is None:
            return False
        cache, shape = self._config.cache or MemoryRuntimeCache(), str(self._shape)
        ready = shape in cache.shapes
        if not ready:
            self._engine.compiled += 1
            cache.shapes.append(shape)
        eager = self._config.dynamic_shapes_kernel_specialization_strategy is MemoryRuntimeConfig.Strategy.EAGER
        return not ready and not eager

    def _allowed(self, method: str) -> bool:
        if self._refused:
            raise RuleBroken(f"{self._refused} had returned False, and {method} was called all the same")
        self._calls[method] = self._calls.get(method, 0) + 1
        if self._engine.refuse == (method, self._calls[method]):
            self._refused = method
            self._engine.messages.rows.append((1, f"{method} refused for the test"))
            return False
        return True


def bundle_like(height: int = 4, width: int = 4, classes: int = 3) -> Any:
    """As much of a Bundle as the loop looks at."""
    spec = SimpleNamespace(height=height, width=width, classes=tuple(f"c{n}" for n in range(classes)))
    return SimpleNamespace(spec=spec, training_images=None, training_look=None)
