"""Images from anywhere, not only files of a folder: arrays, bytes and paths to one row each, without a run folder.

Arrays are written as PNG without loss and bytes as they are, into a folder for as long as the call takes; from there on
they go the way of every file. So pixels, statuses and answers are those that `classify` gives for such files.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mribatch.core.bundle import load_bundle
from mribatch.core.cores import usable_cores
from mribatch.core.errors import MribatchError
from mribatch.core.text import decode_name
from mribatch.pipeline.executor.part_maker import make_rows
from mribatch.pipeline.file_classifier import make_file_classifier
from mribatch.pipeline.listing.headers import HeaderReader, Look, StudyEntry, UnreadFile, refusal
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.parts import table_of_rows
from mribatch.pipeline.plan import make_header_reader
from mribatch.pipeline.progress import Progress
from mribatch.pipeline.records import ImageFile, Prediction, Status, StudyImage, Verdict
from mribatch.pipeline.stopwatch import Stopwatch
from mribatch.pipeline.storage.bundle_copy import fetch_bundle
from mribatch.pipeline.studies.pseudonyms import random_pseudonyms, read_pseudonyms

Image = str | bytes | os.PathLike[str] | NDArray[np.generic]
_FIX = "give uint8 or uint16 arrays of shape (height, width), (height, width, 1) or (height, width, 3)"


def classify_images(images: Iterable[Image], options: ClassifyOptions, progress: Progress) -> pa.Table:
    """Classify images in memory or on disk: one row per image, in order.

    Args:
        images: Arrays (grey or RGB), contents of image files, or paths.
        options: As for `classify`; labels and everything about run folders do not apply.
        progress: Receives the progress.

    Returns:
        The columns of a part file; `path` is the path, or "image N", and `label` is null.

    Raises:
        MribatchError: An array has another type or shape, or the model or a library is not available.
    """
    bundle = load_bundle(fetch_bundle(options.model))
    threads = options.threads or usable_cores()
    kept = read_pseudonyms(Path(options.pseudonym_key)) if options.pseudonym_key else None
    headers = make_header_reader(options, kept or random_pseudonyms(), threads)
    rows = _Rows()
    with tempfile.TemporaryDirectory(prefix="mribatch-") as scratch:
        files = [_place(index, image, Path(scratch), headers) for index, image in enumerate(images)]
        classifier = make_file_classifier(
            bundle, options, threads=threads, log=None, note=progress.note, files=len(files)
        )
        with classifier:
            classifier.gate()
            progress.start(len(files), 0)
            for batch in make_rows(
                _in_batches(files, classifier.batch_size), classifier, bundle.spec.classes, rows, Stopwatch()
            ):
                progress.advance(len(batch), sum(row.status.is_failure for row in batch))
    return table_of_rows(rows.rows, bundle.spec.classes)


class _Rows:
    """A Sink that keeps the rows."""

    def __init__(self) -> None:
        self.rows: list[Prediction] = []

    def write(self, rows: Sequence[Prediction]) -> None:
        self.rows.extend(rows)


def _in_batches(files: Sequence[ImageFile], size: int) -> Iterator[Sequence[ImageFile]]:
    for start in range(0, len(files), size):
        yield files[start : start + size]


def _place(index: int, image: Image, scratch: Path, headers: HeaderReader) -> ImageFile:
    if isinstance(image, str | os.PathLike):
        name = os.fsencode(image)
        path = os.path.abspath(name)
        return ImageFile(index, 0, decode_name(name)[0], path, study=_study_image(path, headers))
    path = os.fsencode(scratch / str(index))
    if not isinstance(image, bytes | bytearray | memoryview):
        (scratch / str(index)).write_bytes(_to_png(index, image))
        return ImageFile(index, 0, f"image {index}", path)
    (scratch / str(index)).write_bytes(image)
    return ImageFile(index, 0, f"image {index}", path, study=_study_image(path, headers))


def _study_image(path: bytes, headers: HeaderReader) -> StudyImage | None:
    """The one image of a DICOM file or a NIfTI volume; None where it is neither."""
    found = headers.find(UnreadFile(0, path, Look.NAMED, path))
    if not isinstance(found, StudyEntry):
        return None
    refused = refusal(found)
    if refused is None and len(found.slices) > 1:
        reason = (
            f"The file holds {len(found.slices):,} slices, and one row is asked for; classify it as a file of a run."
        )
        refused = Verdict(Status.UNSUPPORTED, reason, found.format.value)
    first, ids = found.slices[0], found.ids
    return StudyImage(
        format=found.format.value,
        slice=first.slice,
        patient=ids.patient,
        study=ids.study,
        series=ids.series,
        instance=first.instance,
        plane=first.plane,
        flags=found.flags,
        refused=refused,
    )


def _to_png(index: int, image: NDArray[np.generic]) -> bytes:
    import cv2

    pixels = np.asarray(image)
    fits = pixels.dtype in (np.uint8, np.uint16) and pixels.size and pixels.ndim in (2, 3)
    if not fits or pixels.shape[2:] not in ((), (1,), (3,)):
        raise MribatchError(f"image {index} is an array of {pixels.dtype} {pixels.shape}", _FIX)
    stored = pixels[..., ::-1] if pixels.shape[2:] == (3,) else pixels  # OpenCV's order is BGR
    return bytes(cv2.imencode(".png", np.ascontiguousarray(stored), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])
