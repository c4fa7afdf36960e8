"""Shared by the training tests: one toy data set and one finished toy fit a session."""

from pathlib import Path

import pytest

from mribatch.training.workflow.finish import TrainResult
from tests.training import toy


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.draw_data(tmp_path_factory.mktemp("data") / "brain")


@pytest.fixture(scope="session")
def trained(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """The toy recipe trained without interruption, with figures and an INT8 graph; tests only read it."""
    pytest.importorskip("tensorflow", reason="needs the extra 'train'")
    from mribatch.training.workflow.train import train

    out = tmp_path_factory.mktemp("trained") / "toy-model"
    return train(toy.options(toy_data, out, draw_figures=True, int8=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keras 3.15 on TensorFlow 2.21 still hands NumPy arrays without the copy keyword, which is not ours to fix."""
    quiet = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(quiet)
