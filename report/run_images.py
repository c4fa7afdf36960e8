"""Images of a finished run, decoded again as the run did, for people to look at."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.pipeline.decode.opencv import OpenCvDecoder
from mribatch.pipeline.decode.study import StudyDecoder
from mribatch.pipeline.decode.values import Window
from mribatch.pipeline.listing.discover import Input, InputKind
from mribatch.pipeline.listing.table import LISTING_FILE, Listing
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.run_file import RunFile
from mribatch.pipeline.records import DecodedFile, Flag, ImageFile, Verdict


class ListedImages:
    """The images of a listing, by row. A context.

    Args:
        listing: None where the images cannot be found again; there are none then.
        options: How they were decoded.
    """

    def __init__(self, listing: Listing | None, options: ClassifyOptions) -> None:
        self._listing = listing
        self._options = options
        self._stack = ExitStack()
        self._decoders: dict[tuple[int, int], OpenCvDecoder] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def find(self, rows: Iterable[int]) -> Iterator[ImageFile]:
        """The images of these rows, in the order of the listing; none where the run hides them or has no listing."""
        if self._listing is None:
            return
        for files in self._listing.slices(range(row, row + 1) for row in sorted(set(rows))):
            yield from files

    def decode(self, file: ImageFile, height: int, width: int) -> tuple[DecodedFile, NDArray[uint8] | None]:
        """What is known of the image, and its pixels: uint8 (height, width, 1); None where it cannot be decoded."""
        decoder = self._decoders.get((height, width))
        if decoder is None:
            decoder = self._decoders[height, width] = self._stack.enter_context(self._make_decoder(height, width))
        return decoder.alone(file)

    def show(self, file: ImageFile, longer: int) -> NDArray[uint8] | None:
        """The grey image in its own proportions, its longer side at `longer` pixels: uint8 (height, width), or None."""
        import cv2

        decoded, pixels = self.decode(file, longer, longer)
        if pixels is None:
            return None
        height, width = _fit(decoded.verdict, longer)
        return np.asarray(cv2.resize(pixels[..., 0], (width, height), interpolation=cv2.INTER_AREA))

    def _make_decoder(self, height: int, width: int) -> OpenCvDecoder:
        options = self._options
        studies = StudyDecoder(
            height=height, width=width, window=Window.parse(options.window), options=options.header_options
        )
        return OpenCvDecoder(
            height=height,
            width=width,
            batch_size=1,
            threads=1,
            max_pixels=options.max_pixels,
            timeout_s=options.timeout_s,
            studies=studies,
        )


class RunImages(ListedImages):
    """The images of a run, by row. A context.

    Args:
        run: The run folder.
        facts: Its run.json.
    """

    def __init__(self, run: Path, facts: RunFile) -> None:
        # run.json has names in UTF-8, whatever this process's locale is.
        inputs = [Input(InputKind(one.kind), one.path, one.root.encode("utf-8")) for one in facts.inputs]
        known = (run / LISTING_FILE).is_file() and not facts.fingerprint.get("anonymize_paths")
        # hidden paths: where the inputs were is not recorded
        super().__init__(Listing(run, inputs) if known else None, _read_options(facts))


def _read_options(facts: RunFile) -> ClassifyOptions:
    """What the run was told about pixels; the fingerprint has what differs from the defaults."""
    names = ("max_pixels", "window", "plane", "volume", "any_modality", "dicom_anywhere")
    kept: dict[str, Any] = {name: facts.fingerprint[name] for name in names if name in facts.fingerprint}
    return ClassifyOptions(**kept)


def _fit(verdict: Verdict, longer: int) -> tuple[int, int]:
    """Height and width in proportion; a square where a rotation leaves open which side is which."""
    if verdict.width is None or verdict.height is None or Flag.EXIF_ROTATED in verdict.flags:
        return longer, longer
    scale = longer / max(verdict.width, verdict.height)
    return max(1, round(verdict.height * scale)), max(1, round(verdict.width * scale))
