"""Copies to a GPU and back on several threads, with streams, events and page-locked memory: on a real driver or not."""

import threading

import numpy as np

from mribatch.trt.runtime.cuda import CudaDevice

SIZE = 1 << 16
THREADS, TIMES = 4, 20


def make_round_trips(device: CudaDevice) -> int:
    """Send random bytes there and back, and compare them.

    Args:
        device: Open.

    Returns:
        How many times.

    Raises:
        AssertionError: Other bytes came back, in whatever thread.
        MribatchError: CUDA refuses.
    """
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            _go_and_come(device, seed)
        except BaseException as error:  # raised below, on the caller's thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error
    return THREADS * TIMES


def _go_and_come(device: CudaDevice, seed: int) -> None:
    device.use()
    stream = device.stream()
    source, target, back = device.pinned(SIZE), device.allocate(SIZE, stream), device.pinned(SIZE)
    wanted = np.random.default_rng(seed).integers(0, 256, SIZE, np.uint8)
    for _ in range(TIMES):
        source.view(np.uint8, (SIZE,))[:] = wanted
        device.upload(source, target, stream)
        device.download(target, back, stream)
        stream.record().wait()
        assert np.array_equal(back.view(np.uint8, (SIZE,)), wanted), f"other bytes came back from the GPU (seed {seed})"
        wanted = np.roll(wanted, 1)
    for buffer in (source, target, back):
        buffer.close()
    stream.wait()
    stream.close()
