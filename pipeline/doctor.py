"""What this machine has, what `auto` picks on it and why, and what each extra would add. Loads no heavy library."""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mribatch.core.about import JSON_SCHEMA_VERSION, RESEARCH_NOTICE, __version__
from mribatch.core.bundle import DEFAULT_MODEL, load_bundle, shipped_models
from mribatch.core.cores import usable_cores
from mribatch.core.errors import MribatchError
from mribatch.core.install import install_command
from mribatch.core.tables import PLAIN, Cell, Column, Screen, format_table
from mribatch.pipeline.choices import choose_backend, choose_decoder
from mribatch.pipeline.decode.dali_package import find_gpu_extra
from mribatch.pipeline.options import AUTO
from mribatch.pipeline.records import Choice

_BASE = (
    *(
        "click",
        "nibabel",
        "numpy",
        "pyarrow",
        "onnxruntime",
        "opencv-python-headless",
        "platformdirs",
        "rich",
        "scikit-learn",
    ),
    *("scipy", "simplejpeg", "tqdm"),
)
DRIVER_FILE = Path("/proc/driver/nvidia/version")
_SMI_TIMEOUT_S = 10


@dataclass(frozen=True)
class Extra:
    """An optional part of the installation."""

    name: str
    adds: str
    packages: Mapping[str, str | None]  # distribution -> installed version, None where missing

    @property
    def installed(self) -> bool:
        return all(self.packages.values())

    @property
    def needs_gpu(self) -> bool:
        return self.name.startswith("gpu-")


# extra -> (what it adds, the distributions that it is recognised by)
_EXTRAS: dict[str, tuple[str, Sequence[str]]] = {
    "train": ("mribatch train: fit a model with Keras and export it", ("tensorflow", "tf2onnx", "onnx", "matplotlib")),
    "dicom": ("compressed DICOM: JPEG 2000, JPEG-LS, lossless and 12-bit JPEG", ("imagecodecs",)),
    "ray": ("classify --on ray: a cluster of machines", ("ray",)),
    "storage": ("addresses beyond s3://, gs:// and hdfs://: those of fsspec", ("fsspec",)),
    "metrics": ("classify --metrics-file: figures for Prometheus", ("prometheus-client",)),
    "dali": ("decoding with NVIDIA DALI, also without a GPU", ("nvidia-dali-cuda120",)),
    "rtx": (
        "TensorRT for RTX engines, built also without a GPU",
        ("tensorrt-rtx", "onnx", "cuda-core", "cuda-bindings"),
    ),
    "gpu-cu12": (
        "TensorRT engines and DALI on a GPU with CUDA 12",
        ("tensorrt-cu12", "nvidia-dali-cuda120", "cuda-core", "cuda-bindings"),
    ),
    "gpu-cu13": (
        "TensorRT engines and DALI on a GPU with CUDA 13",
        ("tensorrt-cu13", "nvidia-dali-cuda130", "cuda-core", "cuda-bindings"),
    ),
}


# distribution -> others that bring the same package
_STAND_INS = {
    "tensorflow": ("tensorflow-cpu",),
    "nvidia-dali-cuda120": ("nvidia-dali-cuda130",),
    "onnxruntime": ("onnxruntime-gpu",),
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python"),
}


