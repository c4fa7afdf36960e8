"""The audit of one drawn data set, which several test files read."""

from pathlib import Path

import pytest

from mribatch.report.audit.audit import Audit, audit
from mribatch.report.audit.options import AuditOptions
from tests.report.audit.data_set import draw_data_set

WANTED = ("leak_rate<=0.01", "contradictory_groups<=1", "shortcut_accuracy[size]@low>=0.01", "patient_leak_rate<1")
HOSTILE = "<img src=x onerror=alert(1)>.jpg"


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return draw_data_set(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="session")
def audited(data_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """Not to be changed."""
    return audit([data_set], tmp_path_factory.mktemp("audit") / "out", AuditOptions(require=WANTED))
