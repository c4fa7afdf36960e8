"""The types that travel between the stages, in the order in which an image meets them.

ImageFile -> Verdict -> DecodedBatch -> ClassifiedBatch -> Prediction
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.agreement import Agreement
from mribatch.pipeline.stopwatch import Stopwatch


class Status(StrEnum):
    """What became of an image. A closed set: every row has exactly one."""

    OK = "ok"
    EMPTY = "empty"  # zero bytes
    UNREADABLE = "unreadable"  # the operating system gave no bytes: gone, no permission, not a regular file
    UNSUPPORTED = "unsupported"  # not an image, or a format or variant that is not read
    TRUNCATED = "truncated"  # the data end before the image does
    TOO_LARGE = "too_large"  # more pixels than the limit, by its header
    DECODE_FAILED = "decode_failed"  # damaged: a header that contradicts itself, or the decoder refused
    DECODER_CRASH = "decoder_crash"  # the decoder's process died on this file alone
    TIMEOUT = "timeout"  # reading or decoding took longer than the limit
    INVALID_OUTPUT = "invalid_output"  # the model answered with NaN or infinity
    BLANK = "blank"  # whole, and shows nothing but background; not classified, and not a failure

    @property
    def is_failure(self) -> bool:
        """Whether the image should have been classified and was not."""
        return self not in (Status.OK, Status.BLANK)


class Flag(StrEnum):
    """What was done to an image, or is odd about a file, that a reader of the row should know."""

    NAME_ESCAPED = "name_escaped"  # the file name is not UTF-8; `path` shows it with backslash escapes
    EXTRA_BYTES = "extra_bytes"  # JPEG: bytes after its end, or padding before a marker; no pixel depends on them
    EXIF_ROTATED = "exif_rotated"  # turned or mirrored as its EXIF orientation says
    SCALED_TO_8_BIT = "scaled_to_8_bit"  # more than 8 bits a sample, scaled by the image's own range
    ALPHA_DROPPED = "alpha_dropped"
    FIRST_PAGE = "first_page"  # several pages or frames; the first was used
    SEEN_IN_TRAINING = "seen_in_training"  # the model was trained on this image
    NEAR_MATCH = "near_match"  # beside seen_in_training: not the same pixels, but nearly the same picture
    UNLIKE_TRAINING = "unlike_training"  # does not look like the images that the model was trained on
    WINDOWED_BY_RANGE = "windowed_by_range"  # no window of the file's: grey values follow the range of the series
    LOCALIZER = "localizer"  # a scout image, taken to plan the others
    SECONDARY_CAPTURE = "secondary_capture"  # a picture of a screen or of paper, not of a scanner
    BURNED_IN = "burned_in"  # text is drawn into the pixels, by the header
    ANY_MODALITY = "any_modality"  # no MR image; classified since --any-modality asks for it
    COLOR_REDUCED = "color_reduced"  # RGB, YBR or a palette, reduced to grey
    FIRST_VOLUME = "first_volume"  # several volumes; the first was used
    NAN_REPLACED = "nan_replaced"  # samples that are no number count as background
    PADDING_EXCLUDED = "padding_excluded"  # padding counts as background and in no range of values
    CHANGED_SINCE_LISTING = "changed_since_listing"  # the file is not as it was when the run listed it
    UNCHECKED_DATA = "unchecked_data"  # JPEG: not looked at for damage, since --check-data never asks for it
    NO_ORIENTATION = "no_orientation"  # the header does not say how the slices lie; shown as stored


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the probe says of a file's bytes before any decoder sees them."""

    status: Status
    error: str | None = None  # None exactly where status is ok
    format: str | None = None  # "jpeg", "png", "bmp", "tiff", "webp", "jp2", "dicom", "nifti"; None where unknown
    width: int | None = None  # pixels, as stored: before the EXIF orientation
    height: int | None = None
    flags: tuple[Flag, ...] = ()
    bits: int | None = None  # per sample, where known; DALI takes 8 only


@dataclass(frozen=True, slots=True)
class SliceSource:
    """Where the pixels of one image of a DICOM file or a NIfTI volume are."""

    file: bytes  # what to open: the file system's own bytes
    slice: int | None  # position in the file, from 0; None where it holds a single image by its kind


