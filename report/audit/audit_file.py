"""The content of audit.json as typed records, in the order of the file; docs/reference/audit.md documents the keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mribatch.core.typed_json import write_record
from mribatch.report.audit.leaks import PartLeak
from mribatch.report.audit.shortcuts import ShortcutCheck, ShortcutFigures
from mribatch.report.metrics import Key, name_metric
from mribatch.report.metrics_file import RequirementResult

SCHEMA_VERSION = 1
AUDIT_JSON = "audit.json"
_NO_TEST = "no folder train with a folder test or validation"


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """Readable images of one class."""

    name: str
    images: int
    by_part: Mapping[str, int]  # "train", "validation", "test"; "none" for images in no such folder


@dataclass(frozen=True, kw_only=True)
class AuditedFiles:
    """What the inputs hold."""

    files: int
    images: int  # rows: a DICOM or NIfTI file has one for each slice
    readable: int
    blank: int  # whole, and showing nothing but background
    by_status: Mapping[str, int]
    labelled: int
    by_part: Mapping[str, int]  # readable images
    by_format: Mapping[str, int]  # readable images
    skipped_by_reason: Mapping[str, int]
    unknown_labels: Mapping[str, int]

    @property
    def failed(self) -> int:
        return self.images - self.readable - self.blank


@dataclass(frozen=True, kw_only=True)
class DuplicateCounts:
    """Images that show the same picture. `groups` and `largest` are of groups with two images or more."""

    same_file: int  # images that are byte for byte an earlier one
    same_pixels: int  # images whose pixels are those of an earlier one, whatever the file
    near: int  # images with a nearly equal one that has other pixels
    in_groups: int  # images with an equal or nearly equal one
    groups: int
    largest: int
    distinct: int  # different pictures


@dataclass(frozen=True, kw_only=True)
class Contradictions:
    """Groups of images that show the same picture under several labels."""

    groups: int
    images: int
    same_pixels: int  # of the groups, those where images of exactly equal pixels differ


@dataclass(frozen=True, kw_only=True)
class SeriesCounts:
    """Series of the readable images."""

    known: int  # from headers
    estimated: int
    largest: int  # images
    patients: int | None  # from headers; None where no header names one


@dataclass(frozen=True, kw_only=True)
class RandomSplit:
    """What a random split of the images would leak on average."""

    test_share: float
    duplicates: float | None  # share of the test images with a duplicate in training
    series: float | None  # with an image of the same series or a duplicate


@dataclass(frozen=True, kw_only=True)
class AuditFigure:
    """A figure that `--require` knows."""

    name: str  # e.g. "leak_rate" or "shortcut_accuracy[size]"
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int
    note: str | None = None  # why it is not defined


@dataclass(frozen=True, kw_only=True)
class AuditFile:
    """The content of audit.json."""

    schema_version: int
    tool_version: str
    research_notice: str
    inputs: tuple[str, ...]
    anonymized_paths: bool
    classes: tuple[ClassCount, ...]
    files: AuditedFiles
    duplicates: DuplicateCounts
    contradictions: Contradictions
    leaks: tuple[PartLeak, ...]
    random_split: RandomSplit
    series: SeriesCounts
    shortcuts: tuple[ShortcutFigures, ...]
    figures: tuple[AuditFigure, ...] = ()
    findings: tuple[str, ...] = ()  # sentences for people, the most serious first
    requirements: tuple[RequirementResult, ...] = ()

    def find(self, metric: str, class_: str | None = None) -> AuditFigure:
        """The figure of that name. Raises KeyError where there is none."""
        name = name_metric(metric, class_)
        for figure in self.figures:
            if figure.name == name:
                return figure
        raise KeyError(name)

    @property
    def leak(self) -> PartLeak | None:
        """The leak of the test part, else of the validation part."""
        return self.leaks[-1] if self.leaks else None

    @property
    def unmet(self) -> tuple[str, ...]:
        """One sentence for each requirement that is not met."""
        return tuple(each.found for each in self.requirements if not each.met)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values with the keys in the order of the file."""
        return write_record(self)


