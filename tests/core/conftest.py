from pathlib import Path

import pytest

from tests.make_models import make_tiny


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good bundle of a few KB; read it, do not change it."""
    return make_tiny(tmp_path_factory.mktemp("tiny"))
