"""A folder of images -> a run folder. `classify` is the whole command; `run` takes each image through the stages."""

import contextlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mribatch.core.errors import Interrupted, MribatchError, OptionError, WriteError, advising
from mribatch.core.files import FolderLock
from mribatch.pipeline.listing.discover import Discovery, ListingProgress
from mribatch.pipeline.listing.label_advice import no_label_error
from mribatch.pipeline.listing.labels import FolderLabels, Labels, NoLabels, TableLabels
from mribatch.pipeline.listing.table import Listing, ListingFacts, write_listing
from mribatch.pipeline.no_image import no_image_error
from mribatch.pipeline.options import AUTO, FIXES, NONE, ClassifyOptions
from mribatch.pipeline.output import parts as parquet
from mribatch.pipeline.output.copies import write_copies
from mribatch.pipeline.output.folder import (
    DISCOVERY_DATABASE,
    FRESH_FOLDER,
    LABELS_DATABASE,
    WORKER_LOG,
)
from mribatch.pipeline.output.partial import read_partials
from mribatch.pipeline.output.rows import predictions
from mribatch.pipeline.output.run_file import RunState
from mribatch.pipeline.output.summary import RunSummary, count_images
from mribatch.pipeline.plan import Plan, make_plan
from mribatch.pipeline.progress import Progress, SilentProgress
from mribatch.pipeline.records import FileClassifier, ImageFile, Prediction, Sink, Status
from mribatch.pipeline.run_record import RunRecord
from mribatch.pipeline.stop_signals import StopSignals
from mribatch.pipeline.stopwatch import CHECKING, DECODING, LISTING, LOADING, WRITING, Stopwatch
from mribatch.pipeline.studies.pseudonyms import Pseudonyms, keep_key, random_pseudonyms, read_pseudonyms

FIRST_FAILURES = 1000
LOG = logging.getLogger("mribatch")
_RESUME = "type the same command again, without --overwrite; it continues from there"


def classify(
    inputs: Sequence[str | Path],
    out: str | Path,
    options: ClassifyOptions | None = None,
    progress: Progress | None = None,
) -> RunSummary:
    """Classify every image of the inputs into the run folder `out`: one row per image.

    The same call on an interrupted run resumes it; on a complete run it only returns the summary.

    Args:
        inputs: Files, folders (walked recursively) and glob patterns.
        out: A folder that is new, empty, or holds a run of mribatch.
        options: See ClassifyOptions.
        progress: Receives the progress of the run; silent by default.

    Raises:
        MribatchError: Something that the user can fix; nothing is lost, and no file of another is deleted.
        Interrupted: SIGINT or SIGTERM came; the same call resumes the run.
    """
    watch, progress = Stopwatch(), progress if progress is not None else SilentProgress()
    options = options if options is not None else ClassifyOptions()
    shown = f"{len(inputs):,} inputs" if options.anonymize_paths else ", ".join(map(str, inputs))
    LOG.info("classify %s into %s", shown, out)
    with advising(FIXES):
        plan = make_plan(inputs, out, options, progress.note)
        with _make_folder(plan.folder.path), FolderLock(plan.folder.path), contextlib.closing(progress):
            return _classify_locked(plan, watch, progress)


def _classify_locked(plan: Plan, watch: Stopwatch, progress: Progress) -> RunSummary:
    """List the files, then classify those that have no row yet. The output folder is locked by this process."""
    with contextlib.ExitStack() as stack:
        if plan.options.overwrite:
            (plan.folder.path / WORKER_LOG).unlink(missing_ok=True)
        with watch.measure(LOADING):
            stack.enter_context(plan.classifier)
        stop = stack.enter_context(StopSignals())
        earlier = plan.folder.check_free()
        if earlier and (plan.options.overwrite or earlier.state is RunState.LISTING):
            plan.folder.overwrite()
        with watch.measure(LISTING):
            pseudonyms = read_pseudonyms(plan.key_file) or random_pseudonyms()
            facts = _list_files(plan, pseudonyms, _StoppableListing(progress, stop))
        record = RunRecord.begin_or_resume(plan, facts, pseudonyms)
        if plan.options.add_new and earlier:
            progress.note(_describe_growth(record))
        LOG.info(
            "%s are listed, %s are not; model %s, attempt %d",
            count_images(record.files, record.images),
            f"{facts.skipped:,}",
            record.model_name,
            record.attempts + 1,
        )
        done = parquet.done_parts(plan.folder.path, record.layout, record.run_id)
        if not record.is_finished:
            with record.attempt(watch):
                _classify_missing(plan, record, done, watch, stop, progress)
        return _finish(plan, record, watch)


