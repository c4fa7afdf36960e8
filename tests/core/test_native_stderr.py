"""Noise is left out, everything else is written, and all of it where the body fails."""

import os
import sys

import pytest

from mribatch.core.native_stderr import filtering_native_stderr, without_native_stderr


def is_noise(line: str) -> bool:
    return line.startswith("I0000")


def test_only_noise_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    with filtering_native_stderr(is_noise):
        os.write(2, b"I0000 built with this\nE0000 a real error\n")
    assert capfd.readouterr().err == "E0000 a real error\n"


def test_everything_is_written_where_the_body_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ImportError), filtering_native_stderr(is_noise):
        os.write(2, b"I0000 built with this\n")
        raise ImportError
    assert capfd.readouterr().err == "I0000 built with this\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_stderr_ends_nothing() -> None:
    saved, full = os.dup(2), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 2)
    try:
        with filtering_native_stderr(is_noise):
            os.write(2, b"E0000 a real error\n")
        with without_native_stderr():
            print("a line that is lost", file=sys.stderr)
    finally:
        os.dup2(saved, 2)
        os.close(full)
        os.close(saved)
