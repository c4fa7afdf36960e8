"""Real builds with TensorRT for RTX, which needs no GPU for them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from mribatch.core.bundle import Bundle, load_bundle
from mribatch.core.errors import ExitCode, Interrupted, MribatchError
from mribatch.trt import library
from mribatch.trt.engine import rtx
from mribatch.trt.engine.build import SerializedEngine, build_engine
from mribatch.trt.engine.progress import BuildStep
from mribatch.trt.graph.conversion import Fp16Graph, to_fp16
from mribatch.trt.graph.fp16 import convert_bundle
from mribatch.trt.graph.turing import without_fp32_dense
from mribatch.trt.library import Flavor
from mribatch.trt.request import BatchProfile, EngineRequest
from tests.trt.engine.watched import Watched

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install '.[rtx]'")

BATCH = BatchProfile(2, 4)
REQUEST = EngineRequest(flavor=Flavor.RTX, target="sm89", batch=BATCH)


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Bundle:
    return load_bundle(str(tiny_model))


@pytest.fixture(scope="module")
def tiny_half(tiny: Bundle) -> Fp16Graph:
    return convert_bundle(tiny)


@pytest.fixture(scope="module")
def cnn_half() -> Fp16Graph:
    return convert_bundle(load_bundle("cnn"))


def build(model: bytes, target: str = "sm89", **options: Any) -> SerializedEngine:
    return build_engine(model, Flavor.RTX, target, BATCH, **options)


@pytest.mark.parametrize("target", rtx.TARGETS)
def test_the_shipped_model_builds_for_every_target_half_everywhere_but_the_head(
    target: str, cnn_half: Fp16Graph
) -> None:
    model, nodes = cnn_half.model, cnn_half.fp32_nodes
    if target == "sm75":
        model, added = without_fp32_dense(model)
        nodes += added
    half = build(model, target, fp32_nodes=nodes)
    assert half.half_layers > half.float_layers > 0
    single_model = load_bundle("cnn").model
    single = build(without_fp32_dense(single_model)[0] if target == "sm75" else single_model, target)
    assert single.half_layers == 0 and 0.5 < len(half.content) / len(single.content) < 0.85


def test_turing_takes_no_fp32_dense_layer() -> None:
    """Why `turing` exists: should this build one day, it can go."""
    with pytest.raises(MribatchError, match="FP32 GEMM is not supported"):
        build(load_bundle("cnn").model, "sm75")


def test_an_fp32_graph_is_never_taken_for_an_fp16_one(tiny: Bundle, tiny_half: Fp16Graph) -> None:
    with pytest.raises(MribatchError, match="keep the precision of the graph: it differs at"):
        build(tiny.model, fp32_nodes=tiny_half.fp32_nodes)
    with pytest.raises(MribatchError, match="keep the precision of the graph"):
        build(tiny_half.model, fp32_nodes=None)


def test_nodes_without_names_are_told_apart_all_the_same(tiny: Bundle) -> None:
    model = onnx.load_model_from_string(tiny.model)
    for node in model.graph.node:
        node.name = ""
    half = to_fp16(model.SerializeToString())
    assert build(half.model, fp32_nodes=half.fp32_nodes).half_layers > 0


@pytest.mark.parametrize(
    "model, words", [(b"junk", "Failed to parse the ONNX model"), (b"", "cannot use the model: it has 0 inputs")]
)
def test_the_librarys_own_words_are_the_error(model: bytes, words: str) -> None:
    with pytest.raises(MribatchError, match=words):
        build(model)


COLLECTED_IN_THE_MIDDLE = """
import gc
from mribatch.core.errors import MribatchError
from mribatch.trt.engine import build
from mribatch.trt.engine.build import build_engine
from mribatch.trt.library import Flavor
from mribatch.trt.request import BatchProfile
def fail():
    try:
        build_engine(b"junk", Flavor.RTX, "sm89", BatchProfile(1, 1))
    except MribatchError as error:
        return error
gc.disable()
cycle = [fail()]
cycle.append(cycle)
del cycle
make_logger = build.make_logger
def collecting(trt, messages):
    logger = make_logger(trt, messages)
    class Collecting(type(logger)):
        def log(self, severity, text):
            gc.collect()  # as Python may at any time; the library holds its lock meanwhile
            super().log(severity, text)
    return Collecting()
build.make_logger = collecting
fail()
"""


def test_an_error_that_is_forgotten_later_does_not_lock_the_next_build() -> None:
    subprocess.run([sys.executable, "-c", COLLECTED_IN_THE_MIDDLE], check=True, timeout=60)


def test_a_target_that_there_is_not_is_named_with_those_that_there_are(tiny: Bundle) -> None:
    with pytest.raises(MribatchError, match="no engine for sm90.*sm75, sm80, sm86, sm89, sm120"):
        build(tiny.model, "sm90")


def test_progress_goes_up_to_the_end(tiny: Bundle) -> None:
    progress = Watched()
    build(tiny.model, progress=progress)
    steps = progress.steps
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert all(step.done <= step.total and step.phase for step in steps) and steps[-1].done > 0


def test_false_cancels(tiny: Bundle) -> None:
    with pytest.raises(Interrupted) as caught:
        build(tiny.model, progress=Watched(lambda step: step.done < 1))
    assert caught.value.exit_code == ExitCode.INTERRUPTED


def test_an_error_in_the_callback_is_not_swallowed(tiny: Bundle) -> None:
    def fail(step: BuildStep) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        build(tiny.model, progress=Watched(fail))


def test_the_version_of_the_metadata_is_the_modules() -> None:
    assert library.find_installed_version(Flavor.RTX) == library.load_library(Flavor.RTX).__version__
