"""Which backend and decoder a run uses, and why. `auto` is resolved here, once."""

import importlib.util
from dataclasses import dataclass
from typing import Self

from mribatch.core.errors import MribatchError
from mribatch.core.install import install_command
from mribatch.pipeline.records import Choice
from mribatch.trt.gpu import Gpu, NoGpu, find_gpu
from mribatch.trt.library import Flavor, find_installed_flavors, make_nothing_installed_error

ONNXRUNTIME, TENSORRT = "onnxruntime", "tensorrt"
OPENCV, DALI = "opencv", "dali"


@dataclass(frozen=True)
class Machine:
    """What the choices depend on. flavors: of TensorRT, those that are installed. dali: whether it is installed."""

    gpu: Gpu | NoGpu
    flavors: tuple[Flavor, ...]
    dali: bool

    @classmethod
    def inspect(cls) -> Self:
        """This machine."""
        return cls(find_gpu(), tuple(find_installed_flavors()), _is_dali_installed())


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
        from mribatch.trt.backend import choose_flavor

        return Choice(TENSORRT, f"requested; {choose_flavor(machine.gpu, machine.flavors)}")
    if isinstance(machine.gpu, NoGpu):
        return Choice(ONNXRUNTIME, f"runs on every CPU; no GPU: {machine.gpu.reason}")
    if not machine.flavors:
        return Choice(
            ONNXRUNTIME, f"runs on every CPU; for the {machine.gpu}, {make_nothing_installed_error().problem}"
        )
    return Choice(TENSORRT, f"{machine.flavors[0]} on the {machine.gpu}")


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
                f"{install_command('dali')}, or use --decoder opencv (the same within a level or two)",
            )
        return Choice(DALI, f"requested; {where}")
    if machine.dali and not isinstance(gpu, NoGpu):
        return Choice(DALI, where)
    return Choice(OPENCV, "the fastest on a CPU" if isinstance(gpu, NoGpu) else "NVIDIA DALI is not installed")


def _is_dali_installed() -> bool:
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ImportError:  # there is no package `nvidia` at all
        return False
