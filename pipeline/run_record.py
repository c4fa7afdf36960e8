"""run.json while a run lives: begun, resumed or refused; attempts, states and counts written as they happen."""

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Self

from mribatch.core.about import RESEARCH_NOTICE, __version__
from mribatch.core.agreement import Agreement
from mribatch.core.bundle import Bundle
from mribatch.core.errors import Interrupted, MribatchError, RunError
from mribatch.core.files import remove_folder
from mribatch.core.text import decode_name
from mribatch.pipeline.executor.events import Maker
from mribatch.pipeline.listing.growth import GROWN_LISTING, grow_listing
from mribatch.pipeline.listing.table import LISTING_FILE, PATHS_FILE, SKIPPED_FILE, ListingFacts
from mribatch.pipeline.options import AUTO, NONE
from mribatch.pipeline.output import parts as parquet
from mribatch.pipeline.output.folder import (
    DISCOVERY_DATABASE,
    FRESH_FOLDER,
    LISTING_KEY,
    Difference,
    Fingerprint,
)
from mribatch.pipeline.output.layout import PartLayout, choose_part_rows, format_parts
from mribatch.pipeline.output.run_file import (
    TOOL,
    HostKind,
    RunAttempt,
    RunBundle,
    RunFile,
    RunHost,
    RunIncrement,
    RunInput,
    RunMachine,
    RunProof,
    RunReasons,
    RunState,
)
from mribatch.pipeline.output.summary import RunSummary, record_counts, summarize
from mribatch.pipeline.plan import STUDY_LIBRARIES, Plan, study_versions
from mribatch.pipeline.stopwatch import Stopwatch
from mribatch.pipeline.storage.address import is_address
from mribatch.pipeline.studies.pseudonyms import Pseudonyms

_SECONDS_BETWEEN_HOSTS = 30.0


