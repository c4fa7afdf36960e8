"""Engines found, built, compared and kept; built by TensorRT for RTX, which needs no GPU, and run on a GPU in memory."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.bundle import Bundle, load_bundle
from mribatch.core.errors import Interrupted, MribatchError
from mribatch.core.gate import CPU_EMULATED, ON_GPU, GateFailed
from mribatch.trt.backend import open_first_that_holds
from mribatch.trt.engine.cache import EngineCache, read_engine
from mribatch.trt.engine.progress import BuildProgress
from mribatch.trt.engine.provider import EngineProvider, hash_source
from mribatch.trt.engine.sidecar import NOT_VERIFIED, EngineIdentity, sidecar_path
from mribatch.trt.gpu import NoGpu
from mribatch.trt.graph.conversion import Fp16Graph
from mribatch.trt.graph.fp16 import convert_bundle
from mribatch.trt.library import Flavor
from mribatch.trt.request import FP16, FP32, BatchProfile, EngineRequest
from mribatch.trt.runtime.classifier import TensorRTClassifier
from tests.trt.engine.watched import Watched
from tests.trt.graph.graphs import run_fp32
from tests.trt.runtime.memory_device import GPU, MemoryDevice, MemoryEngine

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install '.[rtx]'")

BATCH = BatchProfile(2, 4)
REQUEST = EngineRequest(flavor=Flavor.RTX, target="sm89", batch=BATCH)
SINGLE = dataclasses.replace(REQUEST, precision=FP32)
NONE = NoGpu("a test", "none")


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Bundle:
    return load_bundle(str(tiny_model))


@pytest.fixture(scope="module")
def tiny_half(tiny: Bundle) -> Fp16Graph:
    return convert_bundle(tiny)


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache")


@pytest.fixture
def progress() -> Watched:
    return Watched()


@pytest.fixture
def provider(tiny: Bundle, cache: EngineCache, progress: Watched) -> EngineProvider:
    """On a machine without a GPU."""
    return EngineProvider(tiny, cache, progress, gpu=NONE)


class GpuInMemory:
    """Runs a bundle's FP32 graph where a GPU would run an engine, and counts.

    change: (answers, precision) -> what the engine answers instead.
    """

    def __init__(self, change: Callable[[NDArray[float32], str], Any] = lambda answers, precision: answers) -> None:
        self.change = change
        self.devices: list[MemoryDevice] = []
        self.engines: list[MemoryEngine] = []
        self.batches: list[int] = []

    def make_classifier(
        self, bundle: Bundle, content: bytes, request: EngineRequest, kernels: bytes | None
    ) -> TensorRTClassifier:
        device = MemoryDevice()
        self.devices.append(device)

        def compute(images: NDArray[uint8]) -> NDArray[float32]:
            self.batches.append(len(images))
            changed: NDArray[float32] = self.change(run_fp32(bundle.model, images), request.precision)
            return changed

        engine = MemoryEngine(device, bundle, request.batch.maximum, compute)
        self.engines.append(engine)
        return TensorRTClassifier(bundle, content, request, kernels=kernels, device=device, deserialize=engine.open)

    @property
    def open_devices(self) -> int:
        return sum(bool(device.buffers) for device in self.devices)


@pytest.fixture
def gpu() -> GpuInMemory:
    return GpuInMemory()


def provider_on(
    gpu: GpuInMemory, bundle: Bundle, cache: EngineCache, progress: BuildProgress | None = None
) -> EngineProvider:
    return EngineProvider(bundle, cache, progress, gpu=GPU, make_classifier=gpu.make_classifier)


def with_golden(bundle: Bundle, probabilities: NDArray[float32], digest: str) -> Bundle:
    golden = dataclasses.replace(
        bundle.golden, images=bundle.golden.images[: len(probabilities)], probabilities=probabilities
    )
    return dataclasses.replace(bundle, golden=golden, sha256=digest)


# --- without a GPU --------------------------------------------------------------------------------


def test_an_engine_is_built_verified_and_found_again(
    provider: EngineProvider, tiny_half: Fp16Graph, progress: Watched
) -> None:
    first, second = provider.find_or_build(REQUEST), provider.find_or_build(REQUEST)
    assert (first.from_cache, second.from_cache) == (False, True) and first.file == second.file
    sidecar = first.file.sidecar
    assert sidecar.verified == CPU_EMULATED and sidecar.parity is not None and sidecar.parity.argmax_agree == 1
    assert sidecar.onnx_sha256 == tiny_half.sha256 and sidecar.gpu_name is None
    assert sidecar.engine_sha256 == sha256(first.file.path.read_bytes()).hexdigest()
    assert sidecar.identity == EngineIdentity.of(REQUEST, tiny_half.sha256) and sidecar.key == sidecar.identity.key
    assert (sidecar.profile.min, sidecar.profile.opt, sidecar.profile.max) == (1, 2, 4)
    assert sidecar.ratio_to_fp32 is None and sidecar.fp32_bytes is None
    assert not progress.notes and progress.engines == {"tiny fp16 sm89"}, "nothing is built that nobody asked for"


def test_the_fp32_engine_is_built_where_the_ratio_is_wanted(
    tiny: Bundle, cache: EngineCache, progress: Watched
) -> None:
    sidecar = EngineProvider(tiny, cache, progress, measure_ratio=True).find_or_build(REQUEST).file.sidecar
    assert sidecar.fp32_bytes and sidecar.ratio_to_fp32 == round(sidecar.engine_bytes / sidecar.fp32_bytes, 4)
    assert progress.engines == {"tiny fp16 sm89", "tiny fp32 sm89"}


def test_fp32_without_a_gpu_says_that_nothing_was_verified(provider: EngineProvider) -> None:
    sidecar = provider.find_or_build(SINGLE).file.sidecar
    assert sidecar.verified == NOT_VERIFIED and sidecar.parity is None and sidecar.ratio_to_fp32 == 1
    assert (sidecar.precision.mode, sidecar.precision.fp32_nodes) == (FP32, None)


def test_a_cached_engine_is_found_without_converting_or_loading(
    provider: EngineProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.find_or_build(REQUEST)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert provider.find_or_build(REQUEST).from_cache


def test_a_tampered_engine_is_built_again_and_kept(provider: EngineProvider, progress: Watched) -> None:
    path = provider.find_or_build(REQUEST).file.path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    again = provider.find_or_build(REQUEST)
    assert not again.from_cache and read_engine(path).content == again.file.content != bytes(content)
    assert path.with_name(path.name + ".kept-1").read_bytes() == content
    (note,) = progress.notes
    assert "engine_sha256" in note and "kept" in note


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1}', '{"schema": 99}'])
def test_a_broken_sidecar_is_built_again_not_an_end(provider: EngineProvider, progress: Watched, text: str) -> None:
    path = provider.find_or_build(REQUEST).file.path
    facts = sidecar_path(path)
    facts.write_text(text)
    again = provider.find_or_build(REQUEST)
    assert not again.from_cache and read_engine(path).sidecar == again.file.sidecar
    assert facts.with_name(facts.name + ".kept-1").read_text() == text
    (note,) = progress.notes
    assert facts.name in note and "kept" in note


def test_an_engine_of_the_same_graph_from_another_source_is_compared_again_not_built_again(
    provider: EngineProvider, tiny: Bundle, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, progress = provider.find_or_build(REQUEST).file, Watched()
    other = with_golden(tiny, tiny.golden.probabilities[:3], "e" * 64)
    found = EngineProvider(other, cache, progress, gpu=NONE).find_or_build(REQUEST)
    assert found.from_cache and found.file.content == first.content and not progress.notes and not progress.engines
    assert found.file.sidecar.bundle_sha256 == "e" * 64 != first.sidecar.bundle_sha256
    assert found.file.sidecar.parity is not None and first.sidecar.parity is not None
    assert found.file.sidecar.parity.n == 3 + 7 < first.sidecar.parity.n
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "onnx", None)  # found at once from now on
        assert EngineProvider(other, cache, gpu=NONE).find_or_build(REQUEST).file == found.file
    wrong = with_golden(tiny, tiny.golden.probabilities[:3, ::-1].copy(), "f" * 64)
    with pytest.raises(GateFailed):
        EngineProvider(wrong, cache, gpu=NONE).find_or_build(REQUEST)
    assert read_engine(first.path).sidecar == found.file.sidecar


def test_the_sidecar_of_an_earlier_version_is_read_and_brought_up_to_date(
    provider: EngineProvider, tiny: Bundle, progress: Watched
) -> None:
    """Before, source_sha256 was the hash of the converters' own text, and git_rev was written."""
    path = provider.find_or_build(REQUEST).file.path
    facts = sidecar_path(path)
    source = hash_source(tiny, REQUEST)
    assert source in facts.read_text()
    facts.write_text(
        facts.read_text().replace(source, "d" * 64).replace('"schema": 1,', '"schema": 1, "git_rev": "0",')
    )
    found = provider.find_or_build(REQUEST)
    assert found.from_cache and found.file.sidecar.source_sha256 == source and not progress.notes
    assert "git_rev" not in facts.read_text()


