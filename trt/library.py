"""TensorRT and TensorRT for RTX: which is installed, in which version, and the module itself, loaded when asked for.

Both flavours are used through one strongly typed path, with names that exist in TensorRT 10.12 to 11 and in TensorRT
for RTX 1.7 (tests/trt/test_api_contract.py). What only one flavour has stands in trt/rtx.py and nowhere else.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mribatch.errors import MribatchError


class Flavour(StrEnum):
    """The two builders of engines. An engine of one is of no use to the other."""

    TENSORRT = "tensorrt"
    RTX = "tensorrt-rtx"


_MODULES = {Flavour.TENSORRT: "tensorrt", Flavour.RTX: "tensorrt_rtx"}
# The distributions that carry the module's binary; their version is the module's own, and asking for it loads nothing.
_DISTRIBUTIONS = {
    Flavour.TENSORRT: ("tensorrt-cu13-bindings", "tensorrt-cu12-bindings", "tensorrt"),
    Flavour.RTX: ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings", "tensorrt-rtx"),
}
_INSTALL = {
    Flavour.TENSORRT: "pip install 'mribatch[gpu-cu13]' (driver R580 or newer) or 'mribatch[gpu-cu12]'",
    Flavour.RTX: "pip install 'mribatch[rtx]'",
}


def installed_version(flavour: Flavour) -> str | None:
    """The library's version, from the metadata of its package; None where it is not installed. Loads nothing."""
    for name in _DISTRIBUTIONS[flavour]:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def installed_flavours() -> list[Flavour]:
    """TensorRT first: where both are there, it is the one for every GPU."""
    return [flavour for flavour in Flavour if installed_version(flavour)]


def required_version(flavour: Flavour) -> str:
    """As `installed_version`.

    Raises:
        MribatchError: It is not installed; names the extra.
    """
    found = installed_version(flavour)
    if found is None:
        raise missing(flavour)
    return found


def load(flavour: Flavour) -> Any:
    """The module `tensorrt` or `tensorrt_rtx`.

    Raises:
        MribatchError: It is not installed, or its libraries do not load.
    """
    try:
        return import_module(_MODULES[flavour])
    except ModuleNotFoundError as error:
        if error.name != _MODULES[flavour]:
            raise _broken(flavour, error) from error
        raise missing(flavour) from error
    except (ImportError, OSError, RuntimeError) as error:  # a shared library of its own that does not load
        raise _broken(flavour, error) from error


def missing(flavour: Flavour) -> MribatchError:
    """What to say where the flavour is wanted and not installed."""
    return MribatchError(f"{flavour} is not installed", _INSTALL[flavour])


def nothing_installed() -> MribatchError:
    """What to say where neither flavour is installed."""
    return MribatchError(
        "neither TensorRT nor TensorRT for RTX is installed",
        f"{_INSTALL[Flavour.TENSORRT]}, or {_INSTALL[Flavour.RTX]}, which also builds engines without a GPU",
    )


def _broken(flavour: Flavour, error: Exception) -> MribatchError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return MribatchError(f"{flavour} {installed_version(flavour)} does not load: {reason}", _INSTALL[flavour])


class Messages:
    """What the library said, as (severity, text). It may write from any thread.

    Severity: 0 internal error, 1 error, 2 warning, 3 information, as in TensorRT's ILogger.
    """

    WORST_KEPT = 2

    def __init__(self) -> None:
        self.rows: list[tuple[int, str]] = []

    def errors(self) -> str:
        """The errors in the library's own words, shortened to one line, the last one last; "" where it gave none."""
        texts = [_without_trace(text) for severity, text in self.rows if severity <= 1]
        return "; ".join(dict.fromkeys(texts))[:600]

    @property
    def warnings(self) -> Sequence[str]:
        return [text for severity, text in self.rows if severity == self.WORST_KEPT]


def logger_for(trt: Any, messages: Messages) -> Any:
    """An ILogger of `trt` that writes errors and warnings to `messages`. Keep it as long as what it was given to."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            level = int(severity)
            if level <= Messages.WORST_KEPT:
                messages.rows.append((level, text))

    return Logger()


def _without_trace(text: str) -> str:
    """Without the place in the library's source, which helps nobody here."""
    return re.sub(r"\s*\(?In \w+ at \S+:\d+\)?|\. In \w+ at \S+:\d+", "", " ".join(text.split())).strip()
