"""The inference loop's logic, on a GPU in memory (tests/trt/runtime/memory_device.py). No CUDA and no TensorRT runs here."""

import contextlib
import gc
import itertools
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.core.gate import gate
from mribatch.pipeline.inference.in_process import Backend, DecoderAtWork, InProcessClassifier
from mribatch.pipeline.records import Choice, DecodedBatch, DecodedFile, ImageFile, Status, Verdict
from mribatch.pipeline.stopwatch import Stopwatch
from mribatch.trt.gpu import Gpu
from mribatch.trt.library import Flavor
from mribatch.trt.request import BatchProfile, EngineRequest
from mribatch.trt.runtime.classifier import Deserialize, OpenEngine, TensorRTClassifier
from tests.trt.graph.graphs import GoldenClassifier, bundle_of, efficientnet_like
from tests.trt.runtime.memory_device import (
    DataType,
    MemoryBuffer,
    MemoryDevice,
    MemoryEngine,
    MemoryEvent,
    RuleBroken,
    TensorIOMode,
    bundle_like,
)

BATCH = 4


class StuckBuffer(MemoryBuffer):
    def close(self) -> None:
        super().close()
        raise MribatchError("the GPU could not free memory: CUDA_ERROR_ILLEGAL_ADDRESS", "see docs")


def answers(images: NDArray[uint8]) -> NDArray[float32]:
    """Different for every image, and for every class."""
    sums = images.reshape(len(images), 16).astype(float32) @ np.arange(1, 17, dtype=float32)
    return np.stack([sums, sums + 1, -sums], axis=1).astype(float32)


def make(
    device: MemoryDevice | None = None,
    change: Callable[[MemoryEngine], object] = lambda engine: None,
    deserialize: Deserialize | None = None,
    **options: Any,
) -> tuple[TensorRTClassifier, MemoryDevice]:
    device = device if device is not None else MemoryDevice()
    bundle = bundle_like()
    engine = MemoryEngine(device, bundle, BATCH, answers, **options)
    change(engine)
    request = EngineRequest(flavor=Flavor.RTX, target="sm89", batch=BatchProfile(BATCH, BATCH))
    return TensorRTClassifier(bundle, b"plan", request, device=device, deserialize=deserialize or engine.open), device


def images(count: int, seed: int = 0) -> NDArray[uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 1), dtype=uint8)


@settings(deadline=None)  # what is slow on a busy machine is not wrong
@given(count=st.integers(0, 23), seed=st.integers(0, 5))
def test_every_row_is_answered_in_order_whatever_the_batch(count: int, seed: int) -> None:
    classify, device = make()
    pixels = images(count, seed)
    with classify:
        for _ in range(2):  # slots are used again
            np.testing.assert_array_equal(classify(pixels), answers(pixels))
    assert not device.buffers and not device.queue and not device.streams[0].open


def test_an_engine_for_larger_batches_gets_those_that_were_asked_for() -> None:
    device, bundle = MemoryDevice(), bundle_like()
    engine = MemoryEngine(device, bundle, BATCH, answers, largest=4 * BATCH)
    request = EngineRequest(flavor=Flavor.RTX, target="sm89", batch=BatchProfile(BATCH, 4 * BATCH), rows=BATCH)
    assert request.gate_sizes == (1, 3, 4), "no larger ones than it will get"
    pixels = images(3 * BATCH + 1)
    with TensorRTClassifier(bundle, b"plan", request, device=device, deserialize=engine.open) as classify:
        np.testing.assert_array_equal(classify(pixels), answers(pixels))
    whole = EngineRequest(flavor=Flavor.RTX, target="sm89", batch=BatchProfile(BATCH, BATCH))
    with pytest.raises(MribatchError, match=r"its largest batch is \(16, 4, 4, 1\), wanted is 4 images"):
        TensorRTClassifier(bundle, b"plan", whole, device=device, deserialize=engine.open).__enter__()


def test_the_host_fills_one_slot_while_the_gpu_works_on_the_other() -> None:
    classify, device = make()
    with classify:
        classify(images(5 * BATCH))
    assert device.most_in_flight == 6  # two batches of upload, kernels, download


def test_the_answer_belongs_to_the_caller() -> None:
    classify, _ = make()
    with classify:
        first = classify(images(BATCH))
        kept = first.copy()
        classify(images(BATCH, seed=1))
        np.testing.assert_array_equal(first, kept)


def test_nothing_touches_the_gpu_before_enter() -> None:
    classify, device = make()
    assert (classify.name, classify.precision, classify.calls_at_once) == ("tensorrt", "fp16", 2)
    assert device.opened == 0 and not device.buffers


