"""No identity of a header, and with --anonymize-paths no name of a file or folder, is in anything that a run writes."""

import gzip
import os
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.uid import generate_uid

from mribatch.pipeline.demo_study import draw_demo_study

PLANTED = {
    "PatientName": "Plantedname^Secret",
    "PatientID": "PLANTED-ID-77431",
    "PatientBirthDate": "19630417",
    "PatientAddress": "Plantedstreet 12",
    "OtherPatientNames": "Plantedother^Name",
    "ReferringPhysicianName": "Planteddoctor^Name",
    "InstitutionName": "Plantedhospital",
    "StudyDescription": "Plantedstudy text",
    "SeriesDescription": "Plantedseries text",
    "ProtocolName": "Plantedprotocol",
    "AccessionNumber": "PLANTACC9",
    "ImageComments": "Plantedcomment about somebody",
    "StudyInstanceUID": generate_uid(entropy_srcs=["planted study"]),
    "FrameOfReferenceUID": generate_uid(entropy_srcs=["planted frame"]),
}
FOLDER = "Plantedfolder-Muster"


def plant(folder: Path) -> None:
    """Write planted names into every DICOM file and the volume; break some files after that, so that errors are made."""
    draw_demo_study(folder, seed=1)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".gz")
    for number, path in enumerate(files):
        dataset = pydicom.dcmread(path)
        for keyword, value in PLANTED.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)
        content = path.read_bytes()
        if number % 5 == 1:  # cut inside the pixels, and inside the header
            path.write_bytes(content[: len(content) // 2])
        elif number % 5 == 2:
            path.write_bytes(content[:900])
        elif number % 5 == 3:  # a number that is none, and a syntax that nobody knows
            path.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.9\0"))
    volume = nibabel.Nifti1Image(np.arange(8 * 8 * 8, dtype=np.int16).reshape(8, 8, 8), np.eye(4))
    volume.header["descrip"] = b"Plantedvolume of somebody"
    volume.header["db_name"] = b"Planteddbname"
    (folder / "planted.nii.gz").write_bytes(gzip.compress(volume.to_bytes()))
    (folder / "planted-cut.nii.gz").write_bytes(gzip.compress(volume.to_bytes())[:300])


def classify(inputs: Path, run: Path, model: Path, *options: str) -> str:
    """What the command prints, in its own process."""
    command = [sys.executable, "-m", "mribatch", "classify", str(inputs), "--out", str(run), "--model", str(model)]
    log = run.with_suffix(".log")
    found = subprocess.run(
        [*command, "--csv", "--log", str(log), *options], capture_output=True, text=True, timeout=300, check=False
    )
    assert found.returncode in (0, 3), found.stderr
    return found.stdout + found.stderr + log.read_text()


def everything_in(run: Path) -> dict[str, bytes]:
    """Name of each file -> its content, unpacked where a reader is needed to see the text."""
    found: dict[str, bytes] = {}
    for path in sorted(run.rglob("*")):
        if not path.is_file():
            continue
        found[str(path.relative_to(run))] = path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            found[f"{path.relative_to(run)} as text"] = repr(table.to_pylist()).encode() + repr(table.schema).encode()
        elif path.suffix == ".sqlite":
            with sqlite3.connect(path) as connection:
                found[f"{path.relative_to(run)} as text"] = "\n".join(connection.iterdump()).encode()
    return found


def identities() -> list[bytes]:
    texts = [part for value in PLANTED.values() for part in str(value).split("^")]
    return [text.encode() for text in [*texts, "Plantedvolume", "Planteddbname"] if text not in ("Name", "Secret")]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / FOLDER
    plant(folder)
    return folder


def test_no_identity_of_a_header_is_in_any_output(planted: Path, tmp_path: Path, tiny_model: Path) -> None:
    run = tmp_path / "run"
    printed = classify(planted, run, tiny_model)
    report = [sys.executable, "-m", "mribatch", "report", str(run)]
    printed += subprocess.run(report, capture_output=True, text=True, timeout=300, check=True).stdout
    contents = everything_in(run) | {"what is printed": printed.encode()}
    assert len(contents) > 8
    found = [(name, text) for name, content in contents.items() for text in identities() if text in content]
    assert found == []
    statuses = pq.read_table(run / "predictions")["status"].to_pylist()
    assert {"ok", "truncated"} <= set(statuses), "the planted errors were met"


def test_hidden_paths_are_nowhere_but_in_their_own_file(planted: Path, tmp_path: Path, tiny_model: Path) -> None:
    run = tmp_path / "run"
    printed = classify(planted, run, tiny_model, "--anonymize-paths")
    report = [sys.executable, "-m", "mribatch", "report", str(run)]
    printed += subprocess.run(report, capture_output=True, text=True, timeout=300, check=True).stdout
    assert b"data:image/webp" not in (run / "report.html").read_bytes()
    contents = {name: content for name, content in everything_in(run).items() if not name.startswith("paths.parquet")}
    contents |= {"what is printed": printed.encode()}
    texts = [FOLDER.encode(), b"IM0001", b"IM0007", b"planted-cut", b"series-1"]
    assert [(name, text) for name, content in contents.items() for text in texts if text in content] == []
    assert [name for name in ("paths.parquet", "pseudonym.key") if os.stat(run / name).st_mode & 0o077] == []
    real = repr(pq.read_table(run / "paths.parquet").to_pylist())
    assert "IM0007" in real


def test_no_identity_of_a_header_in_an_archive_is_in_any_output(
    planted: Path, tmp_path: Path, tiny_model: Path
) -> None:
    names = [path for path in sorted(planted.rglob("*")) if path.is_file()]
    with zipfile.ZipFile(tmp_path / "export.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in names:
            archive.write(path, path.relative_to(planted))
    damaged = bytearray((tmp_path / "export.zip").read_bytes())
    damaged[len(damaged) // 3] ^= 0xFF  # so that errors of the archive are made, too
    (tmp_path / "export.zip").write_bytes(damaged)
    run = tmp_path / "run"
    contents = {"what is printed": classify(tmp_path / "export.zip", run, tiny_model, "--anonymize-paths").encode()}
    contents |= everything_in(run)
    found = [(name, text) for name, content in contents.items() for text in identities() if text in content]
    assert found == []
    texts = [b"IM0001", b"IM0007", b"planted-cut", b"series-1", b"export.zip"]
    shown = {name: content for name, content in contents.items() if not name.startswith("paths.parquet")}
    assert [(name, text) for name, content in shown.items() for text in texts if text in content] == []
    statuses = set(pq.read_table(run / "predictions")["status"].to_pylist())
    assert {"ok", "truncated", "unreadable"} <= statuses, "the planted errors were met"
