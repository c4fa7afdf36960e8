"""An ONNX graph -> a serialised engine (a "plan"), with TensorRT or TensorRT for RTX.

Strongly typed: the graph says what computes in which type, and the types are read back from the parsed network.
TensorRT needs the GPU that the engine is for; TensorRT for RTX builds for a named GPU on any machine.
"""

import re
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from mribatch.core.errors import ExitCode, Interrupted, MribatchError
from mribatch.trt.engine import rtx
from mribatch.trt.gpu import NoGpu, find_gpu
from mribatch.trt.library import Flavour, Messages, in_one_line, load, logger_for, native_objects_freed

WORKSPACE_BYTES = 2 << 30
"""Scratch memory that one layer's kernels may use; TensorRT's own default is all of the GPU."""
OPTIMIZATION_LEVEL = 3  # 0 to 5; the library's default
MAX_BATCH = 4096

_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


@dataclass(frozen=True)
class BatchProfile:
    """Sizes of a batch that an engine takes: from 1 to `maximum`, fastest at `optimal`."""

    optimal: int
    maximum: int

    def __post_init__(self) -> None:
        if not 1 <= self.optimal <= self.maximum <= MAX_BATCH:
            raise MribatchError(
                f"the batch sizes 1, {self.optimal}, {self.maximum} do not rise, or the last exceeds {MAX_BATCH}",
                "give --batch MAX or --batch OPT,MAX, for example 64",
            )

    def __str__(self) -> str:
        return f"1/{self.optimal}/{self.maximum}"


@dataclass(frozen=True)
class BuildStep:
    """Where a build is. `done` of `total` steps of the whole; `phase` is the innermost thing under way."""

    done: int
    total: int
    phase: str


OnStep = Callable[[BuildStep], bool]
"""Told how far a build is, about a hundred times, from any thread; False cancels it."""


@dataclass(frozen=True)
class Plan:
    """A serialised engine. Native code: load only what this machine or a person you trust has built.

    content: The engine's bytes. half_layers, float_layers: layers of the parsed network that give FP16 and FP32.
    seconds: For parsing and building. timing_cache: TensorRT's measurements, to build faster next time; None for RTX.
    """

    content: bytes
    half_layers: int
    float_layers: int
    seconds: float
    timing_cache: bytes | None


def build_plan(
    model: bytes,
    flavour: Flavour,
    target: str,
    batch: BatchProfile,
    *,
    fp32_nodes: Collection[str] | None = None,
    timing_cache: bytes | None = None,
    on_step: OnStep | None = None,
) -> Plan:
    """Parse and build.

    Args:
        model: ONNX bytes with one uint8 input (batch, height, width, 1) and one float32 output.
        flavour: Which library builds.
        target: "sm89" and so on. TensorRT builds for the GPU that is present only.
        batch: Sizes of a batch.
        fp32_nodes: Names of the nodes that give FP32, all others give FP16; None: all give FP32.
        timing_cache: What an earlier build gave; ignored where it does not fit.
        on_step: Told how far the build is.

    Raises:
        MribatchError: The library is missing or refuses; with its own words.
        Interrupted: `on_step` returned False.
    """
    with native_objects_freed():
        return _built(model, flavour, target, batch, fp32_nodes, timing_cache, on_step)


