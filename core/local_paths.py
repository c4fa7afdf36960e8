"""Paths that a user types: refused where they are addresses, which would become folders named `s3:`."""

import os
import re
from pathlib import Path

from mribatch.core.errors import OptionError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/{1,2}[^/]")  # a drive of Windows has one letter


def check_local(path: object, what: str) -> None:
    """Refuse an address such as s3://bucket/x.

    Args:
        path: As typed; pathlib makes s3:/bucket/x of it, which is refused as well.
        what: Its name in the message, e.g. the option.

    Raises:
        OptionError: It is an address.
    """
    if _URL.match(str(path)):
        raise OptionError(
            f"{what} {path} is an address, and only local paths are supported so far",
            "name a local path, and copy the files with the tool of the storage",
        )


def arrow_path(path: Path) -> str:
    """Write a path so that Arrow takes it for one: it would take a relative `run:1/a` for an address."""
    return str(path) if path.is_absolute() else os.path.join(os.curdir, path)
