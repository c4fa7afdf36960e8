"""--on ray: the actors of a cluster make the part files that one process makes, whatever happens to machines."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scale.local_cluster import local_cluster
from mribatch.core.about import __version__
from mribatch.core.errors import MribatchError, OptionError
from mribatch.core.files import write_json
from mribatch.pipeline.cluster_address import parse_address
from mribatch.pipeline.executor import ray_actors, ray_cluster
from mribatch.pipeline.executor.hosts import inspect_host
from mribatch.pipeline.executor.messages import HostOrder
from mribatch.pipeline.executor.ray_actors import choose_threads
from mribatch.pipeline.executor.ray_cluster import RayCluster
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.run_file import RunState, read_run_file
from mribatch.pipeline.progress import SilentProgress
from mribatch.pipeline.run import classify
from mribatch.report.verify import verify_run
from tests.folders import draw_images, mribatch
from tests.pipeline.executor import dying_actor
from tests.pipeline.executor.test_processes import parts

ROOT = Path(__file__).parents[3]
_FILES = 6000  # six parts, the last one short


def test_addresses() -> None:
    assert parse_address("ray") is None
    assert parse_address("ray://10.0.0.1:6379") == "10.0.0.1:6379"
    for text in ("", "rays", "ray:", "ray://", "slurm", "10.0.0.1:6379"):
        with pytest.raises(OptionError, match="is no cluster. Fix: give ray, or ray://HOST:PORT"):
            parse_address(text)


@pytest.mark.parametrize(
    ("cores", "part_count", "threads"),
    [
        ([16] * 4, 20, 3),  # 20 actors at once, instead of 20 on 64 cores
        ([1] * 4, 20, 1),
        ([2], 1, 2),  # one part has all cores of its machine
        ([2], 49, 1),
        ([4, 16], 20, 1),
        ([8], 9, 8),  # nine rounds on all cores, not one on eight and one on a single core
        ([64] * 10, 9766, 1),
        ([], 5, 1),
        ([4], 0, 1),
    ],
)
def test_few_parts_keep_many_cores_busy(cores: list[int], part_count: int, threads: int) -> None:
    assert choose_threads(cores, part_count) == threads


def test_allow_mixed_is_for_a_cluster() -> None:
    with pytest.raises(OptionError, match="--allow-mixed is about the machines of a cluster. Fix: give --on"):
        ClassifyOptions(allow_mixed=True)


@pytest.fixture
def server() -> Iterator[Callable[[bytes], int]]:
    """Start a server that greets with some bytes; it says nothing else."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken: list[socket.socket] = []

        def start(greeting: bytes) -> int:
            def serve() -> None:
                connection, _ = listening.accept()
                taken.append(connection)
                connection.sendall(greeting)

            threading.Thread(target=serve, daemon=True).start()
            return int(listening.getsockname()[1])

        yield start
        for connection in taken:
            connection.close()


