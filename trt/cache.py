"""Engines on disk, each beside its sidecar, in a folder that only its owner may write to.

An engine is native code: loading one is running it. So a file is looked at in this order, and the first thing that does
not fit refuses it: owner and mode, sidecar, sha256, library and version, compute capability, the rest of the identity.
Only then may a library deserialise it. Source: https://docs.nvidia.com/deeplearning/tensorrt/latest/reference/security.html
"""

import contextlib
import fcntl
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from mribatch.errors import MribatchError
from mribatch.files import publishing
from mribatch.trt.sidecar import EngineIdentity, parse_sidecar, sidecar_path

SUFFIX = ".engine"
ENVIRONMENT = "MRIBATCH_CACHE"
_KEPT = ".kept-"  # in the name of an engine that was refused and replaced
_LOCK = ".lock"
_TIMING = "timing-"
# Every name that this cache gives, but the lock's.
_OURS = re.compile(
    r".+-fp(16|32)-tensorrt(-rtx)?-sm\d+-[0-9a-f]{16}\.engine(\.json)?(\.kept-\d+)?(\.tmp)?"
    r"|\.?timing-tensorrt-.+-sm\d+\.cache(\.tmp)?"
)
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_REBUILD = "build it again: mribatch engine build"


class EngineRefused(MribatchError):
    """An engine that must not be loaded. `field` is what does not fit."""

    def __init__(self, field: str, problem: str, fix: str = _REBUILD) -> None:
        super().__init__(problem, fix)
        self.field = field


@dataclass(frozen=True)
class EngineFile:
    """An engine that has been checked. content: its bytes, whose sha256 is the sidecar's; use these, not the file."""

    path: Path
    content: bytes
    sidecar: Mapping[str, Any]


def default_folder() -> Path:
    """MRIBATCH_CACHE, else mribatch/ in the user's cache (XDG_CACHE_HOME, else ~/.cache)."""
    if chosen := os.environ.get(ENVIRONMENT):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "mribatch"


