"""What a user may choose for a run, with the defaults, in one place for the command line and for Python."""

from dataclasses import dataclass
from pathlib import Path

from mribatch.core.bundle import DEFAULT_MODEL
from mribatch.core.errors import MribatchError
from mribatch.pipeline.decode.probe import DEFAULT_MAX_PIXELS

AUTO = "auto"
NONE = "none"
BACKENDS = (AUTO, "onnxruntime", "tensorrt")
DECODERS = (AUTO, "opencv", "dali")
BATCH_SIZE_PER_CORE = 8  # default; one slice of infer_onnxruntime for each core
DEFAULT_TIMEOUT_S = 60.0
MAX_BATCH_SIZE = 1024


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions:
    """Options of one classify run.

    Raises:
        MribatchError: A value is outside its range.
    """

    model: str = DEFAULT_MODEL  # name of a shipped bundle, or a bundle's folder
    batch_size: int | None = None  # images per call of the model; None: chosen, and stored in run.json
    threads: int | None = None  # cores to use; None: all that this process may use
    backend: str = AUTO
    decoder: str = AUTO
    labels: str = AUTO  # "auto": from folder names, "none", or a CSV file with path,label
    from_file: str | None = None  # a file with one path per line, "-" for standard input
    csv: bool = False  # also write predictions.csv
    overwrite: bool = False  # replace an earlier run in the output folder
    keep_going: bool = False  # also when the first 1,000 files all fail
    max_pixels: int = DEFAULT_MAX_PIXELS  # larger images get the status too_large
    timeout_s: float = DEFAULT_TIMEOUT_S  # seconds for reading and decoding one file

    def __post_init__(self) -> None:
        _within("--batch-size", self.batch_size, 1, MAX_BATCH_SIZE)
        _within("--threads", self.threads, 1, 1024)
        _within("--max-pixels", self.max_pixels, 1, 10**10)
        _within("--timeout", self.timeout_s, 0.001, 86_400)
        _one_of("--backend", self.backend, BACKENDS)
        _one_of("--decoder", self.decoder, DECODERS)
        if self.labels not in (AUTO, NONE) and not Path(self.labels).is_file():
            raise MribatchError(f"there is no labels file '{self.labels}'", "give auto, none or a CSV with path,label")


def _within(option: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise MribatchError(f"{option} {value:g} is out of range", f"choose a value from {low:g} to {high:g}")


def _one_of(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise MribatchError(f"{option} '{value}' is unknown", f"choose one of {', '.join(choices)}")
