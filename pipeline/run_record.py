"""run.json while a run lives: begun, resumed or refused; attempts, states and counts written as they happen."""

import contextlib
import os
import platform
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Self

from mribatch.core.about import RESEARCH_NOTICE, __version__
from mribatch.core.agreement import Agreement
from mribatch.core.bundle import Bundle
from mribatch.core.errors import Interrupted, MribatchError, RunError
from mribatch.core.text import decode_name
from mribatch.pipeline.listing.growth import grow_listing
from mribatch.pipeline.listing.table import LISTING_FILE, SKIPPED_FILE, ListingFacts
from mribatch.pipeline.output import parts as parquet
from mribatch.pipeline.output.folder import (
    DISCOVERY_DATABASE,
    FRESH_FOLDER,
    LISTING_KEY,
    Difference,
    Fingerprint,
)
from mribatch.pipeline.output.layout import PartLayout
from mribatch.pipeline.output.run_file import (
    TOOL,
    RunAttempt,
    RunBundle,
    RunCounts,
    RunFile,
    RunIncrement,
    RunInput,
    RunMachine,
    RunProof,
    RunReasons,
    RunState,
)
from mribatch.pipeline.output.summary import RunSummary
from mribatch.pipeline.plan import Plan
from mribatch.pipeline.stopwatch import Stopwatch

_GROWN_LISTING = ".grown.parquet"


class RunRecord:
    """The one writer of run.json while a run is under way. Made by `begin_or_resume` only."""

    def __init__(self, plan: Plan, content: RunFile) -> None:
        self._plan = plan
        self._content = content
        self.new_rows = 0  # by this process
        self.added = 0  # files that this process appended to the listing

    @classmethod
    def begin_or_resume(cls, plan: Plan, facts: ListingFacts) -> Self:
        """Take over the fresh listing: as a new run's, or as evidence that an earlier run may be resumed.

        Raises:
            RunError: The folder holds a run that asked for something else; names the first field that differs.
        """
        fresh = plan.folder.path / FRESH_FOLDER
        fingerprint = plan.fingerprint(facts.sha256)
        earlier = plan.folder.read()
        try:
            if earlier and earlier.state is not RunState.LISTING:
                record = cls(plan, earlier)
                difference = fingerprint.difference({**earlier.fingerprint, LISTING_KEY: earlier.listing.sha256})
                if difference and difference.key == LISTING_KEY and plan.options.add_new:
                    record._grow(facts)
                elif difference:
                    raise _other_run(plan, earlier, difference, facts)
                return record
            content = _new_content(plan, facts, fingerprint)
            plan.folder.write(content)
            for name in (SKIPPED_FILE, LISTING_FILE):
                os.replace(fresh / name, plan.folder.path / name)
            record = cls(plan, content)
            record._save(RunState.RUNNING)
            return record
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _grow(self, facts: ListingFacts) -> None:
        """Append the new files of the fresh listing. run.json is written last: until then nothing was added.

        Raises:
            RunError: A file of the earlier listing has changed or is gone.
        """
        folder, fresh, before = self._plan.folder, self._plan.folder.path / FRESH_FOLDER, self._content
        listing = folder.path / LISTING_FILE
        grown, database = fresh / _GROWN_LISTING, fresh / DISCOVERY_DATABASE
        self.added = grow_listing(listing, before.listing.files, fresh / LISTING_FILE, grown, database)
        folder.remove_copies()
        os.replace(grown, listing)
        os.replace(fresh / SKIPPED_FILE, folder.path / SKIPPED_FILE)
        begin = RunIncrement(
            added=before.attempts[0].started if before.attempts else _now(),
            first_index=0,
            files=before.listing.files,
            listing_sha256=before.listing.sha256,
        )
        new = RunIncrement(
            added=_now(), first_index=before.listing.files, files=self.added, listing_sha256=facts.sha256
        )
        increments = (*(before.increments or (begin,)), *((new,) if self.added else ()))
        self._content = replace(before, listing=facts, counts=None, increments=increments)
        self._save(RunState.RUNNING)

    @property
    def state(self) -> RunState:
        return self._content.state

    @property
    def files(self) -> int:
        return self._content.listing.files

    @property
    def attempts(self) -> int:
        """Processes that have worked on the run."""
        return len(self._content.attempts)

    @property
    def layout(self) -> PartLayout:
        """Which rows of the listing each part holds."""
        return self._content.layout

    @property
    def run_id(self) -> str:
        return self._content.run_id

    @property
    def model_name(self) -> str:
        """The model's name, with a warning in it where it was never trained."""
        return self._content.model_name

    def part_facts(self) -> dict[str, str | int]:
        """Return what every part's metadata says besides its number."""
        content = self._content
        facts: dict[str, str | int] = {
            "tool_version": content.tool_version,
            "backend": content.backend,
            "decoder": content.decoder,
            "precision": content.precision,
            "batch_size": content.batch_size,
            "model_sha256": content.bundle.model_sha256,
            "bundle_sha256": content.bundle.bundle_sha256,
            "model": content.model_name,
            "research_notice": RESEARCH_NOTICE,
        }
        return facts | ({"notice": content.notice} if content.notice else {})

    def record_proof(self, agreement: Agreement) -> None:
        """Note that the backend reproduced the golden answers."""
        proof = RunProof(
            golden_slices=agreement.rows,
            max_difference=agreement.max_difference,
            limit=agreement.limit,
            flips=agreement.flips,
        )
        self._content = replace(self._content, proof=proof)

    @contextlib.contextmanager
    def attempt(self, watch: Stopwatch) -> Iterator[None]:
        """Record one process working on the run; how it ended is in run.json, unless it was killed."""
        attempt = RunAttempt(started=_now(), pid=os.getpid())
        self._content = replace(self._content, attempts=(*self._content.attempts, attempt))
        self._save(RunState.RUNNING)
        ended, reason = RunState.STOPPED, None
        try:
            yield
            ended = RunState.RUNNING  # complete only once the rows have been counted
        except MribatchError as error:
            ended = RunState.INTERRUPTED if isinstance(error, Interrupted) else RunState.STOPPED
            reason = str(error)
            raise
        finally:
            self._change_attempt(error=reason, ended=_now(), rows=self.new_rows, seconds=_round_all(watch.seconds))
            with contextlib.suppress(MribatchError):  # a full disk must not hide what happened first
                self._save(ended)

    def complete(self, counts: parquet.RowCounts, watch: Stopwatch) -> None:
        """Record that there is one row for each file."""
        if self.state is RunState.COMPLETE:
            return
        self._content = replace(
            self._content,
            counts=RunCounts(
                rows=counts.rows,
                by_status=counts.by_status,
                by_class=counts.by_class,
                labelled=counts.labelled,
                correct=counts.correct,
                seen_in_training=counts.training_exact + counts.training_near or None,
                near_match=counts.training_near or None,
            ),
        )
        self._change_attempt(seconds=_round_all(watch.seconds))
        self._save(RunState.COMPLETE)

    def summary(self, counts: parquet.RowCounts, watch: Stopwatch) -> RunSummary:
        """Sum up the run."""
        content = self._content
        seconds: Counter[str] = Counter()
        for attempt in content.attempts:
            seconds.update(dict(attempt.seconds or {}))
        return RunSummary(
            out=self._plan.folder.path,
            files=self.files,
            counts=counts,
            classes=content.bundle.classes,
            backend=content.backend,
            decoder=content.decoder,
            reasons={"backend": content.reasons.backend, "decoder": content.reasons.decoder},
            model=self.model_name,
            notice=content.notice,
            skipped=content.listing.skipped_by_reason,
            unknown_labels=content.listing.unknown_labels,
            unmatched_lines=content.listing.unmatched_lines,
            unmatched_first=content.listing.unmatched_first or (),
            strict=self._plan.options.strict,
            seconds=dict(seconds),
            new_rows=self.new_rows,
            images_per_second=self.new_rows / watch.in_rows if self.new_rows and watch.in_rows else None,
            bottleneck=watch.bottleneck if self.new_rows else None,
        )

    def _change_attempt(self, **changes: Any) -> None:
        *earlier, last = self._content.attempts
        self._content = replace(self._content, attempts=(*earlier, replace(last, **changes)))

    def _save(self, state: RunState) -> None:
        self._content = replace(self._content, state=state)
        self._plan.folder.write(self._content)


