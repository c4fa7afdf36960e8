"""A folder of images -> a run folder. `classify` is the whole command; `run` takes each image through the stages."""

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from mribatch.core.errors import Interrupted, MribatchError, OptionError, RequirementNotMetError, advising
from mribatch.core.files import FolderLock, remove_folder
from mribatch.core.system_errors import naming_system_errors, write_error
from mribatch.pipeline.elsewhere import Elsewhere, open_elsewhere
from mribatch.pipeline.executor.part_maker import PartMaker
from mribatch.pipeline.failure_limits import FailureLimits
from mribatch.pipeline.listing.discover import Discovery, ListingProgress
from mribatch.pipeline.listing.label_advice import no_label_error
from mribatch.pipeline.listing.labels import TableLabels, open_labels
from mribatch.pipeline.listing.table import Listing, ListingFacts, write_listing
from mribatch.pipeline.no_image import no_image_error
from mribatch.pipeline.options import FIXES, ClassifyOptions
from mribatch.pipeline.output import parts as parquet
from mribatch.pipeline.output.copies import write_copies
from mribatch.pipeline.output.folder import (
    DISCOVERY_DATABASE,
    FRESH_FOLDER,
    LABELS_DATABASE,
    WORKER_LOG,
    RunFolder,
    open_run_folder,
)
from mribatch.pipeline.output.partial import read_partials
from mribatch.pipeline.output.run_file import RunState
from mribatch.pipeline.output.summary import RunSummary, count_images
from mribatch.pipeline.plan import Plan, make_plan
from mribatch.pipeline.progress import Progress, SilentProgress
from mribatch.pipeline.records import Status
from mribatch.pipeline.run_record import RunRecord
from mribatch.pipeline.stop_signals import StopSignals
from mribatch.pipeline.stopwatch import CHECKING, LISTING, LOADING, Stopwatch
from mribatch.pipeline.studies.pseudonyms import Pseudonyms, keep_key, random_pseudonyms, read_pseudonyms
from mribatch.pipeline.tally import RESUME, Tally

LOG = logging.getLogger("mribatch")


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
    with advising(FIXES), naming_system_errors(), open_run_folder(out) as folder:
        plan = make_plan(inputs, folder, options, progress.note)
        with _make_folder(folder.path), folder.locked(progress.note), contextlib.closing(progress):
            return _classify_locked(plan, watch, progress)


def _classify_locked(plan: Plan, watch: Stopwatch, progress: Progress) -> RunSummary:
    """List the files, then classify those that have no row yet. The output folder is locked by this process."""
    with contextlib.ExitStack() as stack:
        if plan.options.overwrite:
            (plan.folder.path / WORKER_LOG).unlink(missing_ok=True)
        with watch.measure(LOADING):
            elsewhere = stack.enter_context(open_elsewhere(plan, progress))
            if elsewhere is None:
                stack.enter_context(plan.classifier)
            else:
                with plan.classifier:  # proven before anything is written; its memory is for those that make the rows
                    plan.classifier.gate()
        stop = stack.enter_context(StopSignals())
        earlier = plan.folder.check_free()
        if earlier and (plan.options.overwrite or earlier.state is RunState.LISTING):
            plan.folder.overwrite()
        with watch.measure(LISTING):
            pseudonyms = read_pseudonyms(plan.key_file) or random_pseudonyms()
            facts = _list_files(plan, pseudonyms, _StoppableListing(progress, stop))
        record = RunRecord.begin_or_resume(plan, facts, pseudonyms)
        if (plan.options.add_new and earlier) or record.completed:
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
            with record.attempt(watch), naming_system_errors():
                _classify_missing(plan, record, done, elsewhere=elsewhere, watch=watch, stop=stop, progress=progress)
        return _finish(plan, record, watch)


def _describe_growth(record: RunRecord) -> str:
    if record.completed:
        return f"what could not be listed before is listed now: {record.added:,} new, {record.images:,} images in all"
    if not record.added:
        return f"nothing to add: the inputs hold the {record.files:,} files that the run has"
    if record.images == record.files:
        return f"added to the run: {record.added:,} new, {record.files:,} files in all"
    return f"added to the run: {record.added:,} new, {record.images:,} images in all"


