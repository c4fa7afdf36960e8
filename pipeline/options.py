"""The options of a run, with their defaults, in one place for the command line and for Python."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mribatch.core.bundle import DEFAULT_MODEL
from mribatch.core.errors import (
    BundleError,
    DiskFullError,
    FolderLockedError,
    MemoryLimitError,
    MribatchError,
    NoLocksError,
    OptionError,
    StorageError,
    WriteError,
)
from mribatch.pipeline.cluster_address import parse_address
from mribatch.pipeline.decode.probe import DEFAULT_MAX_PIXELS
from mribatch.pipeline.decode.values import Window
from mribatch.pipeline.failure_limits import FailureBudget
from mribatch.pipeline.listing.patterns import PathPatterns
from mribatch.pipeline.output.shard import Shard
from mribatch.pipeline.studies.facts import Plane
from mribatch.pipeline.studies.options import HeaderOptions

AUTO = "auto"
ALL = "all"
PLANES = ("axial", "coronal", "sagittal")
NONE = "none"
BACKENDS = (AUTO, "onnxruntime", "onnxruntime-cuda", "tensorrt")
DECODERS = (AUTO, "opencv", "dali")
PRECISIONS = (AUTO, "fp32", "int8")
ALWAYS, NEVER = "always", "never"
CHECKS = (ALWAYS, NEVER)
BATCH_SIZE_PER_CORE = 8  # default; one slice of the ONNX Runtime backend for each core
DEFAULT_TIMEOUT_S = 60.0
MAX_BATCH_SIZE = 1024
MAX_WORKERS = 256
_GPU_NUMBERS = re.compile(r"\d{1,3}(,\d{1,3})*")

# What a user of these options can do about errors of the functions that several commands share.
FIXES: Mapping[type[MribatchError], str] = {
    DiskFullError: "free some space and type the same command again; it continues where it stopped",
    StorageError: "check the disk or the network folder and type the same command again; it continues where it stopped",
    WriteError: "choose an --out folder that you may write to",
    MemoryLimitError: "choose a smaller --batch-size, --threads or --max-pixels, or raise the limit (ulimit -v)",
    FolderLockedError: "wait for it to end, or choose another --out",
    NoLocksError: "choose an --out on a local disk and copy the results, or have the file system mounted with locks"
    " (Lustre: -o flock; NFS: lockd)",
    BundleError: "restore the bundle from where it came, export it again, or name another with --model",
}


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions:
    """Options of `classify`. Immutable; checked on construction.

    Raises:
        MribatchError: A value is outside its range.
    """

    model: str = DEFAULT_MODEL  # name of a shipped model, or folder of a model bundle
    batch_size: int | None = None  # images per batch; None: chosen for the machine
    threads: int | None = None  # cores to use; None: all that this process may use
    backend: str = AUTO  # "auto", "onnxruntime", "onnxruntime-cuda" or "tensorrt"
    decoder: str = AUTO  # "auto", "opencv" or "dali"
    precision: str = AUTO  # "auto", "fp32" or "int8"; of onnxruntime, TensorRT's engines compute in FP16
    labels: str = AUTO  # "auto": from folder names; "none"; or a CSV file with the columns path,label
    alias: tuple[str, ...] = ()  # "FOLDER=CLASS" each: more names for the classes, in folders and labels
    from_file: str | None = None  # file with one more input path per line; "-": standard input
    null: bool = False  # NUL bytes end the paths in from_file, as from find -print0
    exclude: tuple[str, ...] = ()  # patterns of files and folders to leave out, as in .gitignore
    csv: bool = False  # also write predictions.csv
    xlsx: bool = False  # also write predictions.xlsx; needs openpyxl
    workers: int | str | None = None  # processes side by side, or "auto"; None: one for each GPU of `gpus`, else one
    on: str | None = None  # "ray" or "ray://HOST:PORT": the cluster that classifies; None: this machine
    allow_mixed: bool = False  # let the machines of the cluster differ in processor, GPU and versions
    gpus: str | None = None  # "0,1": the GPUs that the processes use in turn; None: the first one
    shard: str | None = None  # "2/4": only the second quarter of the part files, for array jobs; merged afterwards
    overwrite: bool = False  # replace an earlier run in the output folder
    add_new: bool = False  # add the files that are new since the run in the output folder
    keep_going: bool = False  # continue even if the first 1,000 files all fail
    max_failures: str | int | None = None  # images that may fail before the run ends: a number, or a share like "2.5%"
    max_pixels: int = DEFAULT_MAX_PIXELS  # larger images are not decoded and get the status too_large
    check_data: str = ALWAYS  # "never": NVIDIA DALI gets JPEGs whose data were not looked at for damage
    timeout_s: float = DEFAULT_TIMEOUT_S  # seconds allowed for reading and decoding one file
    strict: bool = False  # exit code 3 also where files were left out that may be images
    window: str = "file"  # grey values of DICOM: "file", "auto" (the range of the series), or "CENTER,WIDTH"
    plane: str | None = None  # slices of NIfTI: "axial", "coronal" or "sagittal"; None: as acquired
    volume: int | str = 0  # of a NIfTI file with several: its number, from 0, or "all"
    any_modality: bool = False  # classify DICOM images of other modalities than MR, too
    dicom_anywhere: bool = False  # find DICOM files without the preamble, too
    pseudonym_key: str | None = None  # file with the key of patients' pseudonyms; None: a key of the run's own
    anonymize_paths: bool = False  # show pseudonyms in place of paths

    def __post_init__(self) -> None:
        _check_range("--batch-size", self.batch_size, 1, MAX_BATCH_SIZE)
        _check_range("--threads", self.threads, 1, 1024)
        self._check_workers()
        _check_range("--max-pixels", self.max_pixels, 1, 10**10)
        _check_range("--timeout", self.timeout_s, 0.001, 86_400)
        _check_choice("--backend", self.backend, BACKENDS)
        _check_choice("--decoder", self.decoder, DECODERS)
        _check_choice("--precision", self.precision, PRECISIONS)
        _check_choice("--check-data", self.check_data, CHECKS)
        if self.backend == "tensorrt" and self.precision != AUTO:
            problem = f"--precision {self.precision} is for onnxruntime, and --backend tensorrt computes in fp16"
            raise OptionError(problem, "leave one of them out")
        if self.backend == "onnxruntime-cuda" and self.precision == "int8":
            problem = "--precision int8 is for onnxruntime, and --backend onnxruntime-cuda computes in fp32"
            raise OptionError(problem, "leave one of them out")
        if self.add_new and self.overwrite:
            raise MribatchError("--add-new and --overwrite exclude each other", "choose one of them")
        self._check_shard()
        if self.on is not None:
            parse_address(self.on)
        if self.gpus is not None and not _GPU_NUMBERS.fullmatch(self.gpus):
            raise OptionError(f"--gpus '{self.gpus}' are no numbers of GPUs", "write them like 0,1 (see nvidia-smi -L)")
        for name in ("alias", "exclude"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        if self.max_failures is not None:
            object.__setattr__(self, "max_failures", FailureBudget.parse(str(self.max_failures)).text)
        _check_aliases(self.alias, self.labels)
        PathPatterns(self.exclude)
        self._check_study_options()
        if self.null and self.from_file is None:
            raise OptionError("--null says how the names in a list end, and there is no list", "give --from-file")
        if self.labels not in (AUTO, NONE) and not Path(self.labels).is_file():
            raise MribatchError(f"there is no labels file '{self.labels}'", "give auto, none or a CSV with path,label")

    def _check_workers(self) -> None:
        workers = self.workers
        if isinstance(workers, str) and workers.isdecimal():
            workers = int(workers)
            object.__setattr__(self, "workers", workers)
        if isinstance(workers, str) and workers != AUTO:
            raise OptionError(f"--workers '{workers}' is no number", f"give auto, or a number from 1 to {MAX_WORKERS}")
        if not isinstance(workers, str):
            _check_range("--workers", workers, 1, MAX_WORKERS)
        if self.allow_mixed and self.on is None:
            raise OptionError("--allow-mixed is about the machines of a cluster", "give --on, or leave it out")

    def _check_shard(self) -> None:
        if self.shard is None:
            return
        Shard.parse(self.shard)
        if self.add_new:
            raise OptionError("--add-new and --shard exclude each other", "classify the new files without --shard")
        if self.csv or self.xlsx:
            raise OptionError("--shard makes only some of the rows", "give --csv and --xlsx to mribatch merge instead")

    def _check_study_options(self) -> None:
        Window.parse(self.window)
        if self.plane is not None:
            _check_choice("--plane", self.plane, PLANES)
        volume = self.volume
        if isinstance(volume, str) and volume.isdecimal():
            object.__setattr__(self, "volume", int(volume))
        elif volume != ALL and not (isinstance(volume, int) and volume >= 0):
            raise OptionError(f"--volume {volume} is not a number of a volume", "give 0, 1, 2, … or all")

    @property
    def failure_budget(self) -> FailureBudget | None:
        """How many images may fail before the run ends; None: all of them."""
        return None if self.max_failures is None else FailureBudget.parse(str(self.max_failures))

    @property
    def gpu_numbers(self) -> tuple[str, ...]:
        """The GPUs that the processes use in turn; none where it was not said."""
        return tuple(self.gpus.split(",")) if self.gpus else ()

    @property
    def header_options(self) -> HeaderOptions:
        """What is asked of the headers of DICOM and NIfTI files."""
        return HeaderOptions(
            max_pixels=self.max_pixels,
            any_modality=self.any_modality,
            dicom_anywhere=self.dicom_anywhere,
            plane=None if self.plane is None else Plane(self.plane),
            volume=self.volume if isinstance(self.volume, int) else None,
        )


def _check_aliases(aliases: tuple[str, ...], labels: str) -> None:
    for text in aliases:
        folder, _, name = text.rpartition("=")
        if not folder.strip() or not name.strip():
            raise OptionError(f"--alias '{text}' is not FOLDER=CLASS", "write it like --alias gbm=glioma_tumor")
    if aliases and labels == NONE:
        raise OptionError("--alias names labels, and there are none with --labels none", "leave one of them out")


def _check_range(option: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise OptionError(f"{option} {value:g} is out of range", f"choose a value from {low:g} to {high:g}")


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise OptionError(f"{option} '{value}' is unknown", f"choose one of {', '.join(choices)}")
