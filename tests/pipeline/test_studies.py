"""Folders of studies through the whole pipeline: one row per image, the same rows however a run goes."""

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import mribatch
from mribatch.core.errors import ExitCode, MribatchError
from mribatch.pipeline.decode.study import StudyDecoder
from mribatch.pipeline.decode.values import Window
from mribatch.pipeline.dry_run import estimate
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.csv_table import write_csv
from mribatch.pipeline.output.parts import STUDY_FIELDS
from mribatch.pipeline.output.selection import RowSelection, select_rows
from mribatch.pipeline.output.summary import RunSummary
from mribatch.pipeline.progress import SilentProgress
from mribatch.pipeline.records import ImageFile, Status, StudyImage
from mribatch.pipeline.run import classify
from mribatch.pipeline.studies.options import HeaderOptions
from mribatch.report.verify import verify_run
from tests.folders import draw_images, rows, table
from tests.studies import PATIENT, UID, drawn_values, write_report, write_series, write_slice, write_volume

Classify = Callable[..., RunSummary]


@pytest.fixture
def tiny(tiny_model: Path) -> Classify:
    """classify with the tiny model; runs agree on their pseudonyms."""

    def call(inputs: Path, out: Path, **options: Any) -> RunSummary:
        key = out.parent / "key" if "pseudonym_key" not in options else options.pop("pseudonym_key")
        asked: dict[str, Any] = {"model": str(tiny_model), "batch_size": 8, "pseudonym_key": key and str(key)}
        return classify([inputs], out, ClassifyOptions(**(asked | options)))

    return call


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain images, DICOM nested without suffixes, several frames, a volume, and what is no image. Not to be changed."""
    data = tmp_path_factory.mktemp("mixed") / "data"
    draw_images(data, 4)
    write_series(data / "export" / "PAT1" / "SER2", 20)
    frames = np.stack([drawn_values(50 + place) for place in range(6)])
    write_slice(data / "export" / "PAT1" / "frames", frames, SeriesInstanceUID=f"{UID}.3")
    write_slice(data / "export" / "windowed.dcm", WindowCenter=500, WindowWidth=1000, SeriesInstanceUID=f"{UID}.4")
    write_report(data / "export" / "PAT1" / "SR1")
    write_slice(data / "ct.dcm", Modality="CT")
    write_volume(data / "brain.nii.gz", 12, blanks=2)
    (data / "README").write_text("no image")
    return data


def run_json(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "run.json").read_text())
    return content


def test_every_image_has_its_row(tiny: Classify, mixed: Path, tmp_path: Path) -> None:
    summary = tiny(mixed, tmp_path / "out")
    got = rows(tmp_path / "out")
    assert [row["index"] for row in got] == list(range(4 + 20 + 6 + 1 + 12))
    assert (summary.files, summary.images, summary.not_ok, summary.blank) == (27, 43, 0, 2)
    assert summary.exit_code is ExitCode.OK and "43 images in 27 files: 41 ok, 2 blank, 0 failed" in summary.to_text()
    frames = [row for row in got if row["path"].endswith("frames")]
    assert [(row["slice"], row["instance"]) for row in frames] == [(place, place + 1) for place in range(6)]
    assert len({row["sha256"] for row in frames}) == 1 and {row["plane"] for row in frames} == {"axial"}
    volume = [row for row in got if row["path"] == "brain.nii.gz"]
    assert [row["status"] for row in volume] == ["blank"] * 2 + ["ok"] * 10
    assert all((row["predicted"] is None) == (row["status"] == "blank") and not row["patient"] for row in volume)
    series = [row for row in got if "SER2" in row["path"]]
    assert len({(row["patient"], row["study"], row["series"]) for row in series}) == 1
    assert all(row["slice"] is None and row["flags"] == ["windowed_by_range"] for row in series)
    assert len({row["series"] for row in got}) == 1 + 4 and len({row["patient"] for row in got}) == 2
    assert next(row for row in got if "windowed" in row["path"])["flags"] == []
    listing = run_json(tmp_path / "out")["listing"]
    assert listing["images_by_format"] == {"image": 4, "dicom": 27, "nifti": 12}
    assert listing["skipped_by_reason"] == {"suffix": 1, "dicom_no_pixels": 1, "dicom_modality": 1}


def test_rows_do_not_depend_on_batches_and_threads(tiny: Classify, mixed: Path, tmp_path: Path) -> None:
    tiny(mixed, tmp_path / "out")
    tiny(mixed, tmp_path / "other", batch_size=3, threads=1)
    same = ["path", "slice", "patient", "study", "series", "predicted", "flags", "sha256", "status"]
    assert table(tmp_path / "out").select(same).equals(table(tmp_path / "other").select(same))


@pytest.mark.skipif(find_spec("nvidia.dali") is None, reason="needs DALI") if find_spec("nvidia") else pytest.mark.skip
def test_the_worker_process_gives_the_same_rows(tiny: Classify, mixed: Path, tmp_path: Path) -> None:
    tiny(mixed, tmp_path / "opencv")
    tiny(mixed, tmp_path / "dali", decoder="dali")
    before, now = ([row for row in rows(tmp_path / name) if row["series"]] for name in ("opencv", "dali"))
    assert len(before) == 39 and before == now


@pytest.mark.slow
def test_a_killed_run_ends_with_the_table_of_one_that_was_not(
    tiny: Classify, tiny_model: Path, mixed: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "mixed").symlink_to(mixed)
    write_volume(data / "long.nii.gz", 1500)
    tiny(data, tmp_path / "whole", batch_size=8)
    command = [sys.executable, "-m", "mribatch.cli", "classify", str(data), "--out", str(tmp_path / "out")]
    command += ["--model", str(tiny_model), "--batch-size", "8", "--pseudonym-key", str(tmp_path / "key"), "--quiet"]
    random = np.random.default_rng(13)
    for _ in range(20):
        process = subprocess.Popen(command)
        time.sleep(float(random.uniform(0.3, 3)))
        process.kill()
        process.wait()
    assert subprocess.run(command, check=False).returncode == ExitCode.OK
    assert table(tmp_path / "out").equals(table(tmp_path / "whole")) and table(tmp_path / "out").num_rows == 1543


# -------------------------------------------------------------------------------------------------- pseudonyms and paths


def outputs(out: Path) -> bytes:
    """Everything in a run folder but the key and the map of paths, unpacked."""
    texts = [
        repr(pq.read_table(path).to_pylist()).encode() if path.suffix == ".parquet" else path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("paths.parquet", "pseudonym.key")
    ]
    return b"\n".join(texts)


def test_the_key_is_the_runs_own_and_is_kept(tiny: Classify, mixed: Path, tmp_path: Path) -> None:
    tiny(mixed, tmp_path / "out", pseudonym_key=None, csv=True)
    key = tmp_path / "out" / "pseudonym.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_bytes()) == 65
    assert tiny(mixed, tmp_path / "out", pseudonym_key=None).new_rows == 0
    for text in (PATIENT, "P-0815", UID):
        assert text.encode() not in outputs(tmp_path / "out")
    key.unlink()
    with pytest.raises(MribatchError, match="holds another run: the listing differs"):
        tiny(mixed, tmp_path / "out", pseudonym_key=None)
    tiny(mixed, tmp_path / "plain", pseudonym_key=None)
    assert {row["series"] for row in rows(tmp_path / "plain")} & {row["series"] for row in rows(tmp_path / "out")} == {
        None
    }


def test_plain_images_need_no_key(tiny: Classify, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 3)
    tiny(tmp_path / "data", tmp_path / "out", pseudonym_key=None)
    assert sorted(os.listdir(tmp_path / "out")) == [
        *(".lock", "listing.parquet", "parts.sha256", "predictions", "run.json", "skipped.parquet")
    ]


def test_a_shared_key_makes_runs_agree_and_another_is_another_run(tiny: Classify, mixed: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        tiny(mixed, tmp_path / name, pseudonym_key=tmp_path / "shared")
    assert table(tmp_path / "one").equals(table(tmp_path / "two"))
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o600
    with pytest.raises(MribatchError, match="the key of the pseudonyms was"):
        tiny(mixed, tmp_path / "one", pseudonym_key=tmp_path / "other")
    (tmp_path / "short").write_text("secret")
    with pytest.raises(MribatchError, match="has 6 bytes; at least 16 are needed"):
        tiny(mixed, tmp_path / "new", pseudonym_key=tmp_path / "short")


def test_hidden_paths_are_in_no_output_but_the_map(tiny: Classify, tmp_path: Path) -> None:
    data, out = tmp_path / "Jane_Doe", tmp_path / "out"
    draw_images(data, 4)
    write_series(data / "Jane_Doe_1980" / "ser", 3)
    options: dict[str, Any] = {"anonymize_paths": True, "csv": True, "pseudonym_key": None}
    tiny(data, out, **options)
    assert b"Jane" not in outputs(out) and str(tmp_path).encode() not in outputs(out).replace(b"/key", b"")
    mapping = pq.read_table(out / "paths.parquet").to_pylist()
    assert stat.S_IMODE((out / "paths.parquet").stat().st_mode) == 0o600
    assert [row["path"] for row in rows(out)] == [pair["path"] for pair in mapping]
    assert mapping[0]["real_path"] == b"Jane_Doe_1980/ser/IM000000" and rows(out)[3]["label"] == "glioma_tumor"
    assert tiny(data, out, **options).new_rows == 0
    write_slice(data / "Jane_Doe_1980" / "late", SeriesInstanceUID=f"{UID}.8")
    assert tiny(data, out, add_new=True, **options).new_rows == 1
    assert rows(out)[-1]["status"] == "ok" and b"Jane" not in outputs(out)
    assert pq.read_table(out / "paths.parquet").to_pylist()[-1]["real_path"] == b"Jane_Doe_1980/late"
    with pytest.raises(MribatchError, match="--anonymize-paths was true, now it is null|its inputs were"):
        tiny(data, out, pseudonym_key=None)


# ------------------------------------------------------------------------------------------------------- what is listed


def test_what_is_named_outright_has_a_row(tiny_model: Path, tmp_path: Path) -> None:
    report, scan = write_report(tmp_path / "SR1"), write_slice(tmp_path / "ct", Modality="CT")
    bare = write_slice(tmp_path / "bare")
    bare.write_bytes(bare.read_bytes()[132:])
    names = [report, scan, bare]
    classify(names, tmp_path / "out", ClassifyOptions(model=str(tiny_model)))
    got = rows(tmp_path / "out")
    assert [row["status"] for row in got] == ["unsupported", "unsupported", "ok"]
    assert "modality" in got[0]["error"] and "CT" in got[1]["error"] and got[0]["sha256"]
    classify(names, tmp_path / "any", ClassifyOptions(model=str(tiny_model), any_modality=True))
    assert rows(tmp_path / "any")[1]["flags"][0] == "any_modality"


def test_files_without_the_preamble_are_found_where_that_is_asked_for(tiny: Classify, tmp_path: Path) -> None:
    for name in ("IM1", "IM2.dcm"):
        path = write_slice(tmp_path / "data" / name)
        path.write_bytes(path.read_bytes()[132:])
    assert tiny(tmp_path / "data", tmp_path / "out").images == 1
    assert tiny(tmp_path / "data", tmp_path / "anywhere", dicom_anywhere=True).images == 2


def test_a_pair_is_listed_under_its_header(tiny: Classify, tmp_path: Path) -> None:
    write_volume(tmp_path / "data" / "brain.hdr", 5)
    tiny(tmp_path / "data", tmp_path / "out")
    assert [row["path"] for row in rows(tmp_path / "out")] == ["brain.hdr"] * 5
    assert run_json(tmp_path / "out")["listing"]["skipped_by_reason"] == {"nifti_data": 1}


def test_damaged_files_have_their_rows(tiny: Classify, tmp_path: Path) -> None:
    data = tmp_path / "data"
    whole = write_slice(data / "IM0").read_bytes()
    (data / "IM1").write_bytes(whole[:-50])
    (data / "empty.dcm").touch()
    (data / "text.nii.gz").write_text("no volume")
    volume = write_volume(data / "cut.nii", 6).read_bytes()
    (data / "cut.nii").write_bytes(volume[:-50])
    assert tiny(data, tmp_path / "out").exit_code is ExitCode.ROWS_NOT_OK
    got = {row["path"]: (row["status"], row["error"]) for row in rows(tmp_path / "out")}
    assert {path: status for path, (status, _) in got.items()} == {
        "IM0": "ok",
        "IM1": "truncated",
        "cut.nii": "truncated",
        "empty.dcm": "empty",
        "text.nii.gz": "unsupported",
    }
    assert all(error and error.endswith(".") for status, error in got.values() if status != "ok")


def test_new_images_of_a_series_do_not_change_its_range(tiny: Classify, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_series(data, 20)
    tiny(data, out)
    before = pq.read_table(out / "listing.parquet").column("sampled").to_pylist()
    assert sum(before) == 16 and before[0] and before[19]
    write_slice(data / "IM000009a", drawn_values(3, depth=4000), SeriesInstanceUID=f"{UID}.2")
    tiny(data, out, add_new=True)
    assert pq.read_table(out / "listing.parquet").column("sampled").to_pylist() == [*before, False]
    assert len(rows(out)) == 21 and rows(out)[20]["path"] == "IM000009a"


@pytest.mark.parametrize("name", ["frames", "volume.nii"])
def test_a_file_is_read_once_for_all_its_slices(tmp_path: Path, name: str) -> None:
    frames = np.stack([drawn_values(place) for place in range(3)])
    path = write_volume(tmp_path / name, 3) if name.endswith(".nii") else write_slice(tmp_path / name, frames)
    kind = "nifti" if name.endswith(".nii") else "dicom"
    decoder = StudyDecoder(height=8, width=8, window=Window.parse("file"), options=HeaderOptions(max_pixels=10**8))
    images = [StudyImage(kind, place) for place in range(3)]
    files = [ImageFile(place, 0, name, bytes(path), study=study) for place, study in enumerate(images)]
    first, pixels = decoder.decode(files[0], images[0])
    path.unlink()  # what follows needs the file no more
    for file, study in zip(files[1:], images[1:], strict=True):
        decoded, other = decoder.decode(file, study)
        assert decoded.verdict.status is Status.OK and decoded.sha256 == first.sha256
        assert pixels is not None and other is not None and not np.array_equal(pixels, other)
    decoder.close()
    assert decoder.decode(files[0], images[0])[0].verdict.status is Status.UNREADABLE


def test_the_dry_run_counts_images(tiny_model: Path, mixed: Path) -> None:
    found = estimate([mixed], None, ClassifyOptions(model=str(tiny_model)), SilentProgress())
    assert (found.files, found.images) == (27, 43) and found.skipped["dicom_modality"] == 1
    assert "43 images in 27 files would be classified" in found.to_text()


def test_single_files_are_classified_without_a_run_as_in_one(tiny: Classify, tiny_model: Path, tmp_path: Path) -> None:
    path = write_slice(tmp_path / "data" / "IM1", drawn_values(5))
    volume, report = write_volume(tmp_path / "brain.nii", 3), write_report(tmp_path / "SR1")
    tiny(tmp_path / "data", tmp_path / "out")
    one, same, several, nothing = mribatch.classify_images(
        [path, path.read_bytes(), volume, report.read_bytes()], model=str(tiny_model), progress=False
    )
    expected = rows(tmp_path / "out")[0]
    assert all(one[name] == same[name] == expected[name] for name in ("predicted", "confidence", "flags", "sha256"))
    assert several["status"] == nothing["status"] == "unsupported" and "holds 3 slices" in several["error"]


def test_a_study_file_under_a_name_of_another_format_says_so(tiny: Classify, tmp_path: Path) -> None:
    write_slice(tmp_path / "data" / "scan.jpg")
    tiny(tmp_path / "data", tmp_path / "out")
    (row,) = rows(tmp_path / "out")
    assert row["status"] == "unsupported" and "This is a DICOM file" in row["error"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"window": "wide"}, "'wide' is no window"),
        ({"plane": "oblique"}, "--plane 'oblique' is unknown"),
        ({"volume": "first"}, "--volume first is not a number of a volume"),
        ({"volume": -1}, "--volume -1 is not a number of a volume"),
    ],
)
def test_options_of_studies_are_checked(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(MribatchError, match=problem):
        ClassifyOptions(**options)


# ------------------------------------------------------------------------------------------------------------ older runs


def test_a_run_of_schema_version_1_stays_readable(tiny: Classify, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    draw_images(data, 5)
    tiny(data, out, pseudonym_key=None)
    names = [field.name for field in STUDY_FIELDS]
    for part in out.glob("predictions/*.parquet"):
        pq.write_table(pq.read_table(part).drop_columns(names), part)
    (out / "parts.sha256").unlink()
    content = run_json(out)
    del content["listing"]["images"]
    content["schema_version"] = content["fingerprint"]["schema_version"] = 1
    (out / "run.json").write_text(json.dumps(content))
    run = mribatch.open_run(out)
    assert run.to_arrow().column_names == table(out).column_names and "5 files: 5 ok, 0 failed" in repr(run)
    assert all(row[name] is None for row in select_rows(out, RowSelection()).rows for name in names)
    assert run.report().facts.files.total == 5
    verified = verify_run(out)
    assert (verified.problems, verified.parts_without_hash) == (0, 1), verified.findings
    write_csv(out, tmp_path / "rows.csv", "tiny")
    assert b"slice" in (tmp_path / "rows.csv").read_bytes()
    with pytest.raises(MribatchError, match="the version of the Parquet schema was 1, now it is 2"):
        tiny(data, out, pseudonym_key=None)
