"""Real builds with TensorRT for RTX, which needs no GPU for them."""

import dataclasses
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnx
import pytest

from mribatch.core.bundle import Bundle, load_bundle
from mribatch.core.errors import ExitCode, Interrupted, MribatchError
from mribatch.trt import library
from mribatch.trt.engine import rtx
from mribatch.trt.engine.build import BatchProfile, BuildStep, Plan, build_plan
from mribatch.trt.engine.cache import EngineCache, read_engine
from mribatch.trt.engine.maker import NOT_VERIFIED, EngineMaker, GateFailed
from mribatch.trt.engine.sidecar import EngineRequest, sidecar_path
from mribatch.trt.gate import CPU_EMULATED
from mribatch.trt.gpu import Gpu, NoGpu, find_gpu
from mribatch.trt.graph.conversion import Fp16Graph, to_fp16
from mribatch.trt.graph.fp16 import fp16_graph_of
from mribatch.trt.graph.turing import without_fp32_dense
from mribatch.trt.library import Flavour

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install 'mribatch[rtx]'")

BATCH = BatchProfile(2, 4)
REQUEST = EngineRequest(flavour=Flavour.RTX, target="sm89", batch=BATCH)


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Bundle:
    return load_bundle(str(tiny_model))


@pytest.fixture(scope="module")
def tiny_half(tiny: Bundle) -> Fp16Graph:
    return fp16_graph_of(tiny)


@pytest.fixture(scope="module")
def cnn_half() -> Fp16Graph:
    return fp16_graph_of(load_bundle("cnn"))


def build(model: bytes, target: str = "sm89", **options: Any) -> Plan:
    return build_plan(model, Flavour.RTX, target, BATCH, **options)


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
from mribatch.trt.engine.build import BatchProfile, build_plan
from mribatch.trt.library import Flavour
def fail():
    try:
        build_plan(b"junk", Flavour.RTX, "sm89", BatchProfile(1, 1))
    except MribatchError as error:
        return error
gc.disable()
cycle = [fail()]
cycle.append(cycle)
del cycle
logger_for = build.logger_for
def collecting(trt, messages):
    logger = logger_for(trt, messages)
    class Collecting(type(logger)):
        def log(self, severity, text):
            gc.collect()  # as Python may at any time; the library holds its lock meanwhile
            super().log(severity, text)
    return Collecting()
