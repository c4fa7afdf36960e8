"""SIGKILL at random moments: nothing is lost, nothing is left, nobody is orphaned."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.kills import MODES, Killer, KillMode, draw_many
from tests.faults.server import Server

KILLS = 50  # of each kind


@pytest.fixture(scope="module")
def killer(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    folder = tmp_path_factory.mktemp("kills")
    with Server(folder, os.environ) as server:
        yield Killer(folder, draw_many(folder), tiny_model, server)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_killed_at_random_moments(mode: KillMode, killer: Killer) -> None:
    if "dali" in mode.options:
        pytest.importorskip("nvidia.dali", reason="needs an extra with DALI")
    counts = killer.kill(mode, KILLS)
    assert counts.problems == []
    assert counts.kills == KILLS and counts.runs > 0
