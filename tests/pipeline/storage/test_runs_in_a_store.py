"""Runs whose inputs, lists, bundle and output are in an S3 store: the same rows, and nothing lost."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mribatch
from mribatch.core.errors import FolderLockedError, MribatchError
from mribatch.pipeline.merge import merge
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output import lease as lease_module
from mribatch.pipeline.output.lease import Lease
from mribatch.pipeline.output.mirror import place_of, run_copy
from mribatch.pipeline.output.summary import RunSummary
from mribatch.pipeline.run import classify
from mribatch.pipeline.storage.address import Address
from mribatch.report.verify import verify_run
from tests.broken_files import broken_files
from tests.folders import draw_images, rows
from tests.folders import mribatch as command
from tests.pipeline.storage.archives import read_folder, write_tar
from tests.storage_server import DENIED, SLOW_DOWN, S3Server, misbehaving

Run = Callable[..., RunSummary]


@pytest.fixture
def run(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("MRIBATCH_CACHE", str(tmp_path / "cache"))

    def call(inputs: object, out: object, **changes: Any) -> RunSummary:
        fixed: dict[str, Any] = {"model": str(tiny_model), "precision": "fp32", "batch_size": 8, "threads": 2}
        options = ClassifyOptions(**fixed | changes)
        names = inputs if isinstance(inputs, list) else [str(inputs)]
        return classify(names, str(out), options)

    return call


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "data"
    draw_images(folder, 24)
    for name, (content, _) in broken_files().items():
        (folder / "no_tumor" / name).write_bytes(content)
    return folder


@pytest.fixture
def stored(s3: S3Server, bucket: str, data: Path) -> str:
    """The address of the data in a bucket."""
    s3.upload(data, bucket, "data")
    return f"s3://{bucket}/data"


def rows_of(address: object) -> list[dict[str, Any]]:
    with run_copy(place_of(str(address))) as folder:
        return rows(folder)


def test_the_rows_are_those_of_a_local_run(
    run: Run, data: Path, s3: S3Server, stored: str, bucket: str, tmp_path: Path, tiny_model: Path
) -> None:
    s3.upload(tiny_model, bucket, "model")
    run(data, tmp_path / "local")
    summary = run(stored, f"s3://{bucket}/run", model=f"s3://{bucket}/model")
    assert str(summary.out) == f"s3://{bucket}/run" and f"s3://{bucket}/run/run.json" in summary.to_text()
    assert rows_of(f"s3://{bucket}/run") == rows(tmp_path / "local")
    names = s3.names(f"{bucket}/run")
    assert names == {"run.json", "listing.parquet", "skipped.parquet", "parts.sha256", "predictions/part-00000.parquet"}
    with run_copy(f"s3://{bucket}/run") as folder:
        facts = json.loads((folder / "run.json").read_text())
        assert verify_run(folder, inputs=True).problems == 0
    assert (facts["state"], facts["inputs"][0]["root"]) == ("complete", stored)
    assert facts["bundle"]["folder"] == f"s3://{bucket}/model"


def test_a_complete_run_is_only_summed_up_again(run: Run, stored: str, bucket: str) -> None:
    first = run(stored, f"s3://{bucket}/run")
    again = run(stored, f"s3://{bucket}/run")
    assert (again.new_rows, again.counts) == (0, first.counts)


def test_local_inputs_may_have_an_output_in_a_store_and_the_other_way_round(
    run: Run, data: Path, stored: str, bucket: str, tmp_path: Path
) -> None:
    run(data, f"s3://{bucket}/run")
    run(stored, tmp_path / "run")
    assert rows_of(f"s3://{bucket}/run") == rows(tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["run"]


def test_an_address_of_a_file_is_a_local_path(run: Run, data: Path, tmp_path: Path) -> None:
    run(f"file://{data}", f"file://{tmp_path}/run")
    run(data, tmp_path / "plain")
    assert rows(tmp_path / "run") == rows(tmp_path / "plain")


def test_several_workers_make_a_run_in_a_store(run: Run, stored: str, bucket: str) -> None:
    run(stored, f"s3://{bucket}/one")
    run(stored, f"s3://{bucket}/two", workers=2)
    assert rows_of(f"s3://{bucket}/two") == rows_of(f"s3://{bucket}/one")


def test_a_list_in_a_store_names_objects_and_archives(
    run: Run, data: Path, s3: S3Server, stored: str, bucket: str, tmp_path: Path
) -> None:
    write_tar(tmp_path / "a.tar", read_folder(data))
    (tmp_path / "lists").mkdir()
    (tmp_path / "a.tar").rename(tmp_path / "lists" / "a.tar")
    one = f"{stored}/no_tumor/slice_00002.jpg"
    (tmp_path / "lists" / "names").write_text(
        f"{one}\ns3://{bucket}/lists/a.tar\n{stored}/none.jpg\n{stored}/glioma_tumor\n"
    )
    s3.upload(tmp_path / "lists", bucket, "lists")
    run([], f"s3://{bucket}/run", from_file=f"s3://{bucket}/lists/names")
    found = rows_of(f"s3://{bucket}/run")
    assert (found[0]["path"], found[0]["status"], found[0]["label"]) == (one, "ok", "no_tumor")
    inside = [row for row in found if row["path"].startswith(f"s3://{bucket}/lists/a.tar/")]
    assert len(inside) == len(read_folder(data))
    (gone,) = [row for row in found if row["path"] == f"{stored}/none.jpg"]
    assert (gone["status"], gone["error"]) == (
        "unreadable",
        "The file cannot be read: there is no such object (errno 2).",
    )
    assert found[-1]["path"].startswith(f"{stored}/glioma_tumor/")


def test_an_object_that_changes_or_vanishes_during_the_run_is_told(
    run: Run, s3: S3Server, stored: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mribatch.pipeline import run as run_module

    list_files = run_module._list_files

    def then_change(*arguments: Any) -> Any:
        facts = list_files(*arguments)
        files = s3.files()
        files.delete_file(f"{bucket}/data/no_tumor/slice_00002.jpg")
        files.copy_file(f"{bucket}/data/glioma_tumor/slice_00000.jpg", f"{bucket}/data/glioma_tumor/slice_00004.jpg")
        return facts

    monkeypatch.setattr(run_module, "_list_files", then_change)
    run(stored, f"s3://{bucket}/run")
    found = {row["path"]: row for row in rows_of(f"s3://{bucket}/run")}
    assert found["no_tumor/slice_00002.jpg"]["status"] == "unreadable"
    assert found["glioma_tumor/slice_00004.jpg"]["flags"] == ["changed_since_listing"]
    assert found["glioma_tumor/slice_00000.jpg"]["flags"] == []


def test_an_output_in_a_store_takes_no_foreign_folder(run: Run, s3: S3Server, stored: str, bucket: str) -> None:
    with pytest.raises(MribatchError, match=rf"s3://{bucket}/data is not a run folder of mribatch: it holds"):
        run(stored, stored)
    assert "run.json" not in s3.names(f"{bucket}/data")


def test_overwrite_leaves_only_the_new_run(run: Run, s3: S3Server, stored: str, bucket: str) -> None:
    run(stored, f"s3://{bucket}/run", csv=True)
    run(stored + "/glioma_tumor", f"s3://{bucket}/run", overwrite=True)
    assert "predictions.csv" not in s3.names(f"{bucket}/run")
    assert {row["label"] for row in rows_of(f"s3://{bucket}/run")} == {"glioma_tumor"}


def test_new_objects_are_added(run: Run, s3: S3Server, stored: str, bucket: str) -> None:
    run(stored, f"s3://{bucket}/run")
    before = rows_of(f"s3://{bucket}/run")
    s3.files().copy_file(f"{bucket}/data/glioma_tumor/slice_00000.jpg", f"{bucket}/data/glioma_tumor/z.jpg")
    with pytest.raises(MribatchError, match="add the new files with --add-new"):
        run(stored, f"s3://{bucket}/run")
    run(stored, f"s3://{bucket}/run", add_new=True)
    after = rows_of(f"s3://{bucket}/run")
    assert after[:-1] == before and after[-1]["path"] == "glioma_tumor/z.jpg"


def test_the_own_output_below_the_input_is_not_listed(run: Run, stored: str, bucket: str) -> None:
    first = run(stored, f"{stored}/run")
    assert run(stored, f"{stored}/run").files == first.files


@pytest.mark.parametrize(
    ("inputs", "out", "problem"),
    [
        ("s3://no-such-bucket/x", "out", "the bucket s3://no-such-bucket does not exist"),
        ("{stored}/none", "out", "there is no object or folder"),
        ("{stored}", "s3://no-such-bucket/run", "the bucket s3://no-such-bucket does not exist"),
        ("s3://key:secret@bucket/x", "out", "holds a name or a password"),
        ("nonsense://x/y", "out", "nonsense:// cannot be opened"),
    ],
)
def test_what_cannot_be_reached_is_an_error_of_one_line_before_anything_is_written(
    run: Run, stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: str, out: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MribatchError, match=problem) as caught:
        run(inputs.format(stored=stored), out)
    assert "Fix: " in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_bucket_that_may_not_be_written_to_is_an_error_before_anything_is_written(
    run: Run, s3: S3Server, stored: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with misbehaving(s3) as (proxy, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        faults.answer = lambda method, path: (403, DENIED) if method in ("PUT", "POST", "DELETE") else None
        with pytest.raises(MribatchError, match=rf"cannot write to s3://{bucket}/run: the store refuses access.*Fix: "):
            run(stored, f"s3://{bucket}/run")
    assert s3.names(f"{bucket}/run") == set()


def test_a_store_that_throttles_loses_no_row(
    run: Run, s3: S3Server, data: Path, stored: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data, tmp_path / "local")
    with misbehaving(s3) as (proxy, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        faults.answer = lambda method, path: (503, SLOW_DOWN) if len(faults.requests) % 4 == 0 else None
        run(stored, f"s3://{bucket}/run")
    assert rows_of(f"s3://{bucket}/run") == rows(tmp_path / "local")


def test_a_run_in_a_store_is_reported_verified_compared_merged_and_opened(
    run: Run, s3: S3Server, data: Path, stored: str, bucket: str, tmp_path: Path
) -> None:
    for number in (1, 2):
        run(stored, f"s3://{bucket}/shard-{number}", shard=f"{number}/2")
    summary = merge([place_of(f"s3://{bucket}/shard-{number}") for number in (1, 2)], place_of(f"s3://{bucket}/run"))
    run(stored, tmp_path / "whole")
    assert str(summary.out) == f"s3://{bucket}/run"
    assert rows_of(f"s3://{bucket}/run") == rows(tmp_path / "whole")
    opened = mribatch.open_run(f"s3://{bucket}/run")
    assert opened.to_arrow().num_rows == len(rows(tmp_path / "whole"))
    report = mribatch.report(f"s3://{bucket}/run", html=False)
    assert {"report.md", "metrics.json", "metrics.parquet"} <= s3.names(f"{bucket}/run")
    assert report.to_arrow().num_rows > 5


def test_the_commands_take_addresses(run: Run, s3: S3Server, stored: str, bucket: str, tmp_path: Path) -> None:
    run(stored, f"s3://{bucket}/run")
    address, environment = f"s3://{bucket}/run", s3.environment
    for words in (("verify", address, "--inputs"), ("table", address, "--top", "2"), ("compare", address, address)):
        done = command(*words, cwd=tmp_path, env=environment)
        assert (done.returncode, done.stderr) == (0, ""), words
        assert "/mribatch-" not in done.stdout, "the name of a local copy"
    done = command("verify", f"s3://{bucket}/none", cwd=tmp_path, env=environment)
    assert done.returncode == 1 and f"there is no run in s3://{bucket}/none" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def fast_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lease.__init__, "__defaults__", (6.0, 1.0))


@pytest.mark.usefixtures("fast_lease")
def test_a_second_run_is_kept_out_while_the_first_lives(s3: S3Server, bucket: str) -> None:
    folder, notes = Address("s3", bucket, "run"), list[str]()
    with Lease(folder, notes.append) as first:
        for _ in range(2):
            with pytest.raises(FolderLockedError, match=f"process {os.getpid()} on .* is writing to {folder}"):
                Lease(folder, notes.append).__enter__()
        first.check()
        assert len([name for name in s3.names(f"{bucket}/run") if name.startswith(lease_module.CLAIM_PREFIX)]) == 1
    assert s3.names(f"{bucket}/run") == set()
    with Lease(folder, notes.append):
        pass


def die_with_lease(s3: S3Server, folder: Address) -> None:
    """Let a process take the lease, and kill it by force."""
    code = (
        "import sys, time\n"
        "from mribatch.pipeline.output.lease import Lease\n"
        "from mribatch.pipeline.storage.address import Address\n"
        "with Lease(Address.parse(sys.argv[1]), print, 6.0, 1.0): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, env=s3.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        process.kill()


@pytest.mark.usefixtures("fast_lease")
def test_the_claim_of_a_process_that_was_killed_here_is_not_waited_for(s3: S3Server, bucket: str) -> None:
    folder, notes = Address("s3", bucket, "run"), list[str]()
    die_with_lease(s3, folder)
    with Lease(folder, notes.append):
        assert notes == []


@pytest.mark.usefixtures("fast_lease")
def test_the_claim_of_a_process_that_died_elsewhere_runs_out(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, notes = Address("s3", bucket, "run"), list[str]()
    die_with_lease(s3, folder)
    monkeypatch.setattr(lease_module, "_machine", lambda: "another machine")
    begin = time.monotonic()
    with Lease(folder, notes.append):
        assert time.monotonic() - begin >= 3
    assert len(notes) == 1 and "waiting whether it is still there" in notes[0]


@pytest.mark.usefixtures("fast_lease")
def test_of_runs_that_begin_at_the_same_moment_one_goes_on(s3: S3Server, bucket: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    inside, most = [0], [0]

    def work(number: int) -> bool:
        with contextlib.suppress(FolderLockedError), Lease(Address("s3", bucket, "run"), lambda text: None):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.5)
            inside[0] -= 1
            return True
        return False

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(work, range(4)))
    assert most[0] == 1 and any(won)


@pytest.mark.usefixtures("fast_lease")
def test_an_owner_that_cannot_renew_stops_before_another_may_begin(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mribatch.pipeline.storage import store

    monkeypatch.setattr(store, "PATIENCE_S", 0.1)
    with misbehaving(s3) as (proxy, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with Lease(Address("s3", bucket, "run"), lambda text: None) as held:
            held.check()
            faults.answer = lambda method, path: (403, DENIED)
            time.sleep(5.5)
            with pytest.raises(MribatchError, match="took no writes for 4 s"):
                held.check()


@pytest.fixture
def killed(s3: S3Server, stored: str, bucket: str, tiny_model: Path, tmp_path: Path) -> Iterator[str]:
    """A run that was killed by force after its first rows."""
    address = f"s3://{bucket}/run"
    words = ["classify", stored, "--out", address, "--model", tiny_model, "--batch-size", "8", "--precision", "fp32"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mribatch.cli", *map(str, words)], env=s3.environment, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 60
    while "listing.parquet" not in s3.names(f"{bucket}/run") and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    yield address


def test_a_run_that_was_killed_by_force_is_finished_by_the_same_command(
    run: Run, killed: str, stored: str, data: Path, tmp_path: Path, tiny_model: Path
) -> None:
    run(stored, killed)
    run(data, tmp_path / "local")
    assert rows_of(killed) == rows(tmp_path / "local")
