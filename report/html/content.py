"""What the page says, as plain records that the template fills in."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mribatch.core.cores import usable_cores
from mribatch.core.model_spec import find_no_tumor_class
from mribatch.pipeline.output.run_file import RunFile, read_finished_run
from mribatch.pipeline.records import Status
from mribatch.report.html.charts import (
    Chart,
    SelectiveFigures,
    draw_calibration,
    draw_curves,
    draw_forest,
    measure_selective,
)
from mribatch.report.html.pictures import Picture, PictureMaker, open_map_maker
from mribatch.report.html.selection import MAX_FAILURES, Chosen, Concern, choose_grid, choose_triage, measure_margins
from mribatch.report.metrics_file import Level, MetricsFile
from mribatch.report.rows import RunRows
from mribatch.report.run_images import RunImages

_MAX_CHART_CLASSES = 30
_NO_PICTURE = Picture()


@dataclass(frozen=True, slots=True)
class ImageCard:
    """One image of the page."""

    path: str
    picture: Picture
    predicted: str
    confidence: float
    margin: float
    label: str | None
    wrong: bool
    concern: str | None
    probabilities: tuple[tuple[str, float], ...]  # highest first
    seen_in_training: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """A file without a prediction."""

    path: str
    status: str
    error: str | None


@dataclass(frozen=True, slots=True)
class FirstLook:
    """One of the things to look at first. anchor: where on the page it is."""

    title: str
    text: str
    anchor: str


@dataclass(frozen=True, kw_only=True)
class PageContent:
    """Everything that the template shows."""

    metrics: MetricsFile
    run: RunFile
    first: tuple[FirstLook, ...]
    triage: tuple[ImageCard, ...]
    triage_of: int  # images that could be in it
    grid: Mapping[str, tuple[ImageCard, ...]]
    failures: Mapping[str, tuple[Failure, ...]]  # by status
    charts: tuple[Chart, ...]
    selective: SelectiveFigures | None
    map_method: str | None
    copies: int  # images that are the same as an earlier one, byte for byte

    @property
    def failed(self) -> int:
        """Images without an answer; blank ones need none."""
        return count_failed(self.metrics)

    @property
    def level(self) -> Level | None:
        """The figures per image."""
        return self.metrics.image_level


def count_failed(metrics: MetricsFile) -> int:
    """How many images should have been classified and were not."""
    files = metrics.files
    return files.total - files.readable - files.by_status.get(Status.BLANK, 0)


def assemble_page(run: Path, metrics: MetricsFile, rows: RunRows) -> PageContent:
    """Choose what to show and make its pictures.

    Args:
        run: The folder of a complete run.
        metrics: The content of its metrics.json.
        rows: All of its rows.
    """
    facts, classes = read_finished_run(run), metrics.run.classes
    triage, grid = choose_triage(rows, classes), choose_grid(rows, classes)
    with ExitStack() as stack:
        maker = PictureMaker(stack.enter_context(RunImages(run, facts)))
        maps = open_map_maker(stack, facts, usable_cores())
        large = maker.make_large([each.row for each in triage], maps)
        method = None if maps is None or not any(each.overlay for each in large.values()) else str(maps.method)
        small = maker.make_small({each.row for chosen in grid.values() for each in chosen} - large.keys())
    cards, copies = _CardMaker(rows, classes, large | small), _count_copies(rows)
    return PageContent(
        metrics=metrics,
        run=facts,
        first=_list_first(metrics, triage, copies),
        triage=tuple(map(cards.make, triage)),
        triage_of=int(rows.readable.sum()),
        grid={name: tuple(map(cards.make, chosen)) for name, chosen in grid.items()},
        failures=_list_failures(rows),
        charts=_draw_charts(metrics, rows),
        selective=_measure_selective(metrics, rows),
        map_method=method,
        copies=copies,
    )


class _CardMaker:
    """Rows to cards."""

    def __init__(self, rows: RunRows, classes: Sequence[str], pictures: Mapping[int, Picture]) -> None:
        self._rows = rows
        self._classes = classes
        self._pictures = pictures
        self._margins = measure_margins(rows)

    def make(self, chosen: Chosen) -> ImageCard:
        rows, row = self._rows, chosen.row
        scores = rows.probabilities[row].tolist()
        best = max(range(len(scores)), key=scores.__getitem__)
        label = None if rows.labels[row] < 0 else self._classes[int(rows.labels[row])]
        ordered = sorted(zip(self._classes, scores, strict=True), key=lambda pair: -pair[1])
        return ImageCard(
            path=rows.paths[row] if rows.slices[row] is None else f"{rows.paths[row]} [{rows.slices[row]}]",
            picture=self._pictures.get(row, _NO_PICTURE),
            predicted=self._classes[best],
            confidence=scores[best],
            margin=float(self._margins[row]),
            label=label,
            wrong=label not in (None, self._classes[best]),
            concern=None if chosen.concern is None else str(chosen.concern),
            probabilities=tuple(ordered),
            seen_in_training=bool(rows.seen[row]),
        )


def _count_copies(rows: RunRows) -> int:
    """How many images are the same slice of the same bytes as an earlier one."""
    known = [place for place in zip(rows.hashes, rows.slices, strict=True) if place[0] is not None]
    return len(known) - len(set(known))


def _list_first(metrics: MetricsFile, triage: Sequence[Chosen], copies: int) -> tuple[FirstLook, ...]:
    """At most three, the most serious first."""
    looks = []
    missed = sum(each.concern is Concern.MISSED_TUMOR for each in triage)
    if missed:
        more = f"{missed:,} images that are labelled as a tumor were called free of one."
        looks.append(FirstLook("Missed tumors", more, "triage"))
    failed = count_failed(metrics)
    if failed:
        text = f"{failed:,} of {metrics.files.total:,} could not be classified."
        looks.append(FirstLook("Images without an answer", text, "failures"))
    seen = metrics.seen_in_training
    if seen is not None and seen.images:
        text = f"{seen.images:,} of {seen.readable:,} images were in training; figures of these prove little."
        looks.append(FirstLook("Training images", text, "figures"))
    if copies:
        looks.append(FirstLook("Copies", f"{copies:,} images are copies of others in this run.", "provenance"))
    if triage and not missed:
        looks.append(FirstLook("The most doubtful images", "Errors and the smallest margins come first.", "triage"))
    return tuple(looks[:3])


def _list_failures(rows: RunRows) -> dict[str, tuple[Failure, ...]]:
    found: dict[str, list[Failure]] = {}
    for row, status in enumerate(rows.statuses):
        if not rows.readable[row] and not rows.blank[row] and sum(map(len, found.values())) < MAX_FAILURES:
            found.setdefault(status, []).append(Failure(rows.paths[row], status, rows.errors[row]))
    return {status: tuple(failures) for status, failures in sorted(found.items())}


def _draw_charts(metrics: MetricsFile, rows: RunRows) -> tuple[Chart, ...]:
    level, classes = metrics.image_level, metrics.run.classes
    if level is None or len(classes) > _MAX_CHART_CLASSES:
        return ()
    labels, probabilities = rows.labels[rows.scored], rows.probabilities[rows.scored]
    return (
        draw_forest(classes, level),
        draw_curves(classes, labels, probabilities),
        draw_calibration(level, labels, probabilities),
    )


def _measure_selective(metrics: MetricsFile, rows: RunRows) -> SelectiveFigures | None:
    if metrics.image_level is None:
        return None
    without = find_no_tumor_class(metrics.run.classes)
    position = None if without is None else metrics.run.classes.index(without)
    return measure_selective(rows.labels[rows.scored], rows.probabilities[rows.scored], position)