class RunRecord:
    """The one writer of run.json while a run is under way. Made by `begin_or_resume` only."""

    def __init__(self, plan: Plan, content: RunFile) -> None:
        self._plan = plan
        self._content = content
        self.new_rows = 0  # by this process
        self.added = 0  # images that this process appended to the listing
        self.completed = False  # whether this process could list what an earlier one could not
        self._parts_by_host: dict[str, tuple[HostKind, set[int]]] = {}
        self._hosts_saved = 0.0

    @classmethod
    def begin_or_resume(cls, plan: Plan, facts: ListingFacts, pseudonyms: Pseudonyms) -> Self:
        """Take over the fresh listing: as a new run's, or as evidence that an earlier run may be resumed.

        Args:
            plan: Of the run.
            facts: Of the fresh listing.
            pseudonyms: Under which it was made.

        Raises:
            RunError: The folder holds a run that asked for something else; names the first field that differs.
        """
        fresh = plan.folder.path / FRESH_FOLDER
        earlier = plan.folder.read()
        if earlier and earlier.state is RunState.LISTING:
            earlier = None
        part_rows = earlier.part_rows if earlier else choose_part_rows(facts.rows)
        fingerprint = plan.fingerprint(facts, pseudonyms, part_rows)
        try:
            if earlier:
                record = cls(plan, earlier)
                if earlier.shard != plan.options.shard:
                    raise _other_shard(plan, earlier)
                difference = _difference(fingerprint, earlier)
                if difference:
                    record._take_difference(difference, facts)
                return record
            content = _new_content(plan, facts, fingerprint, pseudonyms)
            plan.folder.write(content)
            for name in (SKIPPED_FILE, *([PATHS_FILE] if plan.options.anonymize_paths else []), LISTING_FILE):
                os.replace(fresh / name, plan.folder.path / name)
            record = cls(plan, content)
            record._save(RunState.RUNNING)
            return record
        finally:
            remove_folder(fresh)

    def _take_difference(self, difference: Difference, facts: ListingFacts) -> None:
        """Let the run grow where files were added on demand, or where its listing could not be completed before.

        Raises:
            RunError: Anything else differs.
        """
        before = self._content.listing
        completes = before.incomplete and self._plan.options.shard is None  # shards have one listing among them
        if difference.key != LISTING_KEY or not (self._plan.options.add_new or completes):
            raise _other_run(self._plan, self._content, difference, facts)
        try:
            self._grow(facts)
        except RunError as error:
            raise _unlisted(facts) if facts.incomplete else error from error
        self.completed = bool(before.incomplete) and not facts.incomplete

    def _grow(self, facts: ListingFacts) -> None:
        """Append the new files of the fresh listing. run.json is written last: until then nothing was added.

        Raises:
            RunError: A file of the earlier listing has changed or is gone.
        """
        folder, fresh, before = self._plan.folder, self._plan.folder.path / FRESH_FOLDER, self._content
        completes = bool(before.listing.incomplete)
        self.added = grow_listing(
            folder.path, before.listing.rows, fresh, fresh / DISCOVERY_DATABASE, completes=completes
        )
        # A file whose header could not be read keeps the one row that it has.
        listing = replace(facts, images=before.listing.rows + self.added)
        if self.added:
            folder.remove_copies()
        if self._plan.options.anonymize_paths:  # first: it may have more rows than the listing, never fewer
            os.replace(fresh / PATHS_FILE, folder.path / PATHS_FILE)
        os.replace(fresh / GROWN_LISTING, folder.path / LISTING_FILE)
        os.replace(fresh / SKIPPED_FILE, folder.path / SKIPPED_FILE)
        begin = RunIncrement(
            added=before.attempts[0].started if before.attempts else _now(),
            first_index=0,
            files=before.listing.rows,
            listing_sha256=before.listing.sha256,
        )
        new = RunIncrement(added=_now(), first_index=before.listing.rows, files=self.added, listing_sha256=facts.sha256)
        increments = (*(before.increments or (begin,)), *((new,) if self.added else ()))
        self._content = replace(before, listing=listing, counts=None, increments=increments)
        self._save(RunState.RUNNING)

    @property
    def content(self) -> RunFile:
        """run.json as it was written last."""
        return self._content

    @property
    def state(self) -> RunState:
        return self._content.state

    @property
    def files(self) -> int:
        return self._content.listing.files

    @property
    def images(self) -> int:
        """Rows that the complete run has."""
        return self._content.listing.rows

    @property
    def own_parts(self) -> range:
        """The parts that this run makes: all, or those of its shard."""
        return self._content.own_parts

    @property
    def own_rows(self) -> range:
        """The rows of the listing in these parts."""
        return self._content.own_rows

    @property
    def is_finished(self) -> bool:
        """Whether every row was made and counted."""
        return self.state in (RunState.COMPLETE, RunState.SHARD_COMPLETE)

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
            row_spread=agreement.row_spread,
        )
        self._content = replace(self._content, proof=proof)

    def record_part(self, maker: Maker, part: int) -> None:
        """Note which machine of a cluster made a part; written with each new machine, now and then, and at the end."""
        if maker.kind is None:
            return
        new = maker.host not in self._parts_by_host
        self._parts_by_host.setdefault(maker.host, (maker.kind, set()))[1].add(part)
        if new or time.monotonic() - self._hosts_saved > _SECONDS_BETWEEN_HOSTS:
            self._change_attempt(hosts=self._list_hosts())
            self._save(RunState.RUNNING)
            self._hosts_saved = time.monotonic()

    def _list_hosts(self) -> tuple[RunHost, ...] | None:
        hosts = sorted(self._parts_by_host.items())
        return tuple(RunHost(name=name, kind=kind, parts=format_parts(made)) for name, (kind, made) in hosts) or None

    @contextlib.contextmanager
    def attempt(self, watch: Stopwatch) -> Iterator[None]:
        """Record one process working on the run; how it ended is in run.json, unless it was killed."""
        budget = self._plan.options.failure_budget
        attempt = RunAttempt(started=_now(), pid=os.getpid(), max_failures=None if budget is None else budget.text)
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
            self._change_attempt(hosts=self._list_hosts())
            if self._plan.classifier.smallest_batch < self._content.batch_size:
                self._change_attempt(batch_size=self._plan.classifier.smallest_batch)
            with contextlib.suppress(MribatchError):  # a full disk must not hide what happened first
                self._save(ended)

    def complete(self, counts: parquet.RowCounts, watch: Stopwatch) -> None:
        """Record that there is one row for each image of the run or of its shard."""
        if self.is_finished:
            return
        self._content = replace(self._content, counts=record_counts(counts))
        self._change_attempt(seconds=_round_all(watch.seconds))
        self._save(RunState.COMPLETE if self._content.shard is None else RunState.SHARD_COMPLETE)

    def summary(self, counts: parquet.RowCounts, watch: Stopwatch) -> RunSummary:
        """Sum up the run."""
        summary = summarize(self._plan.folder.path, self._plan.folder.place, self._content, counts)
        if self.new_rows:
            speed = self.new_rows / watch.in_rows if watch.in_rows else None
            summary = replace(summary, new_rows=self.new_rows, images_per_second=speed, bottleneck=watch.bottleneck)
        return replace(summary, strict=self._plan.options.strict)

    def _change_attempt(self, **changes: Any) -> None:
        *earlier, last = self._content.attempts
        self._content = replace(self._content, attempts=(*earlier, replace(last, **changes)))

    def _save(self, state: RunState) -> None:
        self._content = replace(self._content, state=state)
        self._plan.folder.write(self._content)


