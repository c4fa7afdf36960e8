"""The stages benchmark runs, on a handful of images, and its ratios are those of its rates. No figure is asserted."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.stage_rates import DALI_ON_GPU, Pair
from benchmarks.stages import ratios
from mribatch.pipeline.records import Choice
from tests.folders import draw_images

ROOT = Path(__file__).parents[2]


def has_dali() -> bool:
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ImportError:
        return False


def measured(tmp_path: Path, model: Path, *more: str) -> dict[str, object]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.stages",
        "--model",
        model,
        "--repeats",
        "1",
        "--count",
        "20",
        "--batch",
        "8",
        "--results",
        tmp_path / "results",
        *more,
    ]
    result = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (path,) = (tmp_path / "results").iterdir()
    assert path.name.startswith("stages-tiny-real-") and path.name.endswith("-batch8.json")
    content: dict[str, object] = json.loads(path.read_text())
    assert "all_onnxruntime_opencv" in result.stdout
    return content


def test_every_stage_is_measured(tmp_path: Path, tiny_model: Path) -> None:
    draw_images(tmp_path / "data", 11)
    content = measured(tmp_path, tiny_model, "--data", str(tmp_path / "data"))
    assert (content["files"], content["images_timed"], content["batch_size"]) == (11, 24, 8)
    stages = [
        "read",
        "decode_opencv",
        "infer_onnxruntime",
        "infer_onnxruntime_beside_opencv",
        "write",
        "all_onnxruntime_opencv",
    ]
    if has_dali():
        stages += ["decode_dali", "decode_bare", "infer_onnxruntime_beside_dali", "all_onnxruntime_dali"]
        assert any(key.startswith("worker_") and key.endswith("_to_all") for key in content)
        assert "nvidia-dali-cuda120" in str(content["conditions"]) or "nvidia-dali-cuda130" in str(
            content["conditions"]
        )
    else:
        assert "dali" in str(content["left_out"])
    for stage in stages:
        figure = content[f"{stage}_images_per_second"]
        assert isinstance(figure, dict) and figure["median"] > 0 and len(figure["repeats"]) == 1


def test_a_folder_without_images_is_an_error(tmp_path: Path, tiny_model: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.stages", "--model", tiny_model, "--data", tmp_path]
    result = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and result.stderr.startswith("Error: ") and "Traceback" not in result.stderr


def pair(backend: str, decoder: str) -> Pair:
    return Pair(Choice(backend, ""), Choice(decoder, ""))


def test_on_a_cpu_the_ceiling_is_that_of_the_cores() -> None:
    once = {
        "decode_opencv_images_per_second": 2000.0,
        "decode_dali_images_per_second": 1000.0,
        "decode_dali_process_core_seconds": 0.002,
        "all_onnxruntime_opencv_images_per_second": 360.0,
        "all_onnxruntime_dali_images_per_second": 300.0,
        "worker_onnxruntime_dali_images_per_second": 270.0,
        "decode_core_seconds": 0.001,
        "inference_core_seconds": 0.004,
    }
    found = ratios(once, [pair("onnxruntime", "opencv"), pair("onnxruntime", "dali")], cores=2, gpu=False)
    assert found == pytest.approx(
        {
            "ceiling": 400.0,
            "all_onnxruntime_opencv_to_ceiling": 0.9,
            "all_onnxruntime_dali_to_ceiling": 0.75,
            "all_onnxruntime_dali_to_own_ceiling": 0.9,
            "decode_dali_to_opencv": 0.5,
            "all_onnxruntime_dali_to_opencv": 300 / 360,
            "worker_onnxruntime_dali_to_all": 0.9,
        }
    )


def test_on_a_gpu_the_slower_of_decoding_and_inference_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.stage_rates.has_gpu", lambda: True)
    both = pair("tensorrt", "dali")
    assert (both.decodes, both.infers) == (DALI_ON_GPU, "tensorrt_on_gpu")
    assert (pair("tensorrt", "opencv").infers, pair("onnxruntime", "dali").decodes) == ("tensorrt", "dali")
    once = {
        "decode_opencv_images_per_second": 4000.0,
        "decode_dali_on_gpu_images_per_second": 8000.0,
        "decode_bare_images_per_second": 14_000.0,
        "infer_tensorrt_on_gpu_images_per_second": 10_000.0,
        "infer_tensorrt_images_per_second": 9000.0,
        "infer_tensorrt_on_gpu_beside_dali_on_gpu_images_per_second": 7000.0,
        "infer_tensorrt_beside_opencv_images_per_second": 8500.0,
        "all_tensorrt_dali_images_per_second": 7000.0,
        "all_tensorrt_opencv_images_per_second": 3800.0,
        "worker_tensorrt_dali_images_per_second": 6300.0,
    }
    found = ratios(once, [pair("tensorrt", "opencv"), both], cores=16, gpu=True)
    assert found == pytest.approx(
        {
            "all_tensorrt_opencv_to_min_decode_infer": 0.95,
            "all_tensorrt_opencv_to_min_decode_infer_beside": 0.95,
            "all_tensorrt_dali_to_min_decode_infer": 0.875,
            "all_tensorrt_dali_to_min_decode_infer_beside": 1.0,
            "all_tensorrt_dali_to_min_decode_bare_infer_beside": 1.0,
            "decode_dali_on_gpu_to_opencv": 2.0,
            "all_tensorrt_dali_to_opencv": 7000 / 3800,
            "worker_tensorrt_dali_to_all": 0.9,
        }
    )
