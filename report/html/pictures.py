"""Pictures for the page, as data: small ones for lists, larger ones to look at, and where the model looked."""

import base64
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.core.bundle import Bundle, load_bundle
from mribatch.core.errors import MribatchError
from mribatch.pipeline.decode.opencv import OpenCvDecoder
from mribatch.pipeline.decode.study import StudyDecoder
from mribatch.pipeline.decode.values import Window
from mribatch.pipeline.listing.discover import Input, InputKind
from mribatch.pipeline.listing.table import LISTING_FILE, Listing
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.run_file import RunFile
from mribatch.pipeline.records import DecodedFile, Flag, ImageFile, Verdict
from mribatch.report.activation import MapMaker, MapMethod
from mribatch.report.overlay import draw_overlay

SMALL, LARGE = 96, 320  # pixels of the longer side
MAX_MAPS = {MapMethod.CLASS_ACTIVATION: 60, MapMethod.OCCLUSION: 8}  # occlusion takes seconds for each
_QUALITY = 82  # of WebP, 0..100


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as data URIs; None where its file is no longer there or no map was made."""

    small: str | None = None
    large: str | None = None
    overlay: str | None = None


class PictureMaker:
    """Decodes images of a run again, as the run did. A context.

    Args:
        run: The run folder.
        facts: Its run.json.
    """

    def __init__(self, run: Path, facts: RunFile) -> None:
        inputs = [Input(InputKind(one.kind), one.path, os.fsencode(one.root)) for one in facts.inputs]
        self._listing = Listing(run, inputs) if (run / LISTING_FILE).is_file() else None
        self._options = _read_options(facts)
        self._stack = ExitStack()
        self._decoders: dict[tuple[int, int], OpenCvDecoder] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def make_small(self, rows: Iterable[int]) -> dict[int, Picture]:
        """Row -> its small picture."""
        return {file.index: Picture(small=_encode(self._show(file, SMALL))) for file in self._find(rows)}

    def make_large(self, rows: Sequence[int], maps: MapMaker | None) -> dict[int, Picture]:
        """Row -> pictures in two sizes and, for the first of them, where the model looked.

        Args:
            rows: In order of importance.
            maps: Entered; None: no maps.
        """
        explained = set(rows[: MAX_MAPS[maps.method]]) if maps is not None else set()
        found: dict[int, Picture] = {}
        for file in self._find(rows):
            grey = self._show(file, LARGE)
            overlay = None
            if maps is not None and file.index in explained and grey is not None:
                overlay = _encode(self._explain(file, grey, maps))
            found[file.index] = Picture(_encode(_shrink(grey)), _encode(grey), overlay)
        return found

    def _find(self, rows: Iterable[int]) -> Iterator[ImageFile]:
        if self._listing is None:
            return
        for files in self._listing.slices(range(row, row + 1) for row in sorted(set(rows))):
            yield from files

    def _show(self, file: ImageFile, longer: int) -> NDArray[uint8] | None:
        """The grey image with its longer side at `longer` pixels; None where it cannot be decoded any more."""
        import cv2

        decoded, pixels = self._decode(file, longer, longer)
        if pixels is None:
            return None
        height, width = _fit(decoded.verdict, longer)
        return np.asarray(cv2.resize(pixels[..., 0], (width, height), interpolation=cv2.INTER_AREA))

    def _explain(self, file: ImageFile, grey: NDArray[uint8], maps: MapMaker) -> NDArray[uint8] | None:
        pixels = self._decode(file, maps.spec.height, maps.spec.width)[1]
        return None if pixels is None else draw_overlay(grey, maps.make_map(pixels).values)

    def _decode(self, file: ImageFile, height: int, width: int) -> tuple[DecodedFile, NDArray[uint8] | None]:
        decoder = self._decoders.get((height, width))
        if decoder is None:
            decoder = self._decoders[height, width] = self._stack.enter_context(self._make_decoder(height, width))
        return decoder.alone(file)

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


def _read_options(facts: RunFile) -> ClassifyOptions:
    """What the run was told about pixels; the fingerprint has what differs from the defaults."""
    names = ("max_pixels", "window", "plane", "volume", "any_modality", "dicom_anywhere")
    kept: dict[str, Any] = {name: facts.fingerprint[name] for name in names if name in facts.fingerprint}
    return ClassifyOptions(**kept)


def open_map_maker(stack: ExitStack, facts: RunFile, threads: int) -> MapMaker | None:
    """The maker of maps for the run's model; None where that bundle is no longer there."""
    try:
        bundle: Bundle = load_bundle(facts.bundle.folder)
    except MribatchError:
        return None
    if bundle.sha256 != facts.bundle.bundle_sha256:
        return None
    return stack.enter_context(MapMaker(bundle, threads))


def _shrink(grey: NDArray[uint8] | None) -> NDArray[uint8] | None:
    if grey is None:
        return None
    import cv2

    scale = SMALL / max(grey.shape)
    height, width = (max(1, round(side * scale)) for side in grey.shape)
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA))


def _fit(verdict: Verdict, longer: int) -> tuple[int, int]:
    """Height and width in proportion; a square where a rotation leaves open which side is which."""
    if verdict.width is None or verdict.height is None or Flag.EXIF_ROTATED in verdict.flags:
        return longer, longer
    scale = longer / max(verdict.width, verdict.height)
    return max(1, round(verdict.height * scale)), max(1, round(verdict.width * scale))


def _encode(pixels: NDArray[uint8] | None) -> str | None:
    if pixels is None:
        return None
    import cv2

    worked, content = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    return f"data:image/webp;base64,{base64.b64encode(bytes(content)).decode()}" if worked else None
