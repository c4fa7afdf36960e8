"""DICOM and NIfTI in tar and zip files and in an S3 store: the rows of the same files in a folder."""

import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest

from mribatch.core.errors import MribatchError
from mribatch.pipeline.dry_run import estimate
from mribatch.pipeline.merge import merge
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.run_file import read_finished_run
from mribatch.pipeline.output.summary import RunSummary
from mribatch.pipeline.progress import SilentProgress
from mribatch.pipeline.run import classify
from mribatch.pipeline.storage.address import Address
from mribatch.pipeline.storage.store import put_object
from mribatch.report.run_images import RunImages
from mribatch.report.verify import verify_run
from tests.folders import draw_images, rows
from tests.pipeline.storage.archives import read_folder, write_tar, write_zip
from tests.storage_server import SLOW_DOWN, S3Server, misbehaving
from tests.studies import UID, drawn_values, write_report, write_series, write_slice, write_volume

Run = Callable[..., RunSummary]
write_stored_zip = partial(write_zip, method=zipfile.ZIP_STORED)


@pytest.fixture
def run(tiny_model: Path, key: Path) -> Run:
    def call(inputs: object, out: object, **changes: Any) -> RunSummary:
        fixed: dict[str, Any] = {"model": str(tiny_model), "precision": "fp32", "batch_size": 8, "threads": 2}
        options = ClassifyOptions(**fixed | {"pseudonym_key": str(key)} | changes)
        return classify([] if inputs is None else [str(inputs)], str(out), options)

    return call


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key that all runs share, so that they agree on pseudonyms."""
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text("0123456789abcdef0123456789abcdef\n")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, DICOM with and without suffixes, frames, volumes, damage, and what is no image to classify."""
    folder = tmp_path_factory.mktemp("export") / "data"
    draw_images(folder, 2)
    write_series(folder / "PAT1" / "SER2", 20)
    frames = np.stack([drawn_values(50 + place) for place in range(6)])
    write_slice(folder / "PAT1" / "frames", frames, SeriesInstanceUID=f"{UID}.3")
    write_slice(folder / "windowed.dcm", WindowCenter=500, WindowWidth=1000, SeriesInstanceUID=f"{UID}.4")
    write_slice(folder / "wide", drawn_values(9, side=200), SeriesInstanceUID=f"{UID}.5")
    write_report(folder / "PAT1" / "SR1")
    write_slice(folder / "ct.dcm", Modality="CT")
    write_volume(folder / "brain.nii.gz", 7, blanks=2)
    write_volume(folder / "plain.nii", 5)
    whole = (folder / "windowed.dcm").read_bytes()
    (folder / "cut.dcm").write_bytes(whole[:-400])
    (folder / "cut-early.dcm").write_bytes(whole[:300])
    (folder / "cut.nii.gz").write_bytes((folder / "brain.nii.gz").read_bytes()[:-400])
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "words.dcm").write_text("no picture at all, only words")
    (folder / "README").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def local(data: Path, key: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the folder itself."""
    out = tmp_path_factory.mktemp("local") / "run"
    options = ClassifyOptions(model=str(tiny_model), precision="fp32", batch_size=8, threads=2, pseudonym_key=str(key))
    classify([data], out, options)
    return out


def comparable(found: list[dict[str, Any]], prefix: str = "") -> list[dict[str, Any]]:
    """Rows without what a path decides: the path, and the series of a volume, which is named after it."""
    named = [row | {"path": row["path"].removeprefix(prefix)} for row in found]
    return [row | ({"series": None} if ".nii" in row["path"] else {}) for row in named]


def skipped(run_folder: Path, prefix: str = "") -> list[tuple[str, str, str | None]]:
    table = pq.read_table(run_folder / "skipped.parquet").to_pylist()
    return [(row["path"].removeprefix(prefix), row["reason"], row["detail"]) for row in table]


def series(run_folder: Path, prefix: str = "") -> list[dict[str, Any]]:
    table = pq.read_table(run_folder / "series.parquet").to_pylist()
    without = [
        row | {name: row[name].removeprefix(prefix) for name in ("path", "top_path") if row[name]} for row in table
    ]
    return sorted(comparable(without), key=lambda row: str(row["path"]))


def check_same(run_folder: Path, local: Path, prefix: str = "") -> None:
    assert comparable(rows(run_folder), prefix) == comparable(rows(local))
    assert skipped(run_folder, prefix) == skipped(local)
    assert series(run_folder, prefix) == series(local)
    verified = verify_run(run_folder, inputs=True)
    assert verified.problems == 0 and (verified.input_files or 0) > 25


def test_the_folder_has_what_these_tests_are_about(local: Path) -> None:
    statuses = {row["status"] for row in rows(local)}
    assert statuses == {"ok", "blank", "truncated", "empty", "unsupported"}, statuses
    assert {reason for _, reason, _ in skipped(local)} == {"dicom_no_pixels", "dicom_modality", "suffix"}


@pytest.mark.parametrize(
    ("name", "write", "workers"),
    [("a.tar", write_tar, 1), ("a.zip", write_zip, 1), ("a.zip", write_zip, 2), ("b.zip", write_stored_zip, 1)],
)
def test_an_archive_has_the_rows_of_its_folder(
    run: Run, data: Path, local: Path, tmp_path: Path, name: str, write: Callable[..., Path], workers: int
) -> None:
    write(tmp_path / name, read_folder(data))
    summary = run(tmp_path / name, tmp_path / "run", workers=workers)
    check_same(tmp_path / "run", local, f"{name}/")
    assert summary.files == len({row["path"] for row in rows(local)})
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "run"]


@pytest.mark.parametrize("name", [None, "a.zip", "a.tar"], ids=["objects", "a zip", "a tar"])
def test_a_store_has_the_rows_of_the_folder(
    run: Run, s3: S3Server, bucket: str, data: Path, local: Path, tmp_path: Path, name: str | None
) -> None:
    if name is None:
        s3.upload(data, bucket, "data")
    else:
        (tmp_path / "up").mkdir()
        (write_zip if name == "a.zip" else write_tar)(tmp_path / "up" / name, read_folder(data))
        s3.upload(tmp_path / "up", bucket, "data")
    run(f"s3://{bucket}/data" + (f"/{name}" if name else ""), tmp_path / "run")
    check_same(tmp_path / "run", local, f"{name}/" if name else "")


def test_a_volume_in_a_store_is_read_once_for_all_its_slices(
    run: Run, s3: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_volume(tmp_path / "up" / "brain.nii.gz", 30)
    write_slice(tmp_path / "up" / "frames", np.stack([drawn_values(place) for place in range(30)]))
    s3.upload(tmp_path / "up", bucket, "data")
    with misbehaving(s3) as (proxy, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        run(f"s3://{bucket}/data", tmp_path / "run")
    assert len(rows(tmp_path / "run")) == 60
    for name in ("brain.nii.gz", "frames"):
        asked = [method for method, path in faults.requests if method == "GET" and path.endswith(f"/{name}")]
        assert len(asked) == 2, "the header, then all of it"


def encrypt(path: Path) -> Path:
    """Say of every member that it is encrypted."""
    content = bytearray(path.read_bytes())
    for start, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        while (place := content.find(start, place + 1)) >= 0:
            content[place + flags] |= 1
    path.write_bytes(content)
    return path


def test_an_encrypted_export_is_never_passed_over_in_silence(run: Run, tmp_path: Path) -> None:
    files = {name: write_slice(tmp_path / name).read_bytes() for name in ("scan.dcm", "IM0001")}
    path = encrypt(write_zip(tmp_path / "a.zip", files))
    summary = run(path, tmp_path / "run", keep_going=True)
    (row,) = rows(tmp_path / "run")
    assert (row["path"], row["status"]) == ("a.zip/scan.dcm", "unreadable")
    assert row["error"] == "The file cannot be read: it is encrypted in its archive."
    reason = ("IM0001", "unreadable_file", "it is encrypted in its archive")
    assert (skipped(tmp_path / "run", "a.zip/"), summary.exit_code) == ([reason], 3)


def test_an_export_of_which_all_is_encrypted_and_nameless_is_an_error_of_one_line(run: Run, tmp_path: Path) -> None:
    path = encrypt(write_zip(tmp_path / "a.zip", {"IM0001": write_slice(tmp_path / "IM0001").read_bytes()}))
    with pytest.raises(MribatchError, match="there is no image in the inputs: .* Fix: "):
        run(path, tmp_path / "run")


@pytest.mark.parametrize("name", ["frames", "brain.nii"])
def test_damage_behind_the_header_of_a_member_is_a_row_for_each_of_its_slices(
    run: Run, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mribatch.pipeline.storage import content as content_module

    frames = np.random.default_rng(1).integers(0, 4096, (12, 100, 100), np.uint16)
    path = tmp_path / name
    if name == "frames":
        write_slice(path, frames)
    else:
        nibabel.save(nibabel.Nifti1Image(frames.T.astype(np.int16), np.diag([1.0, 1.0, 3.0, 1.0])), path)
    archive = write_zip(
        tmp_path / "a.zip", {name: path.read_bytes(), "sound": write_slice(tmp_path / "s").read_bytes()}
    )
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(content)
    sizes: list[int] = []
    inflate = content_module._inflate

    def counted(packed: bytes, size: int) -> bytes:
        sizes.append(len(packed))
        return inflate(packed, size)

    monkeypatch.setattr(content_module, "_inflate", counted)
    run(archive, tmp_path / "run", keep_going=True)
    found = rows(tmp_path / "run")
    assert [row["status"] for row in found] == ["unreadable"] * 12 + ["ok"]
    assert {row["slice"] for row in found[:12]} == set(range(12))
    assert all("in its archive" in row["error"] or "CRC-32" in row["error"] for row in found[:12])
    assert sum(size > 10_000 for size in sizes) == 1, "it is unpacked once, and not for each slice"


def then(change: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Change something when the inputs have been listed."""
    from mribatch.pipeline import run as run_module

    list_files = run_module._list_files

    def both(*arguments: Any) -> Any:
        facts = list_files(*arguments)
        change()
        return facts

    monkeypatch.setattr(run_module, "_list_files", both)


def test_objects_that_change_or_vanish_after_they_were_listed_are_told(
    run: Run, s3: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = tmp_path / "up"
    for name in ("same.dcm", "gone.dcm", "other.dcm"):
        write_slice(up / name, SeriesInstanceUID=f"{UID}.{len(name)}")
    write_slice(up / "refused.dcm", NumberOfFrames=7)
    for name in ("gone.nii", "other.nii"):
        write_volume(up / name, 3)
    s3.upload(up, bucket, "data")

    def change() -> None:
        for name in ("gone.dcm", "gone.nii"):
            s3.files().delete_file(f"{bucket}/data/{name}")
        new = {
            "other.dcm": write_slice(tmp_path / "new.dcm", drawn_values(3, side=40)),
            "other.nii": write_volume(tmp_path / "new.nii", 4),
            "refused.dcm": up / "other.nii",
        }
        for name, path in new.items():
            put_object(Address("s3", bucket, f"data/{name}"), path.read_bytes())

    then(change, monkeypatch)
    run(f"s3://{bucket}/data", tmp_path / "run", keep_going=True)
    found = {(row["path"], row["slice"]): row for row in rows(tmp_path / "run")}
    gone = [found["gone.dcm", None], *(found["gone.nii", place] for place in range(3))]
    assert {(row["status"], row["error"]) for row in gone} == {
        ("unreadable", "The file cannot be read: there is no such object (errno 2).")
    }
    changed = [found["other.dcm", None], found["refused.dcm", None], *(found["other.nii", place] for place in range(3))]
    assert all("changed_since_listing" in row["flags"] for row in changed), changed
    assert found["refused.dcm", None]["status"] == "decode_failed"
    assert "changed_since_listing" not in found["same.dcm", None]["flags"]


def test_an_archive_that_changes_after_it_was_listed_is_told(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_zip(tmp_path / "a.zip", read_folder(data))
    then(lambda: os.utime(path, ns=(1, 1)), monkeypatch)
    run(path, tmp_path / "run")
    found = rows(tmp_path / "run")
    assert found and all("changed_since_listing" in row["flags"] for row in found)


def test_pairs_are_named_as_left_out_and_nothing_else_is(run: Run, s3: S3Server, bucket: str, tmp_path: Path) -> None:
    up = tmp_path / "up"
    write_slice(up / "IM1")
    write_volume(up / "pair.img", 3)
    assert (up / "pair.hdr").is_file()
    write_zip(tmp_path / "a.zip", read_folder(up))
    s3.upload(up, bucket, "data")
    expected = [
        (name, "study_elsewhere", "a NIfTI pair; copy both files to a folder to have them read")
        for name in ("pair.hdr", "pair.img")
    ]
    assert run(tmp_path / "a.zip", tmp_path / "zip").exit_code == 3
    assert run(f"s3://{bucket}/data", tmp_path / "store").exit_code == 3
    assert skipped(tmp_path / "zip", "a.zip/") == skipped(tmp_path / "store") == expected
    assert len(rows(tmp_path / "zip")) == len(rows(tmp_path / "store")) == 1


def test_objects_that_are_named_are_looked_into_whatever_they_are_called(
    run: Run, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    up = tmp_path / "up"
    names = ("IM1", "scan.txt", "brain.nii")
    for name in names[:2]:
        write_slice(up / name)
    write_volume(up / "brain.nii", 3)
    (up / "words").write_text("no image")
    s3.upload(up, bucket, "data")
    lines = [f"s3://{bucket}/data/{name}" for name in (*names, "words", "none.dcm")]
    (tmp_path / "names").write_text("\n".join(lines))
    summary = run(None, tmp_path / "run", from_file=str(tmp_path / "names"), keep_going=True)
    statuses = [(row["path"].rpartition("/")[2], row["status"]) for row in rows(tmp_path / "run")]
    assert statuses == [
        ("IM1", "ok"),
        ("scan.txt", "ok"),
        *[("brain.nii", "ok")] * 3,
        ("words", "unsupported"),
        ("none.dcm", "unreadable"),
    ]
    assert summary.images == 7
    run(f"s3://{bucket}/data/IM1", tmp_path / "one")
    assert [row["status"] for row in rows(tmp_path / "one")] == ["ok"]


def test_of_two_members_with_one_name_the_first_counts(run: Run, tmp_path: Path) -> None:
    contents = [write_slice(tmp_path / str(seed), drawn_values(seed)).read_bytes() for seed in (1, 2)]
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for content in contents:
            archive.writestr("IM1", content)
    run(tmp_path / "a.zip", tmp_path / "run")
    (row,) = rows(tmp_path / "run")
    assert row["sha256"] == sha256(contents[0]).hexdigest()
    assert skipped(tmp_path / "run", "a.zip/") == [("IM1", "duplicate", None)]


# ------------------------------------------------------------------------------------ resuming, adding, hiding, showing


def test_shards_of_a_run_agree(run: Run, data: Path, local: Path, tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", read_folder(data))
    for number in (1, 2):
        run(tmp_path / "a.zip", tmp_path / f"shard-{number}", shard=f"{number}/2")
    merge([tmp_path / "shard-1", tmp_path / "shard-2"], tmp_path / "merged")
    check_same(tmp_path / "merged", local, "a.zip/")


def test_a_run_that_was_killed_by_force_is_finished_by_the_same_command(
    run: Run, data: Path, local: Path, tmp_path: Path, tiny_model: Path, key: Path
) -> None:
    write_zip(tmp_path / "a.zip", read_folder(data))
    out = tmp_path / "run"
    words = [
        "classify",
        tmp_path / "a.zip",
        "--out",
        out,
        "--model",
        tiny_model,
        "--batch-size",
        "8",
        "--precision",
        "fp32",
    ]
    words += ["--pseudonym-key", key, "--threads", "2", "--quiet"]
    process = subprocess.Popen([sys.executable, "-m", "mribatch.cli", *map(str, words)])
    while not (out / "listing.parquet").exists() and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.wait()
    run(tmp_path / "a.zip", out)
    check_same(out, local, "a.zip/")
    assert run(tmp_path / "a.zip", out).new_rows == 0


def test_new_studies_are_added(run: Run, s3: S3Server, bucket: str, tmp_path: Path) -> None:
    write_series(tmp_path / "one" / "SER", 18)
    write_tar(tmp_path / "one" / "a.tar", read_folder(tmp_path / "one"))
    s3.upload(tmp_path / "one", bucket, "data")
    run(f"s3://{bucket}/data", tmp_path / "run")
    before = rows(tmp_path / "run")
    assert len(before) == 36 and len({row["series"] for row in before}) == 1
    write_volume(tmp_path / "two" / "z.nii.gz", 3)
    write_slice(tmp_path / "two" / "IM9", SeriesInstanceUID=f"{UID}.2")
    s3.upload(tmp_path / "two", bucket, "data")
    run(f"s3://{bucket}/data", tmp_path / "run", add_new=True)
    assert rows(tmp_path / "run")[:36] == before
    assert [row["path"] for row in rows(tmp_path / "run")[36:]] == ["IM9", *["z.nii.gz"] * 3]


def test_hidden_paths_hide_the_names_in_an_archive(run: Run, data: Path, local: Path, tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", read_folder(data))
    run(tmp_path / "a.zip", tmp_path / "run", anonymize_paths=True)
    found = rows(tmp_path / "run")
    same = ("status", "error", "flags", "patient", "study", "predicted", "sha256", "slice")
    assert [[row[name] for name in same] for row in found] == [[row[name] for name in same] for row in rows(local)]
    for name in ("listing.parquet", "skipped.parquet", "predictions/part-00000.parquet"):
        assert not any(word in (tmp_path / "run" / name).read_bytes() for word in (b"PAT1", b"brain.nii", b"a.zip"))


def test_the_report_shows_pictures_of_what_is_in_an_archive_or_a_store(
    run: Run, s3: S3Server, bucket: str, data: Path, local: Path, tmp_path: Path
) -> None:
    write_zip(tmp_path / "a.zip", read_folder(data))
    s3.upload(data, bucket, "data")
    run(tmp_path / "a.zip", tmp_path / "zip")
    run(f"s3://{bucket}/data", tmp_path / "store")
    places = [row["index"] for row in rows(local) if row["status"] in ("ok", "blank")]
    pictures = []
    for folder in (local, tmp_path / "zip", tmp_path / "store"):
        with RunImages(folder, read_finished_run(folder)) as images:
            pictures.append([images.show(file, 64) for file in images.find(places)])
    for shown in zip(*pictures, strict=True):
        assert all((one is None) == (shown[0] is None) and np.array_equal(one, shown[0]) for one in shown[1:])
    assert sum(picture is not None for picture in pictures[0]) > 30


def test_an_estimate_counts_them(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", read_folder(data))
    found = partial(estimate, options=ClassifyOptions(model=str(tiny_model)), progress=SilentProgress())
    packed, folder = found([tmp_path / "a.zip"], None), found([data], None)
    assert (packed.files, packed.images, packed.skipped) == (folder.files, folder.images, folder.skipped)
    assert packed.sampled_not_ok == folder.sampled_not_ok


def test_a_store_that_throttles_loses_no_header(
    run: Run, s3: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path / "data", 3)
    write_volume(tmp_path / "data" / "brain.nii.gz", 3)
    run(tmp_path / "data", tmp_path / "local")
    s3.upload(tmp_path / "data", bucket, "data")
    with misbehaving(s3) as (proxy, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        faults.answer = lambda method, path: (503, SLOW_DOWN) if len(faults.requests) % 5 == 0 else None
        run(f"s3://{bucket}/data", tmp_path / "run")
    assert comparable(rows(tmp_path / "run")) == comparable(rows(tmp_path / "local"))


def test_what_is_too_large_for_an_archive_has_its_row_and_a_foreign_file_has_none(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mribatch.pipeline.storage import content as content_module

    monkeypatch.setattr(content_module, "MAX_MEMBER_BYTES", 10_000)
    frames = np.stack([drawn_values(place) for place in range(30)])
    write_slice(tmp_path / "data" / "large.dcm", frames)
    write_slice(tmp_path / "data" / "large", frames)
    write_slice(tmp_path / "data" / "small.dcm")
    (tmp_path / "data" / "weights").write_bytes(bytes(20_000))
    write_zip(tmp_path / "a.zip", read_folder(tmp_path / "data"))
    summary = run(tmp_path / "a.zip", tmp_path / "run", keep_going=True)
    large, small = rows(tmp_path / "run")
    assert (large["status"], small["status"], summary.exit_code) == ("unreadable", "ok", 3)
    assert "the limit in an archive is 10,000" in large["error"]
    reasons = [row[:2] for row in skipped(tmp_path / "run", "a.zip/")]
    assert reasons == [("large", "unreadable_file"), ("weights", "suffix")]


def test_what_lies_beside_the_images_of_a_webdataset_is_not_opened(
    run: Run, s3: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = draw_images(tmp_path / "data", 1)[0].read_bytes()
    others = ("cls", "json", "txt", "index", "npy")
    files = {f"{number:04}.{suffix}": b"7" * 70_000 for number in range(5) for suffix in others}
    (tmp_path / "up").mkdir()
    write_tar(tmp_path / "up" / "a.tar", files | {"0001.jpg": picture})
    s3.upload(tmp_path / "up", bucket, "data")
    with misbehaving(s3) as (proxy, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        run(f"s3://{bucket}/data", tmp_path / "run")
    asked = sum(method == "GET" and path.endswith("/a.tar") for method, path in faults.requests)
    assert len(rows(tmp_path / "run")) == 1 and asked < 12, "the list of it, and the image"


def test_a_store_of_another_scheme_is_read_alike(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    write_series(tmp_path / "data" / "SER", 3)
    write_slice(tmp_path / "data" / "wide", drawn_values(9, side=300))
    write_volume(tmp_path / "data" / "brain.nii.gz", 3)
    for name, content in read_folder(tmp_path / "data").items():
        put_object(Address("memory", "studies", name), content)
    write_zip(tmp_path / "a.zip", read_folder(tmp_path / "data"))
    put_object(Address("memory", "packed", "a.zip"), (tmp_path / "a.zip").read_bytes())
    run(tmp_path / "data", tmp_path / "local")
    run("memory://studies", tmp_path / "objects")
    run("memory://packed/a.zip", tmp_path / "zip")
    expected = comparable(rows(tmp_path / "local"))
    assert {row["status"] for row in expected} == {"ok"} and len(expected) == 7
    assert comparable(rows(tmp_path / "objects")) == expected
    assert comparable(rows(tmp_path / "zip"), "a.zip/") == expected
