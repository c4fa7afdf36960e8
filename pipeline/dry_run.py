"""What a run would do: files by type, and an estimate of the time, measured on a few of them. Writes no run."""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mribatch.core.about import JSON_SCHEMA_VERSION, RESEARCH_NOTICE
from mribatch.core.bundle import load_bundle
from mribatch.core.cores import usable_cores
from mribatch.core.errors import ExitCode, advising
from mribatch.core.tables import PLAIN, Column, Screen, count, format_table
from mribatch.core.text import decode_name
from mribatch.pipeline.executor.part_maker import make_rows
from mribatch.pipeline.file_classifier import make_file_classifier
from mribatch.pipeline.listing.discover import Discovery, FoundFile, Input, resolve_inputs
from mribatch.pipeline.listing.headers import HeaderReader, refusal
from mribatch.pipeline.listing.labels import add_aliases
from mribatch.pipeline.listing.patterns import PathPatterns
from mribatch.pipeline.no_image import no_image_error
from mribatch.pipeline.options import FIXES, ClassifyOptions
from mribatch.pipeline.output.mirror import Place, place_of
from mribatch.pipeline.output.summary import count_images
from mribatch.pipeline.plan import make_header_reader
from mribatch.pipeline.progress import Progress
from mribatch.pipeline.records import FileClassifier, ImageFile, StudyImage
from mribatch.pipeline.stopwatch import Stopwatch
from mribatch.pipeline.storage.address import locate
from mribatch.pipeline.storage.bundle_copy import fetch_bundle
from mribatch.pipeline.studies.pseudonyms import random_pseudonyms

_SAMPLE = 128  # files; spread over the listing


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Counts are exact; seconds are extrapolated from `sampled` files."""

    files: int
    images: int  # files, and slices of files
    bytes: int
    by_suffix: Mapping[str, int]  # of the files that would be listed
    skipped: Mapping[str, int]  # by reason
    sampled: int
    sampled_not_ok: int
    images_per_second: float
    seconds: float
    backend: str
    decoder: str
    exit_code: ExitCode = ExitCode.OK

    def to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = {"schema_version": JSON_SCHEMA_VERSION}
        content |= {key: dict(value) if isinstance(value, Mapping) else value for key, value in vars(self).items()}
        return content | {"exit_code": int(self.exit_code), "research_notice": RESEARCH_NOTICE}

    def to_text(self, screen: Screen = PLAIN) -> str:
        """A few lines for a terminal."""
        verb = f"{count_images(self.files, self.images)} would be classified ({self.bytes / 1e6:,.1f} MB)"
        rows = [(suffix, f"{number:,}") for suffix, number in sorted(self.by_suffix.items())]
        lines = [verb, format_table([Column(), Column(align="right")], rows, screen, indent=2)]
        lines += [f"not listed, {reason}: {number:,}" for reason, number in sorted(self.skipped.items())]
        if self.sampled_not_ok:
            lines += [f"{self.sampled_not_ok} of {count(self.sampled, 'sampled file')} failed"]
        lines += [
            f"About {_format_seconds(self.seconds)} at {self.images_per_second:,.0f} images/s ({self.backend} + "
            f"{self.decoder}, measured on {self.sampled} of them). Nothing was written."
        ]
        return "\n".join(lines)


class _NullSink:
    """A Sink that keeps nothing."""

    def write(self, rows: Sequence[object]) -> None: ...


def estimate(inputs: Sequence[str | Path], out: str | None, options: ClassifyOptions, progress: Progress) -> Estimate:
    """Count what `classify` would list, and time the stages on a sample.

    Raises:
        MribatchError: As `classify` would before it writes anything.
    """
    with advising(FIXES):
        bundle = load_bundle(fetch_bundle(options.model))
        add_aliases(bundle.spec, options.alias)
        resolved = resolve_inputs(inputs, options.from_file, null=options.null, archives=True)
        own, patterns = place_of(out) if out is not None else None, PathPatterns(options.exclude)
        threads = options.threads or usable_cores()
        headers = make_header_reader(options, random_pseudonyms(), threads)
        census = _count_files(resolved, own, patterns, headers, progress)
        progress.close()
        if not census.files:
            raise no_image_error(resolved, own, patterns, headers)
        make = partial(make_file_classifier, bundle, options, threads=threads, log=None, note=progress.note)
        with make(files=census.files) as classify_files:
            classify_files.gate()  # warms up, too
            runs_with = classify_files.runs_with
            rate, not_ok = _measure_rate(census.sample.files(resolved), classify_files, bundle.spec.classes)
    return Estimate(
        files=census.files,
        images=census.images,
        bytes=census.bytes,
        by_suffix=census.suffixes,
        skipped=census.skipped,
        sampled=len(census.sample.chosen),
        sampled_not_ok=not_ok,
        images_per_second=rate,
        seconds=census.images / rate,
        backend=runs_with.backend.name,
        decoder=runs_with.decoder.name,
    )


def _count_files(
    inputs: Sequence[Input], own: Place | None, patterns: PathPatterns, headers: HeaderReader, progress: Progress
) -> "_Census":
    census = _Census()
    with (
        tempfile.TemporaryDirectory(prefix="mribatch-") as folder,
        Discovery(inputs, Path(folder) / "discovery.sqlite", own, patterns, headers) as discovery,
    ):
        for found in discovery.files(progress):
            census.add(found)
    return census


class _Census:
    """Counts of the files that would be listed and of those that would not, and a sample of the former."""

    def __init__(self) -> None:
        self.suffixes: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.bytes = 0
        self.images = 0
        self.sample = _Sample()

    @property
    def files(self) -> int:
        return self.suffixes.total()

    def add(self, found: FoundFile) -> None:
        if found.skipped is not None:
            self.skipped[found.skipped] += 1
            return
        self.suffixes[os.path.splitext(decode_name(found.path)[0])[1].lower() or "(none)"] += 1
        self.bytes += found.size or 0
        self.images += found.images
        self.sample.offer(found)


class _Sample:
    """At most _SAMPLE files, evenly spaced: when it is full, every second one is dropped and the step doubles."""

    def __init__(self) -> None:
        self.chosen: list[FoundFile] = []
        self._offered = 0
        self._step = 1

    def offer(self, found: FoundFile) -> None:
        if self._offered % self._step == 0:
            if len(self.chosen) == _SAMPLE:
                del self.chosen[1::2]
                self._step *= 2
            if self._offered % self._step == 0:
                self.chosen.append(found)
        self._offered += 1

    def files(self, inputs: Sequence[Input]) -> list[ImageFile]:
        return [
            ImageFile(
                index,
                found.input,
                decode_name(found.path)[0],
                locate(inputs[found.input].root, found.path, found.member),
                study=_middle_image(found),
            )
            for index, found in enumerate(self.chosen)
        ]


def _middle_image(found: FoundFile) -> StudyImage | None:
    """One slice stands for those of its file."""
    if found.study is None:
        return None
    header = found.study.header
    middle = header.slices[len(header.slices) // 2]
    return StudyImage(header.format.value, middle.slice, refused=refusal(header))


def _measure_rate(
    files: Sequence[ImageFile], classify_files: FileClassifier, classes: Sequence[str]
) -> tuple[float, int]:
    size = classify_files.batch_size
    groups = [files[start : start + size] for start in range(0, len(files), size)]
    begin, not_ok = time.perf_counter(), 0
    for rows in make_rows(groups, classify_files, classes, _NullSink(), Stopwatch()):
        not_ok += sum(row.status.is_failure for row in rows)
    return len(files) / max(time.perf_counter() - begin, 1e-9), not_ok


def _format_seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
