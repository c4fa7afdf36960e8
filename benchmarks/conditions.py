"""What a figure was measured on and with; stands in every result file."""

import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mribatch import __version__
from mribatch.cores import usable_cores

RESULTS = Path(__file__).parent / "results"
_LIBRARIES = ("numpy", "pyarrow", "onnxruntime", "opencv-python-headless")


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
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median with the lowest and highest of all repeats."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "repeats": list(values)}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
