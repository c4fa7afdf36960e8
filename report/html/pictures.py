"""Pictures for the page, as data: small ones for lists, larger ones to look at, and where the model looked."""

import base64
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.core.bundle import Bundle, load_bundle
from mribatch.core.errors import MribatchError
from mribatch.pipeline.output.run_file import RunFile
from mribatch.pipeline.progress import Track, track_silently
from mribatch.pipeline.records import ImageFile
from mribatch.pipeline.storage.bundle_copy import fetch_bundle
from mribatch.report.activation import MapMaker, MapMethod
from mribatch.report.overlay import draw_overlay
from mribatch.report.run_images import ListedImages

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
    """Pictures of images of a listing.

    Args:
        images: Entered.
        track: Shows how far it is.
    """

    def __init__(self, images: ListedImages, track: Track = track_silently) -> None:
        self._images = images
        self._track = track
        self.unread: set[int] = set()  # rows whose files could not be read again, so that they lack a picture

    def make_small(self, rows: Iterable[int]) -> dict[int, Picture]:
        """Row -> its small picture."""
        wanted = set(rows)
        files = self._track(self._images.find(wanted), "drawing small pictures", len(wanted))
        return {file.index: Picture(small=_encode(self._show(file, SMALL))) for file in files}

    def make_large(self, rows: Sequence[int], maps: MapMaker | None) -> dict[int, Picture]:
        """Row -> pictures in two sizes and, for the first of them, where the model looked.

        Args:
            rows: In order of importance.
            maps: Entered; None: no maps.
        """
        explained = set(rows[: MAX_MAPS[maps.method]]) if maps is not None else set()
        found: dict[int, Picture] = {}
        for file in self._track(self._images.find(rows), "drawing pictures and maps", len(rows)):
            grey = self._show(file, LARGE)
            overlay = None
            if maps is not None and file.index in explained and grey is not None:
                overlay = _encode(self._explain(file, grey, maps))
            found[file.index] = Picture(_encode(_shrink(grey)), _encode(grey), overlay)
        return found

    def _show(self, file: ImageFile, longer: int) -> NDArray[uint8] | None:
        return self._noted(file, self._images.show(file, longer))

    def _explain(self, file: ImageFile, grey: NDArray[uint8], maps: MapMaker) -> NDArray[uint8] | None:
        pixels = self._noted(file, self._images.decode(file, maps.spec.height, maps.spec.width)[1])
        return None if pixels is None else draw_overlay(grey, maps.make_map(pixels).values)

    def _noted(self, file: ImageFile, pixels: NDArray[uint8] | None) -> NDArray[uint8] | None:
        if pixels is None:
            self.unread.add(file.index)
        return pixels


def open_map_maker(stack: ExitStack, facts: RunFile, threads: int) -> MapMaker | None:
    """The maker of maps for the run's model; None where that bundle is no longer there."""
    try:
        bundle: Bundle = load_bundle(fetch_bundle(facts.bundle.folder))
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


def _encode(pixels: NDArray[uint8] | None) -> str | None:
    if pixels is None:
        return None
    import cv2

    worked, content = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    return f"data:image/webp;base64,{base64.b64encode(bytes(content)).decode()}" if worked else None
