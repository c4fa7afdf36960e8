"""Images in, pictures of where the model looked out: one PNG and one JSON line per image."""

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.core.about import RESEARCH_NOTICE
from mribatch.core.bundle import load_bundle
from mribatch.core.cores import usable_cores
from mribatch.core.errors import OptionError, WriteError
from mribatch.core.files import publishing
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.run_file import read_finished_run
from mribatch.pipeline.progress import Progress, SilentProgress, Track, track_silently
from mribatch.pipeline.records import ImageFile, Status
from mribatch.pipeline.run import classify
from mribatch.pipeline.storage.bundle_copy import fetch_bundle
from mribatch.report.activation import MapMaker
from mribatch.report.overlay import draw_overlay
from mribatch.report.rows import read_rows
from mribatch.report.run_images import RunImages

LINES_FILE = "explained.jsonl"
_LONGER = 512  # pixels of a picture's longer side
_NAME_LENGTH = 80  # characters of a picture's name that come from the image's


@dataclass(frozen=True, kw_only=True)
class Explained:
    """One image. Everything from `predicted` on is None where the status is not ok."""

    path: str
    slice: int | None  # position in a file that holds several images
    status: str
    error: str | None
    predicted: str | None = None
    explained: str | None = None  # class that the map speaks for
    probability: float | None = None  # of that class
    method: str | None = None  # how the map was made
    picture: str | None = None  # name of the PNG file
    map: tuple[tuple[float, ...], ...] | None = None  # rows of the map, over the whole image


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """Options of `mribatch explain`."""

    classify: ClassifyOptions
    class_name: str | None = None  # None: the predicted class of each image
    limit: int = 100  # images that get a picture


def explain(
    inputs: Sequence[str],
    out: Path,
    options: ExplainOptions,
    *,
    progress: Progress | None = None,
    track: Track = track_silently,
) -> Iterator[Explained]:
    """Classify images and draw where the model looked.

    Pixels and answers are those of `classify`. Pictures of an earlier call are replaced, other files are left alone.

    Args:
        inputs: Files, folders and patterns, as for `classify`.
        out: Folder for the pictures and `explained.jsonl`; made where it is missing.
        options: See ExplainOptions.
        progress: Of the classification; None: silent.
        track: Shows how far the pictures are.

    Yields:
        Every image in the order of the listing, once its picture is written. Images beyond the limit have none.

    Raises:
        MribatchError: An input, the model or an option does not fit, or the folder cannot be written to.
    """
    bundle = load_bundle(fetch_bundle(options.classify.model))
    if options.class_name is not None and options.class_name not in bundle.spec.classes:
        known = ", ".join(bundle.spec.classes)
        raise OptionError(f"--class '{options.class_name}' is not a class of the model", f"choose one of {known}")
    with ExitStack() as stack:
        run = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mribatch-"))) / "run"
        classify(inputs, run, options.classify, progress or SilentProgress())
        maps = stack.enter_context(MapMaker(bundle, usable_cores()))
        images = stack.enter_context(RunImages(run, read_finished_run(run)))
        lines = stack.enter_context(_open_lines(out))
        painted = _explain_rows(run, _Painter(images, maps, out, options.class_name), options.limit)
        for explained in track(painted, "drawing maps", None):
            lines.write(json.dumps(asdict(explained) | {"research_notice": RESEARCH_NOTICE}, allow_nan=False) + "\n")
            yield explained


@contextmanager
def _open_lines(out: Path) -> Iterator[TextIO]:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make {out}: {error.strerror}", "name a folder that you may write to") from error
    with publishing(out / LINES_FILE) as temporary, temporary.open("w", encoding="utf-8") as lines:
        yield lines


def _explain_rows(run: Path, painter: "_Painter", limit: int) -> Iterator[Explained]:
    rows = read_rows(run, ["path", "slice", "status", "error", "predicted"]).to_pylist()
    drawn = 0
    for file, row in zip(painter.images.find(range(len(rows))), rows, strict=True):
        explained = Explained(**row)
        if row["status"] == Status.OK and drawn < limit:
            explained = painter.paint(file, explained)
            drawn += 1
        yield explained


@dataclass(frozen=True)
class _Painter:
    """Draws one image after the other into a folder."""

    images: RunImages
    maps: MapMaker
    out: Path
    class_name: str | None

    def paint(self, file: ImageFile, row: Explained) -> Explained:
        """Write the picture of one image; without one where its file has changed since it was classified."""
        grey = self.images.show(file, _LONGER)
        pixels = self.images.decode(file, self.maps.spec.height, self.maps.spec.width)[1]
        if grey is None or pixels is None:
            return row
        found = self.maps.make_map(pixels, self.class_name)
        position = self.maps.spec.classes.index(found.class_name)
        name = _name_picture(row)
        with publishing(self.out / name) as temporary:
            beside = (np.repeat(grey[..., None], 3, axis=2), draw_overlay(grey, found.values))
            temporary.write_bytes(_to_png(np.hstack(beside)))
        return replace(
            row,
            explained=found.class_name,
            probability=float(found.probabilities[position]),
            method=str(found.method),
            picture=name,
            map=tuple(tuple(round(float(value), 4) for value in line) for line in found.values),
        )


def _name_picture(row: Explained) -> str:
    """A file name that no two images of a listing share, and that is safe whatever the image is called."""
    place = row.path if row.slice is None else f"{row.path}-{row.slice}"
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", place).strip("._")[-_NAME_LENGTH:]
    return f"{readable}-{blake2b(place.encode(), digest_size=4).hexdigest()}.png"


def _to_png(picture: NDArray[uint8]) -> bytes:
    import cv2

    worked, content = cv2.imencode(".png", picture)
    if not worked:
        raise RuntimeError(f"OpenCV did not encode {picture.shape} as PNG")
    return bytes(content)
