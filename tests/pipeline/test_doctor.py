"""The doctor says what is there and what is missing, and never fails over it."""

from pathlib import Path

import pytest

from mribatch.core.install import install_command
from mribatch.pipeline import doctor


def test_a_healthy_machine() -> None:
    diagnosis = doctor.diagnose()
    assert diagnosis.problems == ()
    assert (diagnosis.backend.name, diagnosis.decoder.name) == ("onnxruntime", "opencv")
    assert 1 <= diagnosis.cores_usable <= diagnosis.cores_total
    assert all(diagnosis.libraries.values())
    text = diagnosis.to_text()
    assert "backend    auto picks onnxruntime: " in text and "No problem found." in text
    assert [extra.name for extra in diagnosis.extras] == [
        "train",
        "dicom",
        "ray",
        "dali",
        "rtx",
        "gpu-cu12",
        "gpu-cu13",
    ]


def test_a_missing_library_is_a_problem_with_its_fix() -> None:
    missing = ("pyarrow", "onnx")
    diagnosis = doctor.diagnose(lambda name: None if name in missing else doctor.find_version(name))
    assert diagnosis.problems == (f"pyarrow is not installed. Fix: {install_command()}",)
    train = next(line for line in diagnosis.to_text().splitlines() if line.startswith("train "))
    assert "lacks onnx" in train and train.endswith(install_command("train"))


def test_gpus_come_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA L4, 580.65.06, 23034 MiB'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert doctor.diagnose().gpus == ("NVIDIA L4, 580.65.06, 23034 MiB",)
    smi.write_text("#!/bin/sh\nexit 9\n")
    assert doctor.diagnose().gpus == ()


def test_the_driver_is_read_from_its_own_file(tmp_path: Path) -> None:
    file = tmp_path / "version"
    file.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n")
    assert doctor.diagnose(driver_file=file).driver == "580.65.06"
