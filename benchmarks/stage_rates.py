"""The rate of each stage of a run, alone and together with the others, in this process.

Stages that read ahead are timed while they are full: the clock starts when WARM batches have come out, and stops when
WARM more are still to come. So neither filling and draining nor the start of DALI, of a process or of an engine counts,
and no work that was done before the clock started is missing from what it measures.
"""

import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count, cycle, islice, repeat
from pathlib import Path
from threading import Event

import numpy as np

from mribatch.core.bundle import Bundle
from mribatch.core.classifier import Classifier
from mribatch.core.model_spec import FP32
from mribatch.pipeline.choices import DALI, ONNXRUNTIME, OPENCV, TENSORRT
from mribatch.pipeline.decode.dali import for_dali
from mribatch.pipeline.decode.dali_graph import CPU, FIRST_GPU, GpuDecoding, GraphOptions, Samples, prefetching
from mribatch.pipeline.decode.file import decoded_file, read_and_probe
from mribatch.pipeline.decode.probe import DEFAULT_MAX_PIXELS
from mribatch.pipeline.executor.part_maker import make_rows
from mribatch.pipeline.file_classifier import make_file_classifier
from mribatch.pipeline.inference.assembly import assemble, make_dali_decoder, make_opencv_decoder
from mribatch.pipeline.inference.order import WorkOrder
from mribatch.pipeline.options import DEFAULT_TIMEOUT_S, ClassifyOptions
from mribatch.pipeline.output.layout import PartLayout
from mribatch.pipeline.output.parts import PartFacts, PartWriter
from mribatch.pipeline.output.rows import predictions
from mribatch.pipeline.progress import SilentProgress
from mribatch.pipeline.records import (
    Choice,
    ClassifiedBatch,
    DecodedFile,
    Decoder,
    FileClassifier,
    ImageFile,
    Status,
)
from mribatch.pipeline.stopwatch import Stopwatch
from mribatch.trt.gpu import NoGpu, find_gpu

WARM = 10  # batches; more than any stage holds ahead (a worker process: 8)
DALI_ON_GPU = "dali_on_gpu"  # a decoder whose pixels stay on the GPU, for an engine there


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every stage is measured on. paths: taken again and again; batches: that are timed."""

    bundle: Bundle
    paths: tuple[Path, ...]
    batch_size: int
    batches: int
    threads: int

    @property
    def timed(self) -> int:
        """Images while the clock runs."""
        return self.batches * self.batch_size

    @property
    def images(self) -> int:
        """With those before and after."""
        return (WARM + self.batches + WARM) * self.batch_size

    def files(self) -> Iterator[ImageFile]:
        """Without end."""
        for index, path in zip(count(), cycle(self.paths)):
            yield ImageFile(index, 0, path.name, bytes(path))

    def groups(self) -> Iterator[list[ImageFile]]:
        """Without end, full batches all."""
        files = self.files()
        while True:
            yield list(islice(files, self.batch_size))

    def enough(self) -> Iterator[list[ImageFile]]:
        """As many as `steady` wants."""
        return islice(self.groups(), WARM + self.batches + WARM)


@dataclass(frozen=True)
class Pair:
    """A backend and a decoder that can run together here."""

    backend: Choice
    decoder: Choice

    @property
    def name(self) -> str:
        return f"{self.backend.name}_{self.decoder.name}"

    @property
    def decodes(self) -> str:
        """Where this pair's pixels go is part of how fast they come."""
        stays = self.backend.name == TENSORRT and self.decoder.name == DALI and has_gpu()
        return DALI_ON_GPU if stays else self.decoder.name

    @property
    def infers(self) -> str:
        """Of a batch that is on the GPU already, or of one on the host."""
        return f"{self.backend.name}_on_gpu" if self.decodes == DALI_ON_GPU else self.backend.name

    @property
    def resident(self) -> str:
        """The decoder of the one batch that the model alone is given again and again."""
        return DALI_ON_GPU if self.decodes == DALI_ON_GPU else OPENCV


def has_gpu() -> bool:
    return not isinstance(find_gpu(), NoGpu)


