"""Which of DALI's packages is for this installation: those for CUDA 12 and CUDA 13 are the same Python package."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from mribatch.core.install import install_command

_OF_EXTRA = {  # extra -> distributions of one CUDA version that must not meet those of the other
    "gpu-cu13": ("nvidia-dali-cuda130", "tensorrt-cu13"),
    "gpu-cu12": ("tensorrt-cu12",),
}


def find_gpu_extra(find: Callable[[str], str | None] | None = None) -> str | None:
    """The GPU extra of which something is installed: "gpu-cu13" or "gpu-cu12"; None where nothing is.

    Args:
        find: Distribution -> its version, or None where it is missing.
    """
    find = find or _find_version
    return next((extra for extra, names in _OF_EXTRA.items() if any(map(find, names))), None)


def format_dali_install(*, reinstall: bool = False) -> str:
    """Return the command that installs the DALI that fits what is installed already.

    Args:
        reinstall: Install everything again.
    """
    return install_command(find_gpu_extra() or "dali", reinstall=reinstall)


def _find_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
