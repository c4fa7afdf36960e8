"""The images of the inputs, as `classify` lists and decodes them, with what the audit compares of each."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy import float32, int64, uint8, uint64
from numpy.typing import NDArray

from mribatch.core.cores import usable_cores
from mribatch.core.data_sets import CONTENT_SIZE
from mribatch.core.files import remove_folder
from mribatch.core.training_images import perceptual_hashes
from mribatch.pipeline.decode.formats.jpeg import JpegEncoding, read_encoding
from mribatch.pipeline.decode.opencv import OpenCvDecoder
from mribatch.pipeline.decode.study import StudyDecoder
from mribatch.pipeline.decode.values import Window
from mribatch.pipeline.listing.discover import Discovery, Input, resolve_inputs
from mribatch.pipeline.listing.label_advice import no_label_error
from mribatch.pipeline.listing.labels import TableLabels, open_labels
from mribatch.pipeline.listing.patterns import PathPatterns
from mribatch.pipeline.listing.table import PATHS_FILE, Listing, ListingFacts, write_listing
from mribatch.pipeline.no_image import no_image_error
from mribatch.pipeline.plan import make_header_reader
from mribatch.pipeline.progress import Progress
from mribatch.pipeline.records import DecodedFile, ImageFile, Status, Verdict
from mribatch.pipeline.storage.content import read_beginning
from mribatch.pipeline.studies.pseudonyms import random_pseudonyms
from mribatch.report.audit.options import AuditOptions

VIEWS = 2  # of each image: the whole, and the box of what is not background
THUMBNAIL = 32  # pixels of a side
_BACKGROUND = 20  # grey level
_LEAST_INSIDE = 0.02  # share of a row or column that is brighter than the background where the content begins
_SMALLEST_BOX = 16  # pixels of a side; a smaller one shows no head
_BORDER = 6  # pixels of CONTENT_SIZE on each side
_BLACK = 16  # grey level
_HEAD = 1 << 18  # bytes of a file that hold its headers
_BATCH = 64


@dataclass(frozen=True)
class ListedFolder:
    """The inputs as they were listed."""

    inputs: tuple[Input, ...]
    listing: Listing
    facts: ListingFacts
    classes: tuple[str, ...]
    paths_file: Path | None  # which path each pseudonym stands for; None where paths are shown


@contextmanager
def list_images(
    names: Sequence[str | Path], out: Path, options: AuditOptions, progress: Progress
) -> Iterator[ListedFolder]:
    """List the images of the inputs, under the rules of `classify`; the listing is there while the context is open.

    Args:
        names: Files, folders and patterns.
        out: Of the audit; not entered where it is inside an input.
        options: See AuditOptions.
        progress: Told how far the listing has come.

    Raises:
        MribatchError: An input does not exist, there is no image, or a labels table fits none.
    """
    chosen, spec, pseudonyms = options.listing, options.label_spec, random_pseudonyms()
    headers = make_header_reader(chosen, pseudonyms, chosen.threads or usable_cores())
    inputs, patterns = resolve_inputs(names), PathPatterns(chosen.exclude)
    scratch = Path(tempfile.mkdtemp(prefix="mribatch-"))  # for nobody else: it may hold names
    try:
        with (
            open_labels(chosen.labels, spec, scratch / "labels.sqlite") as labels,
            Discovery(inputs, scratch / "names.sqlite", out, patterns, headers) as discovery,
        ):
            hidden_by = pseudonyms if options.anonymize_paths else None
            facts = write_listing(scratch, inputs, discovery, labels, hidden_by=hidden_by, progress=progress)
            if not facts.files:
                raise no_image_error(inputs, out, patterns, headers)
            if isinstance(labels, TableLabels) and not facts.labelled:
                raise no_label_error(chosen.labels, facts, spec.classes)
        paths_file = scratch / PATHS_FILE
        listing = Listing(scratch, inputs)
        yield ListedFolder(inputs, listing, facts, spec.classes, paths_file if hidden_by else None)
    finally:
        remove_folder(scratch)


@dataclass(frozen=True)
class AuditedImages:
    """Every image in the order of the listing. Arrays have one row per image; rows of unreadable images are zero."""

    files: list[ImageFile]
    decoded: list[DecodedFile]
    encodings: list[JpegEncoding | None]  # None: no JPEG, or unreadable
    content: list[str | None]  # hex SHA-256 of the pixels at CONTENT_SIZE; None where unreadable
    hashes: NDArray[uint64]  # (n, VIEWS)
    thumbnails: NDArray[uint8]  # (n, VIEWS, THUMBNAIL * THUMBNAIL)
    borders: NDArray[float32]  # (n, figures)
    labels: NDArray[int64]  # (n,), positions in the classes, -1 where unknown
    classes: tuple[str, ...]
    roots: tuple[str, ...] = field(default=())  # of the inputs

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def readable(self) -> NDArray[np.bool_]:
        """(n,): whole images that show something."""
        return np.array([one.verdict.status is Status.OK for one in self.decoded], np.bool_)

    @property
    def verdicts(self) -> list[Verdict]:
        return [one.verdict for one in self.decoded]


def read_images(listed: ListedFolder, options: AuditOptions, progress: Progress) -> AuditedImages:
    """Decode every image once, and keep what the audit compares: about 3 KB each."""
    parts = _Parts(listed.classes)
    progress.start(listed.listing.files, 0)
    with make_decoder(options, CONTENT_SIZE) as decoder:
        for batch in decoder.batches(_in_batches(listed.listing)):
            parts.add(list(batch.files), batch.pixels[: len(batch.files)])
            failed = sum(one.verdict.status.is_failure for one in batch.files)
            progress.advance(len(batch.files), failed)
    return parts.join()


def make_decoder(options: AuditOptions, size: int) -> OpenCvDecoder:
    """The decoder of `classify`, for images stretched to a square of `size` pixels."""
    chosen = options.listing
    window = Window.parse(chosen.window)
    return OpenCvDecoder(
        height=size,
        width=size,
        batch_size=_BATCH,
        threads=chosen.threads or usable_cores(),
        max_pixels=chosen.max_pixels,
        timeout_s=chosen.timeout_s,
        studies=StudyDecoder(height=size, width=size, window=window, options=chosen.header_options),
    )


def _in_batches(listing: Listing) -> Iterator[list[ImageFile]]:
    wanted = (range(start, min(start + _BATCH, listing.files)) for start in range(0, listing.files, _BATCH))
    return listing.slices(wanted)


class _Parts:
    """What the batches have given so far."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self._classes = classes
        self._decoded: list[DecodedFile] = []
        self._encodings: list[JpegEncoding | None] = []
        self._content: list[str | None] = []
        self._hashes: list[NDArray[uint64]] = []
        self._thumbnails: list[NDArray[uint8]] = []
        self._borders: list[NDArray[float32]] = []

    def add(self, decoded: list[DecodedFile], pixels: NDArray[uint8]) -> None:
        whole = [one.verdict.status is Status.OK for one in decoded]
        boxes = np.stack([_cut_box(image[..., 0]) for image in pixels])[..., None]
        self._decoded += decoded
        self._encodings += [_read_encoding(one) for one in decoded]
        self._content += [
            sha256(image.tobytes()).hexdigest() if ok else None for image, ok in zip(pixels, whole, strict=True)
        ]
        self._hashes.append(np.stack([perceptual_hashes(pixels), perceptual_hashes(boxes)], axis=1))
        self._thumbnails.append(np.stack([_shrink(pixels), _shrink(boxes)], axis=1))
        self._borders.append(_measure_borders(pixels[..., 0]))

    def join(self) -> AuditedImages:
        labels = [one.file.label for one in self._decoded]
        return AuditedImages(
            files=[one.file for one in self._decoded],
            decoded=self._decoded,
            encodings=self._encodings,
            content=self._content,
            hashes=np.concatenate(self._hashes),
            thumbnails=np.concatenate(self._thumbnails),
            borders=np.concatenate(self._borders),
            labels=np.array([-1 if name is None else self._classes.index(name) for name in labels], int64),
            classes=self._classes,
        )