def decoder(work: Work, name: str) -> Decoder:
    """One that was never used, as a run makes it. Its pixels stay on the GPU only for an engine there."""
    if name == OPENCV:
        return make_opencv_decoder(work.bundle, _order(work, Choice(ONNXRUNTIME, ""), Choice(OPENCV, "")))
    backend = Choice(TENSORRT if name == DALI_ON_GPU else ONNXRUNTIME, "")
    return make_dali_decoder(work.bundle, _order(work, backend, Choice(DALI, "")), backend)


def _order(work: Work, backend: Choice, chosen: Choice) -> WorkOrder:
    return WorkOrder(
        model=str(work.bundle.folder),
        bundle_sha256=work.bundle.sha256,
        backend=backend,
        decoder=chosen,
        precision=Choice(FP32, ""),
        batch_size=work.batch_size,
        threads=work.threads,
        max_pixels=DEFAULT_MAX_PIXELS,
        timeout_s=DEFAULT_TIMEOUT_S,
    )


def read_rate(work: Work) -> float:
    """Images per second of reading and probing, on as many threads as a decoder has."""

    def read(file: ImageFile) -> str:
        return read_and_probe(file.file, DEFAULT_MAX_PIXELS)[1].status.value

    with ThreadPoolExecutor(work.threads) as pool:
        files = list(islice(work.files(), work.timed))
        begin = time.perf_counter()
        deque(pool.map(read, files), maxlen=0)
        return work.timed / (time.perf_counter() - begin)


def decode_rate(work: Work, name: str) -> tuple[float, float]:
    """Images per second from files to pixels, and this process's CPU seconds per image meanwhile."""
    with decoder(work, name) as decode:
        return _steady(decode.batches(work.enough()), work)


def decode_bare_rate(work: Work, decoding: GpuDecoding | None = None, threads: int | None = None) -> float:
    """Images per second of DALI's graph alone: fed from memory without a copy, with nothing read, checked or hashed.

    Args:
        work: Of its files, those that DALI is asked for.
        decoding: How the GPU decodes; None: as a run does.
        threads: Of DALI; None: those of `work`.
    """
    samples = _samples_for_dali(work)
    left = iter(range(2 * WARM + work.batches))

    def next_samples() -> Samples:
        if next(left, None) is None:
            raise StopIteration
        return samples

    graph = GraphOptions(
        device=FIRST_GPU if has_gpu() else CPU,
        height=work.bundle.spec.height,
        width=work.bundle.spec.width,
        threads=threads or work.threads,
        on_gpu=decoding or GpuDecoding(),
    )
    pipeline = prefetching(graph, work.batch_size, next_samples)
    return _steady((pipeline.run() for _ in range(2 * WARM + work.batches)), work)[0]


def _samples_for_dali(work: Work) -> Samples:
    """One batch of files that DALI decodes, in memory."""
    contents: list[bytes] = []
    for path in work.paths[: work.batch_size]:
        content, verdict = read_and_probe(bytes(path), DEFAULT_MAX_PIXELS)
        given = for_dali(content, verdict) if content is not None and verdict.status is Status.OK else None
        contents += [given] if given is not None else []
    if not contents:
        raise RuntimeError("none of the files is one that DALI decodes")
    return [np.frombuffer(content, np.uint8) for content in islice(cycle(contents), work.batch_size)]


def infer_rate(work: Work, classify: Classifier, resident: str, beside: str | None = None) -> float:
    """Images per second of a model that is given the same batch again and again.

    Args:
        work: Its first batch is the one.
        classify: Not entered; called from as many threads as a run does.
        resident: The decoder of that batch, which lies where this decoder puts it.
        beside: A decoder that works flat out at the same time; None: nothing else does.
    """
    with classify, decoder(work, resident) as decode, ThreadPoolExecutor(classify.calls_at_once) as pool:
        held = decode.batches(work.groups())  # not closed before the end: DALI's memory is its own
        pixels = next(held).pixels
        deque(pool.map(classify, repeat(pixels, WARM)), maxlen=0)
        with _decoding(work, beside):
            begin = time.perf_counter()
            deque(pool.map(classify, repeat(pixels, work.batches)), maxlen=0)
            return work.timed / (time.perf_counter() - begin)


