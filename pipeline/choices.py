"""Which backend and decoder a run uses, and why. `auto` is resolved here, once."""

import importlib.util
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Self

from mribatch.core.errors import MribatchError, end_sentence
from mribatch.pipeline.decode.dali_package import format_dali_install
from mribatch.pipeline.records import Choice
from mribatch.trt.gpu import Gpu, NoGpu, find_gpu
from mribatch.trt.library import Flavor, find_installed_flavors
from mribatch.trt.support import choose_flavor, make_unusable_error, select_usable

ONNXRUNTIME, ONNXRUNTIME_CUDA, TENSORRT = "onnxruntime", "onnxruntime-cuda", "tensorrt"
OPENCV, DALI = "opencv", "dali"
INSTALL_CUDA_PROVIDER = "pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]'"
"""Both are the same Python package."""


@dataclass(frozen=True)
class Machine:
    """What the choices depend on.

    flavors: Of TensorRT, those that are installed. dali, cuda_provider: Whether DALI, and ONNX Runtime with its CUDA
    provider, are installed.
    """

    gpu: Gpu | NoGpu
    flavors: tuple[Flavor, ...]
    dali: bool
    cuda_provider: bool = False

    @classmethod
    def inspect(cls) -> Self:
        """This machine."""
        return cls(find_gpu(), tuple(find_installed_flavors()), _is_dali_installed(), has_cuda_provider())


def choose_backend(wanted: str, machine: Machine | None = None) -> Choice:
    """Resolve --backend.

    Args:
        wanted: A backend's name, or "auto".
        machine: None: this one.

    Raises:
        MribatchError: The backend is not available; says what is missing.
    """
    if wanted == ONNXRUNTIME:
        return Choice(ONNXRUNTIME, "requested")
    machine = machine or Machine.inspect()
    if wanted == TENSORRT:
        return Choice(TENSORRT, f"requested; {choose_flavor(machine.gpu, machine.flavors)}")
    if wanted == ONNXRUNTIME_CUDA:
        return _require_cuda_provider(machine)
    if isinstance(machine.gpu, NoGpu):
        return Choice(ONNXRUNTIME, f"runs on every CPU; no GPU: {machine.gpu.reason}")
    usable = select_usable(machine.gpu, machine.flavors)
    if not usable:
        error = make_unusable_error(machine.gpu, machine.flavors)
        if machine.cuda_provider:
            return Choice(ONNXRUNTIME_CUDA, f"on the {machine.gpu}; {error.problem}")
        error = MribatchError(error.problem, f"{error.fix}, or {INSTALL_CUDA_PROVIDER}")
        reason = f"runs on every CPU; for the {machine.gpu}, {error.problem}"
        return Choice(ONNXRUNTIME, reason, warn_of_idle_gpu(machine.gpu, error))
    return Choice(TENSORRT, f"{usable[0]} on the {machine.gpu}")


def has_cuda_provider() -> bool:
    """Whether the package of ONNX Runtime with the CUDA provider is installed. Loads nothing."""
    try:
        version("onnxruntime-gpu")
    except PackageNotFoundError:
        return False
    return True


def _require_cuda_provider(machine: Machine) -> Choice:
    """The choice of --backend onnxruntime-cuda.

    Raises:
        MribatchError: There is no GPU, or the package is missing.
    """
    wanted, gpu = f"--backend {ONNXRUNTIME_CUDA}", machine.gpu
    if isinstance(gpu, NoGpu):
        problem = f"{wanted} needs an NVIDIA GPU, and there is none: {gpu.reason}"
        raise MribatchError(problem, f"{gpu.fix}, or use --backend onnxruntime")
    if not machine.cuda_provider:
        problem = f"{wanted} needs the package onnxruntime-gpu, and it is not installed"
        raise MribatchError(problem, f"{INSTALL_CUDA_PROVIDER}, or use --backend onnxruntime")
    return Choice(ONNXRUNTIME_CUDA, f"requested; on the {gpu}")


def warn_of_idle_gpu(gpu: Gpu | NoGpu, error: MribatchError, what: str = "The model runs") -> str:
    """Say that something is done on the CPU although there is a GPU.

    Args:
        gpu: As found; NoGpu where it went while it was to be used.
        error: Why it is not used.
        what: Subject and verb of the sentence.
    """
    who = "a GPU" if isinstance(gpu, NoGpu) else f"the {gpu}"
    why = end_sentence(error.problem)
    return f"{what} on the CPU, not on {who}: {why} Fix: {end_sentence(error.fix)}"


def choose_decoder(wanted: str, machine: Machine | None = None) -> Choice:
    """Resolve --decoder.

    Args:
        wanted: A decoder's name, or "auto".
        machine: None: this one.

    Raises:
        MribatchError: The decoder is not available; says what is missing.
    """
    if wanted == OPENCV:
        return Choice(OPENCV, "requested")
    machine = machine or Machine.inspect()
    gpu = machine.gpu
    where = f"on the {gpu}" if not isinstance(gpu, NoGpu) else f"on the CPU (no GPU: {gpu.reason})"
    if wanted == DALI:
        if not machine.dali:
            raise MribatchError(
                "--decoder dali needs NVIDIA DALI, and it is not installed",
                f"{format_dali_install()}, or use --decoder opencv (the same within a level or two)",
            )
        return Choice(DALI, f"requested; {where}")
    if machine.dali and not isinstance(gpu, NoGpu):
        return Choice(DALI, where)
    if isinstance(gpu, NoGpu):
        return Choice(OPENCV, "the fastest on a CPU")
    lack = MribatchError("NVIDIA DALI is not installed", format_dali_install())
    return Choice(OPENCV, f"for the {gpu}, {lack.problem}", warn_of_idle_gpu(gpu, lack, what="Images are decoded"))


def _is_dali_installed() -> bool:
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ImportError:  # there is no package `nvidia` at all
        return False
