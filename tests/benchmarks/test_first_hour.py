"""The first hour goes to its end, with or without a GPU, and says what it did not do and why. No figure is asserted."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.first_hour.__main__ import DONE, FAILED, SKIPPED, Outcome, find_ratio, format_page, run_step
from benchmarks.first_hour.steps import STEPS, Settings, find_obstacle
from benchmarks.host_rate.__main__ import STAND_INS
from mribatch.pipeline.choices import Machine
from mribatch.trt.gpu import Gpu, NoGpu, find_gpu
from mribatch.trt.library import Flavor
from tests.trt.fake_gpu.machine import DALI, H100, ROOT, TENSORRT, build_libcuda, make_machine

A_GPU = Gpu("NVIDIA L4", "8.9", 24 << 30, "13.0", "13.0")


def read_result(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("first_hour-*.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.mark.skipif(not isinstance(find_gpu(), NoGpu), reason="there is a GPU")
def test_without_a_gpu_every_step_says_so_and_the_exit_code_tells(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.first_hour", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    content = read_result(tmp_path)
    steps = content["steps"]
    assert list(steps) == list(STEPS) and content["ratio"] is None and content["conditions"]["gpu"] is None
    assert steps.pop("doctor")["state"] == DONE
    assert all(step["state"] == SKIPPED and step["why"].startswith("no GPU: ") for step in steps.values())
    (page,) = tmp_path.glob("*.md")
    assert page.read_text().count(": skipped\n") == len(steps) and "Machine: no GPU" in page.read_text()


@pytest.mark.parametrize(
    ("machine", "step", "why"),
    [
        (Machine(NoGpu("none", ""), (), False), "driver", "no GPU: none"),
        (Machine(A_GPU, (Flavor.TENSORRT,), False), "decoding", "NVIDIA DALI is not installed"),
        (Machine(A_GPU, (), True), "inference", "no TensorRT that runs on this GPU is installed"),
        (Machine(A_GPU, (), True), "decoding", None),
        (Machine(A_GPU, (Flavor.TENSORRT,), True), "tuning", None),
    ],
)
def test_what_cannot_be_done_is_skipped_with_the_reason(machine: Machine, step: str, why: str | None) -> None:
    assert find_obstacle(step, machine) == why


@pytest.mark.skipif(not isinstance(find_gpu(), NoGpu), reason="there is a GPU")
def test_a_step_that_fails_is_no_success() -> None:
    outcome = run_step("driver", Settings(model="cnn"), Machine(A_GPU, (Flavor.TENSORRT,), True))
    assert outcome.state == FAILED and "there is no GPU to run on" in str(outcome.why)


def test_the_ratio_is_of_what_was_measured() -> None:
    outcomes = {
        "whole_runs": Outcome(DONE, None, {"best": 9000.0}),
        "decoding": Outcome(DONE, None, {"best": 12_000.0}),
        "inference": Outcome(DONE, None, {"best": 40_000.0, "best_beside_decoding": 10_000.0}),
    }
    assert find_ratio(outcomes) == pytest.approx(0.9)
    facts = {"gpu": None, "processor": "a processor", "cores": 2, "date": "2026-01-01", "mribatch": "0"}
    assert "= 0.900" in format_page(facts, outcomes)
    assert find_ratio(outcomes | {"decoding": Outcome(FAILED, "it died", {})}) is None


@pytest.mark.slow
def test_on_a_gpu_in_memory_every_step_is_done(tmp_path: Path, tiny_model: Path) -> None:
    """Decoding and inference are stand-ins, so this shows that the script works, and nothing of a GPU."""
    pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed: pip install '.[dali]'")
    machine = make_machine(tmp_path / "machine", build_libcuda(tmp_path), [H100], [TENSORRT, DALI])
    steps = [name for name in STEPS if name != "tests"]  # these are for a real GPU
    small = ["--model", str(tiny_model), "--batches", "2", "--seconds", "0.2", "--parts", "8", "--kilobytes", "32"]
    command = [
        "-m",
        "benchmarks.first_hour",
        "--results",
        str(tmp_path / "results"),
        "--steps",
        ",".join(steps),
        *small,
    ]
    free = {"PYTHONPATH": f"{STAND_INS}:{ROOT}", "STAND_IN_MODEL": str(tiny_model)}
    done = machine.run(*command, check=False, more=free, limit_s=1200)
    content = read_result(tmp_path / "results")
    states = {name: (step["state"], step["why"]) for name, step in content["steps"].items()}
    assert states == dict.fromkeys(steps, (DONE, None)), done.stdout
    assert done.returncode == 0 and content["ratio"] > 0
    (page,) = (tmp_path / "results").glob("*-in_memory.md")
    assert "IN MEMORY, of the tests: no GPU" in page.read_text(), "nobody takes it for a GPU's"
    assert content["steps"]["same_bits"]["figures"]["rows_that_differ"] == [0, 0]
    assert content["steps"]["codec"]["figures"]["one_image_at_all_places_by_load"].keys() == {"1", "0", "0.65"}
