"""Noise is left out, everything else is written, and all of it where the body fails."""

import os

import pytest

from mribatch.core.native_stderr import filtering_native_stderr


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
