"""An ONNX graph -> a serialized engine, with TensorRT or TensorRT for RTX.

Strongly typed: the graph says what computes in which type, and the types are read back from the parsed network.
TensorRT needs the GPU that the engine is for; TensorRT for RTX builds for a named GPU on any machine.
"""

import re
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from mribatch.core.errors import MribatchError
from mribatch.trt.engine import rtx
from mribatch.trt.engine.progress import BuildProgress, BuildStep, interrupted
from mribatch.trt.gpu import NoGpu, find_gpu
from mribatch.trt.library import (
    Flavor,
    Messages,
    freeing_native_objects,
    join_messages,
    load_library,
    make_logger,
    make_refusal,
)
from mribatch.trt.request import BatchProfile

WORKSPACE_BYTES = 2 << 30
"""Scratch memory that one layer's kernels may use; TensorRT's own default is all of the GPU."""
OPTIMIZATION_LEVEL = 3  # 0 to 5; the library's default

_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


@dataclass(frozen=True)
class SerializedEngine:
    """An engine as bytes. Native code: load only what this machine or a person you trust has built.

    content: The engine's bytes. half_layers, float_layers: layers of the parsed network that give FP16 and FP32.
    seconds: For parsing and building. timing_cache: TensorRT's measurements, to build faster next time; None for RTX.
    """

    content: bytes
    half_layers: int
    float_layers: int
    seconds: float
    timing_cache: bytes | None


def build_engine(
    model: bytes,
    flavor: Flavor,
    target: str,
    batch: BatchProfile,
    *,
    fp32_nodes: Collection[str] | None = None,
    timing_cache: bytes | None = None,
    progress: BuildProgress | None = None,
) -> SerializedEngine:
    """Parse a graph and build an engine.

    Args:
        model: ONNX bytes with one uint8 input (batch, height, width, 1) and one float32 output.
        flavor: Which library builds.
        target: "sm89" and so on. TensorRT builds for the GPU that is present only.
        batch: Batch sizes.
        fp32_nodes: Names of the nodes that give FP32, all others give FP16; None: all give FP32.
        timing_cache: From an earlier build; ignored where it does not fit.
        progress: Receives the steps of the build; None: nobody does.

    Raises:
        MribatchError: The library is missing or refuses; with its own words.
        Interrupted: `progress.step` returned False.
    """
    job = _Job(flavor, target, batch, fp32_nodes, timing_cache)
    with freeing_native_objects():
        return _build(model, job, StepMonitor(progress or BuildProgress()))


@dataclass(frozen=True)
class _Job:
    """What is built; see `build_engine`."""

    flavor: Flavor
    target: str
    batch: BatchProfile
    fp32_nodes: Collection[str] | None
    timing_cache: bytes | None