def _describe_growth(record: RunRecord) -> str:
    if not record.added:
        return f"nothing to add: the inputs hold the {record.files:,} files that the run has"
    if record.images == record.files:
        return f"added to the run: {record.added:,} new, {record.files:,} files in all"
    return f"added to the run: {record.added:,} new, {record.images:,} images in all"


def run(
    groups: Iterable[Sequence[ImageFile]],
    classify_files: FileClassifier,
    classes: Sequence[str],
    sink: Sink,
    watch: Stopwatch,
) -> Iterator[list[Prediction]]:
    """Take every image through the stages: decode, classify, make rows, write them.

    Args:
        groups: Files in listing order, at most one batch each; no group crosses a part.
        classify_files: Entered.
        classes: In the order of the model's columns.
        sink: Where the rows go.
        watch: Receives the seconds of each stage.

    Yields:
        The rows of each batch, once they are written.
    """
    for batch in classify_files.batches(groups, watch):
        with watch.measure(WRITING):
            rows = predictions(batch, classes)
            sink.write(rows)
        watch.seconds[DECODING] += sum(file.seconds for file in batch.files)
        yield rows


def _classify_missing(
    plan: Plan, record: RunRecord, done: set[int], watch: Stopwatch, stop: StopSignals, progress: Progress
) -> None:
    """Rows for every part that is not there yet."""
    layout = record.layout
    facts = parquet.PartFacts(plan.bundle.spec.classes, record.part_facts(), record.run_id)
    heads = read_partials(plan.folder.path, layout, facts, done)
    writer = parquet.PartWriter(plan.folder.path, layout, facts, heads, progress.published)
    missing, wanted = [part for part in record.own_parts if part not in done], len(record.own_rows)
    before = layout.count_rows(done) + sum(head.num_rows for head in heads.values())
    guard = _FirstFailures(active=0 in missing and not plan.options.keep_going)
    guard.count(map(Status, heads[0].column("status").to_pylist()) if 0 in heads else ())
    progress.start(wanted, before)
    with watch.measure(LOADING):
        record.record_proof(plan.classifier.gate())
    spans = [layout.rows(part)[heads[part].num_rows if part in heads else 0 :] for part in missing]
    groups = _split_into_batches(Listing(plan.folder.path, plan.inputs), spans, plan.classifier)
    for rows in run(groups, plan.classifier, plan.bundle.spec.classes, writer, watch):
        record.new_rows += len(rows)
        progress.advance(len(rows), sum(row.status.is_failure for row in rows))
        guard.check(rows)
        if stop.exit_code is not None and before + record.new_rows < wanted:
            kept = before + record.new_rows - _keep_unfinished(writer)
            problem = f"stopped by a signal; {kept:,} of {wanted:,} images are kept"
            raise Interrupted(stop.exit_code, problem, _RESUME)


def _keep_unfinished(writer: parquet.PartWriter) -> int:
    """Keep the rows of an unfinished part; return how many are lost because the disk is full."""
    try:
        writer.keep()
    except WriteError:
        return writer.unpublished
    return 0


def _split_into_batches(
    listing: Listing, spans: Iterable[range], classifier: FileClassifier
) -> Iterator[list[ImageFile]]:
    for files in listing.slices(spans):
        for start in range(0, len(files), classifier.batch_size):
            yield files[start : start + classifier.batch_size]


def _finish(plan: Plan, record: RunRecord, watch: Stopwatch) -> RunSummary:
    """Check that rows == images, record it in run.json, and sum up."""
    path = plan.folder.path
    with watch.measure(CHECKING):
        counts = parquet.count_rows(path, record.own_rows)
        record.complete(counts, watch)
        if plan.options.shard is None:
            write_copies(path, record.content, csv=plan.options.csv, xlsx=plan.options.xlsx)
    LOG.info("complete: %s rows, of which %s are ok", f"{counts.rows:,}", f"{counts.by_status[Status.OK]:,}")
    return record.summary(counts, watch)


