"""What the page says, as plain records that the template fills in."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mribatch.core.bundle import CARD_FILE, SPEC_FILE
from mribatch.core.cores import usable_cores
from mribatch.core.errors import MribatchError
from mribatch.core.files import sha256_of_file
from mribatch.core.model_spec import find_no_tumor_class
from mribatch.core.tables import count
from mribatch.pipeline.output.run_file import RunFile, read_finished_run
from mribatch.pipeline.progress import Track, track_silently
from mribatch.pipeline.records import Status
from mribatch.pipeline.storage.bundle_copy import fetch_bundle
from mribatch.report.html.cards import CardMaker, DuplicateCards, ImageCard, LookTable, SeriesStrip, tabulate_cards
from mribatch.report.html.charts import (
    Chart,
    SelectiveFigures,
    draw_calibration,
    draw_curves,
    draw_forest,
    measure_selective,
)
from mribatch.report.html.duplicates import MAX_OF_GROUP, Duplicates, find_duplicates
from mribatch.report.html.pictures import PictureMaker, open_map_maker
from mribatch.report.html.selection import (
    MAX_FAILURES,
    Chosen,
    Concern,
    choose_grid,
    choose_triage,
    choose_unlike,
)
from mribatch.report.html.strips import choose_strips, count_series, measure_suspicion
from mribatch.report.metrics_file import Level, MetricsFile
from mribatch.report.rows import RunRows
from mribatch.report.run_images import RunImages

_MAX_CHART_CLASSES = 30
_NAMED = 3  # files without a picture
_SHOWN_ELSEWHERE = frozenset({"inputs", "listing", "model", "backend", "backend_version", "decoder", "decoder_version"})


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
    strips: tuple[SeriesStrip, ...]
    series: int  # how many there are in all
    duplicates: Duplicates
    duplicate_cards: tuple[DuplicateCards, ...]
    unlike: tuple[ImageCard, ...]
    card: str | None  # the model card, where the bundle is still there
    seconds: Mapping[str, float]  # by stage, over all attempts
    missing_pictures: str | None  # in one sentence: whose files could not be read again

    @property
    def settings(self) -> dict[str, Any]:
        """What the run was told beyond what is shown elsewhere; where its inputs are is no business of a page."""
        return {name: value for name, value in self.run.fingerprint.items() if name not in _SHOWN_ELSEWHERE}

    @property
    def look_table(self) -> LookTable:
        """The images to look at first."""
        return tabulate_cards(self.triage)

    @property
    def strips_by_patient(self) -> dict[str | None, list[SeriesStrip]]:
        """The strips of each patient, in order; None for files that name no patient."""
        found: dict[str | None, list[SeriesStrip]] = {}
        for strip in self.strips:
            found.setdefault(strip.patient, []).append(strip)
        return found

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


def assemble_page(run: Path, metrics: MetricsFile, rows: RunRows, track: Track = track_silently) -> PageContent:
    """Choose what to show and make its pictures.

    Args:
        run: The folder of a complete run.
        metrics: The content of its metrics.json.
        rows: All of its rows.
        track: Shows how far the pictures are.
    """
    facts, classes = read_finished_run(run), metrics.run.classes
    triage, grid = choose_triage(rows, classes), choose_grid(rows, classes)
    strips, duplicates, unlike = choose_strips(rows, classes), find_duplicates(rows), choose_unlike(rows)
    listed = {each.row for chosen in (*grid.values(), unlike) for each in chosen}
    listed |= {row for strip in strips for row in strip.shown}
    listed |= {row for group in duplicates.shown for row in group.rows[:MAX_OF_GROUP]}
    with ExitStack() as stack:
        maker = PictureMaker(stack.enter_context(RunImages(run, facts)), track)
        maps = open_map_maker(stack, facts, usable_cores())
        large = maker.make_large([each.row for each in triage], maps)
        method = None if maps is None or not any(each.overlay for each in large.values()) else str(maps.method)
        small = maker.make_small(listed - large.keys())
    cards = CardMaker(rows, classes, large | small)
    suspicion = measure_suspicion(rows, classes)
    return PageContent(
        metrics=metrics,
        run=facts,
        first=_list_first(metrics, triage, duplicates),
        triage=tuple(map(cards.make, triage)),
        triage_of=int(rows.readable.sum()),
        grid={name: tuple(map(cards.make, chosen)) for name, chosen in grid.items()},
        failures=_list_failures(rows),
        charts=_draw_charts(metrics, rows),
        selective=_measure_selective(metrics, rows),
        map_method=method,
        strips=tuple(cards.make_strip(strip, float(suspicion[list(strip.rows)].max())) for strip in strips),
        series=count_series(rows),
        duplicates=duplicates,
        duplicate_cards=tuple(map(cards.make_group, duplicates.shown)),
        unlike=tuple(map(cards.make, unlike)),
        card=_read_card(facts),
        seconds=_add_seconds(facts),
        missing_pictures=_describe_missing(rows, maker.unread),
    )


def _describe_missing(rows: RunRows, unread: Set[int]) -> str | None:
    """What to tell of images that have an answer and lack a picture; None where all have theirs."""
    missing = [row for row in sorted(unread) if rows.readable[row]]
    if not missing:
        return None
    names = ", ".join(f"'{rows.paths[row]}'" for row in missing[:_NAMED])
    more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
    whose = count(len(missing), "image lacks a picture", "images lack a picture")
    return f"{whose} on the page, as the file could not be read again: {names}{more}."


def _list_first(metrics: MetricsFile, triage: Sequence[Chosen], duplicates: Duplicates) -> tuple[FirstLook, ...]:
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
    unlike = metrics.unlike_training
    if unlike is not None and unlike.images:
        text = f"{unlike.images:,} of {unlike.readable:,} look like none of them; their answers mean little."
        looks.append(FirstLook("Images unlike training", text, "unlike"))
    seen = metrics.seen_in_training
    if seen is not None and seen.images:
        text = f"{seen.images:,} of {seen.readable:,} images were in training; figures of these prove little."
        looks.append(FirstLook("Training images", text, "figures"))
    if duplicates.groups:
        text = f"Copies: {duplicates.copies:,}; nearly the same as another image: {duplicates.near:,}."
        looks.append(FirstLook("Duplicates", text, "duplicates"))
    if triage and not missed:
        looks.append(FirstLook("The most doubtful images", "Errors and the smallest margins come first.", "triage"))
    return tuple(looks[:3])


def _read_card(facts: RunFile) -> str | None:
    """The model card, where the bundle of the run is still there."""
    try:
        folder = Path(fetch_bundle(facts.bundle.folder))
        if sha256_of_file(folder / SPEC_FILE) != facts.bundle.bundle_sha256:
            return None
        return (folder / CARD_FILE).read_text(encoding="utf-8", errors="replace")
    except (OSError, MribatchError):
        return None


def _add_seconds(facts: RunFile) -> dict[str, float]:
    seconds: Counter[str] = Counter()
    for attempt in facts.attempts:
        seconds.update(dict(attempt.seconds or {}))
    return dict(seconds)


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