def _build(model: bytes, job: _Job, monitor: "StepMonitor") -> SerializedEngine:
    begin = time.monotonic()
    trt, messages = load_library(job.flavor), Messages()
    logger = make_logger(trt, messages)
    builder = _make_builder(trt, job, logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise _refuse(job.flavor, "parse the model", join_messages(reasons) or messages.errors())
    half, single = check_types(trt, network, job.flavor, job.fp32_nodes)
    config = _configure(trt, builder, network, job)
    if job.flavor is Flavor.TENSORRT:
        use_timing_cache(config, job.timing_cache)
    config.progress_monitor = attached = monitor.for_library(trt)  # held: the library keeps no reference
    serialized = builder.build_serialized_network(network, config)
    del attached
    monitor.raise_if_stopped()
    if serialized is None:
        raise _refuse(job.flavor, f"build an engine for {job.target}", messages.errors())
    timings = read_timing_cache(config) if job.flavor is Flavor.TENSORRT else None
    return SerializedEngine(bytes(serialized), half, single, time.monotonic() - begin, timings)


def _make_builder(trt: Any, job: _Job, logger: Any) -> Any:
    if job.flavor is Flavor.TENSORRT:
        gpu = find_gpu()
        if isinstance(gpu, NoGpu):
            raise MribatchError(
                f"TensorRT builds on the GPU that the engine is for, and there is none: {gpu.reason}",
                f"{gpu.fix}; or use --flavor tensorrt-rtx, which needs none",
            )
        if gpu.target != job.target:
            raise MribatchError(
                f"TensorRT builds for the GPU of this machine, {gpu}, not for {job.target}",
                f"omit --target or give --target {gpu.target}",
            )
    try:
        return trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # pybind11 says no more than that the factory returned nullptr
        raise _refuse(job.flavor, "start", f"no usable GPU or driver ({error})") from error


def _configure(trt: Any, builder: Any, network: Any, job: _Job) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.builder_optimization_level = OPTIMIZATION_LEVEL
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that `engine inspect` can show layers and types
    config.clear_flag(trt.BuilderFlag.TF32)  # FP32 means FP32: TF32 keeps 10 bits of precision
    if job.flavor is Flavor.RTX:
        rtx.set_target(trt, config, job.target)
    images = network.get_input(0)
    shape = tuple(images.shape)[1:]
    profile = builder.create_optimization_profile()
    profile.set_shape(images.name, (1, *shape), (job.batch.optimal, *shape), (job.batch.maximum, *shape))
    if not profile or config.add_optimization_profile(profile) < 0:
        raise _refuse(job.flavor, f"take batches of {job.batch}", "the optimization profile is not valid")
    return config


def use_timing_cache(config: Any, content: bytes | None) -> None:
    """Give a config the measurements of an earlier build.

    TensorRT refuses those of another version or GPU; then it measures again.
    """
    cache = config.create_timing_cache(content or b"")
    if cache is None or not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        if cache is not None:
            config.set_timing_cache(cache, False)  # refused: the build measures without one


def read_timing_cache(config: Any) -> bytes | None:
    """What a build measured; None where TensorRT has nothing to give, which must not cost the engine."""
    cache = config.get_timing_cache()
    content = cache.serialize() if cache is not None else None
    return bytes(content) if content is not None else None


def check_types(trt: Any, network: Any, flavor: Flavor, fp32_nodes: Collection[str] | None) -> tuple[int, int]:
    """Count the layers that give FP16 and FP32, as the parser understood the graph.

    Raises:
        MribatchError: uint8 does not go in or float32 come out, a layer has another type than its node was given, or
            the parser does not say which layer is which node's.
    """
    if network.num_inputs != 1 or network.num_outputs != 1:
        raise _refuse(flavor, "use the model", f"it has {network.num_inputs} inputs, {network.num_outputs} outputs")
    if network.get_input(0).dtype != trt.DataType.UINT8 or network.get_output(0).dtype != trt.DataType.FLOAT:
        raise _refuse(flavor, "use the model", "it must take uint8 and give float32")
    half = single = known = 0
    wrong: list[str] = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kinds = {layer.get_output(slot).dtype for slot in range(layer.num_outputs)}
        half += trt.DataType.HALF in kinds
        single += trt.DataType.FLOAT in kinds
        node = _ONNX_LAYER.search(layer.metadata)
        if node is None or layer.type == trt.LayerType.CAST:
            continue  # what the parser added follows the types of the node it serves
        known += 1
        in_float = fp32_nodes is None or node[1] in fp32_nodes
        if (trt.DataType.HALF if in_float else trt.DataType.FLOAT) in kinds:
            wrong.append(node[1])
    if not known:
        raise _refuse(flavor, "show the precision of the graph", "its parser does not name the nodes of the layers")
    if wrong or (fp32_nodes is not None and not half):
        raise _refuse(flavor, "keep the precision of the graph", f"it differs at {', '.join(wrong[:5]) or 'all'}")
    return half, single


def _refuse(flavor: Flavor, action: str, reason: str) -> MribatchError:
    fix = "see docs/how-to/gpu.md, or use --backend onnxruntime (the same results on the CPU)"
    return make_refusal(flavor, action, reason or "it gave no reason", fix)


class StepMonitor:
    """Turns the library's nested phases into BuildSteps. It calls from any thread, and swallows what a call raises."""

    def __init__(self, progress: BuildProgress) -> None:
        self._progress = progress
        self._phases: dict[str, int] = {}  # under way, outermost first -> how many steps it has
        self._done = 0
        self._lock = threading.Lock()
        self.cancelled = False
        self.failure: BaseException | None = None

    def start(self, name: str, steps: int) -> None:
        with self._lock:
            if not self._phases:  # another whole begins
                self._done = 0
            self._phases[name] = steps

    def step(self, name: str, step: int) -> bool:
        """False cancels the build; the library must never get None."""
        with self._lock:
            root = next(iter(self._phases), name)
            if name == root:
                self._done = step + 1
            step_now = BuildStep(self._done, max(1, self._phases.get(root, 1)), next(reversed(self._phases), name))
        try:
            going_on = self._progress.step(step_now)
        except BaseException as error:
            self.failure, going_on = error, False
        if not going_on:  # never set back: another thread may be going on
            self.cancelled = True
        return bool(going_on)

    def raise_if_stopped(self) -> None:
        """Raise what a step raised, or Interrupted where one returned False."""
        if self.failure is not None:
            raise self.failure
        if self.cancelled:
            raise interrupted("building an engine")

    def finish(self, name: str) -> None:
        with self._lock:
            self._phases.pop(name, None)

    def for_library(self, trt: Any) -> Any:
        """An IProgressMonitor of `trt`."""
        monitor = self

        class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)

            def phase_start(self, name: str, parent: str | None, steps: int) -> None:
                monitor.start(name, steps)

            def step_complete(self, name: str, step: int) -> bool:
                return monitor.step(name, step)

            def phase_finish(self, name: str) -> None:
                monitor.finish(name)

        return Monitor()
