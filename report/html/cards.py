"""Images, series and groups of duplicates as plain records that the template shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mribatch.report.html.duplicates import MAX_OF_GROUP, DuplicateGroup
from mribatch.report.html.pictures import Picture
from mribatch.report.html.selection import Chosen, measure_margins
from mribatch.report.html.strips import Strip
from mribatch.report.rows import RunRows

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
    unlike_training: bool


@dataclass(frozen=True, slots=True)
class LookEntry:
    """A row of a table of images to look at.

    first: why it is there. wrong: columns that are marked. text: below the large picture.
    """

    path: str
    picture: Picture
    first: str
    cells: tuple[str, ...]
    wrong: tuple[str, ...]
    tags: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class LookTable:
    """Images to look at, one by one. first: title of the column with the reason; numeric: columns sorted as numbers."""

    first: str
    columns: tuple[str, ...]
    numeric: tuple[str, ...]
    entries: tuple[LookEntry, ...]


@dataclass(frozen=True, slots=True)
class StripSlice:
    """One slice of a strip. card: None where the slice has no answer, and `status` says why."""

    place: str  # e.g. its instance number
    status: str
    picture: Picture
    card: ImageCard | None


@dataclass(frozen=True, slots=True)
class SeriesStrip:
    """A series with some of its slices in order. probabilities: means over its classified slices, highest first."""

    series: str
    patient: str | None
    images: int
    suspicion: float  # highest probability of a tumor in any slice
    probabilities: tuple[tuple[str, float], ...]
    slices: tuple[StripSlice, ...]


@dataclass(frozen=True, slots=True)
class DuplicateCards:
    """A group of images that show the same. more: how many are not shown."""

    exact: bool
    labels_differ: bool
    cards: tuple[tuple[str, str | None, Picture], ...]  # path, label, picture
    more: int


def tabulate_cards(cards: Sequence[ImageCard]) -> LookTable:
    """The table of what to look at first."""
    return LookTable(
        first="concern",
        columns=("label", "answer", "confidence", "margin"),
        numeric=("confidence", "margin"),
        entries=tuple(map(_make_entry, cards)),
    )


def _make_entry(card: ImageCard) -> LookEntry:
    label, scores = card.label or "–", ", ".join(f"{name} {p:.3f}" for name, p in card.probabilities)
    tags = (("in training", card.seen_in_training), ("unlike training", card.unlike_training))
    return LookEntry(
        path=card.path,
        picture=card.picture,
        first=card.concern or "",
        cells=(label, card.predicted, f"{card.confidence:.3f}", f"{card.margin:.3f}"),
        wrong=("answer",) if card.wrong else (),
        tags=tuple(tag for tag, holds in tags if holds),
        text=f"Answer {card.predicted}, label {label}. {scores}",
    )


class CardMaker:
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
        label = self._label(row)
        ordered = sorted(zip(self._classes, scores, strict=True), key=lambda pair: -pair[1])
        return ImageCard(
            path=self._name(row),
            picture=self._picture(row),
            predicted=self._classes[best],
            confidence=scores[best],
            margin=float(self._margins[row]),
            label=label,
            wrong=label not in (None, self._classes[best]),
            concern=None if chosen.concern is None else str(chosen.concern),
            probabilities=tuple(ordered),
            seen_in_training=bool(rows.seen[row]),
            unlike_training=bool(rows.unlike[row]),
        )

    def make_strip(self, strip: Strip, suspicion: float) -> SeriesStrip:
        """A series; its slices have the pictures that were made for it."""
        mean = () if strip.mean is None else zip(self._classes, strip.mean.tolist(), strict=True)
        return SeriesStrip(
            series=strip.series,
            patient=strip.patient,
            images=len(strip.rows),
            suspicion=suspicion,
            probabilities=tuple(sorted(mean, key=lambda pair: -pair[1])),
            slices=tuple(map(self._make_slice, strip.shown)),
        )

    def make_group(self, group: DuplicateGroup) -> DuplicateCards:
        """A group of duplicates, whether its images have an answer or not."""
        shown = group.rows[:MAX_OF_GROUP]
        cards = tuple((self._name(row), self._label(row), self._pictures.get(row, _NO_PICTURE)) for row in shown)
        return DuplicateCards(group.exact, group.labels_differ, cards, len(group.rows) - len(shown))

    def _make_slice(self, row: int) -> StripSlice:
        rows = self._rows
        place = rows.instances[row] if rows.instances[row] is not None else rows.slices[row]
        card = self.make(Chosen(row)) if rows.readable[row] else None
        return StripSlice("–" if place is None else str(place), rows.statuses[row], self._picture(row), card)

    def _picture(self, row: int) -> Picture:
        return self._pictures.get(row, _NO_PICTURE)

    def _label(self, row: int) -> str | None:
        return None if self._rows.labels[row] < 0 else self._classes[int(self._rows.labels[row])]

    def _name(self, row: int) -> str:
        place = self._rows.slices[row]
        return self._rows.paths[row] if place is None else f"{self._rows.paths[row]} [{place}]"
