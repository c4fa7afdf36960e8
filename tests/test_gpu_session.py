"""`make test-gpu` on a machine where no test can run is a failure with the reason, not a success."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = """
import pytest
@pytest.mark.gpu
def test_one(): {first}
@pytest.mark.gpu
def test_two(): pytest.skip("no GPU: no NVIDIA driver is loaded")
def test_other(): pass
"""


@pytest.mark.parametrize(
    ("first", "markers", "code"),
    [
        ("pytest.skip('tensorrt is not installed')", "gpu", 1),
        ("pass", "gpu", 0),
        ("assert False", "gpu", 1),
        ("pytest.skip('tensorrt is not installed')", "not slow", 0),
    ],
    ids=["all skipped", "one runs", "one fails", "other tests"],
)
def test_where_every_gpu_test_is_skipped_the_session_fails(tmp_path: Path, first: str, markers: str, code: int) -> None:
    (tmp_path / "test_it.py").write_text(TESTS.format(first=first))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu: a test\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.gpu_session", "-m", markers]
    done = subprocess.run(
        [*command, str(tmp_path)], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == code, done.stdout + done.stderr
    told = "nothing was tested: no GPU: no NVIDIA driver is loaded; tensorrt is not installed" in done.stdout
    assert told == ("skip" in first and markers == "gpu")
