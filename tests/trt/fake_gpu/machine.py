"""Machines with GPUs that are not there: libcuda.c compiled with the C compiler, and the packages that one has installed.

What runs on such a machine is the real mribatch with the real cuda-core and cuda-bindings, in a virtual environment of its
own that holds links to this one's packages, but for TensorRT and DALI, of which it has what the test says.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_HERE = Path(__file__).parent
TENSORRT, RTX, DALI = "tensorrt", "tensorrt-rtx", "nvidia-dali"
_VERSION = "11.4.0.106"  # of packages/tensorrt

H100 = "NVIDIA H100 80GB HBM3:9.0:80"
L4 = "NVIDIA L4:8.9:24"
T4 = "Tesla T4:7.5:16"
RTX_4090 = "NVIDIA GeForce RTX 4090:8.9:24"


@dataclass(frozen=True)
class FakeMachine:
    """python: of an environment with the packages. libraries: folder with libcuda.so.1. gpus: as FAKE_GPUS."""

    python: Path
    libraries: Path
    gpus: tuple[str, ...]
    cache: Path

    def with_gpus(self, *gpus: str) -> "FakeMachine":
        return replace(self, gpus=gpus)

    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CUDA_", "PYTHON"))}
        return inherited | {
            "PYTHONPATH": str(ROOT),
            "LD_LIBRARY_PATH": str(self.libraries),
            "FAKE_GPUS": ",".join(self.gpus),
            "MRIBATCH_CACHE": str(self.cache),
        }

    def run(
        self, *arguments: str | Path, check: bool = True, more: Mapping[str, str] | None = None, limit_s: float = 300
    ) -> "subprocess.CompletedProcess[str]":
        """Run its Python with these arguments; more: variables of the environment."""
        command = [str(self.python), *map(str, arguments)]
        done = subprocess.run(
            command, env=self.environment() | dict(more or {}), capture_output=True, text=True, timeout=limit_s
        )
        if check and done.returncode:
            pytest.fail(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def mribatch(
        self, *arguments: str | Path, check: bool = True, more: Mapping[str, str] | None = None, limit_s: float = 300
    ) -> "subprocess.CompletedProcess[str]":
        """Run the command on it."""
        return self.run("-m", "mribatch", *arguments, check=check, more=more, limit_s=limit_s)


def build_libcuda(folder: Path) -> Path:
    """Compile the stand-in for the driver, or skip the test with the reason."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("there is no C compiler (cc) to build a libcuda.so.1 for tests with")
    options = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
    library = folder / "libcuda.so.1"
    command = [compiler, *options, "-Wl,-soname,libcuda.so.1", "-o", str(library), str(_HERE / "libcuda.c"), "-ldl"]
    subprocess.run(command, check=True)
    return folder


def make_machine(folder: Path, libraries: Path, gpus: Sequence[str], installed: Collection[str]) -> FakeMachine:
    """Make a machine.

    Args:
        folder: For its environment and its cache; made.
        libraries: From `build_libcuda`.
        gpus: Any of H100, L4, T4, RTX_4090.
        installed: Any of TENSORRT, RTX, DALI; the latter two must be installed here.
    """
    environment = folder / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = environment / "lib" / version / "site-packages"
    hidden = tuple(
        name.replace("-", "_") for name in (TENSORRT, RTX, DALI) if name == TENSORRT or name not in installed
    )
    for source in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(source).iterdir():
            if not _belongs_to(entry.name, hidden):
                (packages / entry.name).symlink_to(entry)
    if TENSORRT in installed:
        (packages / "tensorrt").symlink_to(_HERE / "packages" / "tensorrt")
        facts = packages / f"tensorrt_cu13_bindings-{_VERSION}.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tensorrt-cu13-bindings\nVersion: {_VERSION}\n")
    if DALI not in installed:
        _hide_dali(packages)
    return FakeMachine(environment / "bin" / "python", libraries, tuple(gpus), folder / "cache")


def _belongs_to(name: str, hidden: Collection[str]) -> bool:
    """Whether an entry of site-packages is of one of these packages, or says that it is installed."""
    plain = name.lower().replace("-", "_")
    owner = next((owner for owner in ("tensorrt_rtx", "tensorrt", "nvidia_dali") if plain.startswith(owner)), None)
    return owner in hidden


def _hide_dali(packages: Path) -> None:
    """DALI is a folder of the package `nvidia`, which others share."""
    shared = packages / "nvidia"
    if not shared.exists():
        return
    origin = shared.resolve()
    shared.unlink()
    shared.mkdir()
    for entry in origin.iterdir():
        if entry.name != "dali":
            (shared / entry.name).symlink_to(entry)
