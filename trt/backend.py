"""The TensorRT backend of a run: an engine built or loaded, proven, and FP32 where FP16 does not hold."""

from dataclasses import dataclass
from functools import partial

from mribatch.core.bundle import Bundle
from mribatch.core.errors import MribatchError
from mribatch.trt.engine.build import BatchProfile, OnStep
from mribatch.trt.engine.cache import EngineCache
from mribatch.trt.engine.maker import EngineMaker, Note, gate_sizes, tell_nobody
from mribatch.trt.engine.sidecar import FP16, FP32, EngineRequest
from mribatch.trt.fallback import Candidate, first_that_holds
from mribatch.trt.gate import GateReport, gate
from mribatch.trt.gpu import NoGpu, find_gpu
from mribatch.trt.library import Flavour, installed_flavours, nothing_installed
from mribatch.trt.runtime.classifier import TensorRTClassifier

_ON_CPU = "or use --backend onnxruntime (the same results on the CPU)"


@dataclass(frozen=True)
class Ready:
    """A proven classifier, not entered. reason: for run.json: which engine, and why not a better one."""

    classifier: TensorRTClassifier
    reason: str


def usable_flavour() -> Flavour:
    """The flavour that a run would use on this machine: TensorRT first, else TensorRT for RTX.

    Raises:
        MribatchError: Neither is installed, or there is no GPU; says what to do.
    """
    installed, gpu = installed_flavours(), find_gpu()
    if isinstance(gpu, NoGpu):
        raise MribatchError(
            f"--backend tensorrt needs an NVIDIA GPU, and there is none: {gpu.reason}", f"{gpu.fix}, {_ON_CPU}"
        )
    if not installed:
        error = nothing_installed()
        raise MribatchError(f"--backend tensorrt cannot run: {error.problem}", f"{error.fix}, {_ON_CPU}")
    return installed[0]


def ready(
    bundle: Bundle,
    batch_size: int,
    *,
    cache: EngineCache | None = None,
    note: Note = tell_nobody,
    on_step: OnStep | None = None,
) -> Ready:
    """Build or load engines for the GPU that is here until one reproduces the golden answers: FP16, then FP32.

    Raises:
        MribatchError: No GPU, no library, or no engine holds; gives each one's reason.
        Interrupted: `on_step` returned False.
    """
    flavour, gpu = usable_flavour(), find_gpu()
    assert not isinstance(gpu, NoGpu)
    maker = EngineMaker(bundle, cache or EngineCache(), note, on_step)
    requests = [
        EngineRequest(
            flavour=flavour, target=gpu.target, precision=precision, batch=BatchProfile(batch_size, batch_size)
        )
        for precision in (FP16, FP32)
    ]
    candidates = [
        Candidate(str(request), partial(_entered, bundle, maker, request), partial(_proof, bundle, request), _leave)
        for request in requests
    ]
    choice = first_that_holds(candidates)
    _leave(choice.value)
    return Ready(choice.value, choice.note or f"{choice.name}; {choice.report}")


def _entered(bundle: Bundle, maker: EngineMaker, request: EngineRequest) -> TensorRTClassifier:
    found = maker.obtain(request).engine
    return TensorRTClassifier(bundle, found.content, request).__enter__()


def _proof(bundle: Bundle, request: EngineRequest, classify: TensorRTClassifier) -> GateReport:
    return gate(classify, bundle, batch_sizes=gate_sizes(request.batch))


def _leave(classify: TensorRTClassifier) -> None:
    classify.__exit__(None, None, None)