def test_importing_the_loop_loads_neither_cuda_nor_tensorrt() -> None:
    code = """
import sys
import mribatch.trt.runtime.classifier, mribatch.trt.engine.provider, mribatch.trt.backend, mribatch.trt.verify, mribatch.cli.engine
heavy = {"tensorrt", "tensorrt_rtx", "cuda", "onnx", "onnxruntime", "cv2", "tqdm"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 4, 4, 1), float32), np.zeros((2, 4, 5, 1), uint8), np.zeros((2, 4, 4), uint8)]
)
def test_another_dtype_or_shape_is_refused(wrong: NDArray[Any]) -> None:
    classify, _ = make()
    with classify, pytest.raises(ValueError, match="for uint8"):
        classify(wrong)


@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("method", ["set_input_shape", "set_tensor_address", "execute_async_v3"])
def test_every_false_is_seen_and_the_librarys_words_are_shown(method: str, call: int) -> None:
    classify, device = make(refuse=(method, call))
    with classify, pytest.raises(MribatchError, match=f"{method} refused for the test"):
        classify(images(5 * BATCH))
    assert not device.buffers  # all freed, after the stream had been waited for


def test_no_context_is_seen() -> None:
    classify, device = make(no_context=True)
    with pytest.raises(MribatchError, match="execution context"):
        classify.__enter__()
    assert not device.buffers


def test_another_gpu_is_refused_before_the_engine_is_opened() -> None:
    device = MemoryDevice(gpu=Gpu("other", "8.6", 1 << 30, "13.0", "13.0"))
    classify, _ = make(device, deserialize=pytest.fail)  # type: ignore[arg-type]
    with pytest.raises(MribatchError, match="the engine is for sm89, this GPU is other"):
        classify.__enter__()


@pytest.mark.parametrize(
    "name, value",
    [
        ("images", (TensorIOMode.INPUT, DataType.FLOAT, (-1, 4, 4, 1))),
        ("images", (TensorIOMode.INPUT, DataType.UINT8, (-1, 8, 4, 1))),
        ("probabilities", (TensorIOMode.OUTPUT, DataType.HALF, (-1, 3))),
        ("probabilities", (TensorIOMode.OUTPUT, DataType.FLOAT, (-1, 4))),
        ("mask", (TensorIOMode.INPUT, DataType.UINT8, (-1, 4, 4, 1))),
    ],
)
def test_an_engine_of_other_tensors_is_refused(name: str, value: Any) -> None:
    classify, device = make(change=lambda engine: engine.tensors.update({name: value}))
    with pytest.raises(MribatchError, match="its tensors are"):
        classify.__enter__()
    assert not device.buffers


def test_an_engine_that_is_refused_does_not_live_in_the_error() -> None:
    engines: list[Any] = []

    def open_smaller(flavor: Flavor, content: bytes) -> OpenEngine:
        engine = MemoryEngine(device, bundle_like(), BATCH - 1, answers)
        engines.append(weakref.ref(engine))
        return engine.open(flavor, content)

    classify, device = make(deserialize=open_smaller)
    with pytest.raises(MribatchError, match="largest batch") as caught:
        classify.__enter__()
    assert caught.value and engines[0]() is None


def test_an_engine_for_smaller_batches_is_refused() -> None:
    classify, _ = make(change=lambda engine: setattr(engine, "shape_in", (BATCH - 1, 4, 4, 1)))
    with pytest.raises(MribatchError, match="largest batch"):
        classify.__enter__()


@pytest.mark.parametrize("memory", [0, 64, 200, 300])
def test_too_little_memory_is_one_line_and_frees_what_was_had(memory: int) -> None:
    classify, device = make(MemoryDevice(memory=memory))
    with pytest.raises(MribatchError, match="OUT_OF_MEMORY"):
        classify.__enter__()
    assert not device.buffers and not device.streams[0].open


@pytest.mark.parametrize("fail_at", range(1, 10))
def test_a_failure_on_the_gpu_is_raised_not_returned_as_rows(fail_at: int) -> None:
    classify, device = make(MemoryDevice(fail_at=fail_at))
    with classify, pytest.raises(MribatchError, match="ILLEGAL_ADDRESS"):
        classify(images(3 * BATCH))
    assert not device.buffers


@pytest.mark.parametrize("place", range(8))
def test_a_buffer_that_cannot_be_freed_keeps_nothing_else_from_it(place: int) -> None:
    classify, device = make()
    with pytest.raises(ZeroDivisionError), classify:  # what failed first is what is raised
        device.buffers[place].__class__ = StuckBuffer
        raise ZeroDivisionError
    assert not device.buffers and not device.streams[0].open
    assert classify._context is None and classify._opened is None


def test_a_stream_that_has_failed_does_not_keep_the_callers_memory() -> None:
    classify, device = make(MemoryDevice(fail_at=1))
    with classify:
        device.streams[0].wait = device.streams[0].fail  # type: ignore[method-assign]
        with pytest.raises(MribatchError, match="ILLEGAL_ADDRESS"):
            classify(device.produced(images(BATCH), 1))
        assert not any(slot.reads or slot.event for slot in classify._slots)
        gc.collect()
        assert not device.foreign


def test_it_can_be_entered_again() -> None:
    classify, device = make()
    for seed in range(2):
        with classify:
            np.testing.assert_array_equal(classify(images(2, seed)), answers(images(2, seed)))
        assert not classify._slots
    assert device.opened == 2
    with classify, pytest.raises(AssertionError, match="entered already"):
        classify.__enter__()


# --- the rules of the device in memory: a loop that breaks one is caught --------------------------


def test_a_slot_reused_before_its_event_is_caught() -> None:
    classify, _ = make(MemoryDevice(events_wait=False))
    with pytest.raises(RuleBroken, match="before its event"), classify:
        classify(images(3 * BATCH))


def test_answers_read_before_the_event_are_garbage() -> None:
    classify, _ = make(MemoryDevice(events_wait=False))
    with classify:
        assert np.isnan(classify(images(BATCH))).all()


def test_a_buffer_freed_in_flight_is_caught() -> None:
    classify, device = make()
    classify.__enter__()
    slot = classify._slots[0]
    classify._launch(slot, images(1), device, device.streams[0])
    with pytest.raises(RuleBroken, match="in flight"):
        slot.device_in.close()


def test_an_unchecked_false_is_caught() -> None:
    device = MemoryDevice()
    context = MemoryEngine(
        device, bundle_like(), BATCH, answers, refuse=("set_input_shape", 1)
    ).create_execution_context()
    assert context is not None
    context.set_input_shape("images", (BATCH, 4, 4, 1))
    with pytest.raises(RuleBroken, match="returned False"):
        context.set_tensor_address("images", 1)


def test_a_smaller_batch_than_the_engines_is_caught() -> None:
    classify, _ = make()
    with classify:
        context = classify._context
        context.set_input_shape("images", (1, 4, 4, 1))
        with pytest.raises(RuleBroken, match="not the full"):
            context.execute_async_v3(1)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_threads_put_their_batches_behind_one_another(on_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for its own event only: the second batch is launched before the first is waited for."""
    both = threading.Barrier(2, timeout=30)
    really = MemoryEvent.wait

    def wait(event: MemoryEvent) -> None:
        both.wait()
        really(event)

    monkeypatch.setattr(MemoryEvent, "wait", wait)
    classify, device = make()
    batches = [images(BATCH, seed) for seed in range(8)]
    with classify, ThreadPoolExecutor(classify.calls_at_once) as pool:
        given = [device.produced(batch, None) if on_gpu else batch for batch in batches]
        got = list(pool.map(classify, given))
    for batch, answer in zip(batches, got, strict=True):
        np.testing.assert_array_equal(answer, answers(batch))
    assert device.most_in_flight >= (4 if on_gpu else 6)


