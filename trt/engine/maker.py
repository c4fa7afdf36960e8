"""An engine for a bundle: from the cache where one fits, else built, compared with Keras, and kept."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from mribatch.core.bundle import Bundle
from mribatch.core.errors import MribatchError
from mribatch.trt.engine.build import BatchProfile, BuildStep, OnStep, Plan, build_plan
from mribatch.trt.engine.cache import EngineCache, EngineFile, EngineRefused
from mribatch.trt.engine.sidecar import (
    FP16,
    FP32,
    EngineIdentity,
    EngineRequest,
    bundle_facts,
    gpu_facts,
    new_sidecar,
    value_at,
)
from mribatch.trt.gpu import Gpu, NoGpu, find_gpu
from mribatch.trt.graph.conversion import Fp16Graph
from mribatch.trt.library import Flavour, required_version

NOT_VERIFIED = "not verified: no GPU"
TURING = "sm75"

Note = Callable[[str], None]
"""Told one line that the user should read."""

# What decides which graph comes of a bundle; their text is part of what a cached engine is recognised by.
_CONVERTERS = ("conversion.py", "typed.py", "range_audit.py", "fp16.py", "turing.py")


def tell_nobody(text: str) -> None:
    """A Note for the silent."""


class GateFailed(MribatchError):
    """An engine that was built and does not reproduce the bundle's golden answers."""


@dataclass(frozen=True)
class Obtained:
    """An engine that may be used, and whether it was there already."""

    engine: EngineFile
    from_cache: bool


@dataclass(frozen=True)
class _Parsed:
    """The graph that the library parses. fp32_nodes: None where everything is FP32."""

    model: bytes
    fp32_nodes: tuple[str, ...] | None

    @property
    def sha256(self) -> str:
        return sha256(self.model).hexdigest()


def source_of(bundle: Bundle, request: EngineRequest) -> str:
    """Hash of what decides the parsed graph and its proof; recognises a cached engine without converting anything."""
    parts = [bundle.sha256, request.precision]
    parts += ["turing" if _is_turing(request) else "any"]
    parts += [(Path(__file__).parents[1] / "graph" / name).read_text(encoding="utf-8") for name in _CONVERTERS]
    return sha256("\0".join(parts).encode()).hexdigest()