def _other_run(plan: Plan, earlier: RunFile, difference: Difference, facts: ListingFacts) -> RunError:
    before, text, add = earlier.listing.files, str(difference), ""
    if difference.key == LISTING_KEY:
        text = f"the listing differs: a name, size, time or label of the {before:,} files has changed"
        if before != facts.files:
            text = f"the listing differs: {before:,} files then, {facts.files:,} now"
            add = "add the new files with --add-new, " if facts.files > before else ""
    return RunError(
        f"--out {plan.folder.path} holds another run: {text}",
        f"{add}name another --out, or replace the run with --overwrite",
    )


def _new_content(plan: Plan, facts: ListingFacts, fingerprint: Fingerprint) -> RunFile:
    bundle, runs_with = plan.bundle, plan.classifier.runs_with
    return RunFile(
        tool=TOOL,
        tool_version=__version__,
        schema_version=parquet.SCHEMA_VERSION,
        research_notice=RESEARCH_NOTICE,
        notice=bundle.spec.notice,
        inputs=tuple(RunInput(path=item.text, kind=item.kind, root=decode_name(item.root)[0]) for item in plan.inputs),
        bundle=_describe_bundle(bundle),
        backend=runs_with.backend.name,
        decoder=runs_with.decoder.name,
        precision=runs_with.precision,
        batch_size=plan.classifier.batch_size,
        threads=plan.threads,
        reasons=RunReasons(backend=runs_with.backend.reason, decoder=runs_with.decoder.reason),
        versions={
            "python": platform.python_version(),
            runs_with.backend.name: runs_with.backend_version,
            runs_with.decoder.name: runs_with.decoder_version,
        },
        machine=RunMachine(system=platform.platform(), processor=platform.machine(), cores=os.cpu_count()),
        listing=facts,
        labels=plan.options.labels,
        counts=None,
        attempts=(),
        fingerprint=fingerprint.fields,
        run_id=fingerprint.run_id,
        state=RunState.LISTING,
    )


def _describe_bundle(bundle: Bundle) -> RunBundle:
    return RunBundle(
        name=bundle.spec.name,
        folder=str(bundle.folder),
        bundle_sha256=bundle.sha256,
        model_sha256=bundle.spec.model_sha256,
        classes=bundle.spec.classes,
        trained=bundle.spec.trained,
        training_images=None if bundle.training_images is None else len(bundle.training_images),
    )


def _round_all(seconds: dict[str, float]) -> dict[str, float]:
    return {stage: round(value, 3) for stage, value in seconds.items()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
