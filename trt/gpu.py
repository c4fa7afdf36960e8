"""Which GPU there is. Asks the CUDA runtime through `cuda-bindings`; creates no context and never raises."""

from dataclasses import dataclass
from typing import Any

from mribatch.core.install import install_command
from mribatch.core.nvidia_driver import has_driver

_INSTALL_DRIVER = "install or update NVIDIA's driver; nvidia-smi must list the GPU"
_NO_DRIVER = "no NVIDIA driver is loaded"


@dataclass(frozen=True)
class Gpu:
    """The first GPU that CUDA_VISIBLE_DEVICES leaves."""

    name: str
    compute_capability: str  # "8.9"
    memory_bytes: int
    driver: str  # the CUDA version that the driver supports, "13.0"
    runtime: str  # of the CUDA runtime that is used, "13.0"

    @property
    def target(self) -> str:
        """As engines are named for it: "sm89"."""
        return "sm" + self.compute_capability.replace(".", "")

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability})"


@dataclass(frozen=True)
class NoGpu:
    """Why there is no GPU, as the end of the sentence "no GPU: …", and what to do."""

    reason: str
    fix: str


def find_gpu() -> Gpu | NoGpu:
    """The GPU that engines are built for and run on, or why there is none."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        if not has_driver():
            return NoGpu(_NO_DRIVER, _INSTALL_DRIVER)
        return NoGpu("the package cuda-bindings is not installed", format_cuda_install())
    try:
        count = _check_status(runtime.cudaGetDeviceCount())
        if not count:
            return NoGpu("CUDA lists no device", "check nvidia-smi and CUDA_VISIBLE_DEVICES")
        facts = _check_status(runtime.cudaGetDeviceProperties(0))
        driver, own = _check_status(runtime.cudaDriverGetVersion()), _check_status(runtime.cudaRuntimeGetVersion())
    except RuntimeError as error:  # also: libcudart is there, but no driver
        return NoGpu(f"CUDA says {error}" if has_driver() else _NO_DRIVER, _INSTALL_DRIVER)
    name = facts.name.decode() if isinstance(facts.name, bytes) else str(facts.name)
    return Gpu(
        name.rstrip("\0"),
        f"{facts.major}.{facts.minor}",
        int(facts.totalGlobalMem),
        _format_version(driver),
        _format_version(own),
    )


def format_cuda_install() -> str:
    """Return the commands that install what a GPU needs, for each version of CUDA."""
    return f"{install_command('gpu-cu13')} (driver R580 or newer), or {install_command('gpu-cu12')}"


def _check_status(answer: tuple[Any, ...]) -> Any:
    """Take the value of a (status, value) pair of cuda.bindings.runtime.

    Raises:
        RuntimeError: The status is not success.
    """
    if int(answer[0]) != 0:
        raise RuntimeError(getattr(answer[0], "name", str(answer[0])))
    return answer[1]


def _format_version(number: int) -> str:
    """CUDA writes 13.0 as 13000."""
    return f"{number // 1000}.{number % 1000 // 10}"