class EngineCache:
    """One folder of engines.

    Args:
        folder: None: `default_folder`. It is made, with mode 0700, when something is written.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder if folder is not None else default_folder()

    def path_of(self, identity: EngineIdentity, model_name: str) -> Path:
        """Where the engine lies, or will lie; readable for people, unique by the key."""
        name = f"{model_name}-{identity.precision}-{identity.flavour}-{identity.target}-{identity.key[:16]}"
        return self.folder / (name + SUFFIX)

    def find(self, identity: EngineIdentity, model_name: str) -> EngineFile | None:
        """The engine, checked; None where there is none.

        Raises:
            EngineRefused: There is one, and it does not fit.
        """
        path = self.path_of(identity, model_name)
        if not path.exists() and not path.is_symlink():
            return None
        return read_engine(path, identity)

    def sidecars(self) -> dict[Path, dict[str, Any]]:
        """Engine -> its sidecar, for every readable one, by name. The engines are not looked at."""
        found = {}
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            with contextlib.suppress(MribatchError, OSError):
                found[path] = parse_sidecar(_read_private(sidecar_path(path)), sidecar_path(path))
        return found

    @contextlib.contextmanager
    def locked(self, waiting: Callable[[str], None]) -> Iterator[None]:
        """Hold the folder's lock: one builder at a time, so that one's load does not spoil another's timings.

        `waiting` is told once if another holds it. The kernel drops the lock when a process dies.
        """
        self._make_folder()
        try:
            descriptor = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting(f"another mribatch is at work in {self.folder}; waiting for it")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def store(
        self, identity: EngineIdentity, model_name: str, content: bytes, sidecar: Mapping[str, Any]
    ) -> EngineFile:
        """Publish an engine and its sidecar; hold the lock. What lay there under the same name is kept under another.

        Raises:
            MribatchError: The disk is full or refuses; what was there before is still there.
        """
        path = self.path_of(identity, model_name)
        text = json.dumps(sidecar, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            with publishing(path) as engine, publishing(sidecar_path(path)) as facts:
                _write_private(engine, content)
                _write_private(facts, text.encode())
                _set_aside(path)
        except MribatchError as error:
            raise MribatchError(error.problem, "free some space, or name another folder with --cache") from error
        return EngineFile(path, content, sidecar)

    def timing_cache(self, identity: EngineIdentity) -> bytes | None:
        """What TensorRT measured in earlier builds with this version on this kind of GPU."""
        try:
            return _read_private(self._timing_path(identity))
        except (OSError, MribatchError):
            return None

    def store_timing_cache(self, identity: EngineIdentity, content: bytes) -> None:
        """Keep it for the next build; hold the lock. A disk that refuses costs time only."""
        with contextlib.suppress(MribatchError), publishing(self._timing_path(identity)) as temporary:
            _write_private(temporary, content)

    def clean(self, keep: Callable[[Mapping[str, Any]], bool] | None = None) -> tuple[int, int]:
        """Delete every engine but those for whose sidecar `keep` is true, and what belongs to none; hold the lock.

        Only files with names that this cache gives are touched.

        Returns:
            How many engines, and how many bytes of all files.
        """
        kept = {path for path, sidecar in self.sidecars().items() if keep and keep(sidecar)}
        stay = kept | {sidecar_path(path) for path in kept}
        engines = size = 0
        for path in sorted(self.folder.iterdir()):
            of_use = path in stay or (kept and path.name.startswith(_TIMING))
            if of_use or not _OURS.fullmatch(path.name) or path.is_dir():
                continue
            engines += path.name.endswith(SUFFIX)
            size += path.lstat().st_size
            path.unlink()
        return engines, size

    def _timing_path(self, identity: EngineIdentity) -> Path:
        return self.folder / f"{_TIMING}{identity.flavour}-{identity.version}-{identity.target}.cache"

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = self.folder.stat()
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        problem = _foreign(facts)
        if problem:
            raise MribatchError(
                f"the cache {self.folder} {problem}", f"chmod 700 {self.folder}, or name another with --cache"
            )


def read_engine(path: Path, identity: EngineIdentity | None = None, *, trusted: bool = False) -> EngineFile:
    """Read an engine and prove that it is what its sidecar says. Loads no library.

    Args:
        path: x.engine, beside x.engine.json.
        identity: What it must be; None: whatever its sidecar says.
        trusted: The user answers for the file: it may belong to another.

    Raises:
        EngineRefused: Something does not fit; `field` says what.
    """
    facts_path = sidecar_path(path)
    if not trusted:
        _check_private(path.parent)
    content = _read(path, trusted)
    sidecar = parse_sidecar(_read(facts_path, trusted), facts_path)
    digest = sha256(content).hexdigest()
    if sidecar.get("engine_sha256") != digest:
        raise EngineRefused("engine_sha256", f"{path} has engine_sha256 {digest[:16]}…, its sidecar says "
                            f"{str(sidecar.get('engine_sha256'))[:16]}…")  # fmt: skip
    difference = identity.difference(sidecar) if identity else None
    if difference:
        raise EngineRefused(difference.split(" is ")[0], f"{path} does not fit: {difference}")
    return EngineFile(path, content, sidecar)


def _read(path: Path, trusted: bool) -> bytes:
    try:
        return path.read_bytes() if trusted else _read_private(path)
    except OSError as error:
        what = "sidecar" if path.suffix == ".json" else "engine"
        raise EngineRefused(what, f"cannot read {path}: {error.strerror}") from error


def _check_private(folder: Path) -> None:
    problem = _foreign(folder.stat())
    if problem:
        raise EngineRefused("mode", f"the folder {folder} {problem}", f"chmod 700 {folder}, or give --trust-engine")


def _read_private(path: Path) -> bytes:
    """The content of a regular file of the user's own that nobody else can write to; no link is followed.

    Raises:
        EngineRefused: It is another's.
        OSError: It cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        facts = os.fstat(descriptor)
        problem = _foreign(facts) if stat.S_ISREG(facts.st_mode) else "is no regular file"
        if problem:
            raise EngineRefused("mode", f"{path} {problem}", f"delete it and {_REBUILD}")
        return stream.read()


def _foreign(facts: os.stat_result) -> str | None:
    if facts.st_uid != os.geteuid():
        return f"belongs to user {facts.st_uid}, not to you ({os.geteuid()})"
    if facts.st_mode & _WRITABLE_BY_OTHERS:
        return f"has mode {stat.S_IMODE(facts.st_mode):04o}: others can write to it"
    return None


def _write_private(path: Path, content: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # of a builder that was killed
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(descriptor)  # a disk that is full must say so before anything is moved


def _set_aside(path: Path) -> None:
    """Give a refused engine and its sidecar a name under which nothing looks for them."""
    old = [one for one in (path, sidecar_path(path)) if one.exists() or one.is_symlink()]
    number = 1
    while any(one.with_name(f"{one.name}{_KEPT}{number}").exists() for one in old):
        number += 1
    for one in old:
        one.rename(one.with_name(f"{one.name}{_KEPT}{number}"))


def _unwritable(folder: Path, error: OSError) -> MribatchError:
    return MribatchError(f"cannot write to the cache {folder}: {error.strerror or error}",
                         "name another folder with --cache, or set MRIBATCH_CACHE")  # fmt: skip
