"""Engines on disk: what is checked before one may be loaded, and what a crash, a full disk or a rival leaves. No TensorRT."""

import dataclasses
import errno
import json
import os
import resource
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mribatch.core.bundle import Bundle, load_bundle
from mribatch.core.errors import Interrupted, MribatchError
from mribatch.trt.engine.build import SerializedEngine
from mribatch.trt.engine.cache import EngineCache, EngineRefused, find_default_folder, read_engine
from mribatch.trt.engine.progress import BuildProgress
from mribatch.trt.engine.sidecar import EngineIdentity, GateRecord, Parity, describe_model, new_sidecar, sidecar_path
from mribatch.trt.library import Flavor
from mribatch.trt.request import BatchProfile
from tests.trt.engine.watched import Watched

ENGINE = bytes(range(256)) * 40
IDENTITY = EngineIdentity(
    onnx_sha256="a" * 64,
    precision="fp16",
    batch=BatchProfile(32, 64),
    flavor=Flavor.RTX,
    version="1.7.1.116",
    target="sm89",
)


class _Silent(BuildProgress):
    def note(self, text: str) -> None:
        pytest.fail(text)


SILENT = _Silent()
OTHERS: dict[str, dict[str, Any]] = {
    "onnx_sha256": {"onnx_sha256": "b" * 64},
    "precision.mode": {"precision": "fp32"},
    "profile": {"batch": BatchProfile(64, 64)},
    "trt_flavor": {"flavor": Flavor.TENSORRT},
    "trt_version": {"version": "1.8.0.0"},
    "target": {"target": "sm86"},
}


@pytest.fixture(scope="module")
def bundle(tiny_model: Path) -> Bundle:
    return load_bundle(str(tiny_model))


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache")


def store(cache: EngineCache, bundle: Bundle, content: bytes = ENGINE, identity: EngineIdentity = IDENTITY) -> Path:
    engine = SerializedEngine(content, half_layers=9, float_layers=3, seconds=1.5, timing_cache=None)
    parity = Parity(n=8, max_abs=0.001, argmax_agree=1.0, report="holds")
    sidecar = new_sidecar(
        bundle,
        identity,
        engine,
        source_sha256="c" * 64,
        fp32_nodes=("head",),
        fp32_bytes=20480,
        gate=GateRecord(verified="cpu-emulated", parity=parity),
    )
    with cache.locked(SILENT):
        return cache.store(identity, "tiny", content, sidecar).path


def edit(path: Path, **fields: Any) -> None:
    facts = sidecar_path(path)
    facts.write_text(json.dumps(json.loads(facts.read_text()) | fields))


def refused(path: Path, identity: EngineIdentity | None = IDENTITY) -> EngineRefused:
    with pytest.raises(EngineRefused) as caught:
        read_engine(path, identity)
    assert caught.value.fix and "\n" not in str(caught.value)
    return caught.value


def test_what_was_stored_is_found(cache: EngineCache, bundle: Bundle) -> None:
    assert cache.find(IDENTITY, "tiny") is None
    path = store(cache, bundle)
    found = cache.find(IDENTITY, "tiny")
    assert found is not None and found.content == ENGINE and found.path == path
    assert path.name.endswith(".engine") and sidecar_path(path).name.endswith(".engine.json")
    assert (found.sidecar.precision.mode, found.sidecar.precision.fp32_nodes) == ("fp16", ("head",))
    assert found.sidecar.ratio_to_fp32 == 0.5 and found.sidecar.verified == "cpu-emulated"
    assert found.sidecar.target == "sm89" and found.sidecar.compute_capability == "8.9"
    assert found.sidecar.class_names == bundle.spec.classes and found.sidecar.keras_sha256 is None
    assert found.sidecar.identity == IDENTITY