@dataclass(frozen=True, slots=True)
class StudyImage:
    """What the listing knows of one image of a DICOM file or a NIfTI volume. No text of the header is in it."""

    format: str  # "dicom" or "nifti"
    slice: int | None = None  # position in the file, from 0; None where it holds a single image by its kind
    patient: str | None = None  # pseudonym
    study: str | None = None  # pseudonym
    series: str | None = None  # pseudonym
    instance: int | None = None  # number in the series
    plane: str | None = None  # "axial", "coronal", "sagittal" or "oblique"
    flags: tuple[Flag, ...] = ()  # by the header
    refused: Verdict | None = None  # where the header alone refuses the file
    range_from: tuple[SliceSource, ...] = ()  # images that the series' range of values is of; empty: those of the file


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image of the listing: a file, or one slice of a file."""

    index: int  # row number in the listing, from 0
    input: int  # position in run.json's inputs
    path: str  # relative to its input, with "/", escaped where not UTF-8; a pseudonym where the run hides names
    file: bytes  # what to open: the file system's own bytes
    label: str | None = None  # a class of the bundle, or unknown
    name_escaped: bool = False
    study: StudyImage | None = None  # None: the file is one plain image
    listed: tuple[int, int] | None = None  # bytes and mtime_ns when it was listed; None where they are not known


@dataclass(frozen=True, slots=True)
class DecodedFile:
    """A file with its verdict after decoding; its pixels stand in the batch at the same position."""

    file: ImageFile
    verdict: Verdict
    bytes: int | None = None  # size of what was read
    sha256: str | None = None  # hex, of what was read
    seconds: float = 0.0  # of a core: reading, probing, decoding, resizing
    perceptual_hash: int | None = None  # of the pixels; None where there are none, or only one grey level


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """Up to one batch of files, in listing order, with the pixels of those that are ok.

    pixels: uint8, shape (batch, height, width, 1), grey 0..255, C-contiguous, on the host; where decoder and model both
    work on the GPU, a `trt.device_array.DeviceArray` of the same shape stands in its place. Row i belongs to files[i];
    rows of failed files and rows from len(files) on are zero, so that a batch always has its full size and a result
    never depends on its neighbours.
    """

    files: tuple[DecodedFile, ...]
    pixels: NDArray[uint8]


@dataclass(frozen=True, slots=True)
class ClassifiedBatch:
    """A batch's files with what the model says of them.

    probabilities: float32, shape (len(files) or more, classes), columns in the order of the bundle's classes. Row i
    belongs to files[i]; rows of failed files mean nothing. None where no file is ok.
    """

    files: tuple[DecodedFile, ...]
    probabilities: NDArray[float32] | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row of the result, still in Python. Every number is None where status is not ok."""

    decoded: DecodedFile
    status: Status
    error: str | None
    predicted: str | None = None  # class name; ties take the lowest class
    confidence: float | None = None  # probability of the predicted class
    margin: float | None = None  # best minus second probability
    entropy: float | None = None  # nats
    probabilities: tuple[float, ...] | None = None  # float32 values in the order of the bundle's classes


class Decoder(Protocol):
    """Files in, batches of pixels out, in the same order. Reads ahead on its own threads between enter and exit."""

    @property
    def name(self) -> str:
        """The decoder's name as the user types it, e.g. "opencv"."""
        ...

    @property
    def library_version(self) -> str:
        """Version of the library that decodes; part of a run's fingerprint."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def groups_ahead(self) -> int:
        """How many groups `batches` takes before it gives the first batch, and has taken ahead from then on.

        Whoever waits for a batch before it gives another group must let so many be under way, or wait for ever.
        """
        ...

    def batches(self, groups: Iterable[Sequence[ImageFile]]) -> Iterator[DecodedBatch]:
        """One DecodedBatch per group, in order. A group has at most one batch of files.

        A bad file is a verdict, never an exception.
        """
        ...

    def alone(self, file: ImageFile) -> tuple[DecodedFile, NDArray[uint8] | None]:
        """One file with nothing else under way.

        Returns:
            What `batches` would say of it, and the same pixels, uint8 (height, width, 1) on the host; None where the
            status is not ok.
        """
        ...


@dataclass(frozen=True)
class Choice:
    """A resolved option and the reason, both shown to the user.

    warning: what the user must not overlook, in one or more sentences: that a GPU which is there is not used.
    """

    name: str
    reason: str
    warning: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunsWith:
    """What the rows of a run are made with."""

    backend: Choice
    backend_version: str
    precision: Choice  # "fp32", "fp16" or "int8"
    decoder: Choice
    decoder_version: str


class FileClassifier(Protocol):
    """Files in, verdicts and probabilities out, in the same order. Nothing heavy happens before `__enter__`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def batch_size(self) -> int:
        """Rows of every batch; a group has at most as many files."""
        ...

    @property
    def smallest_batch(self) -> int:
        """Rows of the smallest batches so far: fewer than batch_size where a GPU had too little memory for those."""
        ...

    @property
    def runs_with(self) -> RunsWith:
        """Known once entered, since a backend that does not pass the gate is replaced by another."""
        ...

    def gate(self) -> Agreement:
        """How far the backend agrees with the bundle's golden answers; compared at most once per process.

        Raises:
            MribatchError: It does not reproduce them.
        """
        ...

    def batches(self, groups: Iterable[Sequence[ImageFile]], watch: Stopwatch) -> Iterator[ClassifiedBatch]:
        """One ClassifiedBatch per group, in order. A group has at most one batch of files.

        Args:
            groups: Read some batches ahead of what is yielded.
            watch: Told the seconds of waiting for the decoder and of inference.
        """
        ...


class Sink(Protocol):
    """Where rows go, in listing order."""

    def write(self, rows: Sequence[Prediction]) -> None: ...