def test_a_copy_under_another_name_is_no_difference(provider: EngineProvider, progress: Watched) -> None:
    path = provider.find_or_build(REQUEST).file.path
    for one in (path, sidecar_path(path)):
        one.rename(one.with_name(one.name.replace(path.stem, "mine")))
    assert not provider.find_or_build(REQUEST).from_cache and progress.notes == []


def test_a_waiting_builder_can_be_stopped(tiny: Bundle, tmp_path: Path) -> None:
    cache, progress = EngineCache(tmp_path), Watched(lambda step: False)
    with cache.locked(), pytest.raises(Interrupted, match="waiting for another"):
        EngineProvider(tiny, cache, progress).find_or_build(REQUEST)
    assert [step.phase for step in progress.steps] == ["waiting for another mribatch"]


def test_another_version_is_named_and_built_beside_the_old_one(
    provider: EngineProvider, cache: EngineCache, progress: Watched
) -> None:
    first = provider.find_or_build(REQUEST).file
    identity = dataclasses.replace(first.sidecar.identity, version="1.6.0.0")
    sidecar = dataclasses.replace(first.sidecar, trt_version="1.6.0.0", key=identity.key)
    for one in (first.path, sidecar_path(first.path)):
        one.unlink()
    with cache.locked():
        old = cache.store(identity, "tiny", first.content, sidecar).path
    new = provider.find_or_build(REQUEST).file
    assert new.path != old and old.exists()
    version = new.sidecar.trt_version
    assert progress.notes == [
        f"{old.name} does not fit: trt_version is 1.6.0.0, wanted is {version}; building another beside it"
    ]