@pytest.mark.parametrize(
    ("greeting", "problem"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "there is no Ray at 127.0.0.1:{port}, but another server"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "there is no Ray at 127.0.0.1:{port}, but another server"),
        (b"", "the Ray cluster at 127.0.0.1:{port} does not answer: timed out"),
    ],
)
def test_an_address_without_ray_is_told_before_anything_is_written(
    server: Callable[[bytes], int],
    greeting: bytes,
    problem: str,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(ray_cluster, "_PATIENCE_S", 0.3)
    draw_images(tmp_path / "data", 4)
    port = server(greeting)
    with pytest.raises(MribatchError, match=problem.format(port=port)) as caught:
        classify([tmp_path / "data"], tmp_path / "out", _options(tiny_model, on=f"ray://127.0.0.1:{port}"))
    assert caught.value.fix == "start the cluster with ray start, or give its address as ray://HOST:PORT"
    assert not (tmp_path / "out").exists()


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
    return classify([data], tmp_path_factory.mktemp("alone"), _options(tiny_model)).folder


def _options(model: Path, **options: Any) -> ClassifyOptions:
    return ClassifyOptions(model=str(model), batch_size=8, threads=1, **options)


@contextlib.contextmanager
def start_cluster(machines: int) -> Iterator[Any]:
    """Machines of one core each, on loopback, beside one without a core."""
    ray = pytest.importorskip("ray")
    with local_cluster(machines, 1) as found:
        yield found.cluster
        ray.shutdown()


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two machines."""
    with start_cluster(2) as found:
        yield found


@pytest.fixture
def four_machines() -> Iterator[Any]:
    with start_cluster(4) as found:
        yield found


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
    four_machines: Any, data: Path, alone: Path, tiny_model: Path, tmp_path: Path
) -> None:
    def lose_two() -> None:
        for node in list(four_machines.worker_nodes)[:2]:
            four_machines.remove_node(node, allow_graceful=False)
        four_machines.add_node(num_cpus=1)

    progress = _AfterParts(1, lose_two)
    options = _options(tiny_model, on=f"ray://{four_machines.address}")
    summary = classify([data], tmp_path / "out", options, progress)
    assert parts(summary.folder) == parts(alone)
    assert (summary.images, summary.new_rows, summary.exit_code) == (_FILES, _FILES, 3)
    assert sorted(progress.parts) == list(range(6))
    assert verify_run(summary.folder).problems == 0


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
def test_what_a_cluster_cannot_do_is_said_in_one_line_before_anything_is_written(
    cluster: Any, data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options = ClassifyOptions(model=str(tiny_model), threads=8, on=f"ray://{cluster.address}")
    with pytest.raises(MribatchError, match="no machine of the cluster has 8 free cores. Fix: give fewer --threads"):
        classify([data], tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
    with RayCluster(cluster.address) as connection:
        seen = HostOrder(tool_version=__version__, run=str(data), seen=(str(data),))
        connection.check(seen, [inspect_host()], mixed=False)
        same_path = "Fix: give all machines the same folder under this path"
        with pytest.raises(MribatchError, match=f"the machine .* does not see --out: there is no /no/run. {same_path}"):
            connection.check(replace(seen, run="/no/run"), [], mixed=False)
        with pytest.raises(MribatchError, match=f"does not see the inputs: there is no /no/scans. {same_path}"):
            connection.check(replace(seen, seen=("/no/scans",)), [], mixed=True)
        with pytest.raises(MribatchError, match="was begun with 0.0.1. Fix: install the same version everywhere"):
            connection.check(replace(seen, tool_version="0.0.1"), [], mixed=True)
        other = replace(inspect_host(), processor="another")
        with pytest.raises(MribatchError, match="an earlier machine 1 has the processor another, .* --allow-mixed"):
            connection.check(seen, [other], mixed=False)
        connection.check(seen, [other], mixed=True)


@pytest.mark.slow
def test_run_json_says_which_machine_made_which_part_and_another_kind_is_refused(
    cluster: Any, data: Path, alone: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out, options = tmp_path / "out", _options(tiny_model, on=f"ray://{cluster.address}")
    classify([data], out, options)
    hosts = read_run_file(out).attempts[-1].hosts or ()
    made = sorted(int(part) for host in hosts for part in _read_parts(host.parts))
    assert made == list(range(6)) and {host.kind.processor for host in hosts} == {inspect_host().processor}
    content = json.loads((out / "run.json").read_text())
    for host in content["attempts"][-1]["hosts"]:
        host["kind"]["processor"] = "another"
    write_json(out / "run.json", content | {"state": "stopped", "counts": {}})
    (out / "predictions/part-00003.parquet").unlink()
    with pytest.raises(
        MribatchError, match="the machines of the cluster differ: an earlier machine 1 has the processor"
    ):
        classify([data], out, options)
    assert read_run_file(out).state is RunState.STOPPED and len(parts(out)) == 5
    classify([data], out, replace(options, allow_mixed=True))
    assert parts(out) == parts(alone)
    assert [host.parts for host in read_run_file(out).attempts[-1].hosts or ()] == ["3"]


def _read_parts(text: str) -> Iterator[str]:
    for span in text.split(","):
        first, _, last = span.partition("-")
        yield from map(str, range(int(first), int(last or first) + 1))


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Callable[[type], None]:
    """Have the actors be of a class of dying_actor.py."""
    return lambda kind: monkeypatch.setattr(ray_actors, "PartActor", kind)


@pytest.mark.slow
def test_a_machine_that_joins_late_gets_parts(
    cluster: Any, actor: Callable[[type], None], data: Path, alone: Path, tiny_model: Path, tmp_path: Path
) -> None:
    actor(dying_actor.WaitsForAnother)
    cluster.remove_node(next(iter(cluster.worker_nodes)))
    progress = _AfterParts(1, lambda: cluster.add_node(num_cpus=1))
    options = _options(tiny_model, on=f"ray://{cluster.address}")
    classify([data], tmp_path / "out", options, progress)
    assert parts(tmp_path / "out") == parts(alone)
    assert len(read_run_file(tmp_path / "out").attempts[-1].hosts or ()) == 2


@pytest.mark.slow
def test_actors_that_die_before_they_are_ready(
    cluster: Any, actor: Callable[[type], None], data: Path, alone: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options = _options(tiny_model, on=f"ray://{cluster.address}")
    actor(dying_actor.DiesOpeningTwice)
    classify([data], tmp_path / "out", options)
    assert parts(tmp_path / "out") == parts(alone)
    actor(dying_actor.DiesOpening)
    with pytest.raises(MribatchError, match="10 actors in a row died before they were ready; .* Fix: see Ray's logs"):
        classify([data], tmp_path / "other", options)
    assert read_run_file(tmp_path / "other").state is RunState.STOPPED


@pytest.mark.slow
def test_an_actor_that_the_kernel_ends_costs_its_part(
    cluster: Any, actor: Callable[[type], None], data: Path, alone: Path, tiny_model: Path, tmp_path: Path
) -> None:
    actor(dying_actor.DiesMakingOnce)
    progress = _AfterParts(99, None)
    summary = classify([data], tmp_path / "out", _options(tiny_model, on=f"ray://{cluster.address}"), progress)
    assert parts(tmp_path / "out") == parts(alone) and summary.new_rows == _FILES
    (note,) = progress.notes
    assert note.startswith("WARNING: actor ") and "its process or its machine ended; part " in note


@pytest.mark.slow
def test_a_machine_of_another_kind_that_joins_is_left_out(
    cluster: Any, actor: Callable[[type], None], data: Path, alone: Path, tiny_model: Path, tmp_path: Path
) -> None:
    actor(dying_actor.HasAnotherProcessor)
    progress = _AfterParts(99, None)
    options = _options(tiny_model, on=f"ray://{cluster.address}", workers=2)
    classify([data], tmp_path / "out", options, progress)
    assert parts(tmp_path / "out") == parts(alone)
    assert any("is given up, the others go on: the machines of the cluster differ" in note for note in progress.notes)
    mixed = replace(options, allow_mixed=True)
    classify([data], tmp_path / "mixed", mixed)
    kinds = {host.kind.processor for host in read_run_file(tmp_path / "mixed").attempts[-1].hosts or ()}
    assert len(kinds) == 2 and parts(tmp_path / "mixed") == parts(alone)


@pytest.fixture
def short_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray ends every process from the first percent of memory that is used on."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")


@pytest.mark.slow
def test_actors_that_run_out_of_memory(
    short_of_memory: None,
    cluster: Any,
    data: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = _options(tiny_model, on=f"ray://{cluster.address}")
    with pytest.raises(MribatchError, match="of the cluster has no memory left. Fix: free some"):
        classify([data], tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(RayCluster, "check", lambda *_, **__: None)
    with pytest.raises(MribatchError, match="died before they were ready; of the last one, it ran out of memory. Fix:"):
        classify([data], tmp_path / "out", options)


@pytest.mark.slow
def test_a_cluster_that_does_not_answer(data: Path, tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(MribatchError, match=r"the Ray cluster at 127\.0\.0\.1:9 does not answer"):
        classify([data], tmp_path / "out", _options(tiny_model, on="ray://127.0.0.1:9"))


@pytest.mark.slow
def test_the_cluster_that_ray_finds(
    cluster: Any, data: Path, alone: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)  # as in the jobs of a cluster
    classify([data], tmp_path / "out", _options(tiny_model, on="ray"))
    assert parts(tmp_path / "out") == parts(alone)
    assert len(read_run_file(tmp_path / "out").attempts[-1].hosts or ()) == 2


@pytest.mark.slow
def test_a_cluster_of_this_machine(data: Path, alone: Path, tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "out"
    result = mribatch(
        *("classify", data, "--out", out, "--model", tiny_model, "--batch-size", 8, "--on", "ray", "--workers", 2)
    )
    assert result.returncode == 3, result.stderr
    assert parts(out) == parts(alone)
