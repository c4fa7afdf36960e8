"""Backend and decoder put together in this process, gated at most once."""

import contextlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mribatch.core.bundle import Bundle, load_bundle
from mribatch.core.errors import MribatchError
from mribatch.core.gate import GateFailed, gate
from mribatch.pipeline.file_classifier import make_file_classifier
from mribatch.pipeline.inference.assembly import NotedProgress, assemble, open_decoder
from mribatch.pipeline.inference.in_process import Backend, InProcessClassifier
from mribatch.pipeline.inference.order import WorkOrder
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.records import Choice
from mribatch.pipeline.worker.supervisor import SupervisedClassifier
from mribatch.trt.engine.progress import BuildStep
from mribatch.trt.gpu import NoGpu, find_gpu
from tests.trt.graph.graphs import GoldenClassifier

no_gpu_here = pytest.mark.skipif(not isinstance(find_gpu(), NoGpu), reason="there is a GPU: an engine would be built")


@pytest.fixture(scope="module")
def bundle(tiny_model: Path) -> Bundle:
    return load_bundle(str(tiny_model))


def order_for(bundle: Bundle, **changes: Any) -> WorkOrder:
    order = WorkOrder(
        model=str(bundle.folder),
        bundle_sha256=bundle.sha256,
        backend=Choice("onnxruntime", "a test"),
        decoder=Choice("opencv", "a test"),
        precision=Choice("fp32", "a test"),
        batch_size=8,
        threads=1,
        max_pixels=10**8,
        timeout_s=60.0,
    )
    return replace(order, **changes)


def test_an_order_survives_the_round_trip(bundle: Bundle) -> None:
    order = order_for(bundle)
    assert WorkOrder.from_json(order.to_json()) == order and json.loads(order.to_json())["backend"]["name"]


def test_onnx_runtime_is_gated_at_most_once(bundle: Bundle) -> None:
    with assemble(bundle, order_for(bundle), pytest.fail) as pair:
        first = pair.gate()
        assert first.holds and first.rows == len(bundle.golden.images) and first.limit == bundle.spec.tolerance.fp32
        assert pair.gate() == first
        assert pair.runs_with.backend == Choice("onnxruntime", "a test") and pair.runs_with.precision == Choice(
            "fp32", "a test"
        )


def test_a_backend_that_comes_with_its_report_is_not_asked_again(bundle: Bundle) -> None:
    classifier = GoldenClassifier(bundle)
    report = gate(classifier, bundle, batch_sizes=(1, 5))
    asked = len(classifier.batches)
    backend = Backend(classifier, Choice("tensorrt", "a test"), lambda: report)
    order = order_for(bundle)
    pair = InProcessClassifier(
        bundle,
        8,
        open_backend=lambda: contextlib.nullcontext(backend),
        open_decoder=partial(open_decoder, bundle, order, pytest.fail),
    )
    with pair:
        assert pair.gate() == pair.gate() == report.agreement and pair.runs_with.precision.name == "fp16"
    assert len(classifier.batches) == asked


def test_other_golden_answers_end_the_run_with_the_difference_and_the_limit(bundle: Bundle) -> None:
    swapped = replace(bundle.golden, probabilities=np.ascontiguousarray(bundle.golden.probabilities[:, ::-1]))
    other = replace(bundle, golden=swapped)
    with (
        assemble(other, order_for(bundle), pytest.fail) as pair,
        pytest.raises(
            GateFailed, match=r"does not reproduce the golden answers of 'tiny': max .* classes differ. Fix: "
        ),
    ):
        pair.gate()


@no_gpu_here
def test_where_no_engine_can_be_had_onnx_runtime_takes_its_place_and_says_why(bundle: Bundle) -> None:
    notes = list[str]()
    with assemble(bundle, order_for(bundle, backend=Choice("tensorrt", "by auto")), notes.append) as pair:
        backend = pair.runs_with.backend
        assert backend.name == "onnxruntime" and backend.reason.startswith("fell back from tensorrt: --backend tensor")
        assert pair.gate().holds
    assert backend.warning and notes == [f"WARNING: {backend.warning}"]
    assert backend.warning.startswith("The model runs on the CPU, not on a GPU: ")


@no_gpu_here
def test_nothing_takes_the_place_of_a_backend_that_was_asked_for(bundle: Bundle) -> None:
    order = order_for(bundle, backend=Choice("tensorrt", "requested"), backend_required=True)
    with (
        pytest.raises(MribatchError, match="--backend tensorrt needs an NVIDIA GPU"),
        assemble(bundle, order, pytest.fail),
    ):
        pytest.fail("it was opened")


def test_a_cuda_provider_that_does_not_load_is_the_cpu_by_auto_and_an_error_where_it_was_asked_for(
    bundle: Bundle,
) -> None:
    order, notes = order_for(bundle, backend=Choice("onnxruntime-cuda", "by auto")), list[str]()
    with assemble(bundle, order, notes.append) as pair:
        backend = pair.runs_with.backend
        assert backend.name == "onnxruntime" and backend.reason.startswith("fell back from onnxruntime-cuda: ONNX Run")
        assert notes == [f"WARNING: {backend.warning}"] and pair.gate().holds
    required = replace(order, backend_required=True)
    with pytest.raises(MribatchError, match="Fix: pip uninstall"), assemble(bundle, required, pytest.fail):
        pytest.fail("it was opened")


def test_a_pair_in_this_process_and_a_worker_for_what_may_crash(bundle: Bundle) -> None:
    options = ClassifyOptions(model=str(bundle.folder), backend="onnxruntime", decoder="opencv", batch_size=4)
    pair = make_file_classifier(bundle, options, threads=1, log=None, note=pytest.fail)
    assert isinstance(pair, InProcessClassifier) and pair.batch_size == 4
    pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed: pip install '.[dali]'")
    worker = make_file_classifier(bundle, replace(options, decoder="dali"), threads=1, log=None, note=pytest.fail)
    assert isinstance(worker, SupervisedClassifier) and worker.batch_size == 4


@no_gpu_here
def test_a_backend_that_is_missing_is_known_before_anything_is_opened(bundle: Bundle) -> None:
    options = ClassifyOptions(model=str(bundle.folder), backend="tensorrt")
    with pytest.raises(MribatchError, match="--backend tensorrt needs an NVIDIA GPU"):
        make_file_classifier(bundle, options, threads=1, log=None, note=pytest.fail)


def test_a_long_build_is_noted_every_ten_seconds() -> None:
    now, notes = [100.0], list[str]()
    progress = NotedProgress(notes.append, clock=lambda: now[0])
    for second in range(25):
        now[0] = 100.0 + second
        assert progress.step(BuildStep(second, 50, "kernels"))
    assert notes == [
        "building a TensorRT engine, once for this model and GPU: 20%",
        "building a TensorRT engine, once for this model and GPU: 40%",
    ]