@contextmanager
def _decoding(work: Work, name: str | None) -> Iterator[None]:
    """A decoder at work on another thread, and well under way."""
    if name is None:
        yield
        return
    stop = Event()

    def groups() -> Iterator[list[ImageFile]]:
        for group in work.groups():
            if stop.is_set():
                return
            yield group

    with decoder(work, name) as decode, ThreadPoolExecutor(1) as pool:
        batches = decode.batches(groups())
        next(batches)
        decoding = pool.submit(deque, batches, 0)
        try:
            yield
        finally:
            stop.set()
            decoding.result()


def write_rate(work: Work) -> float:
    """Images per second from probabilities to rows to Parquet, each part on the disk (fsync)."""
    classes, batches = work.bundle.spec.classes, list(_classified(work))
    with tempfile.TemporaryDirectory(prefix="mribatch-bench-") as folder:
        writer = _writer(work, Path(folder), work.timed)
        begin = time.perf_counter()
        for batch in batches:
            writer.write(predictions(batch, classes))
        return work.timed / (time.perf_counter() - begin)


def _classified(work: Work) -> Iterator[ClassifiedBatch]:
    """The verdicts of the first batch's files and the bundle's golden answers, again and again."""
    known = [_probed(file) for file in islice(work.files(), work.batch_size)]
    answers = np.resize(work.bundle.golden.probabilities, (work.batch_size, len(work.bundle.spec.classes)))
    for group in islice(work.groups(), work.batches):
        files = tuple(replace(one, file=file) for one, file in zip(known, group, strict=True))
        yield ClassifiedBatch(files, answers)


def _probed(file: ImageFile) -> DecodedFile:
    content, verdict = read_and_probe(file.file, DEFAULT_MAX_PIXELS)
    return decoded_file(file, verdict, content, time.thread_time())


def whole_rate(work: Work, pair: Pair) -> float:
    """Images per second from files to Parquet in this process: the way of every image in a run."""
    order = _order(work, pair.backend, pair.decoder)
    return _rows_rate(work, pair, assemble(work.bundle, order, SilentProgress().note))


def worker_rate(work: Work, pair: Pair) -> float:
    """As `whole_rate`, with files to probabilities in a supervised worker process, as a run has it with DALI."""
    options = ClassifyOptions(
        model=str(work.bundle.folder), batch_size=work.batch_size, backend=pair.backend.name, decoder=pair.decoder.name
    )
    return _rows_rate(
        work,
        pair,
        make_file_classifier(work.bundle, options, threads=work.threads, log=None, note=SilentProgress().note),
    )


def _rows_rate(work: Work, pair: Pair, stages: FileClassifier) -> float:
    with tempfile.TemporaryDirectory(prefix="mribatch-bench-") as folder, stages as classify_files:
        found = classify_files.runs_with.backend
        if found.name != pair.backend.name:
            raise RuntimeError(f"{pair.backend.name} was to be measured, this is {found.name}: {found.reason}")
        writer = _writer(work, Path(folder), work.images)
        rows = make_rows(work.enough(), classify_files, work.bundle.spec.classes, writer, Stopwatch())
        return _steady(rows, work)[0]


def _writer(work: Work, folder: Path, rows: int) -> PartWriter:
    return PartWriter(folder, PartLayout((rows,)), PartFacts(work.bundle.spec.classes, {}, "benchmark"))


def _steady(batches: Iterable[object], work: Work) -> tuple[float, float]:
    """Images per second and CPU seconds per image between the first and the last WARM batches."""
    marks = []
    for number, _ in enumerate(batches, 1):
        if number in (WARM, WARM + work.batches):
            marks.append((time.perf_counter(), time.process_time()))
    (begin, cpu_begin), (end, cpu_end) = marks
    return work.timed / (end - begin), (cpu_end - cpu_begin) / work.timed
