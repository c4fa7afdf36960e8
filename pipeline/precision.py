"""Which precision a run uses, and why. `auto` is resolved here, once.

INT8 is taken where it is faster on this machine, which is measured once and kept. A run that is too small to gain from
it computes in FP32: it needs no measurement, and the same files have the same rows, however often they are classified.
"""

import hashlib
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mribatch.core.bundle import Bundle
from mribatch.core.classifier import Classifier
from mribatch.core.errors import BundleError, MribatchError, OptionError
from mribatch.core.files import write_json
from mribatch.core.gate import ON_CPU, gate
from mribatch.core.model_spec import FP16, FP32, INT8
from mribatch.core.processor import find_processor
from mribatch.core.typed_json import read_record, write_record
from mribatch.pipeline.choices import ONNXRUNTIME, ONNXRUNTIME_CUDA
from mribatch.pipeline.inference.onnxruntime import ROWS_PER_CALL, OnnxRuntimeClassifier
from mribatch.pipeline.records import Choice

FEWEST_FILES = 1000
"""Files from which on `auto` considers INT8: with fewer, less than the seconds of one measurement are to be gained."""

LEAST_GAIN = 1.2
"""INT8 must be this many times as fast: less is not worth another set of probabilities."""

_ROUNDS = 5
_FOLDER = "precision"


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a measurement holds for."""

    bundle_sha256: str
    onnxruntime: str
    processor: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class Int8Trial:
    """INT8 against FP32. gain: images per second of INT8 / of FP32; fault: why INT8 does not pass the gate, or None."""

    conditions: Conditions
    gain: float
    fault: str | None = None

    @property
    def choice(self) -> Choice:
        """What `auto` picks."""
        if self.fault is not None:
            return Choice(FP32, f"int8 does not reproduce the golden answers here ({self.fault})")
        if self.gain < LEAST_GAIN:
            return Choice(FP32, f"int8 is only {self.gain:.1f} times as fast on this machine")
        return Choice(INT8, f"{self.gain:.1f} times as fast as fp32 on this machine")


def choose_precision(
    wanted: str, bundle: Bundle, backend: Choice, *, files: int, threads: int, note: Callable[[str], None]
) -> Choice:
    """Resolve --precision.

    Args:
        wanted: "auto", "fp32" or "int8".
        bundle: Whose graphs and golden answers count.
        backend: As resolved; only ONNX Runtime has a choice.
        files: How many will be classified; more than FEWEST_FILES need not be counted.
        threads: Cores to use.
        note: Receives a line where something is measured.

    Raises:
        OptionError: INT8 is asked for and not available.
    """
    if backend.name == ONNXRUNTIME_CUDA:
        return Choice(FP32, "the only one of this backend")
    if backend.name != ONNXRUNTIME:
        return Choice(FP16, "that of TensorRT's engines")
    if wanted == INT8 and not bundle.has_int8:
        raise OptionError(
            f"--precision int8 needs an INT8 graph, and the model '{bundle.spec.name}' has none",
            "use --precision fp32, or make the graph with mribatch quantize",
        )
    if wanted in (FP32, INT8):
        return Choice(wanted, "requested")
    if not bundle.has_int8:
        return Choice(FP32, "the model has no INT8 graph")
    if files < FEWEST_FILES:
        return Choice(FP32, f"int8 is for runs of {FEWEST_FILES:,} files or more")
    return _recall_or_measure(bundle, threads, note)


def _recall_or_measure(bundle: Bundle, threads: int, note: Callable[[str], None]) -> Choice:
    conditions = Conditions(
        bundle_sha256=bundle.sha256,
        onnxruntime=OnnxRuntimeClassifier(bundle, threads).library_version,
        processor=find_processor().name,
        threads=threads,
    )
    try:
        kept = _find_kept(conditions)
        measured = _read(kept, conditions)
        if measured is None:
            measured = measure_gain(bundle, conditions)
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_json(kept, write_record(measured))
            note(f"measured once for this machine: {measured.choice.name}, {measured.choice.reason}; kept in {kept}")
    except BundleError:
        raise
    except (MribatchError, OSError) as error:  # what cannot be kept might come out otherwise the next time
        reason = error.problem if isinstance(error, MribatchError) else str(error)
        return Choice(FP32, f"whether int8 is faster cannot be measured and kept: {reason}")
    return measured.choice


def measure_gain(bundle: Bundle, conditions: Conditions) -> Int8Trial:
    """Gate INT8 and time it against FP32: batches of golden slices, interleaved, medians of wall seconds."""
    size = ROWS_PER_CALL * conditions.threads
    images = np.resize(bundle.golden.images, (size, *bundle.golden.images.shape[1:]))
    with (
        OnnxRuntimeClassifier(bundle, conditions.threads, INT8) as fast,
        OnnxRuntimeClassifier(bundle, conditions.threads) as exact,
    ):
        report = gate(fast, bundle, batch_sizes=(size,), verified=ON_CPU, slices_repeated=0)
        if not report.holds:
            return Int8Trial(conditions=conditions, gain=0.0, fault=str(report.agreement))
        exact(images)
        seconds = [(_time(exact, images), _time(fast, images)) for _ in range(_ROUNDS)]
    slow, quick = (statistics.median(column) for column in zip(*seconds, strict=True))
    return Int8Trial(conditions=conditions, gain=round(slow / quick, 3))


def _time(classifier: Classifier, images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> float:
    begin = time.perf_counter()
    classifier(images)
    return time.perf_counter() - begin


def _find_kept(conditions: Conditions) -> Path:
    from mribatch.trt.engine.cache import find_default_folder  # slow to import

    key = hashlib.sha256(json.dumps(asdict(conditions), sort_keys=True).encode()).hexdigest()
    return find_default_folder() / _FOLDER / f"{key[:32]}.json"


def _read(path: Path, conditions: Conditions) -> Int8Trial | None:
    """The measurement that was kept; None where there is none, or the file is damaged."""
    try:
        kept = read_record(Int8Trial, json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return kept if kept.conditions == conditions else None
