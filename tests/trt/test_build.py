"""Real builds with TensorRT for RTX, which needs no GPU for them."""

import dataclasses
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mribatch.bundle import Bundle, load_bundle
from mribatch.errors import ExitCode, Interrupted, MribatchError
from mribatch.trt import library, rtx
from mribatch.trt.agree import CPU_EMULATED
from mribatch.trt.build import BatchProfile, BuildStep, Plan, build_plan
from mribatch.trt.cache import EngineCache, read_engine
from mribatch.trt.fp16_graph import fp16_graph_of
from mribatch.trt.gpu import NoGpu, find_gpu
from mribatch.trt.library import Flavour
from mribatch.trt.obtain import NOT_VERIFIED, EngineMaker
from mribatch.trt.precision import Fp16Graph
from mribatch.trt.sidecar import EngineRequest
from mribatch.trt.turing import without_fp32_dense

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


@pytest.mark.parametrize(
    "model, words", [(b"junk", "Failed to parse the ONNX model"), (b"", "cannot use the model: it has 0 inputs")]
)
def test_the_librarys_own_words_are_the_error(model: bytes, words: str) -> None:
    with pytest.raises(MribatchError, match=words):
        build(model)


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


def test_another_version_is_named_and_built_beside_the_old_one(
    maker: EngineMaker, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("mribatch.trt.sidecar.required_version", lambda flavour: "1.6.0.0")
        old = maker.obtain(REQUEST).engine.path
    new = maker.obtain(REQUEST).engine
    assert new.path != old and old.exists() and notes == [
        f"{old.name} does not fit: trt_version is 1.6.0.0, wanted is {new.sidecar['trt_version']}; building another beside it"
    ]  # fmt: skip


def test_the_wrong_answers_keep_an_engine_out_of_the_cache(tiny: Bundle, tmp_path: Path) -> None:
    swapped = dataclasses.replace(tiny.golden, probabilities=tiny.golden.probabilities[:, ::-1].copy())
    cache = EngineCache(tmp_path)
    with pytest.raises(MribatchError, match="does not reproduce the model's golden answers"):
        EngineMaker(dataclasses.replace(tiny, golden=swapped), cache).obtain(REQUEST)
    assert cache.sidecars() == {}


BUILDER = """
import sys
from pathlib import Path
from mribatch.bundle import load_bundle
from mribatch.trt.build import BatchProfile
from mribatch.trt.cache import EngineCache
from mribatch.trt.library import Flavour
from mribatch.trt.obtain import EngineMaker
from mribatch.trt.sidecar import EngineRequest
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


def test_ctrl_c_cancels_a_build_with_one_line(tiny_model: Path, tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
import mribatch.trt.obtain as obtain
build_plan = obtain.build_plan
def interrupted(*arguments, on_step, **options):
    def step(progress):
        if progress.done == 2: os.kill(os.getpid(), signal.SIGINT)
        return on_step(progress)
    return build_plan(*arguments, on_step=step, **options)
obtain.build_plan = interrupted
from mribatch.cli import main
main.COMMANDS["engine"] = ("mribatch.cli.engine", "")
main.main(["engine", "build", sys.argv[1], "--flavour", "tensorrt-rtx", "--target", "sm89", "--cache", sys.argv[2]])
"""
    result = subprocess.run([sys.executable, "-c", code, tiny_model, tmp_path / "cache"], capture_output=True, text=True,
                            timeout=120, check=False)  # fmt: skip
    assert result.returncode == 130, result.stderr
    assert result.stderr.startswith("Error: stopped by a signal while building") and result.stderr.count("\n") == 1
    assert not list((tmp_path / "cache").glob("*engine*"))
