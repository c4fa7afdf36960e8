"""Engines on disk, each beside its sidecar, in a folder that only its owner may write to.

An engine is native code: loading one runs it. So a file is checked in this order, and the first thing that does not
fit refuses it: owner and mode, sidecar, sha256, library and version, compute capability, the rest of the identity.
Only then may a library deserialize it. Source: https://docs.nvidia.com/deeplearning/tensorrt/latest/reference/security.html
"""

import contextlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from mribatch.core.errors import MribatchError, NoLocksError
from mribatch.core.files import publishing
from mribatch.core.locks import open_lock_file, take_lock
from mribatch.trt.engine.progress import BuildProgress, BuildStep, interrupted
from mribatch.trt.engine.sidecar import (
    MAX_SIDECAR_BYTES,
    EngineIdentity,
    EngineSidecar,
    parse_sidecar,
    sidecar_path,
)
from mribatch.trt.tuning import SCHEMA, Tuning, TuningFile, TuningKey

SUFFIX = ".engine"
ENVIRONMENT = "MRIBATCH_CACHE"
_KEPT = ".kept-"  # in the name of an engine that was refused and replaced
_LOCK = ".lock"
_POLL_S = 0.1  # how often a waiting builder tries the lock, and reports a step
_TIMING = "timing-"
_KERNELS = "kernels-"
_TUNING = "tuning-"
_MAX_TUNING_BYTES = 1 << 16
_DIGEST_BYTES = 32
# Every name that this cache gives, but the lock's.
_OURS = re.compile(
    r".+-fp(16|32)-tensorrt(-rtx)?-sm\d+-[0-9a-f]{16}\.engine(\.json)?(\.kept-\d+)?(\.tmp)?"
    r"|\.?timing-tensorrt-.+-sm\d+\.cache(\.tmp)?"
    r"|\.?kernels-[0-9a-f]{64}\.cache(\.tmp)?"
    r"|\.?tuning-[0-9a-f]{16}\.json(\.tmp)?"
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
    sidecar: EngineSidecar


def find_default_folder() -> Path:
    """MRIBATCH_CACHE, else mribatch/ in the user's cache (Linux: XDG_CACHE_HOME, else ~/.cache).

    Raises:
        MribatchError: The user has no home folder, as in a container that runs under any number.
    """
    if chosen := os.environ.get(ENVIRONMENT):
        return Path(chosen)
    from platformdirs import user_cache_path

    try:
        folder = user_cache_path("mribatch", appauthor=False)
    except RuntimeError:  # Python: "Could not determine home directory."
        folder = Path()
    if not folder.is_absolute():
        raise MribatchError(
            "there is no folder for engines: the user has no home", f"name one with --cache, or set {ENVIRONMENT}"
        )
    return folder


class EngineCache:
    """One folder of engines.

    Args:
        folder: None: `find_default_folder`. It is made, with mode 0700, when something is written.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder if folder is not None else find_default_folder()

    def path_of(self, identity: EngineIdentity, model_name: str) -> Path:
        """The engine's path, whether it exists or not; readable for people, unique by the key."""
        name = f"{model_name}-{identity.precision}-{identity.flavor}-{identity.target}-{identity.key[:16]}"
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

    def read_sidecars(self) -> dict[Path, EngineSidecar]:
        """Engine -> its sidecar, for every readable one, by name. The engines themselves are not read."""
        found = {}
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            with contextlib.suppress(MribatchError):
                facts = sidecar_path(path)
                found[path] = parse_sidecar(_read_private(facts, MAX_SIDECAR_BYTES + 1), facts)
        return found

    @contextlib.contextmanager
    def locked(self, progress: BuildProgress | None = None) -> Iterator[None]:
        """Hold the folder's lock: one builder at a time, so that one's load does not spoil another's timings.

        The kernel drops the lock when a process dies.

        Args:
            progress: Receives a note if another process holds the lock, and then a step again and again.

        Raises:
            MribatchError: The folder cannot be used.
            Interrupted: `progress.step` returned False.
        """
        progress = progress or BuildProgress()
        self._make_folder()
        try:
            descriptor = open_lock_file(self.folder / _LOCK, 0o600, os.O_NOFOLLOW)
        except OSError as error:
            raise _make_unwritable_error(self.folder, error) from error
        try:
            if not self._take_lock(descriptor):
                progress.note(f"another mribatch is at work in {self.folder}; waiting for it")
            while not self._take_lock(descriptor):
                if not progress.step(BuildStep(0, 1, "waiting for another mribatch")):
                    raise interrupted("waiting for another mribatch")
                time.sleep(_POLL_S)
            yield
        finally:
            os.close(descriptor)

    def store(self, identity: EngineIdentity, model_name: str, content: bytes, sidecar: EngineSidecar) -> EngineFile:
        """Publish an engine and its sidecar; hold the lock. What lay there under the same name is kept under another.

        Raises:
            MribatchError: The disk is full or refuses; what was there before is still there, under one of its names.
        """
        path = self.path_of(identity, model_name)
        with _fix_for_cache(), publishing(path) as engine, publishing(sidecar_path(path)) as facts:
            _write_private(engine, content)
            _write_private(facts, _format_json(sidecar))
            _set_aside(path)
        return EngineFile(path, content, sidecar)

    def store_sidecar(self, engine: EngineFile, sidecar: EngineSidecar) -> EngineFile:
        """Replace the sidecar of an engine that stays as it is; hold the lock.

        Raises:
            MribatchError: The disk is full or refuses; the sidecar is still what it was.
        """
        with _fix_for_cache(), publishing(sidecar_path(engine.path)) as facts:
            _write_private(facts, _format_json(sidecar))
        return EngineFile(engine.path, engine.content, sidecar)

    def read_timing_cache(self, identity: EngineIdentity) -> bytes | None:
        """What TensorRT measured in earlier builds with this version on this kind of GPU."""
        try:
            return _read_private(self._timing_path(identity))
        except EngineRefused:
            return None

    def store_timing_cache(self, identity: EngineIdentity, content: bytes) -> None:
        """Keep it for the next build; hold the lock. A disk that refuses costs time only."""
        with contextlib.suppress(MribatchError), publishing(self._timing_path(identity)) as temporary:
            _write_private(temporary, content)

    def read_kernels(self, engine_sha256: str) -> bytes | None:
        """What TensorRT for RTX compiled for an engine; None where nothing is kept, or the file is damaged."""
        try:
            content = _read_private(self._kernels_path(engine_sha256))
        except EngineRefused:
            return None
        digest, kernels = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        return kernels if sha256(kernels).digest() == digest else None

    def store_kernels(self, engine_sha256: str, kernels: bytes) -> None:
        """Keep them for the next start, without the lock: whatever a second process does to the file is found when it
        is read. A disk that refuses costs time only.
        """
        with contextlib.suppress(MribatchError), publishing(self._kernels_path(engine_sha256)) as temporary:
            _write_private(temporary, sha256(kernels).digest() + kernels)

    def read_tuning(self, key: TuningKey) -> Tuning | None:
        """What was measured for this very GPU, bundle and libraries; None where nothing is kept, or it is damaged."""
        try:
            content = _read_private(self.folder / key.file_name, _MAX_TUNING_BYTES)
        except EngineRefused:
            return None
        found = TuningFile.parse(content, key)
        return found.tuning if found is not None else None

    def store_tuning(self, key: TuningKey, tuning: Tuning) -> Path:
        """Keep it for later runs; return where.

        Raises:
            MribatchError: The disk is full or refuses.
        """
        self._make_folder()
        path = self.folder / key.file_name
        with _fix_for_cache(), publishing(path) as temporary:
            _write_private(temporary, TuningFile(schema=SCHEMA, key=key, tuning=tuning).to_bytes())
        return path

    def clean(self, keep: Callable[[EngineSidecar], bool] | None = None) -> tuple[int, int]:
        """Delete every engine but those for whose sidecar `keep` is true, and what belongs to none; hold the lock.

        Only files with names that this cache gives are touched.

        Returns:
            How many engines, and how many bytes of all files.

        Raises:
            MribatchError: A file cannot be deleted.
        """
        kept = {path: sidecar for path, sidecar in self.read_sidecars().items() if keep and keep(sidecar)}
        stay = {*kept, *map(sidecar_path, kept)}
        stay |= {self._kernels_path(sidecar.engine_sha256) for sidecar in kept.values()}
        engines = size = 0
        for path in sorted(self.folder.iterdir()):
            of_use = path in stay or (kept and path.name.startswith((_TIMING, _TUNING)))
            if of_use or not _OURS.fullmatch(path.name) or path.is_dir():
                continue
            try:
                size += path.lstat().st_size
                path.unlink()
            except OSError as error:
                raise _make_unwritable_error(self.folder, error) from error
            engines += path.name.endswith(SUFFIX)
        return engines, size

    def _take_lock(self, descriptor: int) -> bool:
        try:
            return take_lock(descriptor, self.folder / _LOCK)
        except NoLocksError as error:
            raise NoLocksError(
                error.problem, f"name a folder on a local disk with --cache, or set {ENVIRONMENT}"
            ) from error
        except OSError as error:
            raise _make_unwritable_error(self.folder, error) from error

    def _timing_path(self, identity: EngineIdentity) -> Path:
        return self.folder / f"{_TIMING}{identity.flavor}-{identity.version}-{identity.target}.cache"

    def _kernels_path(self, engine_sha256: str) -> Path:
        return self.folder / f"{_KERNELS}{engine_sha256}.cache"

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = self.folder.stat()
        except OSError as error:
            raise _make_unwritable_error(self.folder, error) from error
        problem = _find_foreign(facts)
        if problem:
            raise MribatchError(
                f"the cache {self.folder} {problem}", f"chmod 700 {self.folder}, or name another with --cache"
            )


def read_engine(path: Path, identity: EngineIdentity | None = None, *, trusted: bool = False) -> EngineFile:
    """Read an engine and check that it is what its sidecar says. Loads no library.

    Args:
        path: x.engine, beside x.engine.json.
        identity: What it must be; None: whatever its sidecar says.
        trusted: The user answers for the file: it may belong to another, or be a link.

    Raises:
        EngineRefused: Something does not fit; `field` says what.
    """
    facts_path = sidecar_path(path)
    if not trusted:
        _check_private(path.parent)
    with _open_checked(path, trusted) as stream:
        with _open_checked(facts_path, trusted) as facts:
            text = facts.read(MAX_SIDECAR_BYTES + 1)
        sidecar = _parse(text, facts_path)
        size = os.fstat(stream.fileno()).st_size
        if size != sidecar.engine_bytes:
            raise EngineRefused(
                "engine_bytes", f"{path} has engine_bytes {size}, its sidecar says {sidecar.engine_bytes}"
            )
        content = stream.read(size)
    digest = sha256(content).hexdigest()
    if sidecar.engine_sha256 != digest:
        raise EngineRefused(
            "engine_sha256",
            f"{path} has engine_sha256 {digest[:16]}…, its sidecar says {sidecar.engine_sha256[:16]}…",
        )
    difference = identity.find_difference(sidecar.identity) if identity else None
    if difference:
        raise EngineRefused(difference[0], f"{path} does not fit: {difference[1]}")
    return EngineFile(path, content, sidecar)


def _parse(content: bytes, path: Path) -> EngineSidecar:
    try:
        return parse_sidecar(content, path)
    except MribatchError as error:
        raise EngineRefused("sidecar", error.problem) from error


def _check_private(folder: Path) -> None:
    try:
        problem = _find_foreign(folder.stat())
    except OSError as error:
        raise EngineRefused("engine", f"cannot read {folder}: {error.strerror}", "name an engine's file") from error
    if problem:
        raise EngineRefused("mode", f"the folder {folder} {problem}", f"chmod 700 {folder}, or give --trust-engine")


@contextlib.contextmanager
def _open_checked(path: Path, trusted: bool = False) -> Iterator[BinaryIO]:
    """A regular file, open for reading; where it is not trusted, the user's own that nobody else can write to, no link.

    What is checked is what is read: both go through one descriptor.

    Raises:
        EngineRefused: It is another's, or cannot be read.
    """
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not block before it is refused
        descriptor = os.open(path, flags if trusted else flags | os.O_NOFOLLOW)
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise EngineRefused("mode", f"{path} is not a regular file", f"name an engine's file, or {_REBUILD}")
            problem = None if trusted else _find_foreign(facts)
            if problem:
                raise EngineRefused("mode", f"{path} {problem}", f"delete it and {_REBUILD}")
            with open(descriptor, "rb", closefd=False) as stream:
                yield stream
        finally:
            os.close(descriptor)
    except OSError as error:
        what = "sidecar" if path.suffix == ".json" else "engine"
        raise EngineRefused(what, f"cannot read {path}: {error.strerror or error}") from error


def _read_private(path: Path, limit: int = -1) -> bytes:
    """At most `limit` bytes of a file. Raises EngineRefused, as `_open_checked`."""
    with _open_checked(path) as stream:
        return stream.read(limit)


def _find_foreign(facts: os.stat_result) -> str | None:
    if facts.st_uid != os.geteuid():
        return f"belongs to user {facts.st_uid}, not to you ({os.geteuid()})"
    if facts.st_mode & _WRITABLE_BY_OTHERS:
        return f"has mode {stat.S_IMODE(facts.st_mode):04o}: others can write to it"
    return None


@contextlib.contextmanager
def _fix_for_cache() -> Iterator[None]:
    """The fix for what `publishing` raises: it knows nothing of a cache."""
    try:
        yield
    except MribatchError as error:
        raise MribatchError(error.problem, "free some space, or name another folder with --cache") from error


def _format_json(sidecar: EngineSidecar) -> bytes:
    return (json.dumps(sidecar.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


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


def _make_unwritable_error(folder: Path, error: OSError) -> MribatchError:
    return MribatchError(
        f"cannot write to the cache {folder}: {error.strerror or error}",
        "name another folder with --cache, or set MRIBATCH_CACHE",
    )