def _cut_box(grey: NDArray[uint8]) -> NDArray[uint8]:
    """The part of an image that is not background, stretched to its size: uint8 (height, width).

    So a copy that was cropped to the head, or got a margin, looks the same.
    """
    import cv2

    bright = grey > _BACKGROUND
    rows = np.flatnonzero(bright.mean(axis=1) > _LEAST_INSIDE)
    columns = np.flatnonzero(bright.mean(axis=0) > _LEAST_INSIDE)
    if len(rows) < _SMALLEST_BOX or len(columns) < _SMALLEST_BOX:
        return grey
    box = grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.asarray(cv2.resize(box, grey.shape[::-1], interpolation=cv2.INTER_AREA))


def _shrink(pixels: NDArray[uint8]) -> NDArray[uint8]:
    """uint8 (n, height, width, 1) -> (n, THUMBNAIL * THUMBNAIL)."""
    import cv2

    small = [cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA) for image in pixels]
    return np.stack(small).reshape(len(pixels), -1)


def _measure_borders(grey: NDArray[uint8]) -> NDArray[float32]:
    """Mean, deviation, maximum and share of black of the outer strip of each side: float32 (n, 16)."""
    strips = (grey[:, :_BORDER], grey[:, -_BORDER:], grey[:, :, :_BORDER], grey[:, :, -_BORDER:])
    figures: list[NDArray[float32]] = []
    for strip in strips:
        values = strip.reshape(len(grey), -1).astype(float32)
        figures += [values.mean(axis=1), values.std(axis=1), values.max(axis=1), (values <= _BLACK).mean(axis=1)]
    return np.stack(figures, axis=1).astype(float32)


def _read_encoding(decoded: DecodedFile) -> JpegEncoding | None:
    if decoded.verdict.status is not Status.OK or decoded.verdict.format != "jpeg":
        return None
    try:
        return read_encoding(read_beginning(decoded.file.file, _HEAD))
    except OSError:  # it went away in between
        return None
