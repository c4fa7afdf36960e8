"""Requirements of an extra but for TensorRT, which the image has: docker/without_tensorrt.py setup.cfg gpu-cu13

Raises an error where the image's TensorRT is not of a version that the extra allows. It needs pip's own parser of
versions and nothing else, so that it runs before anything is installed.
"""

import configparser
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement

_NAMES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")  # as the image may call it


def find_requirements(setup: Path, extra: str) -> tuple[Requirement, list[str]]:
    """TensorRT, and all others."""
    config = configparser.ConfigParser()
    config.read(setup, encoding="utf-8")
    lines = [line for line in config["options.extras_require"][extra].splitlines() if line.strip()]
    (tensorrt,) = (one for one in map(Requirement, lines) if one.name.startswith("tensorrt"))
    return tensorrt, [line for line in lines if not line.startswith("tensorrt")]


def find_tensorrt() -> str:
    """The version that is installed.

    Raises:
        SystemExit: There is none.
    """
    for name in _NAMES:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    sys.exit("Error: this image has no TensorRT for Python. Fix: give --build-arg TENSORRT_IMAGE=… with another image")


def main(arguments: Sequence[str]) -> None:
    wanted, others = find_requirements(Path(arguments[0]), arguments[1])
    found = find_tensorrt()
    if not wanted.specifier.contains(found):
        sys.exit(
            f"Error: this image has TensorRT {found}, and mribatch knows {wanted.specifier}."
            " Fix: give --build-arg TENSORRT_IMAGE=… with another image"
        )
    print("\n".join(others))


if __name__ == "__main__":
    main(sys.argv[1:])
