"""Whole runs on GPUs in memory: the real supervisor, worker, cuda-core and loop; only driver and TensorRT stand in."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mribatch.pipeline.output.run_file import RunFile, read_run_file
from tests.folders import draw_images
from tests.trt.fake_gpu import table
from tests.trt.fake_gpu.machine import DALI, H100, L4, T4, TENSORRT, FakeMachine, build_libcuda, make_machine

pytest.importorskip("cuda.core", reason="cuda-core is not installed: pip install '.[rtx]'")

IMAGES = 90


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_libcuda(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, libraries: Path) -> FakeMachine:
    return make_machine(tmp_path_factory.mktemp("machine"), libraries, [H100], [TENSORRT])


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slices")
    draw_images(folder, IMAGES)
    return folder


def classify(
    machine: FakeMachine,
    slices: Path,
    out: Path,
    model: Path,
    *options: str,
    check: bool = True,
    more: dict[str, str] | None = None,
) -> "subprocess.CompletedProcess[str]":
    command: list[str | Path] = ["classify", slices, "--out", out, "--model", model, "--threads", "2", *options]
    return machine.mribatch(*command, check=check, more=more)


def answers(out: Path) -> dict[str, list[float]]:
    table = pq.read_table(out / "predictions")
    columns = [name for name in table.column_names if name.startswith("p_")]
    rows = table.select(["path", *columns]).to_pylist()
    return {row["path"]: [row[name] for name in columns] for row in rows}


@pytest.fixture(scope="module")
def on_cpu(machine: FakeMachine, slices: Path, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Any:
    out = tmp_path_factory.mktemp("cpu") / "run"
    classify(machine, slices, out, tiny_model, "--backend", "onnxruntime", "--decoder", "opencv")
    return answers(out)


def check_answers(out: Path, expected: dict[str, list[float]]) -> RunFile:
    """Every row is there, as the CPU's up to FP16."""
    got = answers(out)
    assert got.keys() == expected.keys() and len(got) == IMAGES
    assert max(abs(a - b) for path in got for a, b in zip(got[path], expected[path], strict=True)) < 1e-2
    return read_run_file(out)


def test_a_run_on_an_h100_builds_its_engine_once_and_says_so(
    machine: FakeMachine, slices: Path, tmp_path: Path, tiny_model: Path, on_cpu: Any
) -> None:
    done = classify(machine, slices, tmp_path / "run", tiny_model, "--decoder", "opencv")
    run = check_answers(tmp_path / "run", on_cpu)
    assert (run.backend, run.precision, run.batch_size, run.reasons.warning) == ("tensorrt", "fp16", 64, None)
    assert run.versions["tensorrt"] == "11.4.0.106" and run.reasons.backend.startswith(
        "fp16 engine for sm90 (tensorrt)"
    )
    assert run.proof is not None and run.proof.row_spread is not None and run.proof.row_spread <= 1e-3
    assert "WARNING" not in done.stdout + done.stderr
    assert [path.name.split("-")[3] for path in machine.cache.glob("*.engine")] == ["sm90"]


def test_out_of_memory_at_256_goes_on_at_128_and_it_is_told_and_recorded(
    machine: FakeMachine, slices: Path, tmp_path: Path, tiny_model: Path, on_cpu: Any
) -> None:
    small = machine.with_gpus(f"NVIDIA tiny:9.0:{2 * 200 * 64 + 8000}B")  # two slots of 200 images of 8 x 8 pixels
    options = ("--decoder", "opencv", "--batch-size", "256")
    done = classify(small, slices, tmp_path / "run", tiny_model, *options)
    run = check_answers(tmp_path / "run", on_cpu)
    assert run.backend == "tensorrt" and run.batch_size == 256 and run.attempts[-1].batch_size == 128
    told = "WARNING: the GPU has too little memory for batches of 256, so the run goes on with batches of 128: "
    assert told in done.stderr and "CUDA_ERROR_OUT_OF_MEMORY" in done.stderr


@pytest.mark.slow
def test_an_engine_that_cannot_be_had_is_a_warning_by_auto_and_an_error_where_it_was_asked_for(
    machine: FakeMachine, slices: Path, tmp_path: Path, tiny_model: Path, on_cpu: Any
) -> None:
    broken = tmp_path / "broken" / "tensorrt"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libnvinfer.so.11: cannot open shared object file')\n")
    paths = {"PYTHONPATH": f"{broken.parent}:{machine.environment()['PYTHONPATH']}"}
    paths |= {"MRIBATCH_CACHE": str(tmp_path / "cache")}
    done = classify(machine, slices, tmp_path / "run", tiny_model, "--decoder", "opencv", more=paths)
    run = check_answers(tmp_path / "run", on_cpu)
    warning = run.reasons.warning
    assert run.backend == "onnxruntime" and warning and "libnvinfer.so.11: cannot open" in warning
    assert f"WARNING: {warning}" in done.stderr and done.stdout.startswith(f"WARNING: {warning}")
    asked = ("--decoder", "opencv", "--backend", "tensorrt")
    failed = classify(machine, slices, tmp_path / "asked", tiny_model, *asked, check=False, more=paths)
    assert failed.returncode == 1 and "libnvinfer.so.11: cannot open shared object file" in failed.stderr
    assert not (tmp_path / "asked" / "predictions").exists()


@pytest.mark.slow
def test_two_runs_side_by_side_have_a_gpu_each(
    machine: FakeMachine, slices: Path, tmp_path: Path, tiny_model: Path, on_cpu: Any
) -> None:
    two, targets = machine.with_gpus(L4, T4), {"0": "sm89", "1": "sm75"}

    def run_on(visible: str) -> None:
        classify(
            two, slices, tmp_path / visible, tiny_model, "--decoder", "opencv", more={"CUDA_VISIBLE_DEVICES": visible}
        )

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run_on, targets))
    for visible, target in targets.items():
        run = check_answers(tmp_path / visible, on_cpu)
        assert run.reasons.backend.startswith(f"fp16 engine for {target} (tensorrt)")


@pytest.mark.slow
def test_where_dali_does_not_work_on_the_gpu_opencv_decodes_and_it_is_told(
    tmp_path: Path, libraries: Path, slices: Path, tiny_model: Path, on_cpu: Any
) -> None:
    pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed: pip install '.[dali]'")
    machine = make_machine(tmp_path / "machine", libraries, [L4], [TENSORRT, DALI])
    done = classify(machine, slices, tmp_path / "run", tiny_model)
    run = check_answers(tmp_path / "run", on_cpu)
    assert (run.backend, run.decoder) == ("tensorrt", "opencv") and f"WARNING: {run.reasons.warning}" in done.stdout
    assert (run.reasons.warning or "").startswith("Images are decoded on the CPU, not on the NVIDIA L4")
    asked = classify(machine, slices, tmp_path / "asked", tiny_model, "--decoder", "dali", check=False)
    assert asked.returncode == 1 and "NVIDIA DALI does not work on the GPU 0" in asked.stderr


@pytest.mark.slow
def test_the_page_says_what_runs_where() -> None:
    text = table.PAGE.read_text(encoding="utf-8")
    shown = text.partition(table.BEGIN)[2].partition(table.END)[0]
    assert shown == table.make_table(), "python -m tests.trt.fake_gpu.table writes it again"
