"""Decoded batches through the model, with the next one under way while the caller works on the last."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from numpy import float32
from numpy.typing import NDArray

from mribatch.classifier import Classifier
from mribatch.pipeline.records import DecodedBatch, Status
from mribatch.pipeline.stopwatch import INFERENCE, Stopwatch


def classified(
    batches: Iterator[DecodedBatch], classify: Classifier, watch: Stopwatch
) -> Iterator[tuple[DecodedBatch, NDArray[float32] | None]]:
    """Yield each batch with its probabilities, in order; None for a batch in which no file is ok.

    At most `classify.calls_at_once` batches are under way.
    """
    under_way: deque[tuple[DecodedBatch, Future[NDArray[float32]] | None]] = deque()
    with ThreadPoolExecutor(classify.calls_at_once, thread_name_prefix="mribatch-batch") as pool:
        for batch in watch.waiting(batches):
            good = any(decoded.verdict.status is Status.OK for decoded in batch.files)
            under_way.append((batch, pool.submit(classify, batch.pixels) if good else None))
            if len(under_way) >= classify.calls_at_once:
                yield _answered(*under_way.popleft(), watch)
        while under_way:
            yield _answered(*under_way.popleft(), watch)


def _answered(
    batch: DecodedBatch, answer: Future[NDArray[float32]] | None, watch: Stopwatch
) -> tuple[DecodedBatch, NDArray[float32] | None]:
    with watch.measure(INFERENCE):
        return batch, answer.result() if answer is not None else None
