"""5,000 images in and the run folder out of an S3 store that throttles and goes away; runs killed by force and resumed."""

import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.run import classify
from mribatch.report.verify import verify_run
from tests.folders import draw_images
from tests.storage_server import SLOW_DOWN, Faults, S3Server, misbehaving

pytestmark = pytest.mark.slow

IMAGES, BUCKET = 5_000, "five-thousand"
_OWN = {b"mribatch.run_id"}  # of a part's metadata: the inputs' address is part of it


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "data"
    draw_images(folder, IMAGES)
    return folder


@pytest.fixture(scope="module")
def stored(s3_server: S3Server, data: Path) -> S3Server:
    s3_server.upload(data, BUCKET, "data")
    return s3_server


@pytest.fixture(scope="module")
def local(data: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("local") / "run"
    classify([data], out, ClassifyOptions(model=str(tiny_model), precision="fp32", batch_size=32, threads=2))
    return parts(out)


def parts(run: Path) -> dict[str, bytes]:
    """Each part file as it would be if its run had no inputs of its own."""
    found = {}
    for path in sorted((run / "predictions").glob("*.parquet")):
        table, sink = pq.read_table(path), io.BytesIO()
        kept = {key: value for key, value in (table.schema.metadata or {}).items() if key not in _OWN}
        pq.write_table(table.replace_schema_metadata(kept), sink)
        found[path.name] = sink.getvalue()
    return found


def start(server: S3Server, model: Path, *more: str) -> "subprocess.Popen[str]":
    words = ["classify", f"s3://{BUCKET}/data", "--out", f"s3://{BUCKET}/run-{'-'.join(more)}", "--model", str(model)]
    words += ["--precision", "fp32", "--batch-size", "32", "--threads", "2", "--quiet", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "mribatch.cli", *words], env=server.environment, stderr=subprocess.PIPE, text=True
    )


def has_parts(server: S3Server, run: str, wanted: int) -> bool:
    return sum("part-" in name for name in server.names(run)) >= wanted


def wait_until(done: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 600
    while not done() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)


@pytest.fixture
def faulty(stored: S3Server) -> Iterator[tuple[S3Server, Faults]]:
    """One request in five is refused, one in 2,000 hangs for 30 s, and the store is away for 30 s in the middle."""
    began: list[float] = []

    def answer(method: str, path: str) -> tuple[int, bytes] | None:
        if len(faults.requests) > 3_000 and not began:
            began.append(time.monotonic())
        away = bool(began) and time.monotonic() - began[0] < 30
        return (503, SLOW_DOWN) if away or len(faults.requests) % 5 == 0 else None

    with misbehaving(stored) as (proxy, faults):
        faults.answer = answer
        faults.delay_s = lambda method, path: 30.0 if len(faults.requests) % 2_000 == 1_999 else 0.0
        yield proxy, faults


@pytest.mark.parametrize("more", [(), ("--workers", "2")], ids=["one process", "workers"])
def test_killed_throttled_and_away_the_rows_are_those_of_a_local_run(
    faulty: tuple[S3Server, Faults],
    stored: S3Server,
    local: dict[str, bytes],
    tiny_model: Path,
    tmp_path: Path,
    more: tuple[str, ...],
) -> None:
    proxy, _ = faulty
    run = f"{BUCKET}/run-{'-'.join(more)}"
    for wanted in (1, 3):
        process = start(proxy, tiny_model, *more)
        wait_until(partial(has_parts, stored, run, wanted), process)
        assert process.poll() is None, process.communicate()[1]
        process.send_signal(signal.SIGKILL)
        process.communicate()
    before = {name for name in stored.names(run) if name.endswith(".parquet") and "part-" in name}
    process = start(proxy, tiny_model, *more)
    assert (process.communicate(timeout=900)[1], process.returncode) == ("", 0)
    found = stored.download(run, tmp_path / "run")
    assert before <= stored.names(run) and len(before) >= 3
    assert parts(found) == local
    assert not [name for name in stored.names(run) if ".owner-" in name]
    assert verify_run(found).problems == 0
    assert sum(pq.read_metadata(path).num_rows for path in (found / "predictions").glob("*.parquet")) == IMAGES


@pytest.mark.parametrize("address", [None, "results"], ids=["local output", "output in the store"])
def test_a_cluster_reads_objects_and_publishes_parts(
    stored: S3Server, local: dict[str, bytes], tiny_model: Path, tmp_path: Path, address: str | None
) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "run" if address is None else f"s3://{BUCKET}/{address}"
    words = ["classify", f"s3://{BUCKET}/data", "--out", str(out), "--model", str(tiny_model), "--precision", "fp32"]
    words += ["--batch-size", "32", "--threads", "1", "--on", "ray", "--workers", "2", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "mribatch.cli", *words],
        env=stored.environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = tmp_path / "run" if address is None else stored.download(f"{BUCKET}/{address}", tmp_path / "copy")
    assert parts(found) == local
    assert verify_run(found).problems == 0