class EngineMaker:
    """Makes engines of one bundle; what several of them share is worked out once.

    Args:
        bundle: Checked.
        cache: Where engines are looked for and kept.
        note: Told, in one line each, why an engine is built although one lies there, and what is waited for.
        on_step: Told how far a build is; False cancels it.
    """

    def __init__(
        self,
        bundle: Bundle,
        cache: EngineCache,
        note: Note = tell_nobody,
        on_step: OnStep | None = None,
    ) -> None:
        self._bundle = bundle
        self._cache = cache
        self._note = note
        self._on_step = on_step
        self._half: Fp16Graph | None = None
        self._parity: dict[str, tuple[str, dict[str, Any]]] = {}  # sha256 of an FP16 graph -> what emulation gave

    def cached(self, request: EngineRequest) -> Obtained | None:
        """The engine, if a fitting one lies in the cache; loads neither TensorRT nor onnx.

        Raises:
            EngineRefused: There is one, and it is not what its sidecar says.
        """
        source = source_of(self._bundle, request)
        for path, sidecar in self._cache.sidecars().items():
            if sidecar.get("source_sha256") != source:
                continue
            identity = request.identity(str(sidecar.get("onnx_sha256")))
            if path == self._cache.path_of(identity, self._bundle.spec.name):
                found = self._cache.find(identity, self._bundle.spec.name)
                return Obtained(found, True) if found else None
        return None

    def obtain(self, request: EngineRequest) -> Obtained:
        """The engine, from the cache or newly built.

        Raises:
            MribatchError: The library is missing or refuses, the model cannot compute in FP16, or the disk is full.
            GateFailed: It answers otherwise than Keras; a new one is not kept.
            Interrupted: `on_step` returned False.
        """
        required_version(request.flavour)
        try:
            if found := self.cached(request):
                return found
        except EngineRefused:
            pass  # said below, under the lock
        with self._cache.locked(self._note, self._goes_on_waiting):
            parsed = self._graph(request)
            identity = request.identity(parsed.sha256)
            try:
                if there := self._cache.find(identity, self._bundle.spec.name):
                    return Obtained(self._up_to_date(request, parsed, there), True)
            except EngineRefused as error:
                self._note(f"{error.problem}; building it again, the old file is kept")
            else:
                self._say_what_differs(identity)
            return Obtained(self._built(request, identity, parsed), False)

    def _goes_on_waiting(self) -> bool:
        return self._on_step is None or self._on_step(BuildStep(0, 1, "waiting for another mribatch"))

    def _up_to_date(self, request: EngineRequest, parsed: _Parsed, there: EngineFile) -> EngineFile:
        """An engine of this very graph. Where it was made from another source (a bundle with other answers or texts, a
        converter that was changed without effect), it is compared again, and its sidecar says what holds now.
        """
        source = source_of(self._bundle, request)
        if there.sidecar["source_sha256"] == source:  # another builder was faster
            return there
        gpu = _gpu_of(request)
        verified, parity = self._verified(request, parsed, there.content, gpu)
        now = {"source_sha256": source, "verified": verified, "parity": dict(parity)}
        now |= bundle_facts(self._bundle) | gpu_facts(gpu)
        return self._cache.store_sidecar(there, dict(there.sidecar) | now)

    def _say_what_differs(self, identity: EngineIdentity) -> None:
        same = {
            "trt_flavor": str(identity.flavour),
            "target": identity.target,
            "model_name": self._bundle.spec.name,
            "precision.mode": identity.precision,
        }
        for path, sidecar in self._cache.sidecars().items():
            difference = identity.difference(sidecar)
            if difference and all(value_at(sidecar, name) == value for name, value in same.items()):
                self._note(f"{path.name} does not fit: {difference}; building another beside it")

    def _built(self, request: EngineRequest, identity: EngineIdentity, parsed: _Parsed) -> EngineFile:
        plan, gpu = self._plan(request, identity, parsed), _gpu_of(request)
        verified, parity = self._verified(request, parsed, plan.content, gpu)
        fp32_bytes = len(plan.content)
        if request.precision == FP16:
            single = dataclasses.replace(request, precision=FP32)
            fp32_bytes = len(self._plan(single, identity, self._graph(single)).content)
        sidecar = new_sidecar(
            self._bundle,
            identity,
            plan,
            source_sha256=source_of(self._bundle, request),
            fp32_nodes=parsed.fp32_nodes,
            fp32_bytes=fp32_bytes,
            gpu=gpu,
            verified=verified,
            parity=parity,
        )
        return self._cache.store(identity, self._bundle.spec.name, plan.content, sidecar)

    def _plan(self, request: EngineRequest, identity: EngineIdentity, parsed: _Parsed) -> Plan:
        def on_step(step: BuildStep) -> bool:
            named = f"{self._bundle.spec.name} {request.precision} {request.target}: {step.phase}"
            return self._on_step(dataclasses.replace(step, phase=named)) if self._on_step else True

        plan = build_plan(
            parsed.model,
            request.flavour,
            request.target,
            request.batch,
            fp32_nodes=parsed.fp32_nodes,
            timing_cache=self._cache.timing_cache(identity),
            on_step=on_step,
        )
        if plan.timing_cache:
            self._cache.store_timing_cache(identity, plan.timing_cache)
        return plan

    def _graph(self, request: EngineRequest) -> _Parsed:
        if request.precision == FP16:
            half = self._half_graph()
            parsed = _Parsed(half.model, half.fp32_nodes)
        else:
            parsed = _Parsed(self._bundle.model, None)
        if not _is_turing(request):
            return parsed
        from mribatch.trt.graph.turing import without_fp32_dense

        model, added = without_fp32_dense(parsed.model)
        return _Parsed(model, None if parsed.fp32_nodes is None else parsed.fp32_nodes + added)

    def _half_graph(self) -> Fp16Graph:
        from mribatch.trt.graph.fp16 import fp16_graph_of

        if self._half is None:
            self._half = fp16_graph_of(self._bundle)
        return self._half

    def _verified(
        self, request: EngineRequest, parsed: _Parsed, plan: bytes, gpu: Gpu | None
    ) -> tuple[str, Mapping[str, Any]]:
        """On the GPU where it is here, else the FP16 graph in ONNX Runtime."""
        if gpu is not None:
            from mribatch.trt.runtime.classifier import TensorRTClassifier

            with TensorRTClassifier(self._bundle, plan, request) as classify:
                return self._passed(request, classify)
        if parsed.fp32_nodes is None:
            return NOT_VERIFIED, {}
        if parsed.sha256 not in self._parity:
            half = dataclasses.replace(self._half_graph(), model=parsed.model, sha256=parsed.sha256)
            self._parity[parsed.sha256] = self._passed(request, half)
        return self._parity[parsed.sha256]

    def _passed(self, request: EngineRequest, candidate: Any) -> tuple[str, dict[str, Any]]:
        from mribatch.trt import gate as agree

        if isinstance(candidate, Fp16Graph):
            report = agree.emulate(self._bundle, candidate)
        else:
            report = agree.gate(candidate, self._bundle, batch_sizes=gate_sizes(request.batch))
        if not report.holds:
            raise GateFailed(
                f"the {request} of '{self._bundle.spec.name}' does not reproduce the model's golden answers: {report}",
                "build it with --precision fp32, or use --backend onnxruntime",
            )
        rows = sum(check.agreement.rows for check in report.checks if check.agreement)
        same = sum(check.same_class for check in report.checks)
        parity = {"n": rows, "max_abs": report.max_difference, "argmax_agree": same / rows, "report": str(report)}
        return report.verified, parity


def gate_sizes(batch: BatchProfile) -> tuple[int, ...]:
    """Sizes of batches that the gate asks about: one image, an odd number, the largest."""
    odd = max(1, (batch.maximum // 2) | 1)
    return tuple(sorted({1, min(odd, batch.maximum), batch.maximum}))


def here_or_all(flavour: Flavour | None, installed: list[Flavour], gpu: Gpu | NoGpu) -> tuple[Flavour, tuple[str, ...]]:
    """What `engine build` builds where nothing is asked for: for the GPU that is here, else for every RTX target.

    Raises:
        MribatchError: What is asked for cannot be built here.
    """
    from mribatch.trt.engine import rtx
    from mribatch.trt.library import nothing_installed

    if not installed and flavour is None:
        raise nothing_installed()
    if isinstance(gpu, Gpu):
        return flavour or installed[0], (gpu.target,)
    if flavour is Flavour.TENSORRT or (flavour is None and Flavour.RTX not in installed):
        raise MribatchError(
            f"TensorRT builds on the GPU that the engine is for, and there is none: {gpu.reason}",
            f"{gpu.fix}; or pip install 'mribatch[rtx]', which builds without one",
        )
    return Flavour.RTX, rtx.TARGETS


def _gpu_of(request: EngineRequest) -> Gpu | None:
    """The GPU that is here, where the engine is for it."""
    gpu = find_gpu()
    return gpu if isinstance(gpu, Gpu) and gpu.target == request.target else None


def _is_turing(request: EngineRequest) -> bool:
    return request.flavour is Flavour.RTX and request.target == TURING