@settings(deadline=None, max_examples=20)
@given(counts=st.lists(st.integers(1, 19), min_size=2, max_size=6), seed=st.integers(0, 5))
def test_two_threads_get_their_own_answers(counts: list[int], seed: int) -> None:
    classify, device = make()
    batches = [images(count, seed + place) for place, count in enumerate(counts)]
    with classify, ThreadPoolExecutor(classify.calls_at_once) as pool:
        got = list(pool.map(classify, batches))
    for batch, answer in zip(batches, got, strict=True):
        np.testing.assert_array_equal(answer, answers(batch))
    assert not device.buffers and not device.queue


def test_a_failure_in_one_thread_leaves_the_slots_to_the_others() -> None:
    calls = itertools.count(1)

    class Failing(MemoryDevice):
        def upload(self, source: Any, target: Any, stream: Any) -> None:
            if next(calls) in (2, 3):
                raise MribatchError("no more memory", "see docs")
            super().upload(source, target, stream)

    classify, _ = make(Failing())
    with classify, ThreadPoolExecutor(classify.calls_at_once) as pool:
        futures = [pool.submit(classify, images(BATCH, seed)) for seed in range(8)]
        failed = [future.exception(timeout=30) is not None for future in futures]
    assert sum(failed) == 2


def test_dalis_batch_lives_until_it_has_been_read() -> None:
    """The way of a run on a GPU: the decoder forgets its batches at once, and none is freed before its answer is there."""

    class Decode:
        library_version = "1"

        def __enter__(self) -> "Decode":
            return self

        def __exit__(self, *_: object) -> None: ...

        def batches(self, groups: Any) -> Iterator[DecodedBatch]:
            for place, group in enumerate(groups):
                files = tuple(DecodedFile(file, Verdict(Status.OK)) for file in group)
                yield DecodedBatch(files, device.produced(images(BATCH, place), None))  # type: ignore[arg-type]

    classify, device = make()
    chosen = Choice("memory", "a test")
    groups = [[ImageFile(place * BATCH + row, 0, "", b"") for row in range(BATCH)] for place in range(9)]

    @contextlib.contextmanager
    def open_backend() -> Iterator[Backend]:
        with classify:
            yield Backend(classify, chosen, pytest.fail)

    pair = InProcessClassifier(
        bundle_like(),
        BATCH,
        open_backend=open_backend,
        open_decoder=lambda backend: contextlib.nullcontext(DecoderAtWork(Decode(), chosen)),  # type: ignore[arg-type]
    )
    with pair as here:
        for place, batch in enumerate(here.batches(groups, Stopwatch())):
            np.testing.assert_array_equal(batch.probabilities, answers(images(BATCH, place)))
            gc.collect()
            assert len(device.foreign) <= classify.calls_at_once + 1, "what was answered is held no longer"
    assert device.uploads == 0


