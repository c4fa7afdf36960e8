"""Fixtures of the tests that disturb real processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.server import Server
from tests.faults.shim import Control, NoCompilerError, compile_shim


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes calls fail; without a C compiler, the test is skipped."""
    try:
        return compile_shim(tmp_path_factory.mktemp("shim"))
    except NoCompilerError as error:
        pytest.skip(str(error))


@pytest.fixture
def control(shim: Path, tmp_path: Path) -> Iterator[Control]:
    with Control(shim, tmp_path / "control") as control:
        yield control


@pytest.fixture(scope="session")
def disturbed(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Control, Server]]:
    """A server whose calls may fail."""
    folder = tmp_path_factory.mktemp("server")
    with Control(shim, folder / "control") as control, Server(folder, control.environment) as server:
        yield control, server
