"""Pictures that show slices. They stay in the training output: data sets' licences rarely allow more.

Arrays have one row per image: pixels uint8 (n, height, width, 1) grey, labels int64 (n,), probabilities float32
(n, classes).
"""

from collections.abc import Sequence
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
    page,
    percent,
    shown,
    tiles,
)

_ROWS_AT_MOST = 6  # classes in the picture of the data
_TEST_IMAGES = 21
_ACROSS = WIDTH - 2 * MARGIN
_LETTERS = 20  # of a caption under a tile
_FRAME_POINTS = 3.0


def draw_data_images(
    pixels: NDArray[uint8], labels: NDArray[int64], classes: Sequence[str], title: str, folder: Path, seed: int = 0
) -> list[Path]:
    """Images of each class, drawn at random: one row per class, with the number of images in the data."""
    counts = np.bincount(labels, minlength=len(classes))
    rows = np.flatnonzero(counts)[:_ROWS_AT_MOST]
    fewer = f" The first {len(rows)} of {len(classes)} classes." if len(rows) < len(classes) else ""
    made = page(title, (f"n = {len(labels):,} images in {len(classes)} classes; drawn at random in each.{fewer}",))
    axes, heading, gap = made.canvas(), 2.2, 0.1
    room = _ACROSS - heading
    columns = ceil((room + gap) / ((made.body_height + gap) / len(rows)))
    side = min((made.body_height + gap) / len(rows), (room + gap) / columns) - gap
    down = min((made.body_height - side) / max(1, len(rows) - 1), side + 0.5)
    random = np.random.default_rng(seed)
    for place, label in enumerate(rows.tolist()):
        top = place * down
        axes.text(0, top + side / 2 - 0.04, shown(classes[label]), size=14, weight="bold", va="bottom")
        share = percent(counts[label] / len(labels))
        axes.text(0, top + side / 2 + 0.04, f"{counts[label]:,} images, {share}", size=11, color=GREY, va="top")
        members = np.flatnonzero(labels == label)
        chosen = random.choice(members, min(columns, len(members)), replace=False)
        for column, index in enumerate(chosen.tolist()):
            _draw_slice(axes, pixels[index], heading + column * (side + gap), top, side)
    return made.save(folder, "data_images")


def draw_test_images(
    pixels: NDArray[uint8],
    labels: NDArray[int64],
    probabilities: NDArray[float32],
    classes: Sequence[str],
    title: str,
    folder: Path,
    protocol: str = "",
    seed: int = 0,
) -> list[Path]:
    """Test images drawn at random with predicted class and confidence; errors have a frame, a cross and their label."""
    count = min(_TEST_IMAGES, len(labels))
    chosen = np.sort(np.random.default_rng(seed).choice(len(labels), count, replace=False))
    wrong = int((probabilities.argmax(axis=1) != labels).sum())
    among = int((probabilities[chosen].argmax(axis=1) != labels[chosen]).sum())
    what = (
        f"{count} of n = {len(labels):,} test images, drawn at random: confidence, predicted class, and for an error "
        f"its label. {among} of these and {wrong:,} of all ({percent(wrong / len(labels))}) are wrong."
    )
    made = _predictions(pixels, labels, probabilities, classes, chosen, (title, what, protocol))
    return made.save(folder, "test_images")


def draw_test_errors(
    pixels: NDArray[uint8],
    labels: NDArray[int64],
    probabilities: NDArray[float32],
    classes: Sequence[str],
    title: str,
    folder: Path,
    protocol: str = "",
) -> list[Path]:
    """The errors with the highest confidence. Returns no file where there is no error, and removes an earlier one."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    if not len(wrong):
        for suffix in ("png", "svg"):
            (folder / f"test_errors.{suffix}").unlink(missing_ok=True)
        return []
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    chosen = wrong[order][:_TEST_IMAGES]
    which = "all" if len(chosen) == len(wrong) else f"the {len(chosen)} most confident"
    what = (
        f"{len(wrong):,} of n = {len(labels):,} test images are wrong; shown: {which}, in falling order: confidence, "
        "predicted class, label."
    )
    made = _predictions(pixels, labels, probabilities, classes, chosen, (title, what, protocol))
    return made.save(folder, "test_errors")


def _predictions(
    pixels: NDArray[uint8],
    labels: NDArray[int64],
    probabilities: NDArray[float32],
    classes: Sequence[str],
    chosen: NDArray[intp],
    heading: tuple[str, str, str],
) -> Page:
    made = page(heading[0], heading[1:])
    axes = made.canvas()
    grid = tiles(len(chosen), _ACROSS, made.body_height, caption=0.62, gap=0.1, words=1.64)
    for place, index in enumerate(chosen.tolist()):
        x, y = grid.corner(place)
        predicted, label = int(probabilities[index].argmax()), int(labels[index])
        right = predicted == label
        _draw_slice(axes, pixels[index], x, y, grid.side, None if right else VERMILLION)
        mark, colour = ("✓", GREEN) if right else ("✗", VERMILLION)
        sure = percent(float(probabilities[index].max()))
        under = y + grid.side + 0.06
        axes.text(x, under, f"{mark} {sure}", size=10.5, weight="bold", color=colour, va="top")
        axes.text(x, under + 0.18, shown(classes[predicted], _LETTERS), size=9.5, va="top")
        if not right:
            axes.text(x, under + 0.34, f"is {shown(classes[label], _LETTERS - 3)}", size=9.5, color=GREY, va="top")
    return made


def _draw_slice(axes: Any, image: NDArray[uint8], x: float, y: float, side: float, frame: str | None = None) -> None:
    from matplotlib.patches import Rectangle

    draw_image(axes, image[:, :, 0], x, y, side, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    if frame is not None:
        axes.add_patch(
            Rectangle((x, y), side, side, fill=False, edgecolor=frame, linewidth=_FRAME_POINTS, zorder=3, clip_on=False)
        )
