"""The OpenCV decoder: reads, probes and decodes files on threads, ahead of the model, into full batches."""

import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.pipeline.decode.file import decode_file, decoded_file, timed_out
from mribatch.pipeline.decode.grey import decoder_versions
from mribatch.pipeline.decode.study import StudyDecoder
from mribatch.pipeline.records import DecodedBatch, DecodedFile, ImageFile
from mribatch.pipeline.threads import WorkerThreads

_BATCHES_AHEAD = 3  # enough that the model never waits for the slowest file of the next batch; bounds the memory

_Decoded = tuple[DecodedFile, NDArray[uint8] | None]


class OpenCvDecoder:
    """Decoder that uses OpenCV on the CPU.

    Args:
        height, width: Pixels that every image is stretched to.
        batch_size: Images per batch; the rows of missing ones are zero.
        threads: Number of files decoded at once.
        max_pixels: Larger images are too_large.
        timeout_s: Seconds for one file from its start; more is the status timeout.
        studies: Decodes slices of DICOM and NIfTI files; None where there are none.
    """

    name = "opencv"

    def __init__(
        self,
        *,
        height: int,
        width: int,
        batch_size: int,
        threads: int,
        max_pixels: int,
        timeout_s: float,
        studies: StudyDecoder | None = None,
    ) -> None:
        self._studies = studies
        self._height = height
        self._width = width
        self._batch_size = batch_size
        self._max_pixels = max_pixels
        self._timeout_s = timeout_s
        self._pool = WorkerThreads(self._decode, threads, timeout_s, self._late)

    @property
    def library_version(self) -> str:
        return decoder_versions()

    @property
    def groups_ahead(self) -> int:
        return _BATCHES_AHEAD + 1

    def __enter__(self) -> Self:
        import cv2

        cv2.setNumThreads(1)  # one image per thread of ours; OpenCV's own threads would fight over the same cores
        self._pool.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, trace)
        if self._studies is not None:
            self._studies.close()

    def batches(self, groups: Iterable[Sequence[ImageFile]]) -> Iterator[DecodedBatch]:
        """One batch per group, in order; up to three groups are under way while the caller works on one."""
        return map(self._batch, self._pool.in_groups(groups, _BATCHES_AHEAD))

    def alone(self, file: ImageFile) -> _Decoded:
        """Decode one file. Where nothing else was submitted, nothing else is under way."""
        return self._pool.result(self._pool.submit(file))

    def _batch(self, group: list[_Decoded]) -> DecodedBatch:
        pixels = np.zeros((self._batch_size, self._height, self._width, 1), uint8)
        for position, (_, image) in enumerate(group):
            if image is not None:
                pixels[position] = image
        return DecodedBatch(tuple(decoded for decoded, _ in group), pixels)

    def _decode(self, file: ImageFile) -> _Decoded:
        if file.study is not None and self._studies is not None:
            return self._studies.decode(file, file.study)
        begin = time.thread_time()
        grey = decode_file(file.file, self._height, self._width, self._max_pixels, file.listed)
        return decoded_file(file, grey.verdict, grey.content, begin), grey.pixels

    def _late(self, file: ImageFile) -> _Decoded:
        return DecodedFile(file, timed_out(self._timeout_s)), None
