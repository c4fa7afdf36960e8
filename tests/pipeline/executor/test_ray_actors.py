"""--on ray: the actors of a cluster make the part files that one process makes, whatever happens to machines."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mribatch.core.errors import MribatchError, OptionError
from mribatch.pipeline.cluster_address import parse_address
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.run_file import RunState, read_run_file
from mribatch.pipeline.progress import SilentProgress
from mribatch.pipeline.run import classify
from mribatch.report.verify import verify_run
from tests.folders import draw_images, mribatch
from tests.pipeline.executor.test_processes import parts

ROOT = Path(__file__).parents[3]
_FILES = 6000  # six parts, the last one short


def test_addresses() -> None:
    assert parse_address("ray") is None
    assert parse_address("ray://10.0.0.1:6379") == "10.0.0.1:6379"
    for text in ("", "rays", "ray:", "ray://", "slurm", "10.0.0.1:6379"):
        with pytest.raises(OptionError, match="is no cluster. Fix: give ray, or ray://HOST:PORT"):
            parse_address(text)


def test_without_ray_the_command_says_how_to_install_it(tmp_path: Path, tiny_model: Path) -> None:
    draw_images(tmp_path / "data", 4)
    (tmp_path / "hidden/ray").mkdir(parents=True)
    (tmp_path / "hidden/ray/__init__.py").write_text("raise ImportError('hidden')")
    path = os.pathsep.join([str(tmp_path / "hidden"), str(ROOT)])
    command = ["classify", tmp_path / "data", "--out", tmp_path / "out", "--model", tiny_model, "--on", "ray"]
    result = mribatch(*command, env=os.environ | {"PYTHONPATH": path})
    assert result.returncode == 1
    assert result.stderr.startswith("Error: Ray is not installed. Fix: pip install ")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    few = [path.read_bytes() for path in draw_images(tmp_path_factory.mktemp("few"), 16, size=16)]
    folder = tmp_path_factory.mktemp("data") / "glioma"
    folder.mkdir()
    for number in range(_FILES):
        (folder / f"{number:05d}.jpg").write_bytes(few[number % 16] if number != 1500 else b"not an image")
    return folder.parent


@pytest.fixture(scope="module")
def alone(data: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classify([data], tmp_path_factory.mktemp("alone"), _options(tiny_model)).out


def _options(model: Path, **options: Any) -> ClassifyOptions:
    return ClassifyOptions(model=str(model), batch_size=8, threads=1, **options)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Four machines of one core each, on loopback; the first one has none, so that no actor dies with it."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(4):
        found.add_node(num_cpus=1)
    yield found
    ray.shutdown()
    found.shutdown()


class _AfterParts(SilentProgress):
    """Calls something once so many parts are there."""

    def __init__(self, count: int, call: Any) -> None:
        self.parts: list[int] = []
        self.notes: list[str] = []
        self._count = count
        self._call = call

    def published(self, part: int, rows: int) -> None:
        self.parts.append(part)
        if len(self.parts) == self._count:
            self._call()

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.slow
def test_two_of_four_machines_are_killed_and_one_joins(
    cluster: Any, data: Path, alone: Path, tiny_model: Path, tmp_path: Path
) -> None:
    def lose_two() -> None:
        for node in list(cluster.worker_nodes)[:2]:
            cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=1)

    progress = _AfterParts(1, lose_two)
    options = _options(tiny_model, on=f"ray://{cluster.address}")
    summary = classify([data], tmp_path / "out", options, progress)
    assert parts(summary.out) == parts(alone)
    assert (summary.images, summary.new_rows, summary.exit_code) == (_FILES, _FILES, 3)
    assert sorted(progress.parts) == list(range(6))
    assert verify_run(summary.out).problems == 0


@pytest.mark.slow
def test_a_driver_that_is_killed_is_started_again(
    cluster: Any, data: Path, alone: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["classify", data, "--out", out, "--model", tiny_model, "--batch-size", 8, "--threads", 1]
    command += ["--on", f"ray://{cluster.address}", "--progress", "json"]
    words = [sys.executable, "-m", "mribatch.cli", *map(str, command)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as driver:
        assert driver.stderr is not None
        for line in driver.stderr:
            if json.loads(line)["event"] == "part":
                driver.send_signal(signal.SIGKILL)
                break
    assert driver.returncode == -signal.SIGKILL
    again = mribatch(*command)
    assert again.returncode == 3, again.stderr
    assert parts(out) == parts(alone)
    assert read_run_file(out).state is RunState.COMPLETE


@pytest.mark.slow
def test_what_a_cluster_cannot_do_is_said_in_one_line(
    cluster: Any, data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options = ClassifyOptions(model=str(tiny_model), threads=8, on=f"ray://{cluster.address}")
    with pytest.raises(MribatchError, match="no machine of the cluster has 8 free cores. Fix: give fewer --threads"):
        classify([data], tmp_path / "out", options)


@pytest.mark.slow
def test_a_cluster_that_does_not_answer(data: Path, tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(MribatchError, match=r"the Ray cluster at 127\.0\.0\.1:9 does not answer"):
        classify([data], tmp_path / "out", _options(tiny_model, on="ray://127.0.0.1:9"))


@pytest.mark.slow
def test_a_cluster_of_this_machine(data: Path, alone: Path, tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "out"
    result = mribatch(
        *("classify", data, "--out", out, "--model", tiny_model, "--batch-size", 8, "--on", "ray", "--workers", 2)
    )
    assert result.returncode == 3, result.stderr
    assert parts(out) == parts(alone)