class _FirstFailures:
    """Stops a run whose first thousand files all fail: a folder that is not mounted, not a thousand bad images."""

    def __init__(self, active: bool) -> None:
        self._active = active
        self._reasons: dict[Status, int] = {}

    def count(self, statuses: Iterable[Status]) -> None:
        """Count rows without a verdict on them."""
        for status in statuses:
            self._reasons[status] = self._reasons.get(status, 0) + 1

    def check(self, rows: Sequence[Prediction]) -> None:
        """Raises MribatchError once FIRST_FAILURES rows have come and none is ok."""
        if not self._active:
            return
        self.count(row.status for row in rows)
        if not all(status.is_failure for status in self._reasons):
            self._active = False
        elif sum(self._reasons.values()) >= FIRST_FAILURES:
            shown = ", ".join(f"{status} {count:,}" for status, count in self._reasons.items())
            raise MribatchError(
                f"the first {sum(self._reasons.values()):,} files all failed ({shown}): {rows[-1].error}",
                f"{self._advice()}, or add --keep-going",
            )

    def _advice(self) -> str:
        if self._reasons.keys() <= {Status.UNSUPPORTED, Status.DECODE_FAILED}:  # they were read, so the folder is there
            return "leave these files out (see --exclude)"
        return "check that the folder is mounted and readable"


def _list_files(plan: Plan, pseudonyms: Pseudonyms, progress: ListingProgress) -> ListingFacts:
    """Walk the inputs into a folder of its own: an earlier run's listing stays until the new one is known to fit."""
    headers, hidden_by = plan.header_reader(pseudonyms), pseudonyms if plan.options.anonymize_paths else None
    fresh = plan.folder.path / FRESH_FOLDER
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)  # the names in its databases are for nobody else
    try:
        with (
            _open_labels(plan, fresh / LABELS_DATABASE) as labels,
            Discovery(plan.inputs, fresh / DISCOVERY_DATABASE, plan.folder.path, plan.patterns, headers) as discovery,
        ):
            facts = write_listing(fresh, plan.inputs, discovery, labels, hidden_by=hidden_by, progress=progress)
        if not facts.files:
            raise no_image_error(plan.inputs, plan.folder.path, plan.patterns, headers)
        if isinstance(labels, TableLabels) and not facts.labelled:
            raise no_label_error(plan.options.labels, facts, plan.label_spec.classes)
        if (facts.files_by_format or hidden_by) and not plan.key_file.exists():
            if plan.options.shard:
                raise _no_common_key()
            keep_key(plan.key_file, pseudonyms)
        return facts
    except sqlite3.Error as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise MribatchError(
            f"could not keep the names of the files in {fresh}: {error}",
            "free some space and type the same command again",
        ) from error
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _no_common_key() -> MribatchError:
    return OptionError(
        "the shards of DICOM and NIfTI files, and of hidden paths, need the same key of their pseudonyms",
        "make a key once, e.g. openssl rand -hex 32 > FILE, and give every shard --pseudonym-key FILE",
    )


@contextlib.contextmanager
def _open_labels(plan: Plan, database: Path) -> Iterator[Labels]:
    if plan.options.labels == AUTO:
        yield FolderLabels(plan.label_spec)
    elif plan.options.labels == NONE:
        yield NoLabels()
    else:
        table = TableLabels(plan.label_spec, Path(plan.options.labels), database)
        with contextlib.closing(table):
            yield table


class _StoppableListing:
    """Shows how far a listing has come, and ends it where a signal came."""

    def __init__(self, progress: Progress, stop: StopSignals) -> None:
        self._progress = progress
        self._stop = stop

    def listed(self, files: int) -> None:
        self._progress.listed(files)
        self._check(f"while listing, after {files:,} files")

    def read_headers(self, files: int, total: int) -> None:
        self._progress.read_headers(files, total)
        self._check(f"while reading headers, after {files:,} of {total:,} files")

    def _check(self, when: str) -> None:
        if self._stop.exit_code is not None:
            raise Interrupted(self._stop.exit_code, f"stopped by a signal {when}", _RESUME)


@contextlib.contextmanager
def _make_folder(folder: Path) -> Iterator[None]:
    """Make the output folder; remove it again if the run ends before it wrote anything there."""
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MribatchError(f"cannot make --out {folder}: {error.strerror}", "name another folder") from error
    try:
        yield
    finally:
        if not existed and set(os.listdir(folder)) <= {FolderLock.FILE_NAME}:  # not a worker's log
            shutil.rmtree(folder, ignore_errors=True)
