"""Whether there is a sign of NVIDIA's driver. Loads nothing."""

import shutil
from pathlib import Path

DRIVER_FILE = Path("/proc/driver/nvidia/version")  # of the kernel driver, where it is loaded


def has_driver() -> bool:
    """Whether the driver is loaded, or its nvidia-smi is there, as in Windows' subsystem for Linux."""
    return DRIVER_FILE.exists() or shutil.which("nvidia-smi") is not None
