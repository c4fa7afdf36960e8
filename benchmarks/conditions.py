"""What a figure was measured on and with; stands in every result file."""

import os
import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mribatch.core.about import __version__
from mribatch.core.cores import usable_cores
from mribatch.pipeline.doctor import diagnose
from mribatch.trt.gpu import NoGpu, find_gpu

RESULTS = Path(__file__).parent / "results"
_LIBRARIES = ("numpy", "pyarrow", "onnxruntime", "opencv-python-headless", "simplejpeg")
_OPTIONAL = (
    "nvidia-dali-cuda120",
    "nvidia-dali-cuda130",
    "nvidia-nvimgcodec-cu12",
    "nvidia-nvimgcodec-cu13",
    "nvidia-nvjpeg-cu12",
    "nvidia-nvjpeg",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-rtx",
    "cuda-bindings",
    "cuda-core",
)


def conditions() -> dict[str, Any]:
    """The machine and every version that may change a figure."""
    return {
        "mribatch": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": usable_cores(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "system": platform.platform(aliased=True, terse=True),
        "libraries": {name: version(name) for name in _LIBRARIES} | _installed(_OPTIONAL),
        "gpu": _gpu(),
    }


def machine(facts: Mapping[str, Any]) -> str:
    """The part of a result's file name that tells machines apart: "2cores", "16cores-NVIDIA_H100"."""
    name = f"{facts['cores']}cores"
    return name if facts["gpu"] is None else f"{name}-" + re.sub(r"[^A-Za-z0-9]+", "_", facts["gpu"]["name"]).strip("_")


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median with the lowest and highest of all repeats."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "repeats": list(values)}


def _installed(names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _gpu() -> dict[str, Any] | None:
    """The GPU that engines and DALI use; None where there is none."""
    gpu = find_gpu()
    if isinstance(gpu, NoGpu):
        return None
    there = diagnose()
    return {
        "name": gpu.name,
        "compute_capability": gpu.compute_capability,
        "memory_bytes": gpu.memory_bytes,
        "driver": there.driver,
        "cuda_of_driver": gpu.driver,
        "cuda_runtime": gpu.runtime,
        "nvidia_smi": list(there.gpus),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