build.logger_for = collecting
fail()
"""


def test_an_error_that_is_forgotten_later_does_not_lock_the_next_build() -> None:
    subprocess.run([sys.executable, "-c", COLLECTED_IN_THE_MIDDLE], check=True, timeout=60)


def test_a_target_that_there_is_not_is_named_with_those_that_there_are(tiny: Bundle) -> None:
    with pytest.raises(MribatchError, match="no engine for sm90.*sm75, sm80, sm86, sm89, sm120"):
        build(tiny.model, "sm90")


def test_progress_goes_up_to_the_end(tiny: Bundle) -> None:
    steps: list[BuildStep] = []
    build(tiny.model, on_step=lambda step: steps.append(step) or True)  # type: ignore[func-returns-value]
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert all(step.done <= step.total and step.phase for step in steps) and steps[-1].done > 0


def test_false_cancels(tiny: Bundle) -> None:
    with pytest.raises(Interrupted) as caught:
        build(tiny.model, on_step=lambda step: step.done < 1)
    assert caught.value.exit_code == ExitCode.INTERRUPTED


def test_an_error_in_the_callback_is_not_swallowed(tiny: Bundle) -> None:
    def fail(step: BuildStep) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        build(tiny.model, on_step=fail)


def test_the_version_of_the_metadata_is_the_modules() -> None:
    assert library.installed_version(Flavour.RTX) == library.load(Flavour.RTX).__version__


# --- with the cache -------------------------------------------------------------------------------


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def maker(tiny: Bundle, tmp_path: Path, notes: list[str]) -> EngineMaker:
    return EngineMaker(tiny, EngineCache(tmp_path / "cache"), notes.append)


no_gpu_here = pytest.mark.skipif(not isinstance(find_gpu(), NoGpu), reason="there is a GPU: nothing is emulated")


@no_gpu_here
def test_an_engine_is_built_verified_and_found_again(
    maker: EngineMaker, tiny_half: Fp16Graph, notes: list[str]
) -> None:
    first, second = maker.obtain(REQUEST), maker.obtain(REQUEST)
    assert (first.from_cache, second.from_cache) == (False, True) and first.engine == second.engine
    sidecar = first.engine.sidecar
    assert sidecar["verified"] == CPU_EMULATED and sidecar["parity"]["argmax_agree"] == 1
    assert sidecar["onnx_sha256"] == tiny_half.sha256
    assert sidecar["engine_sha256"] == sha256(first.engine.path.read_bytes()).hexdigest()
    assert sidecar["profile"] == {"min": 1, "opt": 2, "max": 4} and 0 < sidecar["ratio_to_fp32"] < 1.2
    assert not notes


@no_gpu_here
def test_fp32_without_a_gpu_says_that_nothing_was_verified(maker: EngineMaker) -> None:
    sidecar = maker.obtain(dataclasses.replace(REQUEST, precision="fp32")).engine.sidecar
    assert sidecar["verified"] == NOT_VERIFIED and sidecar["ratio_to_fp32"] == 1
    assert sidecar["precision"] == {"mode": "fp32", "fp32_nodes": None}


def test_a_cached_engine_is_found_without_converting_or_loading(
    maker: EngineMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker.obtain(REQUEST)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert maker.obtain(REQUEST).from_cache


def test_a_tampered_engine_is_built_again_and_kept(maker: EngineMaker, notes: list[str]) -> None:
    path = maker.obtain(REQUEST).engine.path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    again = maker.obtain(REQUEST)
    assert not again.from_cache and read_engine(path).content == again.engine.content != bytes(content)
    assert path.with_name(path.name + ".kept-1").read_bytes() == content
    assert len(notes) == 1 and "engine_sha256" in notes[0] and "kept" in notes[0]


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1}', '{"schema": 99}'])
def test_a_broken_sidecar_is_built_again_not_an_end(maker: EngineMaker, notes: list[str], text: str) -> None:
    path = maker.obtain(REQUEST).engine.path
    facts = sidecar_path(path)
    facts.write_text(text)
    again = maker.obtain(REQUEST)
    assert not again.from_cache and read_engine(path).sidecar == again.engine.sidecar
    assert facts.with_name(facts.name + ".kept-1").read_text() == text
    assert len(notes) == 1 and facts.name in notes[0] and "kept" in notes[0]


@no_gpu_here
def test_an_engine_of_the_same_graph_from_another_source_is_compared_again_not_built_again(
    maker: EngineMaker, tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = maker.obtain(REQUEST).engine
    golden = dataclasses.replace(
        tiny.golden, images=tiny.golden.images[:3], probabilities=tiny.golden.probabilities[:3]
    )
    other = dataclasses.replace(tiny, golden=golden, sha256="e" * 64)
    monkeypatch.setattr("mribatch.trt.engine.maker.build_plan", pytest.fail)
    notes: list[str] = []
    cache = EngineCache(tmp_path / "cache")
    found = EngineMaker(other, cache, notes.append).obtain(REQUEST)
    assert found.from_cache and found.engine.content == first.content and not notes
    assert found.engine.sidecar["bundle_sha256"] == "e" * 64 != first.sidecar["bundle_sha256"]
    assert found.engine.sidecar["parity"]["n"] == 3 + 7 < first.sidecar["parity"]["n"]
    monkeypatch.setitem(sys.modules, "onnx", None)  # recognised at once from now on
    assert EngineMaker(other, cache).obtain(REQUEST).engine == found.engine
    wrong = dataclasses.replace(golden, probabilities=golden.probabilities[:, ::-1].copy())
    monkeypatch.undo()
    with pytest.raises(GateFailed):
        EngineMaker(dataclasses.replace(other, golden=wrong, sha256="f" * 64), cache).obtain(REQUEST)
    assert read_engine(first.path).sidecar == found.engine.sidecar


@no_gpu_here
def test_a_comparison_on_a_gpu_names_it(maker: EngineMaker, tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    first = maker.obtain(REQUEST).engine
    assert first.sidecar["gpu_name"] is None
    monkeypatch.setattr("mribatch.trt.engine.maker._gpu_of", lambda request: Gpu("ada", "8.9", 1, "13.0", "12.9"))
    monkeypatch.setattr(EngineMaker, "_verified", lambda *arguments: ("gpu", {"n": 1}))
    cache = EngineCache(first.path.parent)
    now = EngineMaker(dataclasses.replace(tiny, sha256="e" * 64), cache).obtain(REQUEST).engine.sidecar
    assert [now[name] for name in ("verified", "gpu_name", "driver", "cuda_runtime")] == ["gpu", "ada", "13.0", "12.9"]


def test_a_copy_under_another_name_is_no_difference(maker: EngineMaker, notes: list[str]) -> None:
    path = maker.obtain(REQUEST).engine.path
    for one in (path, sidecar_path(path)):
        one.rename(one.with_name(one.name.replace(path.stem, "mine")))
    assert not maker.obtain(REQUEST).from_cache and notes == []


def test_a_waiting_builder_can_be_stopped(tiny: Bundle, tmp_path: Path) -> None:
    cache, phases = EngineCache(tmp_path), []

    def stop(step: BuildStep) -> bool:
        phases.append(step.phase)
        return False

    with cache.locked(pytest.fail), pytest.raises(Interrupted, match="waiting for another"):
        EngineMaker(tiny, cache, on_step=stop).obtain(REQUEST)
    assert phases == ["waiting for another mribatch"]


def test_another_version_is_named_and_built_beside_the_old_one(
    maker: EngineMaker, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("mribatch.trt.engine.sidecar.required_version", lambda flavour: "1.6.0.0")
        old = maker.obtain(REQUEST).engine.path
    new = maker.obtain(REQUEST).engine
    assert (
        new.path != old
        and old.exists()
        and notes
        == [
            f"{old.name} does not fit: trt_version is 1.6.0.0, wanted is {new.sidecar['trt_version']}; building another beside it"
        ]
    )


def test_the_wrong_answers_keep_an_engine_out_of_the_cache(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Plan] = []

    def counted(*arguments: Any, **options: Any) -> Plan:
        built.append(build_plan(*arguments, **options))
        return built[-1]

    monkeypatch.setattr("mribatch.trt.engine.maker.build_plan", counted)
    swapped = dataclasses.replace(tiny.golden, probabilities=tiny.golden.probabilities[:, ::-1].copy())
    cache = EngineCache(tmp_path)
    with pytest.raises(MribatchError, match="does not reproduce the model's golden answers"):
        EngineMaker(dataclasses.replace(tiny, golden=swapped), cache).obtain(REQUEST)
    assert cache.sidecars() == {} and len(built) == 1  # no FP32 engine to compare the size with


BUILDER = """
import sys
from pathlib import Path
from mribatch.core.bundle import load_bundle
from mribatch.trt.engine.build import BatchProfile
from mribatch.trt.engine.cache import EngineCache
from mribatch.trt.library import Flavour
from mribatch.trt.engine.maker import EngineMaker
from mribatch.trt.engine.sidecar import EngineRequest
request = EngineRequest(flavour=Flavour.RTX, target="sm89", batch=BatchProfile(2, 4))
print(EngineMaker(load_bundle(sys.argv[1]), EngineCache(Path(sys.argv[2]))).obtain(request).from_cache)
"""


def test_two_builders_at_once_leave_one_good_engine(tiny_model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILDER, tiny_model, tmp_path / "cache"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    results = [process.communicate(timeout=120) for process in both]
    assert sorted(output.strip() for output, _ in results) == ["False", "True"], results
    (engine,) = (tmp_path / "cache").glob("*.engine")
    read_engine(engine)
    assert len(list((tmp_path / "cache").iterdir())) == 3  # engine, sidecar, lock


@pytest.mark.parametrize("name, exit_code", [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_cancels_a_build_with_one_line(tiny_model: Path, tmp_path: Path, name: str, exit_code: int) -> None:
    code = """
import os, signal, sys
from pathlib import Path
import mribatch.trt.engine.maker as obtain
build_plan = obtain.build_plan
def interrupted(*arguments, on_step, **options):
    def step(progress):
        if progress.done == 2: os.kill(os.getpid(), signal.Signals[sys.argv[3]])
        return on_step(progress)
    return build_plan(*arguments, on_step=step, **options)
obtain.build_plan = interrupted
from mribatch.cli import main
main.COMMANDS["engine"] = ("mribatch.cli.engine", "")
main.main(["engine", "build", sys.argv[1], "--flavour", "tensorrt-rtx", "--target", "sm89", "--cache", sys.argv[2]])
"""
    result = subprocess.run(
        [sys.executable, "-c", code, tiny_model, tmp_path / "cache", name],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == exit_code, result.stderr
    assert result.stderr.startswith("Error: stopped by a signal while building") and result.stderr.count("\n") == 1
    assert not list((tmp_path / "cache").glob("*engine*"))