@dataclass(frozen=True)
class Diagnosis:
    """Everything that `mribatch doctor` says. `problems` are what keeps a run from working; empty is healthy."""

    mribatch: str
    python: str
    system: str
    cores_usable: int
    cores_total: int
    gpus: tuple[str, ...]  # "name, driver version, memory", as nvidia-smi says
    driver: str | None  # NVIDIA's kernel driver, where it is loaded
    libraries: Mapping[str, str | None]
    backend: Choice
    decoder: Choice
    models: tuple[str, ...]
    default_model: str
    notice: str | None
    extras: tuple[Extra, ...]
    gpu_extra: str | None  # the one of which something is installed: only one of them can be
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"schema_version": JSON_SCHEMA_VERSION} | asdict(self) | {"research_notice": RESEARCH_NOTICE}

    def to_text(self, screen: Screen = PLAIN) -> str:
        """For a terminal; short enough for one screen."""
        facts = [("cores", f"{self.cores_usable} usable of {self.cores_total}")]
        facts += [("GPU", gpu) for gpu in self.gpus] or [("GPU", f"none ({self._why_no_gpu()})")]
        facts += [("backend", f"auto picks {self.backend.name}: {self.backend.reason}")]
        facts += [("decoder", f"auto picks {self.decoder.name}: {self.decoder.reason}")]
        facts += [("models", f"{', '.join(self.models)} (default: {self.default_model})")]
        facts += [("", f"NOTE: {self.notice}")] if self.notice else []
        facts += [("libraries", ", ".join(f"{name} {found or 'MISSING'}" for name, found in self.libraries.items()))]
        extras = [(extra.name, extra.adds, self._describe_state(extra)) for extra in self.extras]
        lines = [f"mribatch {self.mribatch}, Python {self.python}, {self.system}"]
        lines += [] if self.system.startswith("Linux ") else ["mribatch is tested on Linux; on this system it is not."]
        lines += [format_table([Column(), Column(wraps=True)], facts, screen)]
        lines += [
            format_table([Column("extra"), Column("adds", wraps=True), Column("state", wraps=True)], extras, screen)
        ]
        lines += [f"PROBLEM: {problem}" for problem in self.problems] or ["No problem found."]
        return "\n".join([*lines, RESEARCH_NOTICE])

    def _why_no_gpu(self) -> str:
        return f"driver {self.driver} is loaded, but lists none" if self.driver else "no NVIDIA driver is loaded"

    def _describe_state(self, extra: Extra) -> Cell:
        if extra.installed:
            return Cell("installed", "green")
        if extra.needs_gpu and not self.gpus and not self.driver:
            return Cell("needs an NVIDIA GPU")
        if extra.needs_gpu and self.gpu_extra not in (None, extra.name):
            return Cell(f"not beside {self.gpu_extra}")
        missing = ", ".join(name for name, found in extra.packages.items() if not found)
        return Cell(f"lacks {missing}: {install_command(extra.name)}")


def find_version(distribution: str) -> str | None:
    """The version of a library, or of another distribution that brings the same package; None where it is missing."""
    for name in (distribution, *_STAND_INS.get(distribution, ())):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def diagnose(find: Callable[[str], str | None] = find_version, driver_file: Path = DRIVER_FILE) -> Diagnosis:
    """Look at the machine. Never raises for what is missing: that is the answer.

    Args:
        find: Distribution -> its version, or None.
        driver_file: Where NVIDIA's kernel driver writes its version.
    """
    libraries = {name: find(name) for name in _BASE}
    problems = [f"{name} is not installed. Fix: {install_command()}" for name, found in libraries.items() if not found]
    notice = None
    try:
        notice = load_bundle(DEFAULT_MODEL).spec.notice
    except MribatchError as error:
        problems.append(str(error))
    backend, decoder = choose_backend(AUTO), choose_decoder(AUTO)
    problems += filter(None, (backend.warning, decoder.warning))
    return Diagnosis(
        mribatch=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cores_usable=usable_cores(),
        cores_total=os.cpu_count() or 1,
        gpus=_gpus(),
        driver=_read_driver(driver_file),
        libraries=libraries,
        backend=backend,
        decoder=decoder,
        models=tuple(shipped_models()),
        default_model=DEFAULT_MODEL,
        notice=notice,
        extras=tuple(
            Extra(name, adds, {one: find(one) for one in packages}) for name, (adds, packages) in _EXTRAS.items()
        ),
        gpu_extra=find_gpu_extra(find),
        problems=tuple(problems),
    )


def _gpus() -> tuple[str, ...]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return ()
    query = [command, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, timeout=_SMI_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in result.stdout.splitlines() if line.strip())


def _read_driver(file: Path) -> str | None:
    """The version in the driver's own file, e.g. "580.65.06"."""
    try:
        words = file.read_text().splitlines()[0].split()
    except (OSError, IndexError):
        return None
    return next((word for word in words if word[0].isdigit() and "." in word), None)
