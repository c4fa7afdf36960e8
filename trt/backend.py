"""The TensorRT backend of a run: an engine found or built, gated once, in FP32 where FP16 does not hold."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mribatch.core.bundle import Bundle
from mribatch.core.errors import Interrupted, MribatchError
from mribatch.core.gate import GateReport
from mribatch.trt.engine.cache import EngineCache
from mribatch.trt.engine.progress import BuildProgress
from mribatch.trt.engine.provider import EngineProvider
from mribatch.trt.gpu import Gpu, find_gpu
from mribatch.trt.library import find_installed_flavors
from mribatch.trt.request import FP16, FP32, BatchProfile, EngineRequest
from mribatch.trt.runtime.classifier import TensorRTClassifier
from mribatch.trt.runtime.cuda import require_cuda
from mribatch.trt.runtime.device import OutOfGpuMemory
from mribatch.trt.support import choose_flavor


@dataclass(frozen=True)
class TensorRTBackend:
    """An engine at work.

    classifier: Entered. report: Of the gate, which this classifier has passed. reason: For run.json: which engine it
    is, and why not a better one.
    """

    classifier: TensorRTClassifier
    report: GateReport
    reason: str


@contextlib.contextmanager
def open_backend(
    bundle: Bundle,
    batch_size: int,
    *,
    profile: BatchProfile | None = None,
    cache: EngineCache | None = None,
    progress: BuildProgress | None = None,
) -> Iterator[TensorRTBackend]:
    """Open an engine for this machine's GPU that reproduces the golden answers: in FP16, else in FP32.

    Args:
        bundle: Checked.
        batch_size: Rows of every batch.
        profile: Of an engine that takes more than this one size; None: an engine for this size.
        cache: Where engines are kept; None: the user's.
        progress: Receives what takes long; None: nobody does.

    Raises:
        MribatchError: No GPU, no library, or no engine holds; gives each one's reason.
        OutOfGpuMemory: Batches of this size do not fit into the GPU.
        Interrupted: `progress.step` returned False.
    """
    gpu = find_gpu()
    flavor = choose_flavor(gpu, find_installed_flavors())
    assert isinstance(gpu, Gpu)
    require_cuda()  # now, rather than when an engine has been built for minutes
    provider = EngineProvider(bundle, cache or EngineCache(), progress)
    batch = profile or BatchProfile(batch_size, batch_size)
    requests = [
        EngineRequest(flavor=flavor, target=gpu.target, precision=precision, batch=batch, rows=batch_size)
        for precision in (FP16, FP32)
    ]
    with open_first_that_holds(provider, requests) as backend:
        yield backend


@contextlib.contextmanager
def open_first_that_holds(provider: EngineProvider, requests: Sequence[EngineRequest]) -> Iterator[TensorRTBackend]:
    """Open one engine after another until one reproduces the golden answers; the others are closed again.

    Raises:
        MribatchError: None does; gives each one's reason.
        OutOfGpuMemory: Batches of this size do not fit; nothing else is tried.
        Interrupted: The user stopped it; nothing else is tried.
    """
    refusals: list[str] = []
    for request in requests:
        with contextlib.ExitStack() as stack:
            try:
                candidate = stack.enter_context(provider.open(request))
            except (Interrupted, OutOfGpuMemory):  # FP32 needs more memory, not less
                raise
            except MribatchError as error:
                refusals.append(f"{request}: {error.problem}")
                continue
            if candidate.report.holds:
                yield TensorRTBackend(
                    candidate.classifier, candidate.report, _explain(request, candidate.report, refusals)
                )
                return
            refusals.append(f"{request}: {candidate.report}")
    raise MribatchError(
        f"nothing that was tried can be used ({'; '.join(refusals)})",
        "fix the first problem listed, or use --backend onnxruntime",
    )


def _explain(request: EngineRequest, report: GateReport, refusals: Sequence[str]) -> str:
    return f"fell back to {request} ({'; '.join(refusals)})" if refusals else f"{request}; {report}"
