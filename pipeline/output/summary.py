"""The result of a run in a few lines, for people and for scripts."""

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from mribatch.core.about import JSON_SCHEMA_VERSION, RESEARCH_NOTICE
from mribatch.core.errors import ExitCode
from mribatch.core.tables import PLAIN, Cell, Column, Screen, count, format_table
from mribatch.core.text import one_line
from mribatch.core.typed_json import write_record
from mribatch.pipeline.listing.entry import SkipReason
from mribatch.pipeline.listing.label_advice import warn_of_unknown_labels
from mribatch.pipeline.output.mirror import Place
from mribatch.pipeline.output.parts import PARTS_FOLDER, RowCounts
from mribatch.pipeline.output.row_table import format_series
from mribatch.pipeline.output.run_file import RunCounts, RunFile
from mribatch.pipeline.output.series import read_series, select_suspicious
from mribatch.pipeline.records import Flag, Status

FEW_IMAGES = 10  # whose rows are printed beside a summary
_SERIES_SHOWN = 10
_LOST = (
    SkipReason.UNREADABLE_FOLDER,
    SkipReason.UNREADABLE_FILE,
    SkipReason.DAMAGED_ARCHIVE,
    SkipReason.STUDY_ELSEWHERE,
)
_LOST_IF_STRICT = (*_LOST, SkipReason.DICOM_MODALITY, SkipReason.DICOM_MOSAIC, SkipReason.SYMLINK_LOOP)


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A complete run. `exit_code` is 0 where every row is ok or blank and every folder could be listed, else 3.

    With `strict`, it is also 3 where files were left out that may be images (`exit_code_of`).
    """

    out: Place
    files: int
    images: int  # rows: files, and slices of files
    counts: RowCounts
    classes: tuple[str, ...]
    backend: str
    decoder: str
    precision: str
    reasons: Mapping[str, str]  # of backend, decoder and precision
    warning: str | None  # what is done on the CPU although there is a GPU
    model: str
    notice: str | None  # said of a model that was never trained
    skipped: Mapping[str, int]  # by reason
    unknown_labels: Mapping[str, int]  # folder or label -> files, where some others match
    seconds: Mapping[str, float]  # by stage, over all attempts
    new_rows: int  # by this call; 0 where the run was complete already
    images_per_second: float | None  # of this call
    bottleneck: str | None  # of this call
    shard: str | None = None  # "2/4": `images` and `counts` are of this share of the listed files
    series: pa.Table | None = None  # one row per series; None where the run has none
    unmatched_lines: int | None = None  # lines of the labels table whose path is no listed file's
    unmatched_first: tuple[str, ...] = ()  # the first of their paths
    strict: bool = False

    @property
    def folder(self) -> Path:
        """`out`, where that is on this machine.

        Raises:
            TypeError: It is in a store.
        """
        if not isinstance(self.out, Path):
            raise TypeError(f"{self.out} is no folder of this machine")
        return self.out

    @property
    def not_ok(self) -> int:
        """Images that should have been classified and were not."""
        return self.images - self.counts.by_status[Status.OK] - self.blank

    @property
    def blank(self) -> int:
        return self.counts.by_status[Status.BLANK]

    @property
    def exit_code(self) -> ExitCode:
        return exit_code_of(self.not_ok, self.skipped, strict=self.strict)

    @property
    def label_warning(self) -> str | None:
        """What is said first where most labels are of no class of the model; several lines."""
        return warn_of_unknown_labels(self.unknown_labels, self.counts.labelled, self.classes)

    def to_json(self) -> dict[str, Any]:
        """JSON values only, for --json."""
        content: dict[str, Any] = {"schema_version": JSON_SCHEMA_VERSION}
        content |= {key: dict(value) if isinstance(value, Mapping) else value for key, value in vars(self).items()}
        counts = self.counts
        del content["counts"], content["series"]
        content |= {
            "out": str(self.out),
            "ok": self.counts.by_status[Status.OK],
            "not_ok": self.not_ok,
            "blank": self.blank,
        }
        content |= {"by_status": dict(counts.by_status), "by_class": dict(counts.by_class)}
        content |= {"labelled": counts.labelled, "correct": counts.correct, "exit_code": int(self.exit_code)}
        if seen := counts.training_exact + counts.training_near:
            content |= {"seen_in_training": seen, "near_match": counts.training_near}
            content |= {
                "labelled_not_in_training": counts.new_labelled_ok,
                "correct_not_in_training": counts.new_correct,
            }
        if counts.unlike_training:
            content["unlike_training"] = counts.unlike_training
        return content | {"predictions": str(self.out / PARTS_FOLDER), "research_notice": RESEARCH_NOTICE}

    def to_text(self, screen: Screen = PLAIN) -> str:
        """A few lines for a terminal; text in tables, each remark once, below them."""
        lines = [*map(one_line, (self.label_warning or "").splitlines())]
        lines += [one_line(f"WARNING: {self.warning}")] if self.warning else []
        lines += [f"NOTE: {self.notice}."] if self.notice else []
        lines += [*self._describe_images(), *self._list_statuses(screen)]
        lines += ["Predicted:", *self._list_classes(screen), *self._list_series(screen)]
        if self.counts.labelled_ok and not self.notice:
            share = self.counts.correct / self.counts.labelled_ok
            agree = f"{self.counts.correct:,} of {self.counts.labelled_ok:,} ({share:.2%})"
            worth = "" if self.shard else f"; what that is worth: mribatch report {self.out}"
            lines += [f"Labels agree with {agree}{worth}"]
        lines += [*self._training_images(), *self._unlike_training(), *self._list_doubtful(screen)]
        lines += self._remarks()
        lines += [f"Model {self.model}, {self.backend} ({self.precision}) + {self.decoder}. {self._speed()}"]
        lines += [one_line(" ".join(f"{getattr(self, what)}: {reason}." for what, reason in self.reasons.items()))]
        lines += [
            f"Results: {self.out / PARTS_FOLDER} (Parquet), {self.out / 'run.json'}",
            *self._advise(),
            RESEARCH_NOTICE,
        ]
        return "\n".join(lines)

    def _describe_images(self) -> list[str]:
        if self.shard is None:
            return [describe_counts(self.files, self.images, self.not_ok, self.blank)]
        counted = describe_counts(self.images, self.images, self.not_ok, self.blank).partition(": ")[2]
        return [
            f"Shard {self.shard}: {count(self.images, 'image')} of {count(self.files, 'listed file')}: {counted}",
            "When all shards are done: mribatch merge",
        ]

    def _list_statuses(self, screen: Screen) -> list[str]:
        """Nothing where every file is ok: the line above says so."""
        if not self.not_ok:
            return []
        rows = [
            (Cell(status, "red" if Status(status).is_failure else "green"), f"{number:,}")
            for status, number in sorted(self.counts.by_status.items())
        ]
        return [format_table([Column(), Column(align="right")], rows, screen, indent=2)]

    def _list_classes(self, screen: Screen) -> list[str]:
        rows = [(name, f"{self.counts.by_class[name]:,}") for name in self.classes]
        return [format_table([Column(), Column(align="right")], rows, screen, indent=2)]

    def _list_series(self, screen: Screen) -> list[str]:
        """The series that show a tumor most, where the run has any; each is answered by its mean probabilities."""
        series = self.series
        if series is None:
            return []
        shown = select_suspicious(series, _SERIES_SHOWN)
        others = f"; mribatch table {self.out} --series prints all" if len(shown) < series.num_rows else ""
        return [
            f"{count(series.num_rows, 'series', 'series')}, by mean probability{others}:",
            format_series(shown, screen),
        ]

    def _training_images(self) -> list[str]:
        """How many images the model has learned from, and how well it does without them."""
        counts = self.counts
        seen = counts.training_exact + counts.training_near
        if not seen:
            return []
        line = f"{seen:,} of {counts.by_status[Status.OK]:,} were training images"
        line += f" (exact {counts.training_exact:,}, near {counts.training_near:,})"
        if counts.new_labelled_ok and not self.notice:
            share = counts.new_correct / counts.new_labelled_ok
            line += (
                f"; without them labels agree with {counts.new_correct:,} of {counts.new_labelled_ok:,} ({share:.2%})"
            )
        elif counts.labelled_ok:
            line += "; without them no labelled image is left"
        return [line]

    def _unlike_training(self) -> list[str]:
        """How many images the model knows nothing like."""
        unlike = self.counts.unlike_training
        if not unlike:
            return []
        known = self.counts.by_status[Status.OK]
        return [f"{unlike:,} of {known:,} look unlike the training images (flag {Flag.UNLIKE_TRAINING}): check them"]

    def _list_doubtful(self, screen: Screen) -> list[str]:
        """The images whose two best classes are closest; of a few images the caller shows all."""
        if self.counts.by_status[Status.OK] <= FEW_IMAGES:
            return []
        rows = [
            (each.path if each.slice is None else f"{each.path} [{each.slice}]", each.predicted, f"{each.margin:.3f}")
            for each in self.counts.doubtful
        ]
        columns = [Column("most doubtful", wraps=True), Column("class"), Column("margin", "right")]
        return [format_table(columns, rows, screen, indent=2)]

    def _advise(self) -> list[str]:
        """Where to look next; a shard is no run yet."""
        if self.shard:
            return []
        folder = shlex.quote(str(self.out))
        return [one_line(f"Next: mribatch report {folder} --open (page), mribatch table {folder} --sort margin")]

    def _remarks(self) -> list[str]:
        remarks = []
        if self.skipped:
            shown = ", ".join(f"{reason} {number:,}" for reason, number in sorted(self.skipped.items()))
            remarks.append(f"Not listed ({shown}): see {self.out / 'skipped.parquet'}")
        if self.unmatched_lines:
            shown = ", ".join([*self.unmatched_first, *["..."] * (self.unmatched_lines > len(self.unmatched_first))])
            lines = f"Lines of the labels table that match no listed file: {self.unmatched_lines:,} ({shown})"
            remarks.append(one_line(lines))
        if self.unknown_labels and self.counts.labelled and not self.label_warning:
            shown = ", ".join(f"{name} ({number:,})" for name, number in sorted(self.unknown_labels.items())[:10])
            remarks.append(one_line(f"No label, since no class of the model: {shown}"))
        return remarks

    def _speed(self) -> str:
        if not self.new_rows or self.images_per_second is None:
            return "The run was complete already."
        stages = ", ".join(
            f"{name.replace('_', ' ')} {seconds:.1f} s" for name, seconds in self.seconds.items() if seconds >= 0.05
        )
        return f"{self.images_per_second:,.0f} images/s, bottleneck: {self.bottleneck} ({stages})"


def summarize(folder: Path, out: Place, run: RunFile, counts: RowCounts) -> RunSummary:
    """Sum up a run from its run.json and its rows, as of a call that made none of them.

    Args:
        folder: Of the run, or its local copy.
        out: What the user calls that folder.
        run: Its run.json.
        counts: Of its rows.
    """
    seconds: Counter[str] = Counter()
    for attempt in run.attempts:
        seconds.update(dict(attempt.seconds or {}))
    return RunSummary(
        out=out,
        files=run.listing.files,
        images=len(run.own_rows),
        counts=counts,
        classes=run.bundle.classes,
        backend=run.backend,
        decoder=run.decoder,
        precision=run.precision,
        reasons=write_record(replace(run.reasons, warning=None)),
        warning=run.reasons.warning,
        model=run.model_name,
        notice=run.notice,
        skipped=run.listing.skipped_by_reason,
        unknown_labels=run.listing.unknown_labels,
        seconds=dict(seconds),
        new_rows=0,
        images_per_second=None,
        bottleneck=None,
        shard=run.shard,
        series=read_series(folder),
        unmatched_lines=run.listing.unmatched_lines,
        unmatched_first=run.listing.unmatched_first or (),
    )


def record_counts(counts: RowCounts) -> RunCounts:
    """Return what run.json says of the rows."""
    return RunCounts(
        rows=counts.rows,
        by_status=counts.by_status,
        by_class=counts.by_class,
        labelled=counts.labelled,
        correct=counts.correct,
        seen_in_training=counts.training_exact + counts.training_near or None,
        near_match=counts.training_near or None,
        unlike_training=counts.unlike_training or None,
    )


def describe_counts(files: int, images: int, failed: int, blank: int) -> str:
    """Write how many files and images there are, e.g. "31 files: 24 ok, 7 failed"."""
    what = count_images(files, images)
    blanks = f", {blank:,} blank" if blank else ""
    return f"{what}: {images - failed - blank:,} ok{blanks}, {failed:,} failed"


def count_images(files: int, images: int) -> str:
    """Write how many images are in how many files, e.g. "43 images in 27 files", or "31 files" of one each."""
    return count(files, "file") if images == files else f"{count(images, 'image')} in {count(files, 'file')}"


def exit_code_of(not_ok: int, skipped: Mapping[str, int], *, strict: bool = False) -> ExitCode:
    """Return the exit code of a finished run.

    Args:
        not_ok: Rows whose status is neither ok nor blank.
        skipped: Files that were not listed, by reason.
        strict: Whether files that may be images of the user must not be missing: DICOM images of another modality,
            mosaics, and what lies in a folder that is linked into itself. Duplicates, files of other programs and
            excluded ones are no loss.
    """
    lost = _LOST_IF_STRICT if strict else _LOST
    whole = not_ok == 0 and not any(skipped.get(reason) for reason in lost)
    return ExitCode.OK if whole else ExitCode.ROWS_NOT_OK
