"""A file system without locks is told as what it is."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.folders import draw_images, mribatch

# Answers flock under a folder as Lustre without -o flock does, or NFS without its lock service.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int flock(int descriptor, int operation) {
    static int (*real)(int, int);
    char link[64], path[4096];
    const char *folder = getenv("NO_LOCKS_UNDER");
    if (!real) real = dlsym(RTLD_NEXT, "flock");
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (folder && length > 0 && (path[length] = 0, !strncmp(path, folder, strlen(folder)))) {
        errno = atoi(getenv("NO_LOCKS_ERRNO"));
        return -1;
    }
    return real(descriptor, operation);
}
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler on Linux")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    command = [compiler, "-shared", "-fPIC", "-o", str(folder / "shim.so"), str(folder / "shim.c"), "-ldl"]
    subprocess.run(command, check=True)
    return folder / "shim.so"


@pytest.mark.parametrize("number", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_one_line(shim: Path, number: str, tiny_model: Path, tmp_path: Path) -> None:
    import errno

    draw_images(tmp_path / "data", 1)
    lustre = tmp_path / "lustre"
    lustre.mkdir()
    environment = os.environ | {
        "LD_PRELOAD": str(shim),
        "NO_LOCKS_UNDER": str(lustre),
        "NO_LOCKS_ERRNO": str(getattr(errno, number)),
    }
    out = lustre / "out"
    result = mribatch("classify", tmp_path / "data", "--out", out, "--model", tiny_model, env=environment)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1), result.stderr
    assert f"the file system of {out} has no file locks" in result.stderr and "Lustre: -o flock" in result.stderr
    assert not out.exists()
    cache = mribatch("engine", "clean", "--cache", lustre, env=environment)
    assert cache.returncode == 1 and "has no file locks" in cache.stderr and "--cache" in cache.stderr