def _built(
    model: bytes,
    flavour: Flavour,
    target: str,
    batch: BatchProfile,
    fp32_nodes: Collection[str] | None,
    timing_cache: bytes | None,
    on_step: OnStep | None,
) -> Plan:
    begin = time.monotonic()
    trt, messages = load(flavour), Messages()
    logger = logger_for(trt, messages)
    builder = _builder(trt, flavour, target, logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise _refused(flavour, "parse the model", in_one_line(reasons) or messages.errors())
    half, single = _checked_types(trt, network, flavour, fp32_nodes)
    config = _configured(trt, builder, network, flavour, target, batch)
    if flavour is Flavour.TENSORRT:
        _use_timing_cache(config, timing_cache)
    monitor = _Monitor(on_step)
    config.progress_monitor = attached = monitor.for_library(trt)  # held: the library keeps no reference
    serialised = builder.build_serialized_network(network, config)
    del attached
    if monitor.failure is not None:
        raise monitor.failure
    if monitor.cancelled:
        raise interrupted("building an engine")
    if serialised is None:
        raise _refused(flavour, f"build an engine for {target}", messages.errors())
    kept = _timings(config) if flavour is Flavour.TENSORRT else None
    return Plan(bytes(serialised), half, single, time.monotonic() - begin, kept)


def interrupted(what: str) -> Interrupted:
    """What to raise where `on_step` has returned False while `what` was done."""
    return Interrupted(
        ExitCode.INTERRUPTED,
        f"stopped by a signal while {what}",
        "type the same command again; finished engines are in the cache",
    )


def _builder(trt: Any, flavour: Flavour, target: str, logger: Any) -> Any:
    if flavour is Flavour.TENSORRT:
        gpu = find_gpu()
        if isinstance(gpu, NoGpu):
            raise MribatchError(
                f"TensorRT builds on the GPU that the engine is for, and there is none: {gpu.reason}",
                f"{gpu.fix}; or --flavour tensorrt-rtx, which needs none",
            )
        if gpu.target != target:
            raise MribatchError(
                f"TensorRT builds for the GPU that is here, {gpu}, not for {target}",
                f"leave --target out or give --target {gpu.target}",
            )
    try:
        return trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # pybind11 says no more than that the factory returned nullptr
        raise _refused(flavour, "start", f"no usable GPU or driver ({error})") from error


def _configured(trt: Any, builder: Any, network: Any, flavour: Flavour, target: str, batch: BatchProfile) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.builder_optimization_level = OPTIMIZATION_LEVEL
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that `engine inspect` can show layers and types
    config.clear_flag(trt.BuilderFlag.TF32)  # FP32 means FP32: TF32 keeps 10 bits of precision
    if flavour is Flavour.RTX:
        rtx.set_target(trt, config, target)
    images = network.get_input(0)
    shape = tuple(images.shape)[1:]
    profile = builder.create_optimization_profile()
    profile.set_shape(images.name, (1, *shape), (batch.optimal, *shape), (batch.maximum, *shape))
    if not profile or config.add_optimization_profile(profile) < 0:
        raise _refused(flavour, f"take batches of {batch}", "the optimization profile is not valid")
    return config


def _use_timing_cache(config: Any, content: bytes | None) -> None:
    """Measurements of another version or GPU are refused by TensorRT; then it measures anew."""
    cache = config.create_timing_cache(content or b"")
    if cache is None or not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        if cache is not None:
            config.set_timing_cache(cache, False)  # refused: the build measures without one


def _timings(config: Any) -> bytes | None:
    """What was measured; None where TensorRT has nothing to give, which must not cost the engine."""
    cache = config.get_timing_cache()
    content = cache.serialize() if cache is not None else None
    return bytes(content) if content is not None else None


def _checked_types(trt: Any, network: Any, flavour: Flavour, fp32_nodes: Collection[str] | None) -> tuple[int, int]:
    """Count the layers that give FP16 and FP32, as the parser understood the graph.

    Raises:
        MribatchError: uint8 does not go in or float32 come out, a layer has another type than its node was given, or
            the parser does not say which layer is which node's.
    """
    if network.num_inputs != 1 or network.num_outputs != 1:
        raise _refused(flavour, "use the model", f"it has {network.num_inputs} inputs, {network.num_outputs} outputs")
    if network.get_input(0).dtype != trt.DataType.UINT8 or network.get_output(0).dtype != trt.DataType.FLOAT:
        raise _refused(flavour, "use the model", "it must take uint8 and give float32")
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
        raise _refused(flavour, "prove the precision of the graph", "its parser does not name the nodes of the layers")
    if wrong or (fp32_nodes is not None and not half):
        raise _refused(flavour, "keep the precision of the graph", f"it differs at {', '.join(wrong[:5]) or 'all'}")
    return half, single


def _refused(flavour: Flavour, what: str, reason: str) -> MribatchError:
    return MribatchError(
        f"{flavour} cannot {what}: {reason or 'it gave no reason'}",
        "see docs/how-to/gpu.md, or use --backend onnxruntime (the same results on the CPU)",
    )


class _Monitor:
    """Turns the library's nested phases into BuildSteps. It calls from any thread, and swallows what a call raises."""

    def __init__(self, on_step: OnStep | None) -> None:
        self._on_step = on_step
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
            going_on = self._on_step is None or self._on_step(step_now)
        except BaseException as error:
            self.failure, going_on = error, False
        if not going_on:  # never set back: another thread may be going on
            self.cancelled = True
        return bool(going_on)

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
