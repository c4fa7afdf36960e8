"""Makes decoding and inference on the GPU free, and nothing else: for the processes of benchmarks.host_rate.

Python imports this by itself where its folder is on PYTHONPATH. DALI is the real one and is fed for real; only its
graph ends where decoding would begin, and every batch that it gives is the same batch of drawn slices, which lies in
the memory of the GPU (tests/trt/fake_gpu). The engine of the tests' TensorRT knows the golden answers by heart, so that
it passes the gate, and gives one of them for every other image. STAND_IN_MODEL names its bundle, else it is the default
one.
"""

import ctypes
import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np

_DRAWN = 64  # slices, again and again
_size: list[int] = []  # height and width, as fn.resize was told
_batches: dict[int, "_Resident"] = {}  # by the number of images
_answers: dict[int, bytes | None] = {}  # by the address of a resident batch
_golden: dict[bytes, Any] = {}  # pixels of a golden slice -> its answers


class _Resident:
    """A batch in the memory of the GPU, and the same on the host."""

    def __init__(self, count: int) -> None:
        from mribatch.core.synthetic import draw_slice
        from mribatch.trt.runtime.cuda import CudaDevice

        height, width = _size
        drawn = [draw_slice(seed, height, width).reshape(height, width) for seed in range(min(count, _DRAWN))]
        self.pixels = np.stack([drawn[place % len(drawn)] for place in range(count)])[..., None]
        device = CudaDevice()
        device.open()
        stream = device.stream()
        source, self.memory = device.pinned(self.pixels.nbytes), device.allocate(self.pixels.nbytes, stream)
        source.view(np.uint8, self.pixels.shape)[:] = self.pixels
        device.upload(source, self.memory, stream)
        stream.wait()
        source.close()
        _answers[self.memory.address] = None


class _Images:
    """As much of a TensorListGPU as is asked for."""

    def __init__(self, batch: _Resident) -> None:
        self._batch = batch

    def as_tensor(self) -> "_Images":
        return self

    def shape(self) -> Sequence[int]:
        return self._batch.pixels.shape

    def data_ptr(self) -> int:
        return self._batch.memory.address

    def as_cpu(self) -> "_Images":
        return self

    def as_array(self) -> Any:
        return self._batch.pixels.copy()  # on a GPU: the copy to the host


def _free_dali(dali: ModuleType) -> None:
    class Pipeline(dali.Pipeline):  # type: ignore[misc,name-defined]
        def __init__(self, **options: Any) -> None:
            self._count = options["batch_size"]
            super().__init__(**options | {"device_id": None})

        def run(self, **inputs: Any) -> tuple[_Images]:
            super().run(**inputs)
            if self._count not in _batches:
                _batches[self._count] = _Resident(self._count)
            return (_Images(_batches[self._count]),)

    def image(encoded: Any, **_: Any) -> Any:
        return encoded.shape()  # all that is left of the graph: it takes what it is fed

    def resize(decoded: Any, **options: Any) -> Any:
        _size[:] = options["size"]
        return decoded

    dali.Pipeline = Pipeline  # type: ignore[attr-defined]
    dali.fn.decoders.image = image
    dali.fn.resize = resize


def _free_tensorrt(tensorrt: ModuleType) -> None:
    def answer(self: Any, source: int, target: int) -> int:
        """In place of IExecutionContext._compute, where work on a stream is done."""
        if source not in _answers:  # from the host: the gate's
            pixels = (ctypes.c_uint8 * int(np.prod(self._shape))).from_address(source)
            rows = np.ctypeslib.as_array(pixels).reshape(self._shape[0], -1)
            answers = _look_up(rows).tobytes()
        else:
            answers = _answers[source] = _answers[source] or _look_up(np.zeros((self._shape[0], 1), np.uint8)).tobytes()
        ctypes.memmove(target, answers, len(answers))
        return 0

    tensorrt.IExecutionContext._compute = answer


def _look_up(rows: Any) -> Any:
    """The golden answer of each row that is a golden slice of the model, and the first one for all others."""
    from mribatch.core.bundle import DEFAULT_MODEL, load_bundle

    if not _golden:
        golden = load_bundle(os.environ.get("STAND_IN_MODEL", DEFAULT_MODEL)).golden
        images = golden.images.reshape(len(golden.images), -1)
        _golden.update(zip((image.tobytes() for image in images), golden.probabilities, strict=True))
    first = next(iter(_golden.values()))
    return np.array([_golden.get(row.tobytes(), first) for row in rows], np.float32)


_CHANGES: dict[str, Callable[[ModuleType], None]] = {"nvidia.dali": _free_dali, "tensorrt": _free_tensorrt}


class _Changing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Changes a module as soon as it is loaded."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in _CHANGES:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            spec.loader_state, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = spec.loader_state.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader_state.exec_module(module)
        _CHANGES[module.__name__](module)


sys.meta_path.insert(0, _Changing())