@pytest.mark.parametrize(
    "training, expected",
    [
        ({"file": "mine.keras", "sha256": "d" * 64}, "d" * 64),
        ({"file": "mine.keras"}, None),
        ({"file": "mine.keras", "sha256": "unknown"}, None),
        ({"file": "mine.keras", "sha256": ["d" * 64]}, None),
        ({"file": "scans.csv", "sha256": "d" * 64}, None),
        ({"sha256": "d" * 64}, None),
    ],
)
def test_the_hash_of_the_keras_file_is_what_the_bundle_records(
    bundle: Bundle, training: dict[str, Any], expected: str | None
) -> None:
    known = dataclasses.replace(bundle, spec=dataclasses.replace(bundle.spec, training=training))
    assert describe_model(known)["keras_sha256"] == expected


def test_folder_and_files_are_the_owners_alone(cache: EngineCache, bundle: Bundle) -> None:
    path = store(cache, bundle)
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in (cache.folder, path, sidecar_path(path))}
    assert list(modes.values()) == [0o700, 0o600, 0o600]


@pytest.mark.parametrize("field", OTHERS)
def test_every_field_of_the_identity_has_a_key_of_its_own(field: str) -> None:
    other = dataclasses.replace(IDENTITY, **OTHERS[field])
    assert other.key != IDENTITY.key
    assert EngineCache(Path()).path_of(other, "tiny") != EngineCache(Path()).path_of(IDENTITY, "tiny")


@pytest.mark.parametrize("field", OTHERS)
def test_an_engine_of_another_identity_is_refused_by_the_name_of_the_field(
    cache: EngineCache, bundle: Bundle, field: str
) -> None:
    path = store(cache, bundle)
    error = refused(path, dataclasses.replace(IDENTITY, **OTHERS[field]))
    assert error.field == field and field in str(error)


def test_one_flipped_byte_is_refused(cache: EngineCache, bundle: Bundle) -> None:
    path = store(cache, bundle)
    content = bytearray(ENGINE)
    content[5000] ^= 1
    path.write_bytes(content)
    assert refused(path).field == "engine_sha256"


@pytest.mark.parametrize("size", [-1, 1])
def test_another_size_is_refused_before_anything_is_read(cache: EngineCache, bundle: Bundle, size: int) -> None:
    path = store(cache, bundle)
    os.truncate(path, len(ENGINE) + size)
    assert refused(path).field == "engine_bytes"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2}', "[" * 100_000])
def test_a_sidecar_that_is_none_is_refused(cache: EngineCache, bundle: Bundle, text: str) -> None:
    path = store(cache, bundle)
    sidecar_path(path).write_text(text)
    assert refused(path).field == "sidecar"
    assert cache.read_sidecars() == {}


@pytest.mark.parametrize(
    "name, value",
    [
        ("engine_bytes", "10240"),
        ("engine_bytes", 1e999),
        ("engine_sha256", None),
        ("onnx_sha256", 7),
        ("target", ["sm89"]),
        ("source_sha256", {}),
        ("precision", ["fp16"]),
        ("precision", {"mode": 16}),
        ("trt_version", 1.7),
        ("model_name", 1),
        ("trt_flavor", "polygraphy"),
        ("trt_flavor", ["tensorrt"]),
        ("trt_flavor", {}),
        ("ratio_to_fp32", float("nan")),
        ("seconds", "fast"),
        ("verified", True),
        ("verified", "by hand"),
        ("engine_bytes", True),
        ("engine_bytes", -1),
        ("engine_sha256", "A" * 64),
        ("target", "sm89\n"),
        ("profile", {"min": 1, "opt": 64, "max": 32}),
        ("profile", {"min": 1, "opt": 64}),
        ("class_names", "glioma"),
        ("class_names", [1]),
        ("input", None),
        ("output", {"name": 1}),
        ("fp32_bytes", 10**400),
        ("seconds", 10**400),
        ("parity", "close"),
        ("parity", {"n": 8}),
        ("builder", []),
        ("gpu_name", 4090),
    ],
)
def test_a_sidecar_with_a_field_of_another_kind_is_refused(
    cache: EngineCache, bundle: Bundle, name: str, value: Any
) -> None:
    path = store(cache, bundle)
    edit(path, **{name: value})
    assert refused(path).field == "sidecar" and cache.read_sidecars() == {}
    cache.clean(lambda sidecar: bool(sidecar.trt_flavor and sidecar.trt_version))  # as --stale asks
    assert not path.exists()


