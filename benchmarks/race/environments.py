"""Virtual environments of the peers, made with pip from public packages."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.race.entrants import Entrant

REQUIREMENTS = Path(__file__).parent / "requirements"
_STAMP = ".race-requirements"
_SAME_AS_OURS = ("onnxruntime",)  # the peers with our graph run it with our version of the runtime
_VERSIONS = """
import importlib.metadata, json, platform
there = {one.name.lower(): one.version for one in importlib.metadata.distributions()}
print(json.dumps({"python": platform.python_version()} | there))
"""


class PeerError(Exception):
    """A peer cannot race; the message says why."""


def python_of(entrant: Entrant, root: Path, requirements: Path, here: bool) -> Path:
    """The interpreter for an entrant; makes its environment, or brings it up to date.

    Args:
        entrant: Who.
        root: Folder of the environments.
        requirements: Folder of ENVIRONMENT.txt files; those it lacks are taken from REQUIREMENTS.
        here: Use this environment for the peers too.

    Raises:
        PeerError: Packages are missing here, or pip failed.
    """
    if entrant.environment is None or here:
        if missing := [name for name in entrant.imports if not _importable(name)]:
            raise PeerError(f"not installed here: {', '.join(missing)}")
        return Path(sys.executable)
    return _environment(entrant.environment, root, requirements)


def versions_of(python: Path, libraries: Sequence[str]) -> Mapping[str, str]:
    """The versions that an environment has of some libraries, and of Python."""
    shown = subprocess.run([python, "-c", _VERSIONS], capture_output=True, text=True, check=True).stdout
    there: dict[str, str] = json.loads(shown)
    return {name: there[name] for name in ("python", *libraries) if name in there}


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of a parent
        return False


def _environment(name: str, root: Path, requirements: Path) -> Path:
    wanted = requirements / f"{name}.txt"
    if not wanted.exists():
        wanted = REQUIREMENTS / f"{name}.txt"
    constraints = "".join(f"{library}=={version(library)}\n" for library in _SAME_AS_OURS)
    folder = root / name
    stamp, python, content = folder / _STAMP, folder / "bin" / "python", wanted.read_text() + constraints
    if stamp.exists() and stamp.read_text() == content:
        return python
    print(f"installing {name} into {folder}", file=sys.stderr)
    if not python.exists():
        _run([sys.executable, "-m", "venv", folder], name)
    (root / f"{name}-constraints.txt").write_text(constraints)
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--requirement", wanted, "--constraint", root / f"{name}-constraints.txt"], name)
    stamp.write_text(content)
    return python


def _run(command: Sequence[str | Path], name: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise PeerError(f"its environment could not be made: {lines[-1]} (requirements: {name}.txt)")
