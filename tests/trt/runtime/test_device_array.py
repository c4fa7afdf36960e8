"""Images that are on the GPU already: read where they lie, after their producer, and held until they have been read."""

import gc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy import float32, uint8

from mribatch.core.errors import MribatchError
from mribatch.trt.runtime.classifier import TensorRTClassifier, _Slot
from mribatch.trt.runtime.device_array import DeviceImages, check_device_images
from tests.trt.runtime.memory_device import MemoryArray, MemoryDevice, RuleBroken
from tests.trt.runtime.test_classifier import BATCH, answers, images, make

SHAPE = (BATCH, 4, 4, 1)
PRODUCER = 0x7F00


def launched(stream: int | None = None) -> tuple[TensorRTClassifier, MemoryDevice, _Slot]:
    """A batch in flight whose array only the slot knows."""
    classify, device = make()
    classify.__enter__()
    slot = classify._slots[0]
    batch = check_device_images(device.produced(images(BATCH), stream), SHAPE)
    classify._launch(slot, batch, device, device.streams[0])
    return classify, device, slot


@pytest.mark.parametrize("stream", [None, 1, 2, PRODUCER])
def test_a_batch_on_the_gpu_is_read_where_it_lies(stream: int | None) -> None:
    classify, device = make()
    with classify:
        for seed in range(3):  # slots are used again
            array = device.produced(images(BATCH, seed), stream)
            np.testing.assert_array_equal(classify(array), answers(images(BATCH, seed)))
            assert classify._context._addresses["images"] == array.buffer.address
    assert device.uploads == 0 and not device.buffers and not device.queue


def test_host_and_device_take_turns() -> None:
    classify, device = make()
    with classify:
        for seed in range(3):
            np.testing.assert_array_equal(classify(images(9, seed)), answers(images(9, seed)))
            array = device.produced(images(BATCH, seed + 10), PRODUCER)
            np.testing.assert_array_equal(classify(array), answers(images(BATCH, seed + 10)))


def test_the_interface_is_read_once_and_equal_strides_are_taken() -> None:
    classify, device = make()
    reads: list[MemoryArray] = []

    class Counted(MemoryArray):
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            reads.append(self)
            return self.interface

    array = device.produced(images(BATCH), None, strides=(16, 4, 1, 1))
    array.__class__ = Counted
    with classify:
        np.testing.assert_array_equal(classify(array), answers(images(BATCH)))
    assert len(reads) == 1


def test_afterwards_the_array_is_the_producers_again() -> None:
    classify, device = make()
    with classify:
        array = device.produced(images(BATCH), PRODUCER)
        classify(array)
        array.write(images(BATCH, seed=1))
        np.testing.assert_array_equal(classify(array), answers(images(BATCH, seed=1)))
        del array
        gc.collect()
        assert not device.foreign


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"typestr": "<f4"}, "<f4"),
        ({"typestr": "|i1"}, "i1"),
        ({"shape": (BATCH, 4, 4)}, r"\(4, 4, 4\) on the GPU for uint8 \(4, 4, 4, 1\)"),
        ({"shape": (BATCH, 8, 2, 1)}, "for uint8"),
        ({"shape": (BATCH, 4, 4, 3)}, "for uint8"),
        ({"shape": (BATCH - 1, 4, 4, 1)}, "3 images on the GPU, wanted is a full batch of 4"),
        ({"shape": (BATCH + 1, 4, 4, 1)}, "5 images on the GPU, wanted is a full batch of 4"),
        ({"strides": (16, 1, 4, 1)}, "C-contiguous"),
        ({"strides": (32, 4, 1, 1)}, "C-contiguous"),
        ({"mask": object()}, "masked"),
        ({"version": 2}, "version 2"),
        ({"data": (0, False)}, "address 0x0"),
        ({"data": (0x10010, False)}, "multiple of 256"),
        ({"stream": 0}, "stream 0"),
        ({"stream": -1}, "stream -1"),
    ],
)
def test_another_array_is_refused_before_the_gpu_sees_it(changes: dict[str, Any], message: str) -> None:
    classify, device = make()
    with classify, pytest.raises(ValueError, match=message):
        classify(device.produced(images(BATCH), None, **changes))
    assert device.done == 0