def test_what_is_no_file_is_refused_at_once_whoever_answers_for_it(cache: EngineCache, bundle: Bundle) -> None:
    path = store(cache, bundle)
    path.unlink()
    os.mkfifo(path, 0o600)  # opening it would wait for a writer
    for trusted in (False, True):
        with pytest.raises(EngineRefused, match="is not a regular file"):
            read_engine(path, trusted=trusted)
    path.unlink()
    path.symlink_to("/dev/zero")  # reading it would never end
    with pytest.raises(EngineRefused, match="is not a regular file"):
        read_engine(path, trusted=True)
    path.unlink()
    path.mkdir()
    assert refused(path).field == "mode"


def test_a_folder_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    assert refused(tmp_path / "none" / "x.engine", None).field == "engine"
    assert refused(tmp_path / "x.engine", None).field == "engine"


def test_another_sidecar_leaves_the_engine_as_it_is(cache: EngineCache, bundle: Bundle) -> None:
    path = store(cache, bundle)
    found = read_engine(path, IDENTITY)
    cache.store_sidecar(found, dataclasses.replace(found.sidecar, verified="gpu"))
    again = read_engine(path, IDENTITY)
    assert again.sidecar.verified == "gpu" and again.content == ENGINE
    assert stat.S_IMODE(sidecar_path(path).stat().st_mode) == 0o600
    assert {one.name for one in cache.folder.iterdir()} == {path.name, sidecar_path(path).name, ".lock"}


def test_an_engine_without_a_sidecar_is_refused(cache: EngineCache, bundle: Bundle) -> None:
    path = store(cache, bundle)
    sidecar_path(path).unlink()
    assert refused(path).field == "sidecar"


@pytest.mark.parametrize("which", ["folder", "engine", "sidecar"])
def test_what_others_can_write_to_is_refused_first(cache: EngineCache, bundle: Bundle, which: str) -> None:
    path = store(cache, bundle)
    path.write_bytes(b"tampered")  # the mode comes before the hash
    {"folder": cache.folder, "engine": path, "sidecar": sidecar_path(path)}[which].chmod(0o777)
    error = refused(path)
    assert error.field == "mode" and "0777" in str(error)
    if which == "folder":
        with pytest.raises(MribatchError, match="others can write"), cache.locked(SILENT):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_another_is_refused(cache: EngineCache, bundle: Bundle) -> None:
    path = store(cache, bundle)
    os.chown(path, 12345, -1)
    assert "belongs to user 12345" in str(refused(path))


def test_a_link_is_not_followed(cache: EngineCache, bundle: Bundle, tmp_path: Path) -> None:
    path = store(cache, bundle)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert refused(path).field == "engine"


def test_an_engine_that_one_answers_for_needs_its_hash_all_the_same(cache: EngineCache, bundle: Bundle) -> None:
    path = store(cache, bundle)
    cache.folder.chmod(0o777)
    assert read_engine(path, IDENTITY, trusted=True).content == ENGINE
    edit(path, engine_sha256="0" * 64)
    with pytest.raises(EngineRefused, match="engine_sha256"):
        read_engine(path, IDENTITY, trusted=True)


def test_the_old_file_is_kept_under_another_name(cache: EngineCache, bundle: Bundle) -> None:
    path = store(cache, bundle, b"first")
    for number, content in enumerate((b"second", b"third"), start=1):
        store(cache, bundle, content)
        kept = path.with_name(f"{path.name}.kept-{number}")
        assert kept.read_bytes() == (b"first", b"second")[number - 1]
    found = cache.find(IDENTITY, "tiny")
    assert found is not None and found.content == b"third"
    assert list(cache.read_sidecars()) == [path]


