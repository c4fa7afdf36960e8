"""A FileClassifier in this process: a decoder, a model, and the next batch under way while the caller works on one."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.agreement import Agreement
from mribatch.core.bundle import Bundle
from mribatch.core.classifier import Classifier
from mribatch.core.gate import GateFailed, GateReport
from mribatch.core.model_spec import INT8
from mribatch.pipeline.inference.seen import flag_images
from mribatch.pipeline.records import (
    Choice,
    ClassifiedBatch,
    DecodedBatch,
    DecodedFile,
    Decoder,
    ImageFile,
    RunsWith,
    Status,
)
from mribatch.pipeline.stopwatch import INFERENCE, Stopwatch


@dataclass(frozen=True)
class Backend:
    """A classifier at work.

    classifier: Entered. choice: Which one it is, and why. gate: Gives what the gate found for it; asks the backend only
    where that is not known yet. precision_reason: why it computes in its precision.
    """

    classifier: Classifier
    choice: Choice
    gate: Callable[[], GateReport]
    precision_reason: str = "the only one of this backend"


@dataclass(frozen=True)
class DecoderAtWork:
    """A decoder, entered. choice: Which one it is, and why."""

    decode: Decoder
    choice: Choice


class InProcessClassifier:
    """Files to probabilities, decoded and classified in this process.

    Args:
        bundle: Whose golden answers the backend must reproduce.
        batch_size: Rows of every batch.
        open_backend: Gives the backend for as long as it is entered.
        open_decoder: The same of the decoder, for the backend that was opened.
    """

    def __init__(
        self,
        bundle: Bundle,
        batch_size: int,
        *,
        open_backend: Callable[[], AbstractContextManager[Backend]],
        open_decoder: Callable[[Choice], AbstractContextManager[DecoderAtWork]],
    ) -> None:
        self.batch_size = batch_size
        self._bundle = bundle
        self._open_backend = open_backend
        self._open_decoder = open_decoder
        self._backend: Backend | None = None
        self._decoder: DecoderAtWork | None = None
        self._report: GateReport | None = None
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._backend = stack.enter_context(self._open_backend())
            self._decoder = stack.enter_context(self._open_decoder(self._backend.choice))
            self._entered = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.__exit__(kind, error, trace)

    @property
    def smallest_batch(self) -> int:
        return self.batch_size

    @property
    def runs_with(self) -> RunsWith:
        backend, decoder = self._require_entered()
        return RunsWith(
            backend=backend.choice,
            backend_version=backend.classifier.library_version,
            precision=Choice(backend.classifier.precision, backend.precision_reason),
            decoder=decoder.choice,
            decoder_version=decoder.decode.library_version,
        )

    @property
    def groups_ahead(self) -> int:
        """As `Decoder.groups_ahead`, with the batches of the model."""
        backend, decoder = self._require_entered()
        return decoder.decode.groups_ahead + backend.classifier.calls_at_once - 1

    def gate(self) -> Agreement:
        """Compare the backend with the bundle's golden answers, at most once.

        Raises:
            GateFailed: It does not reproduce them; gives the largest difference and the limit.
        """
        backend, _ = self._require_entered()
        self._report = self._report or backend.gate()
        report = self._report
        if not report.holds:
            another = "use --precision fp32" if report.precision == INT8 else "export the model again"
            who = f"{report.backend} {report.library_version} ({report.precision})"
            raise GateFailed(
                f"{who} does not reproduce the golden answers of '{self._bundle.spec.name}': {report.agreement}",
                f"{another}, or use another --backend",
            )
        return report.agreement

    def batches(self, groups: Iterable[Sequence[ImageFile]], watch: Stopwatch) -> Iterator[ClassifiedBatch]:
        """One ClassifiedBatch per group, in order; `calls_at_once` batches of the model are under way."""
        backend, decoder = self._require_entered()
        classify = backend.classifier
        under_way: deque[_BatchUnderWay] = deque()
        with (
            ThreadPoolExecutor(classify.calls_at_once, thread_name_prefix="mribatch-batch") as pool,
            ThreadPoolExecutor(1, thread_name_prefix="mribatch-flags") as flagging,  # beside the decoder and the model
        ):
            for batch in watch.waiting(decoder.decode.batches(groups)):
                good = any(decoded.verdict.status is Status.OK for decoded in batch.files)
                answers = pool.submit(classify, batch.pixels) if good else None
                under_way.append(_BatchUnderWay(flagging.submit(flag_images, batch, self._bundle), answers))
                if len(under_way) >= classify.calls_at_once:
                    yield _collect(under_way.popleft(), watch)
            while under_way:
                yield _collect(under_way.popleft(), watch)

    def one_by_one(self, files: Sequence[ImageFile], begin: Callable[[int | None], None]) -> ClassifiedBatch:
        """Classify at most a batch of files, each decoded with nothing else under way; the same rows as from `batches`.

        Args:
            files: To decode in this order.
            begin: Receives the position of each file before it is decoded, and None before the model runs.
        """
        backend, decoder = self._require_entered()
        spec, decoded = self._bundle.spec, []
        pixels = np.zeros((len(files), spec.height, spec.width, 1), uint8)  # the backends pad by themselves
        for position, file in enumerate(files):
            begin(position)
            answer, image = decoder.decode.alone(file)
            decoded.append(answer)
            if image is not None:
                pixels[position] = image
        begin(None)
        good = any(one.verdict.status is Status.OK for one in decoded)
        flagged = flag_images(DecodedBatch(tuple(decoded), pixels), self._bundle)
        return ClassifiedBatch(flagged, backend.classifier(pixels) if good else None)

    def _require_entered(self) -> tuple[Backend, DecoderAtWork]:
        assert self._backend is not None and self._decoder is not None, "enter first"
        return self._backend, self._decoder


@dataclass(frozen=True, slots=True)
class _BatchUnderWay:
    """files: flagged; answers: None where no file is ok."""

    files: Future[tuple[DecodedFile, ...]]
    answers: Future[NDArray[float32]] | None


def _collect(batch: _BatchUnderWay, watch: Stopwatch) -> ClassifiedBatch:
    with watch.measure(INFERENCE):
        answers = batch.answers.result() if batch.answers is not None else None
        return ClassifiedBatch(batch.files.result(), answers)
