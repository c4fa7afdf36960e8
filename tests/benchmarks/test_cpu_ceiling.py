"""Every benchmark runs, on a handful of images, so that none rots unseen. No figure is asserted."""

import json
import subprocess
import sys
from pathlib import Path

from tests.folders import draw_images

ROOT = Path(__file__).parents[2]


def test_the_cpu_ceiling_is_measured(tmp_path: Path, tiny_model: Path) -> None:
    draw_images(tmp_path / "data", 20)
    command = [
        sys.executable,
        "-m",
        "benchmarks.cpu_ceiling",
        "--data",
        tmp_path / "data",
        "--model",
        tiny_model,
        "--repeats",
        "1",
        "--results",
        tmp_path / "results",
    ]
    result = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (path,) = (tmp_path / "results").iterdir()
    assert path.name.startswith("cpu_ceiling-tiny-real-")
    content = json.loads(path.read_text())
    assert content["images"] == 20
    assert content["whole_call_to_ceiling_all_cores_busy"]["median"] > 0
    assert content["conditions"]["libraries"]["onnxruntime"]