def _classify_missing(
    plan: Plan,
    record: RunRecord,
    done: set[int],
    *,
    elsewhere: Elsewhere | None,
    watch: Stopwatch,
    stop: StopSignals,
    progress: Progress,
) -> None:
    """Rows for every part that is not there yet."""
    layout = record.layout
    facts = parquet.PartFacts(plan.bundle.spec.classes, record.part_facts(), record.run_id)
    heads = read_partials(plan.folder.path, layout, facts, done)
    missing = [part for part in record.own_parts if part not in done]
    before = layout.count_rows(done) + sum(head.num_rows for head in heads.values())
    limits = _start_limits(plan, record, done, heads)
    progress.start(len(record.own_rows), before)
    tally = Tally(record, stop, progress, limits, before=before)
    with watch.measure(LOADING):
        record.record_proof(plan.classifier.gate())
    if elsewhere is not None:
        elsewhere.make(record, facts, missing, tally, watch)
        return
    listing = Listing(plan.folder.path, plan.inputs)
    maker = PartMaker(plan.folder.path, listing, layout, facts, partial(_publish, plan.folder, progress))
    for rows in maker.make(missing, plan.classifier, watch, heads):
        plan.folder.check_lock()
        try:
            tally.add([row.status for row in rows], rows[-1].error)
        except RequirementNotMetError:
            maker.keep()
            raise
        if tally.is_stopped:
            raise tally.interrupt(lost=maker.keep())


def _publish(folder: RunFolder, progress: Progress, part: int, rows: int) -> None:
    folder.published(part)
    progress.published(part, rows)


def _start_limits(plan: Plan, record: RunRecord, done: set[int], heads: Mapping[int, pa.Table]) -> FailureLimits:
    """The limits on failures, with the rows of earlier processes counted.

    Raises:
        RequirementNotMetError: These are too many already.
    """
    budget, first = plan.options.failure_budget, record.own_parts[:1]
    begins = bool(first) and first[0] not in done
    limits = FailureLimits(len(record.own_rows), budget, first=begins and not plan.options.keep_going)
    counted = heads if budget is not None else {part: head for part, head in heads.items() if part in first}
    if budget is not None and done:
        for table in parquet.read_parts(plan.folder.path, ["status"]):
            limits.count(map(Status, table.column("status").to_pylist()))
    for head in counted.values():
        limits.count(map(Status, head.column("status").to_pylist()))
    limits.check()
    return limits


def _finish(plan: Plan, record: RunRecord, watch: Stopwatch) -> RunSummary:
    """Check that rows == images, record it in run.json, and sum up."""
    path = plan.folder.path
    with watch.measure(CHECKING):
        plan.folder.collect()
        counts = parquet.count_rows(path, record.own_rows)
        record.complete(counts, watch)
        if plan.options.shard is None:
            write_copies(path, record.content, csv=plan.options.csv, xlsx=plan.options.xlsx)
            plan.folder.synchronise()
    LOG.info("complete: %s rows, of which %s are ok", f"{counts.rows:,}", f"{counts.by_status[Status.OK]:,}")
    return record.summary(counts, watch)


def _list_files(plan: Plan, pseudonyms: Pseudonyms, progress: ListingProgress) -> ListingFacts:
    """Walk the inputs into a folder of its own: an earlier run's listing stays until the new one is known to fit."""
    headers, hidden_by = plan.header_reader(pseudonyms), pseudonyms if plan.options.anonymize_paths else None
    fresh = plan.folder.path / FRESH_FOLDER
    remove_folder(fresh)
    fresh.mkdir(mode=0o700)  # the names in its databases are for nobody else
    try:
        with (
            open_labels(plan.options.labels, plan.label_spec, fresh / LABELS_DATABASE) as labels,
            Discovery(plan.inputs, fresh / DISCOVERY_DATABASE, plan.folder.place, plan.patterns, headers) as discovery,
        ):
            facts = write_listing(fresh, plan.inputs, discovery, labels, hidden_by=hidden_by, progress=progress)
        if not facts.files:
            raise no_image_error(plan.inputs, plan.folder.place, plan.patterns, headers)
        if isinstance(labels, TableLabels) and not facts.labelled:
            raise no_label_error(plan.options.labels, facts, plan.label_spec.classes)
        if (facts.files_by_format or hidden_by) and not plan.key_file.exists():
            if plan.options.shard:
                raise _no_common_key()
            keep_key(plan.key_file, pseudonyms)
        return facts
    except sqlite3.Error as error:
        remove_folder(fresh)
        raise MribatchError(
            f"could not keep the names of the files in {fresh}: {error}",
            "free some space and type the same command again",
        ) from error
    except BaseException:
        remove_folder(fresh)
        raise


def _no_common_key() -> MribatchError:
    return OptionError(
        "the shards of DICOM and NIfTI files, and of hidden paths, need the same key of their pseudonyms",
        "make a key once, e.g. openssl rand -hex 32 > FILE, and give every shard --pseudonym-key FILE",
    )


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
            raise Interrupted(self._stop.exit_code, f"stopped by a signal {when}", RESUME)


@contextlib.contextmanager
def _make_folder(folder: Path) -> Iterator[None]:
    """Make the output folder; remove it again if the run ends before it wrote anything there."""
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(f"cannot make --out {folder}", error, "name another folder") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if not existed and set(os.listdir(folder)) <= {FolderLock.FILE_NAME}:  # not a worker's log
                remove_folder(folder)
