"""The OpenCV Decoder: files are read, probed and decoded on threads, ahead of the model, and leave as full batches."""

import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.pipeline.decode.file import decoded_file, read_and_probe, timed_out
from mribatch.pipeline.decode.grey import decode_grey, opencv_version
from mribatch.pipeline.decode.threads import WorkerThreads
from mribatch.pipeline.records import DecodedBatch, DecodedFile, ImageFile, Status

_BATCHES_AHEAD = 3  # enough that the model never waits for the slowest file of the next batch; bounds the memory

_Decoded = tuple[DecodedFile, NDArray[uint8] | None]


class DecodeAhead:
    """Decoder with OpenCV on the CPU.

    Args:
        height, width: Pixels that every image is stretched to.
        batch_size: Rows of every batch; missing ones are zero.
        threads: Files decoded at once.
        max_pixels: Larger images are too_large.
        timeout_s: Seconds for one file from its start; more is the status timeout.
    """

    name = "opencv"

    def __init__(
        self, *, height: int, width: int, batch_size: int, threads: int, max_pixels: int, timeout_s: float
    ) -> None:
        self._height = height
        self._width = width
        self._batch_size = batch_size
        self._max_pixels = max_pixels
        self._timeout_s = timeout_s
        self._pool = WorkerThreads(self._decode, threads, timeout_s, self._late)

    @property
    def library_version(self) -> str:
        return opencv_version()

    def __enter__(self) -> Self:
        import cv2

        cv2.setNumThreads(1)  # one image per thread of ours; OpenCV's own threads would fight over the same cores
        self._pool.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, trace)

    def batches(self, groups: Iterable[Sequence[ImageFile]]) -> Iterator[DecodedBatch]:
        """One batch per group, in order; up to three groups are under way while the caller works on one."""
        return map(self._batch, self._pool.in_groups(groups, _BATCHES_AHEAD))

    def alone(self, file: ImageFile) -> _Decoded:
        """Where nothing else was submitted, nothing else is under way."""
        return self._pool.result(self._pool.submit(file))

    def _batch(self, group: list[_Decoded]) -> DecodedBatch:
        pixels = np.zeros((self._batch_size, self._height, self._width, 1), uint8)
        for position, (_, image) in enumerate(group):
            if image is not None:
                pixels[position] = image
        return DecodedBatch(tuple(decoded for decoded, _ in group), pixels)

    def _decode(self, file: ImageFile) -> _Decoded:
        begin = time.thread_time()
        content, verdict = read_and_probe(file, self._max_pixels)
        image = None
        if content is not None and verdict.status is Status.OK:
            verdict, image = decode_grey(content, verdict, self._height, self._width)
        return decoded_file(file, verdict, content, begin), image

    def _late(self, file: ImageFile) -> _Decoded:
        return DecodedFile(file, timed_out(self._timeout_s)), None