def test_what_is_no_array_is_refused() -> None:
    classify, _ = make()
    with classify, pytest.raises(TypeError, match="list is neither"):
        classify([[0]])  # type: ignore[arg-type]


@pytest.mark.parametrize("fail_at", [1, 2, 3])
def test_a_failure_on_the_gpu_is_raised_and_the_array_let_go(fail_at: int) -> None:
    classify, device = make(MemoryDevice(fail_at=fail_at))
    with classify:
        with pytest.raises(MribatchError, match="ILLEGAL_ADDRESS"):
            classify(device.produced(images(BATCH), PRODUCER))
        gc.collect()
        assert not device.foreign


def test_the_array_is_held_until_its_event_has_fired() -> None:
    classify, device, slot = launched(PRODUCER)
    gc.collect()
    assert len(device.foreign) == 1
    result = np.empty((BATCH, 3), float32)
    classify._drain(slot, 0, result)
    np.testing.assert_array_equal(result, answers(images(BATCH)))
    gc.collect()
    assert not device.foreign
    classify.__exit__(None, None, None)


def test_cuda_is_told_which_stream_to_wait_for() -> None:
    core = pytest.importorskip("cuda.core", exc_type=ImportError)
    from mribatch.trt.runtime.cuda import _CudaStream

    waited: list[Any] = []
    stream = _CudaStream(SimpleNamespace(handle=4711, wait=waited.append))
    for producer in (1, 2, PRODUCER):
        stream.wait_for(producer)
    assert waited[0] is core.LEGACY_DEFAULT_STREAM and waited[1] is core.PER_THREAD_DEFAULT_STREAM
    assert int(waited[2].handle) == PRODUCER


# --- the rules of the device in memory: a loop that breaks one is caught --------------------------


def test_an_array_let_go_in_flight_is_caught() -> None:
    classify, _, slot = launched()
    slot.reads = None
    gc.collect()
    with pytest.raises(RuleBroken, match="closed buffer"):
        classify._drain(slot, 0, np.empty((BATCH, 3), float32))


def test_a_producer_not_waited_for_is_caught() -> None:
    classify, device = make(MemoryDevice(streams_wait=False))
    with classify, pytest.raises(RuleBroken, match="before its producer's stream"):
        classify(device.produced(images(BATCH), PRODUCER))


@pytest.mark.parametrize("other", [2, PRODUCER + 1])
def test_waiting_for_another_stream_is_caught(other: int) -> None:
    classify, device = make()
    device.producers[PRODUCER + 1] = []
    with classify, pytest.raises(RuleBroken, match="before its producer's stream"):
        classify(device.produced(images(BATCH), PRODUCER, stream=other))


def test_waiting_after_the_kernels_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    launch, place = TensorRTClassifier._launch, TensorRTClassifier._place

    def late(classify: TensorRTClassifier, slot: _Slot, batch: DeviceImages, device: Any, stream: Any) -> None:
        launch(classify, slot, DeviceImages(batch.array, batch.address, None), device, stream)
        place(slot, batch, device, stream)

    monkeypatch.setattr(TensorRTClassifier, "_launch", late)
    classify, device = make()
    with classify, pytest.raises(RuleBroken, match="before its producer's stream"):
        classify(device.produced(images(BATCH), PRODUCER))


def test_a_stream_that_does_not_exist_is_caught() -> None:
    classify, device = make()
    with classify, pytest.raises(RuleBroken, match="no stream 99"):
        classify(device.produced(images(BATCH), None, stream=99))


def test_an_address_that_is_no_live_buffer_is_caught() -> None:
    classify, device = make()
    array = device.produced(images(BATCH), None)
    array.buffer.close()
    with classify, pytest.raises(RuleBroken, match="no buffer at"):
        classify(array)


def test_an_array_written_in_flight_is_caught() -> None:
    classify, device = make(MemoryDevice(events_wait=False))  # the call returns while the GPU reads
    with classify:
        array = device.produced(images(BATCH), None)
        classify(array)
        with pytest.raises(RuleBroken, match="written to while work"):
            array.write(np.zeros(SHAPE, uint8))


def test_an_array_freed_by_its_producer_in_flight_is_caught() -> None:
    classify, device, slot = launched()
    with pytest.raises(RuleBroken, match="closed while work"):
        device.foreign[0].close()
    classify.__exit__(None, None, None)
    assert slot.event is not None