def test_a_full_disk_leaves_the_old_engine(cache: EngineCache, bundle: Bundle) -> None:
    path = store(cache, bundle, b"old")
    before = {one.name: one.read_bytes() for one in cache.folder.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))  # a write beyond it fails as on a full disk
    try:
        with pytest.raises(MribatchError, match=r"could not write .*Fix: free some space"):
            store(cache, bundle, ENGINE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {one.name: one.read_bytes() for one in cache.folder.iterdir()} == before
    assert read_engine(path, IDENTITY).content == b"old"


def test_a_crash_between_the_two_files_is_no_engine(cache: EngineCache, bundle: Bundle) -> None:
    path = store(cache, bundle)
    path.unlink()  # the sidecar is published first
    assert cache.find(IDENTITY, "tiny") is None and cache.read_sidecars() == {}
    store(cache, bundle)
    assert cache.find(IDENTITY, "tiny") is not None


HOLDER = """
import sys, time
from pathlib import Path
from mribatch.trt.engine.cache import EngineCache
with EngineCache(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_a_second_builder_waits_and_is_told_so(cache: EngineCache) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, cache.folder, "0.5"], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    progress = Watched()
    with cache.locked(progress):
        assert holder.wait(5) == 0
    holder.stdout.close()
    (note,) = progress.notes
    assert "waiting" in note and {step.phase for step in progress.steps} == {"waiting for another mribatch"}


def test_waiting_ends_when_the_user_wishes(cache: EngineCache) -> None:
    answers = iter([True, True, False])
    progress = Watched(lambda step: next(answers))
    with (
        cache.locked(SILENT),
        pytest.raises(Interrupted, match="waiting for another mribatch"),
        cache.locked(progress),
    ):
        pytest.fail("two builders hold one lock")
    assert not list(answers)


def test_a_file_system_without_locks_is_one_line(cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(MribatchError, match="No locks available.*--cache"), cache.locked(SILENT):
        pass


def test_what_cannot_be_deleted_is_one_line(
    cache: EngineCache, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(cache, bundle)

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(MribatchError, match="Operation not permitted"):
        cache.clean()


def test_a_killed_builder_leaves_no_lock(cache: EngineCache) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, cache.folder, "60"], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    holder.stdout.close()
    begin = time.monotonic()
    with cache.locked():
        assert time.monotonic() - begin < 5


def test_clean_deletes_what_is_ours_and_keeps_what_it_is_told(cache: EngineCache, bundle: Bundle) -> None:
    first = store(cache, bundle)
    mine = {"mine.txt", "my.engineering.txt", "best.engine", "best.engine.json", ".note.tmp", "timing-of-mine.cache"}
    second = store(cache, bundle, identity=dataclasses.replace(IDENTITY, target="sm75"))
    store(cache, bundle)  # the first one is kept under another name
    with cache.locked(SILENT):
        cache.store_timing_cache(IDENTITY, b"timings")
    for name in mine:
        (cache.folder / name).write_text("not an engine of this cache")
    assert cache.read_timing_cache(IDENTITY) == b"timings"
    engines, size = cache.clean(lambda sidecar: sidecar.target == "sm75")
    assert (engines, size > len(ENGINE)) == (1, True) and list(cache.read_sidecars()) == [second]
    assert not first.exists() and cache.read_timing_cache(IDENTITY) == b"timings"
    cache.clean()
    assert {one.name for one in cache.folder.iterdir()} == mine | {".lock"}


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MRIBATCH_CACHE", str(tmp_path / "a"))
    assert find_default_folder() == tmp_path / "a"
    monkeypatch.delenv("MRIBATCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert find_default_folder() == tmp_path / "b" / "mribatch"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification: a relative path is to be ignored
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_default_folder() == tmp_path / ".cache" / "mribatch"


def test_without_a_home_the_default_folder_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MRIBATCH_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # a container that runs under a number of no user
    with pytest.raises(MribatchError, match="has no home.*set MRIBATCH_CACHE"):
        EngineCache()


def test_a_cache_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(MribatchError, match="cannot write to the cache .*--cache"),
        EngineCache(tmp_path / "file" / "x").locked(),
    ):
        pass