def test_wrong_answers_are_found_before_anything_is_built(tiny: Bundle, cache: EngineCache, progress: Watched) -> None:
    swapped = with_golden(tiny, tiny.golden.probabilities[:, ::-1].copy(), "f" * 64)
    with pytest.raises(GateFailed, match="does not reproduce the model's golden answers"):
        EngineProvider(swapped, cache, progress, gpu=NONE).find_or_build(REQUEST)
    assert cache.read_sidecars() == {} and not progress.engines


# --- with a GPU, in memory ------------------------------------------------------------------------


def gate_batches(bundle: Bundle) -> int:
    """Batches that the GPU computes while an engine passes the gate once: it always computes full ones."""
    slices, full = len(bundle.golden.images), BATCH.maximum
    return sum(-(-slices // size) * -(-size // full) + 3 for size in BATCH.gate_sizes)


def test_a_new_engine_is_gated_once_and_used_as_it_is(gpu: GpuInMemory, tiny: Bundle, cache: EngineCache) -> None:
    with provider_on(gpu, tiny, cache).open(REQUEST) as engine:
        assert engine.report.holds and engine.report.verified == ON_GPU and gpu.open_devices == 1
        assert len(gpu.batches) == gate_batches(tiny) and len(gpu.devices) == 1
        assert engine.classifier(tiny.golden.images[:1]).shape == (1, 4)
    assert gpu.open_devices == 0
    ((_, sidecar),) = cache.read_sidecars().items()
    assert (sidecar.verified, sidecar.gpu_name, sidecar.driver) == ("gpu", "memory", "13.0")
    assert sidecar.parity is not None and sidecar.parity.report == str(engine.report)


def test_a_cached_engine_is_gated_once_when_it_is_opened(gpu: GpuInMemory, tiny: Bundle, cache: EngineCache) -> None:
    EngineProvider(tiny, cache, gpu=NONE).find_or_build(REQUEST)
    with provider_on(gpu, tiny, cache).open(REQUEST) as engine:
        assert engine.report.holds and len(gpu.batches) == gate_batches(tiny) and len(gpu.devices) == 1
    assert gpu.open_devices == 0


def test_what_is_built_only_is_closed_again(gpu: GpuInMemory, tiny: Bundle, cache: EngineCache) -> None:
    assert provider_on(gpu, tiny, cache).find_or_build(REQUEST).file.sidecar.verified == ON_GPU
    assert len(gpu.batches) == gate_batches(tiny) and gpu.open_devices == 0


def test_a_new_engine_with_wrong_answers_is_not_kept(tiny: Bundle, cache: EngineCache) -> None:
    gpu = GpuInMemory(lambda answers, precision: answers[:, ::-1])
    with (
        pytest.raises(GateFailed, match="does not reproduce the model's golden answers"),
        provider_on(gpu, tiny, cache).open(REQUEST),
    ):
        pytest.fail("it was opened")
    assert cache.read_sidecars() == {} and gpu.open_devices == 0


def test_fp16_that_holds_is_used_and_fp32_is_not_tried(gpu: GpuInMemory, tiny: Bundle, cache: EngineCache) -> None:
    with open_first_that_holds(provider_on(gpu, tiny, cache), [REQUEST, SINGLE]) as backend:
        assert backend.classifier.precision == FP16
        assert backend.reason == f"fp16 engine for sm89 (tensorrt-rtx); {backend.report}" and backend.report.holds
    assert len(cache.read_sidecars()) == 1


@pytest.mark.parametrize("cached", [False, True])
def test_where_fp16_does_not_hold_fp32_takes_its_place_and_says_why(
    cached: bool, tiny: Bundle, cache: EngineCache
) -> None:
    if cached:
        EngineProvider(tiny, cache, gpu=NONE).find_or_build(REQUEST)
    gpu = GpuInMemory(lambda answers, precision: answers[:, ::-1] if precision == FP16 else answers)
    with open_first_that_holds(provider_on(gpu, tiny, cache), [REQUEST, SINGLE]) as backend:
        assert backend.classifier.precision == FP32 and gpu.open_devices == 1
        assert backend.reason.startswith("fell back to fp32 engine for sm89 (tensorrt-rtx) (fp16 engine for sm89 ")
        assert "fails, batch 1: " in backend.reason
    assert gpu.open_devices == 0


def test_where_nothing_holds_each_reason_is_given(tiny: Bundle, cache: EngineCache) -> None:
    gpu = GpuInMemory(lambda answers, precision: answers * float32("nan"))
    with (
        pytest.raises(
            MribatchError, match=r"nothing that was tried can be used \(fp16 engine .*; fp32 engine "
        ) as caught,
        open_first_that_holds(provider_on(gpu, tiny, cache), [REQUEST, SINGLE]),
    ):
        pytest.fail("it was opened")
    assert caught.value.fix == "fix the first problem listed, or use --backend onnxruntime" and gpu.open_devices == 0


@pytest.mark.parametrize("error", [Interrupted(130, "stopped", "again"), ZeroDivisionError("a bug")])  # type: ignore[arg-type]
def test_a_signal_or_a_bug_ends_the_chain(error: Exception, tiny: Bundle, cache: EngineCache) -> None:
    def fail(answers: NDArray[float32], precision: str) -> Any:
        assert precision == FP16, "nothing else is tried"
        raise error

    gpu = GpuInMemory(fail)
    with (
        pytest.raises(type(error)),
        open_first_that_holds(provider_on(gpu, tiny, cache), [REQUEST, SINGLE]),
    ):
        pytest.fail("it was opened")
    assert gpu.open_devices == 0


def test_what_goes_wrong_in_a_run_is_not_taken_for_a_refusal(
    gpu: GpuInMemory, tiny: Bundle, cache: EngineCache
) -> None:
    with (
        pytest.raises(MribatchError, match="the disk is full"),
        open_first_that_holds(provider_on(gpu, tiny, cache), [REQUEST, SINGLE]),
    ):
        raise MribatchError("the disk is full", "free some space")
    assert gpu.open_devices == 0 and len(gpu.devices) == 1


# --- several processes ----------------------------------------------------------------------------

BUILDER = """
import sys
from pathlib import Path
from mribatch.core.bundle import load_bundle
from mribatch.trt.engine.cache import EngineCache
from mribatch.trt.engine.provider import EngineProvider
from mribatch.trt.library import Flavor
from mribatch.trt.request import BatchProfile, EngineRequest
request = EngineRequest(flavor=Flavor.RTX, target="sm89", batch=BatchProfile(2, 4))
print(EngineProvider(load_bundle(sys.argv[1]), EngineCache(Path(sys.argv[2]))).find_or_build(request).from_cache)
"""


def test_two_builders_at_once_leave_one_good_engine(tiny_model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILDER, str(tiny_model), str(tmp_path / "cache")]
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
from mribatch.trt.engine.build import StepMonitor
step = StepMonitor.step
def interrupted(monitor, name, number):
    if number == 2: os.kill(os.getpid(), signal.Signals[sys.argv[3]])
    return step(monitor, name, number)
StepMonitor.step = interrupted
from mribatch.cli import main
main.COMMANDS["engine"] = ("mribatch.cli.engine", "")
main.main(["engine", "build", sys.argv[1], "--flavor", "tensorrt-rtx", "--target", "sm89", "--cache", sys.argv[2]])
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


def test_what_tensorrt_for_rtx_has_compiled_is_kept_for_the_next_start(
    gpu: GpuInMemory, tiny: Bundle, cache: EngineCache
) -> None:
    def count_compiled() -> int:
        with provider_on(gpu, tiny, cache).open(REQUEST):
            return gpu.engines[-1].compiled

    assert [count_compiled(), count_compiled()] == [1, 0]
    (kernels,) = cache.folder.glob("kernels-*.cache")
    assert kernels.stat().st_mode & 0o777 == 0o600
    kernels.write_bytes(kernels.read_bytes()[:-1])
    assert [count_compiled(), count_compiled()] == [1, 0], "a damaged file is not given to the library, but replaced"
    cache.clean(lambda sidecar: True)
    assert kernels.exists()
    cache.clean()
    assert not list(cache.folder.glob("kernels-*"))
