"""Finds the fastest settings for a GPU by trying them: `mribatch engine tune`.

Workers and batch sizes are tried in all combinations, since more of one shows only where the other is no limit; then
one setting after another. A change is kept where it is faster by more than runs differ. A trial is the real worker
processes, classifying files again and again.
"""

import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mribatch.core.bundle import load_bundle
from mribatch.core.cores import usable_cores
from mribatch.core.errors import MribatchError
from mribatch.core.synthetic import draw_slice
from mribatch.core.tables import Column, format_table
from mribatch.core.typed_json import write_record
from mribatch.pipeline.choices import DALI, TENSORRT, Machine
from mribatch.pipeline.decode.dali_graph import HW_DECODER_LOADS
from mribatch.pipeline.decode.dali_package import format_dali_install
from mribatch.pipeline.decode.file import read_and_probe
from mribatch.pipeline.decode.probe import DEFAULT_MAX_PIXELS
from mribatch.pipeline.file_classifier import make_work_order
from mribatch.pipeline.inference.order import WorkOrder
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.records import ImageFile
from mribatch.pipeline.stopwatch import Stopwatch
from mribatch.pipeline.tuning import make_tuning_key
from mribatch.pipeline.worker.supervisor import SupervisedClassifier
from mribatch.trt.engine.cache import EngineCache
from mribatch.trt.gpu import Gpu, NoGpu
from mribatch.trt.request import TUNED_BATCH
from mribatch.trt.support import make_unusable_error, select_usable
from mribatch.trt.tuning import Tuning

LEAST_GAIN = 1.03
"""A change must be this many times as fast: less is within what two runs of the same differ by."""

