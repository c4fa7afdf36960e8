"""The command that installs an extra, or mribatch anew, from wherever this copy of it came.

The name is not on PyPI, so `pip install mribatch` would fail, or one day install a stranger's package. pip records the
origin of what it installs in direct_url.json (PEP 610).
"""

import json
import os
import shlex
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from mribatch.core.about import __version__

_NAME = "mribatch"


def install_command(extra: str | None = None, *, reinstall: bool = False) -> str:
    """Return the pip command, to be typed in a shell.

    Args:
        extra: E.g. "dali"; None: no extra.
        reinstall: Install everything again, also what is there.
    """
    checkout = find_checkout(Path(__file__).resolve().parents[1])
    return format_command(extra, checkout=checkout, origin=_read_origin(), reinstall=reinstall)


def format_command(
    extra: str | None, *, checkout: Path | None, origin: Mapping[str, Any] | None, reinstall: bool = False
) -> str:
    """Return the pip command for a copy of this origin.

    Args:
        extra: None: no extra.
        checkout: Folder of the sources that run; None: an installed copy runs.
        origin: Content of direct_url.json; None: the copy came from an index.
        reinstall: Install everything again.
    """
    suffix = f"[{extra}]" if extra else ""
    words = ["pip", "install", *(["--force-reinstall"] if reinstall else [])]
    if checkout is not None:
        place = "." if _is_current(checkout) else str(checkout)
        return _join([*words, "-e", place + suffix])
    return _join([*words, _format_requirement(suffix, origin)])


def find_checkout(folder: Path) -> Path | None:
    """Return the folder if it is a checkout of mribatch, where setup.cfg lies beside the packages."""
    try:
        lines = (folder / "setup.cfg").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return folder if f"name = {_NAME}" in lines else None


def _format_requirement(suffix: str, origin: Mapping[str, Any] | None) -> str:
    if origin is None:
        return f"{_NAME}{suffix}=={__version__}"  # the index that it came from must be the one that pip asks
    url = str(origin.get("url", ""))
    if url.startswith("file:"):
        return url2pathname(urlparse(url).path) + suffix
    vcs = origin.get("vcs_info")
    if isinstance(vcs, Mapping):
        revision = vcs.get("requested_revision") or vcs.get("commit_id")
        url = f"{vcs.get('vcs', 'git')}+{url}" + (f"@{revision}" if revision else "")
    return f"{_NAME}{suffix} @ {url}"


def _read_origin() -> Mapping[str, Any] | None:
    try:
        text = distribution(_NAME).read_text("direct_url.json")
        origin = json.loads(text) if text else None
    except (PackageNotFoundError, ValueError):
        return None
    return origin if isinstance(origin, dict) else None


def _is_current(folder: Path) -> bool:
    try:
        return Path.cwd() == folder
    except OSError:  # the current folder was deleted
        return False


def _join(words: list[str]) -> str:
    if os.name == "nt":
        return subprocess.list2cmdline(words)
    return shlex.join(words)
