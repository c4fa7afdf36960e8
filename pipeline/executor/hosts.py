"""The machines that make parts, as far as rows depend on them."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from mribatch.core.errors import MribatchError
from mribatch.core.processor import find_processor
from mribatch.pipeline.output.run_file import HostKind
from mribatch.trt.gpu import NoGpu, find_gpu

_LIBRARIES = (
    *("numpy", "pyarrow", "onnxruntime", "onnxruntime-gpu", "opencv-python-headless", "simplejpeg"),
    *("pydicom", "nibabel", "imagecodecs", "nvidia-dali-cuda120", "nvidia-dali-cuda130"),
    *("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx"),
)


def inspect_host() -> HostKind:
    """Return the kind of this machine."""
    gpu = find_gpu()
    return HostKind(
        processor=find_processor().name,
        gpu=None if isinstance(gpu, NoGpu) else gpu.name,
        python=platform.python_version(),
        libraries={name: found for name in _LIBRARIES if (found := _find_version(name))},
    )


def check_alike(hosts: Mapping[str, HostKind]) -> None:
    """Refuse machines of which some might give other rows than the others.

    Args:
        hosts: Name -> kind.

    Raises:
        MribatchError: Two differ; says in what.
    """
    names = list(hosts)
    for name in names[1:]:
        if difference := describe_difference(hosts[names[0]], hosts[name]):
            first, other = difference
            raise mixed_error(f"{names[0]} has {first}, {name} has {other}")


def mixed_error(how: str) -> MribatchError:
    """Return the error of machines that differ."""
    return MribatchError(
        f"the machines of the cluster differ: {how}",
        "use machines of one kind with the same versions, or add --allow-mixed; run.json then says who made which part",
    )


def describe_difference(one: HostKind, other: HostKind) -> tuple[str, str] | None:
    """Return what the one has, and what the other has in its place; None where they are of one kind."""
    if one.processor != other.processor:
        return f"the processor {one.processor}", other.processor
    if one.gpu != other.gpu:
        return one.gpu or "no GPU", other.gpu or "none"
    if one.python != other.python:
        return f"Python {one.python}", other.python
    for name in sorted({*one.libraries, *other.libraries}):
        before, now = one.libraries.get(name), other.libraries.get(name)
        if before != now:
            return (f"{name} {before}" if before else f"no {name}"), now or "none"
    return None


def _find_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