BATCH_SIZES = (64, 128, 256, 512)
WORKERS = (1, 2, 4, 8)
HUFFMAN_THRESHOLDS = (None, 100_000)  # DALI's own, a million, is more than most slices have
_WARM_BATCHES = 4  # of each worker, before the clock starts
_USUAL = 0.99  # share of the images that the memory allocated beforehand is enough for
_SIZED = 200  # images whose size is looked up
_SUFFIXES = (".jpg", ".jpeg", ".png")
_MOST_FILES = 4096  # that are tried
_DRAWN, _SIDE = 64, 512  # slices, pixels


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What one trial runs with; the fields are those of Tuning."""

    batch_size: int
    workers: int
    threads: int
    hw_decoder_load: float = HW_DECODER_LOADS[0]
    huffman_threshold: int | None = None

    def __str__(self) -> str:
        threshold = "" if self.huffman_threshold is None else f", Huffman threshold {self.huffman_threshold:,}"
        return (
            f"batches of {self.batch_size}, {self.workers} workers of {self.threads} threads,"
            f" JPEG engine {self.hw_decoder_load:g}{threshold}"
        )


@dataclass(frozen=True)
class Trial:
    """images_per_second: None where the setting did not fit into the GPU."""

    setting: Setting
    images_per_second: float | None

    def __str__(self) -> str:
        rate = "too little GPU memory" if self.images_per_second is None else f"{self.images_per_second:,.0f} images/s"
        return f"{self.setting}: {rate}"


Measure = Callable[[Setting], float | None]


def search(cores: int, largest_batch: int, measure: Measure, tell: Callable[[Trial], None]) -> list[Trial]:
    """Try settings; return all trials, the best one first.

    Args:
        cores: That all workers share.
        largest_batch: That the engine takes.
        measure: Images per second with a setting; None where it does not fit into the GPU.
        tell: Receives each trial.

    Raises:
        MribatchError: Not even the first setting fits.
    """
    known: dict[Setting, Trial] = {}

    def attempt(setting: Setting) -> Trial:
        if setting not in known:
            known[setting] = Trial(setting, measure(setting))
            tell(known[setting])
        return known[setting]

    best = attempt(Setting(batch_size=BATCH_SIZES[0], workers=1, threads=cores))
    if best.images_per_second is None:
        raise MribatchError(
            f"batches of {BATCH_SIZES[0]} do not fit into the GPU", "end what else uses the GPU's memory"
        )
    for change in (_share, _change_decoding, _change_threads):
        for setting in change(best.setting, cores, largest_batch):
            tried = attempt(setting)
            if _rate(tried) > LEAST_GAIN * _rate(best):
                best = tried
    return [best, *(trial for trial in known.values() if trial is not best)]


def _rate(trial: Trial) -> float:
    return trial.images_per_second or 0.0


def _share(now: Setting, cores: int, largest: int) -> Iterator[Setting]:
    for workers in WORKERS:
        for size in BATCH_SIZES:
            if workers <= cores and size <= largest:
                yield replace(now, batch_size=size, workers=workers, threads=max(1, cores // workers))


def _change_decoding(now: Setting, _: int, __: int) -> Iterator[Setting]:
    for load in HW_DECODER_LOADS:
        for threshold in HUFFMAN_THRESHOLDS:
            yield replace(now, hw_decoder_load=load, huffman_threshold=threshold)


def _change_threads(now: Setting, cores: int, _: int) -> Iterator[Setting]:
    share = max(1, cores // now.workers)
    yield from (replace(now, threads=threads) for threads in sorted({max(1, share // 2), share, share + 1}))


class RunTrials:
    """Measures settings with the worker processes of a run.

    Args:
        order: Of a run on the GPU; backend and decoder are required.
        files: Classified again and again.
        seconds: Of each trial, once every worker is at work.
        log: Where the workers' output goes.
        note: Receives what takes long while they start.
        command: That runs a worker, for tests.
    """

    def __init__(
        self,
        order: WorkOrder,
        files: Sequence[Path],
        *,
        seconds: float,
        log: Path | None,
        note: Callable[[str], None],
        command: Sequence[str] | None = None,
    ) -> None:
        self._order = order
        self._files = files
        self._seconds = seconds
        self._log = log
        self._note = note
        self._command = command

    def __call__(self, setting: Setting) -> float | None:
        order = replace(
            self._order,
            batch_size=setting.batch_size,
            threads=setting.threads,
            hw_decoder_load=setting.hw_decoder_load,
            huffman_threshold=setting.huffman_threshold,
            shares_cores=setting.workers > 1,
        )
        ends = threading.Event()
        workers = [_Worker(self._make(order), self._files, ends) for _ in range(setting.workers)]
        try:
            for worker in workers:
                worker.start()
            for worker in workers:  # all of them, so that none is still starting while the others are counted
                worker.warm.wait()
            rate = self._count(workers)
        finally:
            ends.set()
            for worker in workers:
                worker.join()
        for error in filter(None, (worker.error for worker in workers)):
            raise error
        return None if any(worker.has_shrunk for worker in workers) else rate

    def _make(self, order: WorkOrder) -> SupervisedClassifier:
        return SupervisedClassifier(order, self._log, self._note, command=self._command)

    def _count(self, workers: Sequence["_Worker"]) -> float:
        before, begin = sum(worker.images for worker in workers), time.perf_counter()
        while time.perf_counter() < begin + self._seconds and not any(worker.error for worker in workers):
            time.sleep(min(0.1, self._seconds))
        return (sum(worker.images for worker in workers) - before) / (time.perf_counter() - begin)


class _Worker(threading.Thread):
    """One worker process and its supervisor. images: answered so far; warm: set once it is at work, or has failed."""

    def __init__(self, classifier: SupervisedClassifier, files: Sequence[Path], ends: threading.Event) -> None:
        super().__init__(name="mribatch-trial")
        self._classifier = classifier
        self._files = files
        self._ends = ends
        self.images = 0
        self.warm = threading.Event()
        self.error: BaseException | None = None

    @property
    def has_shrunk(self) -> bool:
        """Whether the GPU had too little memory, and smaller batches were taken instead."""
        return self._classifier.smallest_batch < self._classifier.batch_size

    def run(self) -> None:
        try:
            with self._classifier:
                for number, batch in enumerate(self._classifier.batches(self._groups(), Stopwatch())):
                    self.images += len(batch.files)
                    if number == _WARM_BATCHES:
                        self.warm.set()
        except BaseException as error:  # raised on the thread that measures
            self.error = error
        finally:
            self.warm.set()

    def _groups(self) -> Iterator[list[ImageFile]]:
        files = (ImageFile(index, 0, "", bytes(path)) for index, path in enumerate(itertools.cycle(self._files)))
        while not self._ends.is_set():
            yield list(itertools.islice(files, self._classifier.batch_size))


def tune(
    order: WorkOrder,
    files: Sequence[Path],
    *,
    seconds: float,
    log: Path | None,
    note: Callable[[str], None],
    command: Sequence[str] | None = None,
) -> tuple[Tuning, list[Trial]]:
    """Measure settings on this machine's GPU.

    Args:
        order: Of a run there, whose threads are all that its workers share.
        files: JPEG and PNG files like those of later runs.
        seconds: Of each trial.
        log: Where the workers' output goes.
        note: Receives a line for each trial, and what takes long.
        command: That runs a worker, for tests.

    Returns:
        The fastest setting, and all trials, the fastest first.

    Raises:
        MribatchError: Backend or decoder do not work here.
    """
    width, height = find_usual_size(files)
    order = replace(order, any_batch=True, usual_width=width, usual_height=height)
    measure = RunTrials(order, files, seconds=seconds, log=log, note=note, command=command)
    trials = search(order.threads, TUNED_BATCH.maximum, measure, lambda trial: note(str(trial)))
    best = trials[0]
    tuning = Tuning(
        **asdict(best.setting),
        width=width,
        height=height,
        images_per_second=round(_rate(best), 1),
        measured=datetime.now(UTC).date().isoformat(),
    )
    return tuning, trials


def find_usual_size(files: Sequence[Path]) -> tuple[int | None, int | None]:
    """Width and height that nearly all of the files have at most; None where none can be read."""
    every = max(1, len(files) // _SIZED)
    verdicts = [read_and_probe(bytes(path), DEFAULT_MAX_PIXELS)[1] for path in files[::every]]
    sizes = [(verdict.width, verdict.height) for verdict in verdicts if verdict.width and verdict.height]
    if not sizes:
        return None, None
    place = min(len(sizes) - 1, int(len(sizes) * _USUAL))
    width, height = (sorted(sides)[place] for sides in zip(*sizes, strict=True))
    return width, height


@dataclass(frozen=True, kw_only=True)
class TuningReport:
    """What was measured for one bundle. path: where the tuning is kept. trials: the fastest first."""

    bundle: str
    gpu: str
    path: Path
    tuning: Tuning
    trials: tuple[Trial, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "bundle": self.bundle,
            "gpu": self.gpu,
            "path": str(self.path),
            "tuning": write_record(self.tuning),
            "trials": [
                write_record(trial.setting) | {"images_per_second": trial.images_per_second} for trial in self.trials
            ],
        }

    def to_text(self) -> str:
        columns = ["batch", "workers", "threads", "JPEG engine", "Huffman threshold"]
        table = format_table(
            [*(Column(title, align="right") for title in (*columns, "images/s"))],
            [
                (*_cells(trial.setting), f"{_rate(trial):,.0f}" if trial.images_per_second else "–")
                for trial in self.trials
            ],
        )
        return f"{self.bundle} on the {self.gpu}, the fastest first:\n{table}\nkept in {self.path}"


def _cells(setting: Setting) -> tuple[str, ...]:
    threshold = "–" if setting.huffman_threshold is None else f"{setting.huffman_threshold:,}"
    numbers = (setting.batch_size, setting.workers, setting.threads)
    return (*map(str, numbers), f"{setting.hw_decoder_load:g}", threshold)


def tune_bundle(model: str, data: Path | None, *, seconds: float, note: Callable[[str], None]) -> TuningReport:
    """Measure settings for a bundle on this machine's GPU, and keep the fastest.

    Args:
        model: Name of a shipped model, or folder of a bundle.
        data: Folder of JPEG and PNG files like those of later runs; None: drawn slices.
        seconds: Of each trial.
        note: Receives a line for each trial, and what takes long.

    Raises:
        MribatchError: There is no GPU, or a library for it is missing; there is no image in the folder.
    """
    bundle, gpu = load_bundle(model), _require_gpu(Machine.inspect())
    options = ClassifyOptions(model=model, backend=TENSORRT, decoder=DALI)
    order = make_work_order(bundle, options, threads=usable_cores(), note=note)
    cache, key = EngineCache(), make_tuning_key(bundle, gpu)
    with tempfile.TemporaryDirectory(prefix="mribatch-") as scratch:
        files = _draw_files(Path(scratch)) if data is None else _find_files(data)
        tuning, trials = tune(order, files, seconds=seconds, log=None, note=note)
    path = cache.store_tuning(key, tuning)
    return TuningReport(bundle=bundle.spec.name, gpu=str(gpu), path=path, tuning=tuning, trials=tuple(trials))


def _require_gpu(machine: Machine) -> Gpu:
    """The GPU that is tuned for.

    Raises:
        MribatchError: There is none, or a library for it is missing; the fix is one of this command.
    """
    gpu = machine.gpu
    if isinstance(gpu, NoGpu):
        raise MribatchError(f"there is no GPU to tune for: {gpu.reason}", gpu.fix)
    if not select_usable(gpu, machine.flavors):
        raise make_unusable_error(gpu, machine.flavors)
    if not machine.dali:
        raise MribatchError("tuning needs NVIDIA DALI, and it is not installed", format_dali_install())
    return gpu


def _find_files(data: Path) -> list[Path]:
    found = (path for path in sorted(data.rglob("*")) if path.suffix.lower() in _SUFFIXES and path.is_file())
    files = list(itertools.islice(found, _MOST_FILES))
    if not files:
        raise MribatchError(f"{data} holds no JPEG or PNG file", "name a folder that does")
    return files


def _draw_files(folder: Path) -> list[Path]:
    import cv2

    files = [folder / f"{number}.jpg" for number in range(_DRAWN)]
    for seed, path in enumerate(files):
        path.write_bytes(cv2.imencode(".jpg", draw_slice(seed, _SIDE, _SIDE))[1].tobytes())
    return files
