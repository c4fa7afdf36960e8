import json
import os
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from mribatch.core.errors import MribatchError
from mribatch.core.files import FolderLock, publishing, sha256_of_file, write_json


def _python(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_published_file_is_whole_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "part.bin"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        with publishing(path) as temporary:
            assert temporary.name.startswith(".")
            assert temporary.parent == path.parent
            temporary.write_bytes(b"new")
            assert path.read_bytes() == b"old"
        assert reader.read() == b"old"  # who has it open keeps the old file: it was replaced, not overwritten
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["part.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [None, b"old"])
def test_an_error_while_writing_leaves_what_was_there(
    tmp_path: Path, error: type[BaseException], before: bytes | None
) -> None:
    path = tmp_path / "part.bin"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(error), publishing(path) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert (path.read_bytes() if path.exists() else None) == before
    assert os.listdir(tmp_path) == ([] if before is None else ["part.bin"])


def test_nothing_written_is_an_error_not_an_empty_file(tmp_path: Path) -> None:
    with (
        pytest.raises(MribatchError, match=r"could not write .*part\.bin: No such file"),
        publishing(tmp_path / "part.bin"),
    ):
        pass
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_is_one_line_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(MribatchError) as caught, publishing(tmp_path / "gone" / "a") as temporary:
        temporary.write_bytes(b"x")
    assert str(caught.value) == (
        f"could not write {tmp_path}/gone/a: No such file or directory. "
        f"Fix: make sure that the folder {tmp_path}/gone exists and that you may write to it"
    )


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from mribatch.core.errors import MribatchError
from mribatch.core.files import publishing
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with publishing(Path(sys.argv[1])) as temporary:
        temporary.write_bytes(bytes(1_000_000))
except MribatchError as error:
    print(error)
"""


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_full_disk_leaves_what_was_there_and_no_rest(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "part.bin"
    if before is not None:
        path.write_bytes(before)
    said, _ = _python(FULL_DISK, path).communicate(timeout=60)
    assert said == f"could not write {path}: File too large. Fix: free some space and try again\n"
    assert (path.read_bytes() if path.exists() else None) == before
    assert os.listdir(tmp_path) == ([] if before is None else ["part.bin"])


KILLED = """
import os, signal, sys
from pathlib import Path
from mribatch.core.files import publishing
with publishing(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_the_old_file_and_the_next_one_is_not_in_its_way(tmp_path: Path) -> None:
    path = tmp_path / "part.bin"
    path.write_bytes(b"old")
    process = _python(KILLED, path)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    with publishing(path) as temporary:
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["part.bin"]


def test_json_is_read_back_and_nan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_json(path, {"name": "Größe", "count": 3})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "Größe", "count": 3}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"p": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8"))["count"] == 3


def test_hash_of_a_file_of_several_blocks(tmp_path: Path) -> None:
    content = os.urandom(3_000_001)
    (tmp_path / "a").write_bytes(content)
    assert sha256_of_file(tmp_path / "a") == sha256(content).hexdigest()


HOLDER = """
import sys
from pathlib import Path
from mribatch.core.files import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_keeps_a_second_process_out_and_dies_with_its_holder(tmp_path: Path) -> None:
    holder = _python(HOLDER, tmp_path)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(MribatchError) as caught, FolderLock(tmp_path):
            pass
        assert str(caught.value) == (
            f"another mribatch run is writing to {tmp_path}. Fix: wait for it to end, or stop it"
        )
    finally:
        holder.kill()
        holder.communicate(timeout=60)
    with FolderLock(tmp_path):
        pass


def test_a_lock_is_free_after_use_and_after_an_error(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with lock, pytest.raises(MribatchError), FolderLock(tmp_path):
        pass
    with pytest.raises(KeyError), lock:
        raise KeyError
    with lock:
        pass


def test_a_child_process_does_not_inherit_the_lock(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        child = subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            close_fds=False,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"\n"
    try:
        with FolderLock(tmp_path):
            pass
    finally:
        child.kill()
        child.communicate(timeout=60)


def test_a_lock_in_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(MribatchError, match=r"could not write .*/gone/\.lock: No such file"),
        FolderLock(tmp_path / "gone"),
    ):
        pass


def test_names_whose_bytes_are_not_text_survive_json(tmp_path: Path) -> None:
    """Under LC_ALL=C, Python's text of a file name holds surrogates, which UTF-8 lacks."""
    content = {"path": b"sch\xc3\xa9ma".decode("ascii", "surrogateescape"), "other": "schéma"}
    write_json(tmp_path / "run.json", content)
    assert json.loads((tmp_path / "run.json").read_text("utf-8")) == content
