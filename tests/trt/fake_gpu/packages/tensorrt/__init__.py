"""As much of TensorRT as mribatch uses: an engine is the graph itself, and its kernels are ONNX Runtime on the CPU.

The kernels run where a stream's work runs, on the memory of the GPU in memory (../../libcuda.c): later, in order, and not
before the images are there. Engines are for one compute capability, as real ones.
"""

import ctypes
import json
from enum import Enum, IntEnum
from typing import Any

import numpy as np

__version__ = "11.4.0.106"
_MAGIC = b"an engine for tests\n"
_CAPABILITY = (75, 76)


class DataType(Enum):
    FLOAT = 1  # as TensorProto.DataType
    UINT8 = 2
    HALF = 10


class LayerType(Enum):
    CAST = 1
    OTHER = 2


class TensorIOMode(Enum):
    INPUT = 1
    OUTPUT = 2


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class MemoryPoolType(Enum):
    WORKSPACE = 0


class ProfilingVerbosity(Enum):
    DETAILED = 2


class BuilderFlag(Enum):
    TF32 = 7


class LayerInformationFormat(Enum):
    JSON = 1


class ILogger:
    def log(self, severity: int, text: str) -> None: ...


class IProgressMonitor:
    def phase_start(self, name: str, parent: str | None, steps: int) -> None: ...

    def step_complete(self, name: str, step: int) -> bool:
        return True

    def phase_finish(self, name: str) -> None: ...


class ITensor:
    def __init__(self, value: Any) -> None:
        kind = value.type.tensor_type
        self.name = value.name
        self.dtype = DataType(kind.elem_type)
        self.shape = tuple(side.dim_value or -1 for side in kind.shape.dim)


class _Typed:
    def __init__(self, dtype: DataType) -> None:
        self.dtype = dtype


class ILayer:
    def __init__(self, node: Any, types: dict[str, int]) -> None:
        self.metadata = f"[ONNX Layer: {node.name}]"
        self.type = LayerType.CAST if node.op_type == "Cast" else LayerType.OTHER
        known = [types[name] for name in node.output if types.get(name) in {kind.value for kind in DataType}]
        self._outputs = [_Typed(DataType(kind)) for kind in known]
        self.num_outputs = len(known)

    def get_output(self, index: int) -> _Typed:
        return self._outputs[index]


class INetworkDefinition:
    """Filled by the parser."""

    model: bytes
    inputs: list[ITensor]
    outputs: list[ITensor]
    layers: list[ILayer]

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    @property
    def num_outputs(self) -> int:
        return len(self.outputs)

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def get_input(self, index: int) -> ITensor:
        return self.inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self.outputs[index]

    def get_layer(self, index: int) -> ILayer:
        return self.layers[index]


class OnnxParser:
    num_errors = 0

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network

    def parse(self, model: bytes) -> bool:
        import onnx

        graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model)).graph
        types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
        self._network.model = model
        self._network.inputs = [ITensor(value) for value in graph.input]
        self._network.outputs = [ITensor(value) for value in graph.output]
        self._network.layers = [ILayer(node, types) for node in graph.node]
        return True


class IOptimizationProfile:
    shapes: tuple[tuple[int, ...], ...] = ()

    def set_shape(self, name: str, smallest: Any, optimal: Any, largest: Any) -> None:
        self.shapes = tuple(map(tuple, (smallest, optimal, largest)))


class ITimingCache:
    def serialize(self) -> bytes:
        return b"timings"


class IBuilderConfig:
    builder_optimization_level = 3
    profiling_verbosity: Any = None
    progress_monitor: Any = None
    profile: IOptimizationProfile

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None: ...

    def clear_flag(self, flag: BuilderFlag) -> None: ...

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profile = profile
        return 0

    def create_timing_cache(self, content: bytes) -> ITimingCache:
        return ITimingCache()

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        return True

    def get_timing_cache(self) -> ITimingCache:
        return ITimingCache()


class Builder:
    def __init__(self, logger: ILogger) -> None:
        _driver()  # the real one raises TypeError where there is none

    def create_network(self, flags: int) -> INetworkDefinition:
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes:
        facts = {"target": _target(), "version": __version__, "shapes": config.profile.shapes}
        return _MAGIC + json.dumps(facts).encode() + b"\n" + network.model


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, content: bytes) -> "ICudaEngine | None":
        if not content.startswith(_MAGIC):
            self._logger.log(1, "the magic tag does not match")
            return None
        line, _, model = content.removeprefix(_MAGIC).partition(b"\n")
        facts = json.loads(line)
        if (facts["target"], facts["version"]) != (_target(), __version__):
            self._logger.log(1, f"the engine is for {facts['target']} and version {facts['version']}")
            return None
        return ICudaEngine(model, facts["shapes"])


class ICudaEngine:
    num_io_tensors = 2
    device_memory_size_v2 = 0

    def __init__(self, model: bytes, shapes: list[list[int]]) -> None:
        import onnxruntime

        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.shapes = shapes
        self.tensors = {
            self.session.get_inputs()[0].name: (TensorIOMode.INPUT, DataType.UINT8, (-1, *shapes[-1][1:])),
            self.session.get_outputs()[0].name: (
                TensorIOMode.OUTPUT,
                DataType.FLOAT,
                (-1, self.session.get_outputs()[0].shape[1]),
            ),
        }

    def get_tensor_name(self, index: int) -> str:
        return str(list(self.tensors)[index])

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self.tensors[name][0]

    def get_tensor_dtype(self, name: str) -> DataType:
        return self.tensors[name][1]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name][2]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        return self.shapes

    def create_execution_context(self) -> "IExecutionContext":
        return IExecutionContext(self)


_Kernel = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        (self._input, self._output) = engine.tensors
        self._addresses: dict[str, int] = {}
        self._shape: tuple[int, ...] = ()
        self._classes = engine.tensors[self._output][2][1]
        self._kernel = _Kernel(self._compute)  # held: C keeps its address only

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape = tuple(shape)
        return bool(name == self._input)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in (self._input, self._output)

    def execute_async_v3(self, stream: int) -> bool:
        source, target = self._addresses[self._input], self._addresses[self._output]
        sizes = int(np.prod(self._shape)), self._shape[0] * self._classes * 4
        launch = _driver().fake_launch
        array = (ctypes.c_void_p, ctypes.c_size_t)
        launch.argtypes = [ctypes.c_void_p, _Kernel, *array, *array]
        return bool(launch(stream, self._kernel, source, sizes[0], target, sizes[1]) == 0)

    def _compute(self, source: int, target: int) -> int:
        """On the stream's thread."""
        pixels = np.ctypeslib.as_array((ctypes.c_uint8 * int(np.prod(self._shape))).from_address(source))
        (answers,) = self._engine.session.run([self._output], {self._input: pixels.reshape(self._shape)})
        ctypes.memmove(target, np.ascontiguousarray(answers, np.float32).ctypes.data, answers.size * 4)
        return 0


def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _target() -> str:
    driver, value, numbers = _driver(), ctypes.c_int(), []
    for attribute in _CAPABILITY:
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0)
        numbers.append(str(value.value))
    return "sm" + "".join(numbers)