@pytest.mark.parametrize(
    "by, alike", [(0.0, [True, True, True]), (1e-7, [True, True, True]), (2e-3, [True, False, False])]
)
def test_a_row_that_differs_from_the_others_is_recorded_and_refused_where_it_is_no_rounding(
    by: float, alike: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the inference loop itself, on the GPU in memory; the answers are golden but for that row."""
    monkeypatch.setattr("mribatch.trt.runtime.classifier.require_version", lambda flavor: "1")
    found = bundle_of(efficientnet_like().model())
    golden, padding = GoldenClassifier(found), np.zeros((1, 4), float32)

    def compute(images: NDArray[uint8]) -> NDArray[float32]:
        rows = np.concatenate([golden(image[None]) if image.any() else padding for image in images])
        rows[2, 1] += by
        return rows

    device = MemoryDevice()
    request = EngineRequest(flavor=Flavor.RTX, target="sm89", batch=BatchProfile(4, 4))
    engine = MemoryEngine(device, found, 4, compute)
    with TensorRTClassifier(found, b"", request, device=device, deserialize=engine.open) as classify:
        report = gate(classify, found, batch_sizes=(1, 3, 4))
    assert [check.rows_alike for check in report.checks] == alike and report.holds is all(alike)
    assert report.row_spread == pytest.approx(by, abs=1e-7) and bool(report.row_spread) is (by > 0)
    assert all(check.agreement is not None and check.agreement.holds for check in report.checks)


def test_tensorrt_for_rtx_compiles_before_the_first_answer_and_once_for_all_starts() -> None:
    pixels, engines = images(3 * BATCH), list[MemoryEngine]()
    classify, _ = make(change=engines.append)
    with classify:
        np.testing.assert_array_equal(classify(pixels), answers(pixels))  # none by a kernel that is replaced later
        kept = classify.compiled_kernels()
    assert kept and engines[0].compiled == 1
    for known, compiled in ((kept, 0), (b"of another GPU", 1), (None, 1)):
        device = MemoryDevice()
        engine = MemoryEngine(device, bundle_like(), BATCH, answers)
        request = EngineRequest(flavor=Flavor.RTX, target="sm89", batch=BatchProfile(BATCH, BATCH))
        again = TensorRTClassifier(
            bundle_like(), b"plan", request, kernels=known, device=device, deserialize=engine.open
        )
        with again:
            np.testing.assert_array_equal(again(pixels), answers(pixels))
            assert again.compiled_kernels() == kept and engine.compiled == compiled


def test_tensorrt_itself_has_nothing_to_compile() -> None:
    device = MemoryDevice()
    engine = MemoryEngine(device, bundle_like(), BATCH, answers)
    request = EngineRequest(flavor=Flavor.TENSORRT, target="sm89", batch=BatchProfile(BATCH, BATCH))
    with TensorRTClassifier(bundle_like(), b"", request, device=device, deserialize=engine.open) as classify:
        np.testing.assert_array_equal(classify(images(BATCH)), answers(images(BATCH)))
        assert classify.compiled_kernels() is None and engine.compiled == 0
