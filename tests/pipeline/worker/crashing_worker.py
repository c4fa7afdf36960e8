"""A worker for tests: the project's own, in which chosen files do what damaged files do to decoders.

    python crashing_worker.py HOOK ORDER REQUESTS REPLIES

HOOK is one of the functions below. They change what reads and probes, which is the first thing that happens to a file.
"""

import os
import signal
import sys
import time
from pathlib import Path

from mribatch.core.errors import MribatchError
from mribatch.pipeline.decode import dali as decode_dali
from mribatch.pipeline.decode import file as decode_file
from mribatch.pipeline.decode.file import read_and_probe
from mribatch.pipeline.inference.order import WorkOrder
from mribatch.pipeline.records import Status, Verdict
from mribatch.pipeline.worker import __main__ as worker
from mribatch.trt.runtime.device import OutOfGpuMemory

_Read = tuple[bytes | None, Verdict]


def no_probe(path: bytes, max_pixels: int, listed: tuple[int, int] | None = None) -> _Read:
    """Whatever the probe refuses is handed to DALI all the same, as a PNG, and nobody looks at it first."""
    content, verdict = read_and_probe(path, max_pixels, listed)
    refused = content and verdict.status in (Status.UNSUPPORTED, Status.TRUNCATED, Status.DECODE_FAILED)
    return content, Verdict(Status.OK, None, "png", 64, 64, (), 8) if refused else verdict


def killer(path: bytes, max_pixels: int, listed: tuple[int, int] | None = None) -> _Read:
    """A file with "killer" in its name ends the process, as a fault in a C library would."""
    if b"killer" in path:
        os.kill(os.getpid(), signal.SIGSEGV)
    return read_and_probe(path, max_pixels, listed)


def killed_once(path: bytes, max_pixels: int, listed: tuple[int, int] | None = None) -> _Read:
    """The process dies on such a file, but never twice: memory was short, or a person was impatient."""
    mark = Path(os.fsdecode(path) + ".killed")
    if b"killer" in path and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return read_and_probe(path, max_pixels, listed)


def always_dies(path: bytes, max_pixels: int, listed: tuple[int, int] | None = None) -> _Read:
    os._exit(7)


def sticky(path: bytes, max_pixels: int, listed: tuple[int, int] | None = None) -> _Read:
    """A GPU that fails once and for all in this process, on one file in the middle."""
    mark = Path(os.fsdecode(path) + ".failed")
    if b"killer" in path and not mark.exists():
        mark.touch()
        raise MribatchError("CUDA says cudaErrorIllegalAddress", "check the GPU")
    return read_and_probe(path, max_pixels, listed)


def no_memory(path: bytes, max_pixels: int, listed: tuple[int, int] | None = None) -> _Read:
    """Memory is short, once, for one file in the middle."""
    mark = Path(os.fsdecode(path) + ".failed")
    if b"killer" in path and not mark.exists():
        mark.touch()
        raise MemoryError
    return read_and_probe(path, max_pixels, listed)


def little_gpu_memory(path: bytes, max_pixels: int, listed: tuple[int, int] | None = None) -> _Read:
    """A GPU whose memory is enough for batches of 12, and not while more than one is prefetched."""
    order = WorkOrder.from_json(sys.argv[2])
    if order.batch_size > 12 or order.prefetch > 1:
        raise OutOfGpuMemory("the GPU could not allocate 9,000 bytes on the GPU: CUDA_ERROR_OUT_OF_MEMORY")
    return read_and_probe(path, max_pixels, listed)


def no_gpu_memory(path: bytes, max_pixels: int, listed: tuple[int, int] | None = None) -> _Read:
    """A GPU whose memory another process has."""
    raise OutOfGpuMemory("the GPU could not allocate 9,000 bytes on the GPU: CUDA_ERROR_OUT_OF_MEMORY")


def hangs(path: bytes, max_pixels: int, listed: tuple[int, int] | None = None) -> _Read:
    """A decoder that never returns and never lets go, with the requests unread, too."""
    if b"killer" in path:
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(3600)
    return read_and_probe(path, max_pixels, listed)


def bug(path: bytes, max_pixels: int, listed: tuple[int, int] | None = None) -> _Read:
    raise ZeroDivisionError("a bug of ours")


if __name__ == "__main__":
    hook = globals()[sys.argv[1]]
    for module in (decode_dali, decode_file):
        vars(module)["read_and_probe"] = hook
    if hook is no_probe:
        vars(decode_dali)["for_dali"] = lambda content, verdict, reads_right: content
    worker.main(sys.argv[2:])
