"""Paths that a user types: refused where they are addresses, which would become folders named `s3:`."""

import os
import re
from pathlib import Path

from mribatch.core.errors import OptionError
from mribatch.core.text import decode_name

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
            f"{what} {path} is an address, and this command takes local paths only",
            "name a local path, and copy the files with the tool of the storage",
        )


def arrow_path(path: Path) -> str:
    """Write a path so that Arrow takes it for one: it would take a relative `run:1/a` for an address.

    Arrow turns the text into UTF-8, whatever the locale; under LC_ALL=C Python's text of a path holds surrogates.

    Raises:
        OptionError: The name is not UTF-8.
    """
    return utf8_path(path if path.is_absolute() else os.path.join(os.curdir, path))


def utf8_path(path: str | Path, what: str = "the name") -> str:
    """The path as text whose UTF-8 bytes are its name on disk, as libraries in C++ want it.

    Raises:
        OptionError: The name is not UTF-8.
    """
    name = os.fsencode(path)
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise OptionError(
            f"{what} {decode_name(name)[0]} is not UTF-8, which the library that writes Parquet needs",
            "choose a folder whose name is UTF-8, or a symbolic link to it",
        ) from error
