"""--metrics-file: what Prometheus reads of a run."""

import os
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mribatch.core.errors import MribatchError, OptionError
from mribatch.pipeline.prometheus_file import STATES, PrometheusFile
from mribatch.pipeline.work_rates import MakerRate, WorkRates
from tests.folders import draw_images, mribatch

PAGE = Path(__file__).parents[2] / "docs/how-to/cluster.md"


def read(path: Path) -> dict[str, dict[tuple[str, ...], float]]:
    """Metric -> values of its labels but `run`, by their names -> value."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(path.read_text()):
        for sample in family.samples:
            labels = tuple(value for name, value in sorted(sample.labels.items()) if name != "run")
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def documented() -> dict[str, set[str]]:
    """Metric -> labels, from the page."""
    table = re.findall(r"^\| `(mribatch_\w+)` \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in table}


def check(path: Path) -> None:
    pages = documented()
    for family in text_string_to_metric_families(path.read_text()):
        for sample in family.samples:
            assert sample.labels.keys() == pages[sample.name]


def test_a_run_of_several_processes(tmp_path: Path, tiny_model: Path) -> None:
    draw_images(tmp_path / "data", 1100, size=16)
    (tmp_path / "data/broken.jpg").write_bytes(b"no image")
    path = tmp_path / "run.prom"
    command = ["classify", tmp_path / "data", "--out", tmp_path / "out", "--model", tiny_model, "--metrics-file", path]
    assert mribatch(*command, "--workers", 2).returncode == 3
    check(path)
    metrics = read(path)
    assert (metrics["mribatch_images"], metrics["mribatch_images_done"]) == ({(): 1101.0}, {(): 1101.0})
    assert (metrics["mribatch_images_failed"], metrics["mribatch_parts_made"]) == ({(): 1.0}, {(): 2.0})
    assert metrics["mribatch_images_per_second"][()] > 0 and metrics["mribatch_updated_seconds"][()] > 1.7e9
    assert {labels[1] for labels in metrics["mribatch_worker_images_per_second"]} == {"1", "2"}
    assert metrics["mribatch_run_state"] == {(state,): float(state == "finished") for state in STATES}
    assert list(metrics["mribatch_bottleneck"].values()) == [1.0]
    assert f'run="{tmp_path / "out"}"' in path.read_text()
    assert [one.name for one in tmp_path.iterdir() if ".prom" in one.name] == ["run.prom"], "no temporary file is left"


def test_a_run_that_ends_early_says_so(tmp_path: Path) -> None:
    path = tmp_path / "run.prom"
    result = mribatch("classify", tmp_path / "no", "--out", tmp_path / "out", "--metrics-file", path)
    assert result.returncode == 1 and read(path)["mribatch_run_state"][("stopped",)] == 1.0


def test_processes_that_are_gone_have_no_rate(tmp_path: Path) -> None:
    metrics = PrometheusFile(tmp_path / "run.prom", "out", lambda: 0.0)
    metrics.start(10, 0)
    metrics.worked(WorkRates((MakerRate(1, "a", 5.0, 1.0), MakerRate(2, "b", 6.0, 1.0)), "inference"))
    metrics.worked(WorkRates((MakerRate(2, "b", 7.0, 2.0),), "decoding"))
    metrics.stopped(MribatchError("p", "f"))
    found = read(tmp_path / "run.prom")
    assert found["mribatch_worker_images_per_second"] == {("b", "2"): 7.0}
    assert found["mribatch_bottleneck"] == {("decoding",): 1.0}


def test_what_cannot_be_written_is_said_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="does not end in .prom. Fix: name it run.prom"):
        PrometheusFile(tmp_path / "run.txt", "out")
    with pytest.raises(MribatchError, match="cannot write --metrics-file .* Fix: name a file in a folder"):
        PrometheusFile(tmp_path / "missing/run.prom", "out")


def test_a_disk_that_fails_later_ends_no_run(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    metrics = PrometheusFile(folder / "run.prom", "out")
    (folder / "run.prom").unlink()
    folder.rmdir()
    metrics.start(10, 0)
    metrics.stopped(MribatchError("p", "f"))


def test_without_the_library_the_command_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ImportError('hidden')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(PAGE.parents[2])])}
    result = mribatch("classify", tmp_path, "--out", tmp_path / "out", "--metrics-file", "a.prom", env=environment)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: --metrics-file needs prometheus-client. Fix: pip install ")
