"""TensorRT and TensorRT for RTX: which is installed, in which version, and the module itself, loaded on demand.

Both flavors are used through one strongly typed path, with names that exist in TensorRT 10.12 to 11 and in TensorRT
for RTX 1.7 (tests/trt/test_api_contract.py). What only one flavor has is in the two modules rtx.py and nowhere else.
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
from mribatch.core.install import install_command
from mribatch.trt.gpu import format_cuda_install


class Flavor(StrEnum):
    """The two libraries that build engines. Neither can use an engine of the other."""

    TENSORRT = "tensorrt"
    RTX = "tensorrt-rtx"


NAMES = {Flavor.TENSORRT: "TensorRT", Flavor.RTX: "TensorRT for RTX"}
"""As the libraries call themselves."""

_MODULES = {Flavor.TENSORRT: "tensorrt", Flavor.RTX: "tensorrt_rtx"}
# The distributions that carry the module's binary; their version is the module's own, and asking for it loads nothing.
_DISTRIBUTIONS = {
    Flavor.TENSORRT: ("tensorrt-cu13-bindings", "tensorrt-cu12-bindings", "tensorrt"),
    Flavor.RTX: ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings", "tensorrt-rtx"),
}


def _format_install(flavor: Flavor) -> str:
    """The command that installs it; for TensorRT, the extras that bring CUDA's packages, too."""
    return install_command("rtx") if flavor is Flavor.RTX else format_cuda_install()


def find_installed_version(flavor: Flavor) -> str | None:
    """The library's version, from the metadata of its package; None where it is not installed. Loads nothing."""
    for name in _DISTRIBUTIONS[flavor]:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def find_installed_flavors() -> list[Flavor]:
    """The flavors that are installed, TensorRT first. Not each is for every GPU: see `mribatch.trt.support`."""
    return [flavor for flavor in Flavor if find_installed_version(flavor)]


def require_version(flavor: Flavor) -> str:
    """The installed version.

    Raises:
        MribatchError: It is not installed; names the extra.
    """
    found = find_installed_version(flavor)
    if found is None:
        raise make_missing_error(flavor)
    return found


def load_library(flavor: Flavor) -> Any:
    """The module `tensorrt` or `tensorrt_rtx`.

    Raises:
        MribatchError: It is not installed, or its libraries do not load.
    """
    try:
        return import_module(_MODULES[flavor])
    except ModuleNotFoundError as error:
        if error.name != _MODULES[flavor]:
            raise _make_broken_error(flavor, error) from error
        raise make_missing_error(flavor) from error
    except (ImportError, OSError, RuntimeError) as error:  # a shared library of its own that does not load
        raise _make_broken_error(flavor, error) from error


@contextlib.contextmanager
def freeing_native_objects() -> Iterator[None]:
    """Around calls whose frames hold objects of the library: an error that leaves them takes none of these with it.

    A traceback keeps every frame's variables. A Builder in one would live as long as the error, and where that is part
    of a reference cycle Python destroys it at any time, also while TensorRT holds its lock and calls our logger. Its
    destructor wants that lock, so the process would deadlock (seen with TensorRT for RTX 1.7).
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


def make_missing_error(flavor: Flavor) -> MribatchError:
    """The error for a flavor that is wanted and not installed."""
    return MribatchError(f"{flavor} is not installed", _format_install(flavor))


def make_nothing_installed_error() -> MribatchError:
    """The error where neither flavor is installed."""
    return MribatchError(
        "neither TensorRT nor TensorRT for RTX is installed",
        f"{format_cuda_install()}, or {install_command('rtx')}, which also builds engines without a GPU",
    )


def _make_broken_error(flavor: Flavor, error: Exception) -> MribatchError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return MribatchError(f"{flavor} {find_installed_version(flavor)} does not load: {reason}", _format_install(flavor))


class Messages:
    """The errors that the library reported, as (severity, text). It may write from any thread.

    Severity: 0 internal error, 1 error, 2 warning, 3 information, as in TensorRT's ILogger.
    """

    ERROR = 1

    def __init__(self) -> None:
        self.rows: list[tuple[int, str]] = []

    def errors(self) -> str:
        """The errors in the library's own words, shortened to one line, the last one last; "" where it gave none."""
        return join_messages(text for severity, text in self.rows if severity <= self.ERROR)


def make_logger(trt: Any, messages: Messages) -> Any:
    """An ILogger of `trt` that writes errors to `messages`. Keep it as long as what it was given to."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            level = int(severity)
            if level <= Messages.ERROR:
                messages.rows.append((level, text))

    return Logger()


def join_messages(texts: Iterable[str]) -> str:
    """Join the library's messages: each one once, without line breaks, cut to what a terminal can show."""
    return "; ".join(dict.fromkeys(map(_strip_trace, texts)))[:600]


def _strip_trace(text: str) -> str:
    """Remove the position in the library's own source, which helps no user."""
    return re.sub(r"\s*\(?In \w+ at \S+:\d+\)?|\. In \w+ at \S+:\d+", "", " ".join(text.split())).strip()


def make_refusal(flavor: Flavor, action: str, reason: str, fix: str) -> MribatchError:
    """The error for something that the library refuses; reason: in its own words, or ""."""
    return MribatchError(f"{flavor} cannot {action}{': ' if reason else ''}{reason}", fix)