_PLAIN = (
    *("unreadable_rate", "unlabelled_rate", "exact_duplicate_rate", "near_duplicate_rate"),
    *("contradictory_groups", "contradictory_rate", "leak_rate", "series_leak_rate", "patient_leak_rate"),
    *("random_leak_rate", "class_imbalance"),
)
_OF_SHORTCUTS = {
    "class": ("shortcut_accuracy", "shortcut_gain"),
    "tumor": ("tumor_shortcut_accuracy", "tumor_shortcut_gain"),
}


def figure_keys() -> list[Key]:
    """The names that `--require` knows, with what stands in brackets."""
    names = [name for pair in _OF_SHORTCUTS.values() for name in pair]
    return [*((name, None) for name in _PLAIN), *((name, check.value) for name in names for check in ShortcutCheck)]


def list_figures(file: AuditFile) -> tuple[AuditFigure, ...]:
    """Every figure of `figure_keys`, in its order, from the counts of an audit."""
    files, duplicates, contradictions = file.files, file.duplicates, file.contradictions
    counts = [one.images for one in file.classes]
    fewest = min(counts, default=0)
    imbalance = max(counts) / fewest if fewest else None
    found: dict[str, _Value] = {
        "unreadable_rate": _share(files.failed, files.images),
        "unlabelled_rate": _share(files.readable - sum(counts), files.readable),
        "exact_duplicate_rate": _share(duplicates.same_pixels, files.readable),
        "near_duplicate_rate": _share(duplicates.in_groups, files.readable),
        "contradictory_groups": (float(contradictions.groups), files.labelled, None),
        "contradictory_rate": _share(contradictions.images, sum(counts)),
        **_list_leaks(file.leak),
        "random_leak_rate": (file.random_split.duplicates, files.readable, "too few images"),
        "class_imbalance": (imbalance, sum(counts), "a class has no image"),
    }
    plain = (_make(name, *found[name]) for name in _PLAIN)
    return (*plain, *_list_shortcuts(file.shortcuts))


_Value = tuple[float | None, int, str | None]  # value, n, why it may be undefined


def _share(part: int, whole: int) -> _Value:
    return (part / whole if whole else None, whole, "there are no images")


def _make(name: str, value: float | None, n: int, why_not: str | None) -> AuditFigure:
    return AuditFigure(name=name, value=value, n=n, note=why_not if value is None else None)


def _list_leaks(leak: PartLeak | None) -> dict[str, _Value]:
    if leak is None:
        return dict.fromkeys(("leak_rate", "series_leak_rate", "patient_leak_rate"), (None, 0, _NO_TEST))
    patients = None if leak.patients is None else leak.patients / leak.images
    return {
        "leak_rate": (leak.rate, leak.images, None),
        "series_leak_rate": (leak.series / leak.images, leak.images, None),
        "patient_leak_rate": (patients, leak.images, "no header names a patient"),
    }


def _list_shortcuts(shortcuts: tuple[ShortcutFigures, ...]) -> list[AuditFigure]:
    known = {(each.target, each.check): each for each in shortcuts}
    figures = []
    for target, (accuracy, gain) in _OF_SHORTCUTS.items():
        each = [(check, known.get((target, check.value))) for check in ShortcutCheck]
        for name, less in ((accuracy, False), (gain, True)):
            figures += [_make_shortcut(name_metric(name, check.value), one, less_majority=less) for check, one in each]
    return figures


def _make_shortcut(name: str, one: ShortcutFigures | None, *, less_majority: bool) -> AuditFigure:
    if one is None or one.accuracy is None or one.majority is None:
        note = "no class stands for no tumor" if one is None else one.note
        return AuditFigure(name=name, value=None, n=0 if one is None else one.images, note=note)
    less = one.majority if less_majority else 0.0
    low, high = (None if bound is None else bound - less for bound in (one.low, one.high))
    return AuditFigure(name=name, value=one.accuracy - less, low=low, high=high, n=one.images)
