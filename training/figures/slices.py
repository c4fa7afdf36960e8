"""Pictures that show slices. They stay in the work folder: licences of data sets rarely allow publication."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32, int64, intp, uint8
from numpy.typing import NDArray

from mribatch.training.figures.page import (
    GREEN,
    GREY,
    MARGIN,
    VERMILLION,
    WIDTH,
    Page,
    draw_image,
    format_class,
    format_percent,
    lay_out_tiles,
    make_page,
)

_ROWS_AT_MOST = 6  # classes in the picture of the data
_TEST_IMAGES = 21
_ACROSS = WIDTH - 2 * MARGIN
_LETTERS = 20  # of a caption under a tile
_FRAME_POINTS = 3.0


@dataclass(frozen=True, kw_only=True)
class SliceSet:
    """Slices with their labels, and predictions if there are any. Arrays have one row per slice."""

    pixels: NDArray[uint8]  # (n, height, width, 1), grey
    labels: NDArray[int64]  # (n,)
    classes: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class PredictedSlices(SliceSet):
    """Test images with their predictions."""

    probabilities: NDArray[float32]  # (n, classes)
    protocol: str = ""  # one sentence

    @property
    def errors(self) -> NDArray[np.bool_]:
        """(n,), True if the prediction is wrong."""
        errors: NDArray[np.bool_] = self.probabilities.argmax(axis=1) != self.labels
        return errors


def draw_data_images(data: SliceSet, title: str, folder: Path, seed: int = 0) -> list[Path]:
    """Draw random images of each class, one row per class, with the number of images in the data."""
    labels, classes = data.labels, data.classes
    counts = np.bincount(labels, minlength=len(classes))
    rows = np.flatnonzero(counts)[:_ROWS_AT_MOST]
    fewer = f" The first {len(rows)} of {len(classes)} classes." if len(rows) < len(classes) else ""
    page = make_page(title, (f"n = {len(labels):,} images in {len(classes)} classes; drawn at random in each.{fewer}",))
    axes, heading, gap = page.canvas(), 2.2, 0.1
    room = _ACROSS - heading
    columns = ceil((room + gap) / ((page.body_height + gap) / len(rows)))
    side = min((page.body_height + gap) / len(rows), (room + gap) / columns) - gap
    down = min((page.body_height - side) / max(1, len(rows) - 1), side + 0.5)
    random = np.random.default_rng(seed)
    for place, label in enumerate(rows.tolist()):
        top = place * down
        axes.text(0, top + side / 2 - 0.04, format_class(classes[label]), size=14, weight="bold", va="bottom")
        share = format_percent(counts[label] / len(labels))
        axes.text(0, top + side / 2 + 0.04, f"{counts[label]:,} images, {share}", size=11, color=GREY, va="top")
        members = np.flatnonzero(labels == label)
        chosen = random.choice(members, min(columns, len(members)), replace=False)
        for column, index in enumerate(chosen.tolist()):
            _draw_slice(axes, data.pixels[index], (heading + column * (side + gap), top), side)
    return page.save(folder, "data_images")


def draw_test_images(test: PredictedSlices, title: str, folder: Path, seed: int = 0) -> list[Path]:
    """Draw random test images with predicted class and confidence; errors have a frame, a cross and their label."""
    total = len(test.labels)
    count = min(_TEST_IMAGES, total)
    chosen = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
    wrong, among = int(test.errors.sum()), int(test.errors[chosen].sum())
    what = (
        f"{count} of n = {total:,} test images, drawn at random: confidence, predicted class, and for an error "
        f"its label. {among} of these and {wrong:,} of all ({format_percent(wrong / total)}) are wrong."
    )
    page = _draw_predictions(test, chosen, title, what)
    return page.save(folder, "test_images")


def draw_test_errors(test: PredictedSlices, title: str, folder: Path) -> list[Path]:
    """Draw the errors with the highest confidence. If there are none, return no file and remove an earlier one."""
    wrong = np.flatnonzero(test.errors)
    if not len(wrong):
        for suffix in ("png", "svg"):
            (folder / f"test_errors.{suffix}").unlink(missing_ok=True)
        return []
    order = np.argsort(-test.probabilities[wrong].max(axis=1), kind="stable")
    chosen = wrong[order][:_TEST_IMAGES]
    which = "all" if len(chosen) == len(wrong) else f"the {len(chosen)} most confident"
    what = (
        f"{len(wrong):,} of n = {len(test.labels):,} test images are wrong; shown: {which}, by decreasing confidence: "
        "confidence, predicted class, label."
    )
    page = _draw_predictions(test, chosen, title, what)
    return page.save(folder, "test_errors")


def _draw_predictions(test: PredictedSlices, chosen: NDArray[intp], title: str, what: str) -> Page:
    page = make_page(title, (what, test.protocol))
    axes = page.canvas()
    grid = lay_out_tiles(len(chosen), _ACROSS, page.body_height, caption=0.62, gap=0.1, words=1.64)
    for place, index in enumerate(chosen.tolist()):
        x, y = grid.corner(place)
        predicted, label = int(test.probabilities[index].argmax()), int(test.labels[index])
        predicted_name = format_class(test.classes[predicted], _LETTERS)
        label_name = format_class(test.classes[label], _LETTERS - 3)
        right = predicted == label
        _draw_slice(axes, test.pixels[index], (x, y), grid.side, frame=None if right else VERMILLION)
        mark, colour = ("✓", GREEN) if right else ("✗", VERMILLION)
        confidence = format_percent(float(test.probabilities[index].max()))
        under = y + grid.side + 0.06
        axes.text(x, under, f"{mark} {confidence}", size=10.5, weight="bold", color=colour, va="top")
        axes.text(x, under + 0.18, predicted_name, size=9.5, va="top")
        if not right:
            axes.text(x, under + 0.34, f"is {label_name}", size=9.5, color=GREY, va="top")
    return page


def _draw_slice(
    axes: Any, image: NDArray[uint8], corner: tuple[float, float], side: float, *, frame: str | None = None
) -> None:
    from matplotlib.patches import Rectangle

    draw_image(axes, image[:, :, 0], corner, side, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    if frame is not None:
        axes.add_patch(
            Rectangle(corner, side, side, fill=False, edgecolor=frame, linewidth=_FRAME_POINTS, zorder=3, clip_on=False)
        )
