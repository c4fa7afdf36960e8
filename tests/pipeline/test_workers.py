"""--workers auto: how many processes, on which GPUs, and why."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mribatch.core.bundle import load_bundle
from mribatch.core.errors import OptionError
from mribatch.pipeline.file_classifier import make_work_order
from mribatch.pipeline.inference.order import WorkOrder
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.records import Choice
from mribatch.pipeline.workers import Workers, choose_workers
from mribatch.trt.gpu import Gpu, NoGpu
from tests.folders import draw_images, mribatch

NONE = NoGpu("no NVIDIA driver is loaded", "install it")


@pytest.fixture
def order(tiny_model: Path) -> WorkOrder:
    options = ClassifyOptions(backend="onnxruntime", decoder="opencv")
    return make_work_order(load_bundle(str(tiny_model)), options, threads=2, note=print)


def gpus(count: int) -> Gpu:
    return Gpu("some GPU", "8.9", 1 << 34, "13.0", None, visible=count)


def on_gpu(order: WorkOrder, threads: int) -> WorkOrder:
    return replace(order, backend=Choice("tensorrt", "asked for"), threads=threads)


@pytest.mark.parametrize(("cores", "count"), [(1, 1), (2, 1), (32, 1), (33, 2), (64, 2), (128, 4)])
def test_a_cpu_has_one_process_for_every_32_cores(order: WorkOrder, cores: int, count: int) -> None:
    found = choose_workers(ClassifyOptions(workers="auto"), replace(order, threads=cores), NONE)
    assert (found.count, found.gpus) == (count, ()) and f"{cores}" in str(found.reason)


@pytest.mark.parametrize(
    ("visible", "cores", "count"), [(1, 8, 1), (1, 16, 2), (1, 128, 2), (4, 16, 4), (4, 63, 4), (4, 64, 8)]
)
def test_a_gpu_has_one_process_or_two_where_there_are_cores(
    order: WorkOrder, visible: int, cores: int, count: int
) -> None:
    found = choose_workers(ClassifyOptions(workers="auto"), on_gpu(order, cores), gpus(visible), {})
    assert (found.count, found.gpus) == (count, tuple(map(str, range(visible))))


def test_the_gpus_are_those_that_were_named(order: WorkOrder) -> None:
    auto = ClassifyOptions(workers="auto")
    named = {"CUDA_VISIBLE_DEVICES": "GPU-ab, 3"}
    assert choose_workers(auto, on_gpu(order, 8), gpus(2), named).gpus == ("GPU-ab", "3")
    assert choose_workers(replace(auto, gpus="1"), on_gpu(order, 8), gpus(2), named).gpus == ("1",)
    assert choose_workers(auto, order, gpus(2), named) == choose_workers(auto, order, NONE), "the GPU is not used"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Workers(1)),
        ({"workers": 3}, Workers(3)),
        ({"workers": "3"}, Workers(3)),
        ({"gpus": "0,1"}, Workers(2, ("0", "1"))),
    ],
)
def test_what_the_user_says_counts(order: WorkOrder, options: dict[str, Any], expected: Workers) -> None:
    assert choose_workers(ClassifyOptions(**options), on_gpu(order, 64), gpus(8)) == expected


def test_what_is_no_number_of_workers_is_refused() -> None:
    for value in ("two", "", "-1", "1.5"):
        with pytest.raises(OptionError, match="is no number. Fix: give auto, or a number from 1 to 256"):
            ClassifyOptions(workers=value)
    for number in (0, 257, "0"):
        with pytest.raises(OptionError, match="is out of range. Fix: choose a value from 1 to 256"):
            ClassifyOptions(workers=number)


def test_the_choice_is_told(tmp_path: Path, tiny_model: Path) -> None:
    draw_images(tmp_path / "data", 4)
    result = mribatch(
        *("classify", tmp_path / "data", "--out", tmp_path / "out", "--model", tiny_model, "--workers", "auto"),
        *("--backend", "onnxruntime", "--decoder", "opencv", "--threads", 2),
    )
    assert (result.returncode, result.stderr) == (0, "--workers auto: 1, one process keeps 2 cores busy with threads\n")
