"""The FP16 benchmark runs, on a handful of images. No figure is asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.folders import draw_images

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("real", [True, False])
def test_fp16_is_compared(tmp_path: Path, tiny_model: Path, real: bool) -> None:
    draw_images(tmp_path / "data", 20)
    (tmp_path / "data/broken.jpg").write_bytes(b"no image")
    command = [
        sys.executable,
        "-m",
        "benchmarks.fp16_agreement",
        "--model",
        tiny_model,
        "--count",
        "9",
        "--results",
        tmp_path / "results",
    ] + (["--data", tmp_path / "data"] if real else [])
    result = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (path,) = (tmp_path / "results").iterdir()
    content = json.loads(path.read_text())
    assert path.name == f"fp16_agreement-tiny-{'real' if real else 'synthetic'}-{content['images']}images-cpu.json"
    assert content["images"] == (8 if real else 9)
    assert content["verified"] == "cpu-emulated"
    for figures in (content["every_tensor_rounded"], content["graph_as_it_is"]):
        assert 0 <= figures["same_class"] <= content["images"] and figures["max_difference"] > 0
