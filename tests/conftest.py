"""Fixtures that every part of the suite shares."""

import os
from pathlib import Path

import pytest

from mribatch.core.synthetic import golden_slices
from mribatch.training.export.int8_bundle import add_int8, divide_slices
from tests.gpu_session import pytest_sessionfinish as pytest_sessionfinish
from tests.gpu_session import pytest_terminal_summary as pytest_terminal_summary
from tests.make_models import make_convolutional, make_tiny


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained-looking bundle of a few KB that classifies 8x8 pixels in microseconds."""
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny", trained=True)


@pytest.fixture(scope="session")
def int8_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a few KB with an INT8 graph, for 16x16 pixels."""
    folder = tmp_path_factory.mktemp("models")
    source = make_convolutional(folder / "fp32")
    add_int8(source, divide_slices(golden_slices(80, 16, 16)), folder / "int8")
    return folder / "int8"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with brain-mri/ and groups.csv, where MRIBATCH_DATA names it."""
    folder = os.environ.get("MRIBATCH_DATA")
    if not folder:
        pytest.skip("MRIBATCH_DATA is not set: the real slices are not part of the project")
    return Path(folder)
