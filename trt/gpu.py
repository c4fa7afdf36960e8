"""Which GPU there is. Asks NVIDIA's driver itself, which needs no package; creates no context and never raises."""

import contextlib
import ctypes
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from mribatch.core.install import install_command
from mribatch.core.nvidia_driver import has_driver

_LIBRARY = "libcuda.so.1"  # of the driver
_INSTALL_DRIVER = "install or update NVIDIA's driver; nvidia-smi must list the GPU"
_NO_DRIVER = "no NVIDIA driver is loaded"
_NO_DEVICE = 100  # CUresult
_CAPABILITY = (75, 76)  # CUdevice_attribute: major and minor number
_NAME_BYTES = 256


@dataclass(frozen=True)
class Gpu:
    """The first GPU that CUDA_VISIBLE_DEVICES leaves."""

    name: str
    compute_capability: str  # "8.9"
    memory_bytes: int
    driver: str  # the CUDA version that the driver supports, "13.0"
    runtime: str | None  # of the CUDA bindings that are used, "13.0"; None where they are not installed
    visible: int = 1  # how many GPUs there are; the others are not used

    @property
    def target(self) -> str:
        """As engines are named for it: "sm89"."""
        return "sm" + self.compute_capability.replace(".", "")

    def __str__(self) -> str:
        others = f", the first of {self.visible} GPUs" if self.visible > 1 else ""
        return f"{self.name} (compute capability {self.compute_capability}{others})"


@dataclass(frozen=True)
class NoGpu:
    """Why there is no GPU, as the end of the sentence "no GPU: …", and what to do."""

    reason: str
    fix: str


def find_gpu() -> Gpu | NoGpu:
    """The GPU that engines are built for and run on, or why there is none."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        if not has_driver():
            return NoGpu(_NO_DRIVER, _INSTALL_DRIVER)
        return NoGpu(
            f"the driver's {_LIBRARY} cannot be loaded",
            "start a container with --gpus all; else update the driver",
        )
    try:
        return _ask(driver)
    except _CudaError as error:
        if error.code == _NO_DEVICE:
            return NoGpu("CUDA lists no device", "check nvidia-smi and CUDA_VISIBLE_DEVICES")
        return NoGpu(f"CUDA says {error}" if has_driver() else _NO_DRIVER, _INSTALL_DRIVER)


def format_cuda_install() -> str:
    """Return the commands that install what a GPU needs, for each version of CUDA."""
    return f"{install_command('gpu-cu13')} (driver R580 or newer), or {install_command('gpu-cu12')}"


class _CudaError(Exception):
    """code: a CUresult; the text is its name."""

    def __init__(self, driver: ctypes.CDLL, code: int) -> None:
        name = ctypes.c_char_p()
        driver.cuGetErrorName(code, ctypes.byref(name))
        super().__init__(name.value.decode() if name.value else f"error {code}")
        self.code = code


def _ask(driver: ctypes.CDLL) -> Gpu:
    """What the driver says of its first device.

    Raises:
        _CudaError: It refuses; also where there is no device.
    """

    def call(function: str, *arguments: object) -> None:
        code = int(getattr(driver, function)(*arguments))
        if code:
            raise _CudaError(driver, code)

    def number(function: str, *arguments: object) -> int:
        value = ctypes.c_int()
        call(function, ctypes.byref(value), *arguments)
        return value.value

    call("cuInit", 0)
    count = number("cuDeviceGetCount")
    if not count:
        raise _CudaError(driver, _NO_DEVICE)
    device = number("cuDeviceGet", 0)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    call("cuDeviceGetName", name, _NAME_BYTES, device)
    memory = ctypes.c_size_t()
    call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    capability = [number("cuDeviceGetAttribute", attribute, device) for attribute in _CAPABILITY]
    supported = number("cuDriverGetVersion")
    return Gpu(
        name.value.decode(errors="replace"),
        ".".join(map(str, capability)),
        memory.value,
        f"{supported // 1000}.{supported % 1000 // 10}",  # CUDA writes 13.0 as 13000
        _find_runtime(),
        count,
    )


def _find_runtime() -> str | None:
    """The CUDA version of cuda-bindings, which brings the CUDA runtime with it; "13.5"."""
    with contextlib.suppress(PackageNotFoundError):
        return ".".join(version("cuda-bindings").split(".")[:2])
    return None
