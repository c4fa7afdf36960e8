"""Which library computes on which GPU, and so which one a machine uses: TensorRT, else TensorRT for RTX."""

from collections.abc import Sequence

from mribatch.core.errors import MribatchError
from mribatch.core.install import install_command
from mribatch.trt.gpu import Gpu, NoGpu, format_cuda_install
from mribatch.trt.library import NAMES, Flavor, make_nothing_installed_error

RTX_TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
"""GPUs of TensorRT for RTX 1.7, as its ComputeCapability lists them. None of H100 to B300 is among them."""

_LOWEST = 75
"""Turing. TensorRT 10.5 and later have no kernels for earlier GPUs."""

_ON_CPU = "or use --backend onnxruntime (the same results on the CPU)"


def supports(flavor: Flavor, target: str) -> bool:
    """Whether the library has kernels for a GPU, e.g. "sm89"."""
    if flavor is Flavor.RTX:
        return target in RTX_TARGETS
    return int(target.removeprefix("sm")) >= _LOWEST


def select_usable(gpu: Gpu, installed: Sequence[Flavor]) -> list[Flavor]:
    """Those of the installed flavors that have kernels for this GPU, in their order."""
    return [flavor for flavor in installed if supports(flavor, gpu.target)]


def make_unusable_error(gpu: Gpu, installed: Sequence[Flavor]) -> MribatchError:
    """Return why none of the installed flavors is for this GPU, and what to install."""
    possible = select_usable(gpu, list(Flavor))
    if not possible:
        return MribatchError(
            f"neither TensorRT nor TensorRT for RTX has kernels for the {gpu}",
            f"use a GPU of compute capability {_LOWEST / 10} or newer",
        )
    fix = format_cuda_install()
    if Flavor.RTX in possible:
        fix += f", or {install_command('rtx')}"
    if not installed:
        return MribatchError(make_nothing_installed_error().problem, fix)
    useless = " and ".join(NAMES[flavor] for flavor in installed)
    missing = " and ".join(NAMES[flavor] for flavor in possible)
    return MribatchError(f"{useless} has no kernels for the {gpu}, and {missing} is not installed", fix)


def choose_flavor(gpu: Gpu | NoGpu, installed: Sequence[Flavor]) -> Flavor:
    """The flavor that a run uses on this machine.

    Raises:
        MribatchError: There is no GPU, or no installed flavor is for it; says what to do.
    """
    if isinstance(gpu, NoGpu):
        raise MribatchError(
            f"--backend tensorrt needs an NVIDIA GPU, and there is none: {gpu.reason}", f"{gpu.fix}, {_ON_CPU}"
        )
    usable = select_usable(gpu, installed)
    if not usable:
        error = make_unusable_error(gpu, installed)
        raise MribatchError(f"--backend tensorrt cannot run: {error.problem}", f"{error.fix}, {_ON_CPU}")
    return usable[0]