def _difference(fingerprint: Fingerprint, earlier: RunFile) -> Difference | None:
    """The first field that differs from an earlier run's; None where all are equal.

    The version of a library that reads one kind of studies says nothing where there was no such file, or is none now:
    then the listings differ, and say more.
    """
    now, before = dict(fingerprint.fields), {**earlier.fingerprint, LISTING_KEY: earlier.listing.sha256}
    for library in STUDY_LIBRARIES.values():
        if (library in now) != (library in before):
            now.pop(library, None)
            before.pop(library, None)
    return Fingerprint(now).difference(before)


def _other_shard(plan: Plan, earlier: RunFile) -> RunError:
    held = "a whole run" if earlier.shard is None else f"shard {earlier.shard} of a run"
    return RunError(f"--out {plan.folder.path} holds {held}", "give each shard an --out of its own")


def _other_run(plan: Plan, earlier: RunFile, difference: Difference, facts: ListingFacts) -> RunError:
    before, text, add = earlier.listing, str(difference), ""
    if difference.key == LISTING_KEY and facts.incomplete:
        return _unlisted(facts)
    if difference.key == LISTING_KEY:
        text = f"the listing differs: a name, size, time or label of the {before.files:,} files has changed"
        if before.files != facts.files:
            text = f"the listing differs: {before.files:,} files then, {facts.files:,} now"
            add = "add the new files with --add-new, " if facts.files > before.files else ""
    return RunError(
        f"--out {plan.folder.path} holds another run: {text}",
        f"{add}name another --out, or replace the run with --overwrite",
    )


def _unlisted(facts: ListingFacts) -> RunError:
    return RunError(
        f"the inputs cannot be listed as they were: the file system gave no answer for {facts.incomplete:,} of their"
        " folders and files",
        "check the disk or the network folder, and type the same command again",
    )


def _describe_inputs(plan: Plan, pseudonyms: Pseudonyms) -> tuple[RunInput, ...]:
    """The inputs as given, or under pseudonyms where paths are hidden."""
    if plan.options.anonymize_paths:
        return tuple(
            RunInput(
                path=pseudonyms.of_path(os.fsencode(item.text)), kind=item.kind, root=pseudonyms.of_path(item.root)
            )
            for item in plan.inputs
        )
    return tuple(RunInput(path=item.text, kind=item.kind, root=decode_name(item.root)[0]) for item in plan.inputs)


def _describe_labels(plan: Plan, pseudonyms: Pseudonyms) -> str:
    labels = plan.options.labels
    hidden = plan.options.anonymize_paths and labels not in (AUTO, NONE)
    return pseudonyms.of_path(os.fsencode(labels)) if hidden else labels


def _new_content(plan: Plan, facts: ListingFacts, fingerprint: Fingerprint, pseudonyms: Pseudonyms) -> RunFile:
    bundle, runs_with = plan.bundle, plan.classifier.runs_with
    return RunFile(
        tool=TOOL,
        tool_version=__version__,
        schema_version=parquet.SCHEMA_VERSION,
        research_notice=RESEARCH_NOTICE,
        notice=bundle.spec.notice,
        inputs=_describe_inputs(plan, pseudonyms),
        bundle=_describe_bundle(bundle, plan.options.model),
        backend=runs_with.backend.name,
        decoder=runs_with.decoder.name,
        precision=runs_with.precision.name,
        batch_size=plan.classifier.batch_size,
        threads=plan.threads,
        reasons=RunReasons(
            backend=runs_with.backend.reason,
            decoder=runs_with.decoder.reason,
            precision=runs_with.precision.reason,
            warning=" ".join(filter(None, (runs_with.backend.warning, runs_with.decoder.warning))) or None,
        ),
        versions={
            "python": platform.python_version(),
            runs_with.backend.name: runs_with.backend_version,
            runs_with.decoder.name: runs_with.decoder_version,
            **{name: str(found) for name, found in study_versions(facts).items()},
        },
        machine=RunMachine(system=platform.platform(), processor=platform.machine(), cores=os.cpu_count()),
        listing=facts,
        labels=_describe_labels(plan, pseudonyms),
        counts=None,
        attempts=(),
        fingerprint=fingerprint.fields,
        run_id=fingerprint.run_id,
        state=RunState.LISTING,
        shard=plan.options.shard,
        tuning=plan.tuning,
    )


def _describe_bundle(bundle: Bundle, model: str) -> RunBundle:
    return RunBundle(
        name=bundle.spec.name,
        folder=model if is_address(model) else str(bundle.folder),
        bundle_sha256=bundle.sha256,
        model_sha256=bundle.spec.model_sha256,
        classes=bundle.spec.classes,
        trained=bundle.spec.trained,
        training_images=None if bundle.training_images is None else len(bundle.training_images),
        unlike_false_alarms=None if bundle.training_look is None else bundle.training_look.false_alarms,
    )


def _round_all(seconds: dict[str, float]) -> dict[str, float]:
    return {stage: round(value, 3) for stage, value in seconds.items()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
