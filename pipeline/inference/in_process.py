"""A FileClassifier in this process: a decoder, a model, and the next batch under way while the caller works on one."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.agreement import Agreement, compare
from mribatch.core.bundle import Bundle
from mribatch.core.classifier import Classifier
from mribatch.core.errors import MribatchError
from mribatch.pipeline.records import (
    Choice,
    ClassifiedBatch,
    DecodedBatch,
    Decoder,
    ImageFile,
    RunsWith,
    Status,
)
from mribatch.pipeline.stopwatch import INFERENCE, Stopwatch


class ClassifyHere:
    """Files to probabilities, decoded and classified in this process.

    Args:
        bundle: Whose golden slices are the proof.
        batch_size: Rows of every batch.
        backend, decoder: What was chosen, and why.
        classify, decode: The two, not entered.
    """

    def __init__(
        self, bundle: Bundle, batch_size: int, backend: Choice, decoder: Choice, classify: Classifier, decode: Decoder
    ) -> None:
        self._bundle = bundle
        self._batch_size = batch_size
        self._backend = backend
        self._decoder = decoder
        self._classify = classify
        self._decode = decode
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._classify)
            stack.enter_context(self._decode)
            self._entered = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.__exit__(kind, error, trace)

    @property
    def runs_with(self) -> RunsWith:
        return RunsWith(
            backend=self._backend,
            backend_version=self._classify.library_version,
            precision=self._classify.precision,
            decoder=self._decoder,
            decoder_version=self._decode.library_version,
        )

    def prove(self) -> Agreement:
        """Let the backend reproduce the bundle's golden slices.

        Raises:
            MribatchError: It does not; gives the largest difference and the limit.
        """
        return prove(self._classify, self._bundle, self._batch_size)

    def batches(self, groups: Iterable[Sequence[ImageFile]], watch: Stopwatch) -> Iterator[ClassifiedBatch]:
        """One ClassifiedBatch per group, in order; `calls_at_once` batches of the model are under way."""
        under_way: deque[tuple[DecodedBatch, Future[NDArray[float32]] | None]] = deque()
        with ThreadPoolExecutor(self._classify.calls_at_once, thread_name_prefix="mribatch-batch") as pool:
            for batch in watch.waiting(self._decode.batches(groups)):
                good = any(decoded.verdict.status is Status.OK for decoded in batch.files)
                under_way.append((batch, pool.submit(self._classify, batch.pixels) if good else None))
                if len(under_way) >= self._classify.calls_at_once:
                    yield _answered(*under_way.popleft(), watch)
            while under_way:
                yield _answered(*under_way.popleft(), watch)

    def one_by_one(self, files: Sequence[ImageFile], begin: Callable[[int | None], None]) -> ClassifiedBatch:
        """At most a batch of files, each decoded with nothing else under way; the same rows as from `batches`.

        Args:
            files: To decode in this order.
            begin: Told the position of each file before it is decoded, and None before the model runs.
        """
        spec, decoded = self._bundle.spec, []
        pixels = np.zeros((len(files), spec.height, spec.width, 1), uint8)  # the backends pad by themselves
        for position, file in enumerate(files):
            begin(position)
            answer, image = self._decode.alone(file)
            decoded.append(answer)
            if image is not None:
                pixels[position] = image
        begin(None)
        good = any(one.verdict.status is Status.OK for one in decoded)
        return ClassifiedBatch(tuple(decoded), self._classify(pixels) if good else None)


def prove(classify_batch: Classifier, bundle: Bundle, batch_size: int) -> Agreement:
    """Let a backend reproduce the bundle's golden slices before it writes a row.

    Raises:
        MribatchError: It does not; gives the largest difference and the limit.
    """
    images = bundle.golden.images
    padding = -len(images) % batch_size
    padded = np.concatenate([images, np.zeros((padding, *images.shape[1:]), images.dtype)])
    answers = [classify_batch(padded[start : start + batch_size]) for start in range(0, len(padded), batch_size)]
    got = np.concatenate(answers)[: len(images)]
    agreement = compare(got, bundle.golden.probabilities, bundle.spec.tolerance, classify_batch.precision)
    if not agreement.holds:
        raise MribatchError(
            f"{classify_batch.name} {classify_batch.library_version} does not reproduce the golden answers of "
            f"'{bundle.spec.name}': {agreement}",
            "export the model again, or use another --backend",
        )
    return agreement


def _answered(batch: DecodedBatch, answer: Future[NDArray[float32]] | None, watch: Stopwatch) -> ClassifiedBatch:
    with watch.measure(INFERENCE):
        return ClassifiedBatch(batch.files, answer.result() if answer is not None else None)
