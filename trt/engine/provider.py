"""An engine for a bundle: from the cache where one fits, else built, compared with Keras' answers, and kept."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from mribatch.core.bundle import Bundle
from mribatch.core.errors import MribatchError
from mribatch.core.gate import GateFailed, GateReport, gate
from mribatch.core.install import install_command
from mribatch.trt.engine import rtx
from mribatch.trt.engine.build import SerializedEngine, build_engine
from mribatch.trt.engine.cache import EngineCache, EngineFile, EngineRefused
from mribatch.trt.engine.progress import BuildProgress, BuildStep
from mribatch.trt.engine.sidecar import EngineIdentity, EngineSidecar, GateRecord, describe_model, new_sidecar
from mribatch.trt.gpu import Gpu, NoGpu, find_gpu
from mribatch.trt.graph import CONVERTER_VERSION
from mribatch.trt.library import NAMES, Flavor, make_nothing_installed_error, require_version
from mribatch.trt.request import FP16, FP32, EngineRequest
from mribatch.trt.runtime.classifier import TensorRTClassifier
from mribatch.trt.support import make_unusable_error, select_usable, supports

TURING = "sm75"


@dataclass(frozen=True)
class ProvidedEngine:
    """An engine that may be used, and whether it was in the cache already."""

    file: EngineFile
    from_cache: bool


@dataclass(frozen=True)
class GatedEngine:
    """An engine on the GPU.

    classifier: Entered. report: What the gate found for this very classifier, in this process; it may not hold.
    """

    classifier: TensorRTClassifier
    report: GateReport


@dataclass(frozen=True)
class _Graph:
    """The graph that the library parses. fp32_nodes: None where everything is FP32."""

    model: bytes
    fp32_nodes: tuple[str, ...] | None

    @property
    def sha256(self) -> str:
        return sha256(self.model).hexdigest()


def hash_source(bundle: Bundle, request: EngineRequest) -> str:
    """Hash what decides the parsed graph and its golden answers, to find a cached engine without converting anything.

    These are bundle.json (which has the hashes of the other files), the precision, whether dense layers are rewritten
    for Turing, and the version of the converter.
    """
    parts = (bundle.sha256, request.precision, "turing" if _is_turing(request) else "any", str(CONVERTER_VERSION))
    return sha256("\0".join(parts).encode()).hexdigest()


class EngineProvider:
    """Finds or builds the engines of one bundle; what several of them share is computed once.

    Args:
        bundle: Checked.
        cache: Where engines are found and kept.
        progress: Receives why an engine is built although one exists, what is waited for, and the steps of a build;
            None: nobody does.
        gpu: The GPU of this machine; None: whatever CUDA finds.
        measure_ratio: Build each FP16 engine in FP32 as well, to compare the sizes; with TensorRT, that takes minutes.
        make_classifier: Makes the classifier of an engine, not entered, from the arguments of TensorRTClassifier.
    """

    def __init__(
        self,
        bundle: Bundle,
        cache: EngineCache,
        progress: BuildProgress | None = None,
        *,
        gpu: Gpu | NoGpu | None = None,
        measure_ratio: bool = False,
        make_classifier: Callable[..., TensorRTClassifier] = TensorRTClassifier,
    ) -> None:
        self._bundle = bundle
        self._cache = cache
        self._progress = progress or BuildProgress()
        self._gpu = gpu or find_gpu()
        self._measure_ratio = measure_ratio
        self._make_classifier = make_classifier
        self._half: _Graph | None = None
        self._emulated: dict[str, GateReport] = {}  # sha256 of an FP16 graph -> what the gate found

    def find_or_build(self, request: EngineRequest) -> ProvidedEngine:
        """The engine, from the cache or newly built.

        Raises:
            MribatchError: The library is missing or refuses, the model cannot compute in FP16, or the disk is full.
            GateFailed: Its answers differ from Keras'; a new engine is not kept.
            Interrupted: `progress.step` returned False.
        """
        with contextlib.ExitStack() as gated:
            return self._find_or_build(request, gated)[0]

    @contextlib.contextmanager
    def open(self, request: EngineRequest) -> Iterator[GatedEngine]:
        """The engine on this machine's GPU, found or built, and gated exactly once in this process.

        A new engine passes the gate before it is kept, and is given as it is. One from the cache goes through the gate
        here; the report may not hold.

        Raises:
            MribatchError, GateFailed, Interrupted: As `find_or_build`.
        """
        with contextlib.ExitStack() as stack:
            provided, gated = self._find_or_build(request, stack)
            yield gated or self._open_and_gate(request, provided.file.content, stack)

    def find_cached(self, request: EngineRequest) -> ProvidedEngine | None:
        """The engine, if the cache has one that fits; loads neither TensorRT nor onnx.

        Raises:
            EngineRefused: There is one, and it is not what its sidecar says.
        """
        source = hash_source(self._bundle, request)
        for path, sidecar in self._cache.read_sidecars().items():
            if sidecar.source_sha256 != source:
                continue
            identity = EngineIdentity.of(request, sidecar.onnx_sha256)
            if path == self._cache.path_of(identity, self._bundle.spec.name):
                found = self._cache.find(identity, self._bundle.spec.name)
                return ProvidedEngine(found, True) if found else None
        return None

    def _find_or_build(
        self, request: EngineRequest, stack: contextlib.ExitStack
    ) -> tuple[ProvidedEngine, GatedEngine | None]:
        """The engine; where it had to pass the gate on the GPU, also the classifier that did, which `stack` closes."""
        require_version(request.flavor)
        with contextlib.suppress(EngineRefused):  # said below, under the lock
            if found := self.find_cached(request):
                return found, None
        with self._cache.locked(self._progress):
            graph = self._convert(request)
            identity = EngineIdentity.of(request, graph.sha256)
            try:
                if there := self._cache.find(identity, self._bundle.spec.name):
                    file, gated = self._update_sidecar(request, graph, there, stack)
                    return ProvidedEngine(file, True), gated
            except EngineRefused as error:
                self._progress.note(f"{error.problem}; building it again, the old file is kept")
            else:
                self._note_difference(identity)
            file, gated = self._build(request, identity, graph, stack)
            return ProvidedEngine(file, False), gated

    def _update_sidecar(
        self, request: EngineRequest, graph: _Graph, there: EngineFile, stack: contextlib.ExitStack
    ) -> tuple[EngineFile, GatedEngine | None]:
        """Bring the sidecar of an engine of this very graph up to date.

        Where it was made from another source (a bundle with other answers or texts, another version of the converter
        that gives the same graph), it is compared again, and its sidecar says what holds now.
        """
        source = hash_source(self._bundle, request)
        if there.sidecar.source_sha256 == source:  # another builder was faster
            return there, None
        record, gated = self._gate(request, graph, there.content, stack)
        facts = describe_model(self._bundle) | record.facts
        sidecar = dataclasses.replace(there.sidecar, source_sha256=source, **facts)
        return self._cache.store_sidecar(there, sidecar), gated

    def _note_difference(self, identity: EngineIdentity) -> None:
        """Say why an engine of the same model, precision and kind of GPU does not fit."""
        for path, sidecar in self._cache.read_sidecars().items():
            other = sidecar.identity
            same = (other.flavor, other.target, other.precision) == (
                identity.flavor,
                identity.target,
                identity.precision,
            )
            difference = identity.find_difference(other)
            if difference and same and sidecar.model_name == self._bundle.spec.name:
                self._progress.note(f"{path.name} does not fit: {difference[1]}; building another beside it")

    def _build(
        self, request: EngineRequest, identity: EngineIdentity, graph: _Graph, stack: contextlib.ExitStack
    ) -> tuple[EngineFile, GatedEngine | None]:
        if (
            self._find_gpu_for(request) is None
        ):  # what can be compared without the engine is compared before it is built
            self._gate_without_gpu(request, graph)
        serialized = self._serialize(request, identity, graph)
        fp32_bytes = len(serialized.content) if request.precision == FP32 else None
        if request.precision == FP16 and self._measure_ratio:
            single = dataclasses.replace(request, precision=FP32)
            fp32_bytes = len(self._serialize(single, identity, self._convert(single)).content)
        record, gated = self._gate(request, graph, serialized.content, stack)
        sidecar: EngineSidecar = new_sidecar(
            self._bundle,
            identity,
            serialized,
            source_sha256=hash_source(self._bundle, request),
            fp32_nodes=graph.fp32_nodes,
            fp32_bytes=fp32_bytes,
            gate=record,
        )
        return self._cache.store(identity, self._bundle.spec.name, serialized.content, sidecar), gated

    def _serialize(self, request: EngineRequest, identity: EngineIdentity, graph: _Graph) -> SerializedEngine:
        serialized = build_engine(
            graph.model,
            request.flavor,
            request.target,
            request.batch,
            fp32_nodes=graph.fp32_nodes,
            timing_cache=self._cache.read_timing_cache(identity),
            progress=_NamedProgress(self._progress, f"{self._bundle.spec.name} {request.precision} {request.target}"),
        )
        if serialized.timing_cache:
            self._cache.store_timing_cache(identity, serialized.timing_cache)
        return serialized

    def _convert(self, request: EngineRequest) -> _Graph:
        graph = self._convert_to_half() if request.precision == FP16 else _Graph(self._bundle.model, None)
        if not _is_turing(request):
            return graph
        from mribatch.trt.graph.turing import without_fp32_dense

        model, added = without_fp32_dense(graph.model)
        return _Graph(model, None if graph.fp32_nodes is None else graph.fp32_nodes + added)

    def _convert_to_half(self) -> _Graph:
        if self._half is None:
            from mribatch.trt.graph.fp16 import convert_bundle

            half = convert_bundle(self._bundle)
            self._half = _Graph(half.model, half.fp32_nodes)
        return self._half

    def _gate(
        self, request: EngineRequest, graph: _Graph, content: bytes, stack: contextlib.ExitStack
    ) -> tuple[GateRecord, GatedEngine | None]:
        """Let an engine pass the gate: on its GPU where that is present, else its FP16 graph in ONNX Runtime.

        Raises:
            GateFailed: It does not.
        """
        gpu = self._find_gpu_for(request)
        if gpu is None:
            return self._gate_without_gpu(request, graph), None
        gated = self._open_and_gate(request, content, stack)
        self._require(request, gated.report)
        return GateRecord.of(gated.report, gpu), gated

    def _gate_without_gpu(self, request: EngineRequest, graph: _Graph) -> GateRecord:
        if graph.fp32_nodes is None:
            return GateRecord()
        from mribatch.trt.graph.emulation import gate_emulated

        if graph.sha256 not in self._emulated:
            self._emulated[graph.sha256] = gate_emulated(self._bundle, graph.model)
        report = self._emulated[graph.sha256]
        self._require(request, report)
        return GateRecord.of(report, None)

    def _open_and_gate(self, request: EngineRequest, content: bytes, stack: contextlib.ExitStack) -> GatedEngine:
        digest = sha256(content).hexdigest()
        kept = self._cache.read_kernels(digest)
        classifier = stack.enter_context(self._make_classifier(self._bundle, content, request, kernels=kept))
        report = gate(classifier, self._bundle, batch_sizes=request.gate_sizes)
        compiled = classifier.compiled_kernels()
        if report.holds and compiled is not None and compiled != kept:
            self._cache.store_kernels(digest, compiled)
        return GatedEngine(classifier, report)

    def _find_gpu_for(self, request: EngineRequest) -> Gpu | None:
        """The GPU of this machine, if the engine is for it."""
        return self._gpu if isinstance(self._gpu, Gpu) and self._gpu.target == request.target else None

    def _require(self, request: EngineRequest, report: GateReport) -> None:
        if not report.holds:
            raise GateFailed(
                f"the {request} of '{self._bundle.spec.name}' does not reproduce the model's golden answers: {report}",
                "build it with --precision fp32, or use --backend onnxruntime",
            )


class _NamedProgress(BuildProgress):
    """Names the engine in each step of a build."""

    def __init__(self, inner: BuildProgress, name: str) -> None:
        self._inner = inner
        self._name = name

    def step(self, step: BuildStep) -> bool:
        return self._inner.step(dataclasses.replace(step, phase=f"{self._name}: {step.phase}"))


def choose_targets(flavor: Flavor | None, installed: list[Flavor], gpu: Gpu | NoGpu) -> tuple[Flavor, tuple[str, ...]]:
    """What `engine build` builds without --target: for the GPU of this machine, else for every RTX target.

    Raises:
        MribatchError: What is requested cannot be built here.
    """
    if isinstance(gpu, Gpu):
        if flavor and not supports(flavor, gpu.target):
            raise MribatchError(
                f"{NAMES[flavor]} has no kernels for the {gpu}",
                "choose another --flavor, or name the GPU that the engine is for with --target",
            )
        usable = [flavor] if flavor else select_usable(gpu, installed)
        if not usable:
            raise make_unusable_error(gpu, installed)
        return usable[0], (gpu.target,)
    if not installed and flavor is None:
        raise make_nothing_installed_error()
    if flavor is Flavor.TENSORRT or (flavor is None and Flavor.RTX not in installed):
        raise MribatchError(
            f"TensorRT builds on the GPU that the engine is for, and there is none: {gpu.reason}",
            f"{gpu.fix}; or {install_command('rtx')}, which builds without one",
        )
    return Flavor.RTX, rtx.TARGETS


def _is_turing(request: EngineRequest) -> bool:
    return request.flavor is Flavor.RTX and request.target == TURING
