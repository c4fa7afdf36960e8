"""TensorRT and TensorRT for RTX: which is installed, in which version, and the module itself, loaded when asked for.

Both flavours are used through one strongly typed path, with names that exist in TensorRT 10.12 to 11 and in TensorRT
for RTX 1.7 (tests/trt/test_api_contract.py). What only one flavour has stands in trt/engine/rtx.py and nowhere else.
"""

import contextlib
import re
import traceback
from collections.abc import Iterable, Iterator
from enum import StrEnum
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mribatch.core.errors import MribatchError
from mribatch.trt.gpu import INSTALL_CUDA


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
    Flavour.TENSORRT: INSTALL_CUDA,  # the same extras bring both
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


@contextlib.contextmanager
def native_objects_freed() -> Iterator[None]:
    """Around calls whose frames hold objects of the library: an error that leaves them takes none of these with it.

    A traceback keeps every frame's variables. A Builder in one would live as long as the error, and where that is part
    of a reference cycle Python destroys it at any time, also while TensorRT holds its lock and calls our logger. Its
    destructor wants that lock, so the process would wait for itself for ever (seen with TensorRT for RTX 1.7).
    """
    try:
        yield
    except BaseException as error:
        forget_variables(error)
        raise


def forget_variables(error: BaseException) -> None:
    """Clear the variables of all frames that the error, its causes and its contexts have left."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            waiting += [one.__cause__, one.__context__]


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
    """The errors that the library reported, as (severity, text). It may write from any thread.

    Severity: 0 internal error, 1 error, 2 warning, 3 information, as in TensorRT's ILogger.
    """

    ERROR = 1

    def __init__(self) -> None:
        self.rows: list[tuple[int, str]] = []

    def errors(self) -> str:
        """The errors in the library's own words, shortened to one line, the last one last; "" where it gave none."""
        return in_one_line(text for severity, text in self.rows if severity <= self.ERROR)


def logger_for(trt: Any, messages: Messages) -> Any:
    """An ILogger of `trt` that writes errors to `messages`. Keep it as long as what it was given to."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            level = int(severity)
            if level <= Messages.ERROR:
                messages.rows.append((level, text))

    return Logger()


def in_one_line(texts: Iterable[str]) -> str:
    """The library's own words, each said once, without line breaks and cut to what a terminal can show."""
    return "; ".join(dict.fromkeys(map(_without_trace, texts)))[:600]


def _without_trace(text: str) -> str:
    """Without the place in the library's source, which helps nobody here."""
    return re.sub(r"\s*\(?In \w+ at \S+:\d+\)?|\. In \w+ at \S+:\d+", "", " ".join(text.split())).strip()
