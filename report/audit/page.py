"""audit.html: the page of an audit, made of the parts of the report's page."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mribatch.core.files import publishing
from mribatch.pipeline.records import ImageFile
from mribatch.report.audit.audit_file import AuditFile
from mribatch.report.audit.duplicates import Pair, PairKind
from mribatch.report.audit.findings import SHORTCUT_TITLES, TARGET_TITLES
from mribatch.report.audit.images import ListedFolder
from mribatch.report.audit.options import AuditOptions
from mribatch.report.audit.table import AuditTable
from mribatch.report.html.pictures import Picture, PictureMaker
from mribatch.report.html.render import page_style, render_template
from mribatch.report.run_images import ListedImages

AUDIT_PAGE = "audit.html"
MAX_PAIRS = 24  # with pictures, in each section
MAX_FAILURES = 200
_TEMPLATE, _STYLE = "audit.html.j2", "audit.css"
_NO_PICTURE = Picture()
_KINDS = {PairKind.SAME_FILE: "same file", PairKind.SAME_PIXELS: "same pixels", PairKind.NEAR: "nearly the same"}


@dataclass(frozen=True, slots=True)
class Side:
    """One image of a pair."""

    path: str
    label: str | None
    part: str | None
    picture: Picture


@dataclass(frozen=True, slots=True)
class ShownPair:
    """Two images beside each other. likeness: in words."""

    first: Side
    second: Side
    likeness: str


@dataclass(frozen=True, slots=True)
class PairSection:
    """Some of the pairs of one kind, the most telling first."""

    anchor: str
    title: str
    text: str
    pairs: tuple[ShownPair, ...]
    total: int


@dataclass(frozen=True, slots=True)
class UnreadImage:
    """An image that cannot be used, and why."""

    path: str
    error: str | None


def write_page(folder: Path, table: AuditTable, file: AuditFile, listed: ListedFolder, options: AuditOptions) -> Path:
    """Write the page: one file without scripts, fonts or images from anywhere else.

    Args:
        folder: Where it goes.
        table: The rows, some of whose images are shown. Where paths are hidden, none is: pictures may show names.
        file: The content of audit.json, whose figures are shown.
        listed: The listing, which is still there.
        options: How images are decoded.

    Raises:
        WriteError: The folder cannot be written to.
    """
    text = render_template(
        _read(_TEMPLATE),
        style=page_style() + _read(_STYLE),
        file=file,
        sections=_show_sections(table, listed, options),
        failures=_list_failures(table),
        most_failures=MAX_FAILURES,
        shortcut_titles=SHORTCUT_TITLES,
        target_titles=TARGET_TITLES,
        part_names=[part for part in ("train", "validation", "test", "none") if part in file.files.by_part],
    )
    path = folder / AUDIT_PAGE
    with publishing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


_SECTIONS = (
    (
        "leaks",
        "Duplicates across the parts",
        "A figure that is measured on these test images says how well they were remembered. Remove them from one part, "
        "or split anew by groups.csv.",
    ),
    (
        "contradictions",
        "One picture, several labels",
        "At least one label of each pair is wrong, or the picture does not decide it. Look at both, and keep one.",
    ),
    (
        "near",
        "Nearly the same picture",
        "Encoded again, cropped, brighter or slightly changed; the least alike come first, so that you see where the "
        "limit lies. Neighbouring slices may be among them.",
    ),
)


def choose_pairs(table: AuditTable) -> dict[str, list[Pair]]:
    """Anchor of a section -> its pairs, the most telling first."""
    labels, parts = table.images.labels, table.parts
    crossing, contradictory, near = [], [], []
    for pair in table.duplicates.pairs:
        one, other = labels[pair.first], labels[pair.second]
        if one >= 0 and other >= 0 and one != other:
            contradictory.append(pair)
        if None not in (parts[pair.first], parts[pair.second]) and parts[pair.first] != parts[pair.second]:
            crossing.append(pair)
        if pair.kind is PairKind.NEAR:
            near.append(pair)
    return {
        "leaks": crossing,
        "contradictions": sorted(contradictory, key=_likeness, reverse=True),
        "near": sorted(near, key=_likeness),
    }


def _likeness(pair: Pair) -> tuple[float, int, int]:
    return pair.correlation, pair.first, pair.second


def _show_sections(table: AuditTable, listed: ListedFolder, options: AuditOptions) -> tuple[PairSection, ...]:
    chosen = choose_pairs(table)
    shown = {anchor: _spread(pairs) if anchor == "leaks" else pairs[:MAX_PAIRS] for anchor, pairs in chosen.items()}
    places = {place for pairs in shown.values() for pair in pairs for place in (pair.first, pair.second)}
    pictures = _make_pictures(places, listed, options)
    return tuple(
        PairSection(
            anchor=anchor,
            title=title,
            text=text,
            pairs=tuple(_show_pair(table, pair, pictures) for pair in shown[anchor]),
            total=len(chosen[anchor]),
        )
        for anchor, title, text in _SECTIONS
        if chosen[anchor]
    )


def _spread(pairs: Sequence[Pair]) -> list[Pair]:
    """At most MAX_PAIRS, evenly over the listing, so that every class may be among them."""
    steps = {round(step * (len(pairs) - 1) / (MAX_PAIRS - 1)) for step in range(MAX_PAIRS)} if pairs else set()
    return [pairs[step] for step in sorted(steps)]


def _make_pictures(places: Iterable[int], listed: ListedFolder, options: AuditOptions) -> dict[int, Picture]:
    if options.anonymize_paths:
        return {}
    with ListedImages(listed.listing, options.listing) as images:
        return PictureMaker(images).make_large(sorted(places), None)


def _show_pair(table: AuditTable, pair: Pair, pictures: dict[int, Picture]) -> ShownPair:
    likeness = _KINDS[pair.kind] + (f", correlation {pair.correlation:.3f}" if pair.kind is PairKind.NEAR else "")
    return ShownPair(_show(table, pair.first, pictures), _show(table, pair.second, pictures), likeness)


def _show(table: AuditTable, place: int, pictures: dict[int, Picture]) -> Side:
    file = table.images.files[place]
    return Side(_name(file), file.label, table.parts[place], pictures.get(place, _NO_PICTURE))


def _name(file: ImageFile) -> str:
    slice_ = None if file.study is None else file.study.slice
    return file.path if slice_ is None else f"{file.path} [{slice_}]"


def _list_failures(table: AuditTable) -> dict[str, tuple[UnreadImage, ...]]:
    found: dict[str, list[UnreadImage]] = {}
    for one in table.images.decoded:
        if one.verdict.status.is_failure and sum(map(len, found.values())) < MAX_FAILURES:
            found.setdefault(one.verdict.status.value, []).append(UnreadImage(_name(one.file), one.verdict.error))
    return {status: tuple(failures) for status, failures in sorted(found.items())}


def _read(name: str) -> str:
    return resources.files("mribatch.report.audit").joinpath(name).read_text(encoding="utf-8")
