"""Fixtures that every part of the suite shares."""

import os
from pathlib import Path

import pytest

from tests.make_models import make_tiny


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained-looking bundle of a few KB that classifies 8x8 pixels in microseconds."""
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny", trained=True)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with brain-mri/ and groups.csv, where MRIBATCH_DATA names it."""
    folder = os.environ.get("MRIBATCH_DATA")
    if not folder:
        pytest.skip("MRIBATCH_DATA is not set: the real slices are not part of the project")
    return Path(folder)
