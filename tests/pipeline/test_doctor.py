"""The doctor says what is there and what is missing, and never fails over it."""

from pathlib import Path

import pytest

from mribatch.core.install import install_command
from mribatch.pipeline import doctor
from mribatch.pipeline.decode.dali_package import find_gpu_extra


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
        "storage",
        "metrics",
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


def test_what_is_for_another_cuda_is_not_advised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA L4, 580.65.06, 23034 MiB'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with_cuda_13 = {"nvidia-dali-cuda130": "2.4.0", "cuda-core": "1.2.2", "cuda-bindings": "13.5.0", "onnx": "1.23"}
    text = doctor.diagnose(lambda name: with_cuda_13.get(name)).to_text()
    states = {line.split()[0]: line for line in text.splitlines() if line.startswith(("gpu-cu", "dali"))}
    assert states["gpu-cu12"].endswith("not beside gpu-cu13") and "lacks tensorrt-cu13" in states["gpu-cu13"]


@pytest.mark.parametrize(
    "installed, extra",
    [("nvidia-dali-cuda130", "gpu-cu13"), ("tensorrt-cu12", "gpu-cu12"), ("nvidia-dali-cuda120", None)],
)
def test_the_extra_of_which_something_is_installed(installed: str, extra: str | None) -> None:
    assert find_gpu_extra(lambda name: "1" if name == installed else None) == extra
