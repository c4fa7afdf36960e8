"""run.json while a run lives: begun, resumed or refused; attempts, states and counts written as they happen."""

import contextlib
import os
import platform
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Self

from mribatch.core.about import RESEARCH_NOTICE, __version__
from mribatch.core.agreement import Agreement
from mribatch.core.errors import Interrupted, MribatchError
from mribatch.pipeline.listing.discover import escape
from mribatch.pipeline.listing.table import LISTING_FILE, SKIPPED_FILE, ListingFacts
from mribatch.pipeline.output import parts as parquet
from mribatch.pipeline.output.folder import FRESH_FOLDER, RunState
from mribatch.pipeline.output.summary import RunSummary
from mribatch.pipeline.plan import Plan
from mribatch.pipeline.stopwatch import Stopwatch


class RunRecord:
    """The one writer of run.json. Made by `begin_or_resume` only."""

    def __init__(self, plan: Plan, content: dict[str, Any]) -> None:
        self._plan = plan
        self._content = content
        self.new_rows = 0  # by this process

    @classmethod
    def begin_or_resume(cls, plan: Plan, facts: ListingFacts) -> Self:
        """Take over the fresh listing: as a new run's, or as proof that an earlier run may go on.

        Raises:
            MribatchError: The folder holds a run that asked for something else; names the first field that differs.
        """
        fresh = plan.folder.path / FRESH_FOLDER
        fingerprint = plan.fingerprint(facts.sha256)
        earlier = plan.folder.read()
        try:
            if earlier and earlier["state"] != RunState.LISTING:
                _refuse_other(plan, earlier, fingerprint.difference(earlier["fingerprint"]), facts)
                return cls(plan, earlier)
            content = _new_content(plan, facts) | {"fingerprint": dict(fingerprint.fields)}
            content |= {"run_id": fingerprint.run_id, "state": RunState.LISTING}
            plan.folder.write(content)
            for name in (SKIPPED_FILE, LISTING_FILE):
                os.replace(fresh / name, plan.folder.path / name)
            record = cls(plan, content)
            record._save(RunState.RUNNING)
            return record
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    @property
    def state(self) -> RunState:
        return RunState(self._content["state"])

    @property
    def files(self) -> int:
        return int(self._content["listing"]["files"])

    @property
    def run_id(self) -> str:
        return str(self._content["run_id"])

    @property
    def model_name(self) -> str:
        """The model's name, with a warning in it where it was never trained."""
        bundle = self._content["bundle"]
        return str(bundle["name"]) if bundle["trained"] else f"{bundle['name']} (not trained)"

    def part_facts(self) -> dict[str, Any]:
        """What every part's metadata says besides its number."""
        content = self._content
        facts = {key: content[key] for key in ("tool_version", "backend", "decoder", "precision", "batch_size")}
        facts |= {key: content["bundle"][key] for key in ("model_sha256", "bundle_sha256")}
        facts |= {"model": self.model_name, "research_notice": RESEARCH_NOTICE}
        return facts | ({"notice": content["notice"]} if content["notice"] else {})

    def missing_rows(self, missing: Iterable[int]) -> int:
        """How many rows the missing parts have together."""
        return sum(parquet.part_size(part, self.files) for part in missing)

    def proved(self, agreement: Agreement) -> None:
        """Note that the backend reproduced the golden slices."""
        self._content["proof"] = {
            "golden_slices": agreement.rows,
            "max_difference": agreement.max_difference,
            "limit": agreement.limit,
            "flips": agreement.flips,
        }

    @contextlib.contextmanager
    def attempt(self, watch: Stopwatch) -> Iterator[None]:
        """One process working on the run; how it ended stands in run.json, unless it was killed."""
        entry: dict[str, Any] = {"started": _now(), "pid": os.getpid()}
        self._content["attempts"].append(entry)
        self._save(RunState.RUNNING)
        ended = RunState.STOPPED
        try:
            yield
            ended = RunState.RUNNING  # complete only once the rows have been counted
        except MribatchError as error:
            ended = RunState.INTERRUPTED if isinstance(error, Interrupted) else RunState.STOPPED
            entry["error"] = str(error)
            raise
        finally:
            entry |= {"ended": _now(), "rows": self.new_rows, "seconds": _rounded(watch.seconds)}
            with contextlib.suppress(MribatchError):  # a full disk must not hide what happened first
                self._save(ended)

    def complete(self, counts: parquet.RowCounts, watch: Stopwatch) -> None:
        """Say that there is one row for each file."""
        if self.state is RunState.COMPLETE:
            return
        self._content["counts"] = {
            "rows": counts.rows,
            "by_status": dict(counts.by_status),
            "by_class": dict(counts.by_class),
            "labelled": counts.labelled,
            "correct": counts.correct,
        }
        self._content["attempts"][-1]["seconds"] = _rounded(watch.seconds)
        self._save(RunState.COMPLETE)

    def summary(self, counts: parquet.RowCounts, watch: Stopwatch) -> RunSummary:
        content = self._content
        seconds: Counter[str] = Counter()
        for entry in content["attempts"]:
            seconds.update(entry.get("seconds", {}))
        return RunSummary(
            out=self._plan.folder.path,
            files=self.files,
            counts=counts,
            classes=tuple(content["bundle"]["classes"]),
            backend=content["backend"],
            decoder=content["decoder"],
            reasons=content["reasons"],
            model=self.model_name,
            notice=content["notice"],
            skipped=content["listing"]["skipped_by_reason"],
            unknown_labels=content["listing"]["unknown_labels"],
            seconds=dict(seconds),
            new_rows=self.new_rows,
            images_per_second=self.new_rows / watch.in_rows if self.new_rows and watch.in_rows else None,
            bottleneck=watch.bottleneck if self.new_rows else None,
        )

    def _save(self, state: RunState) -> None:
        self._content["state"] = state
        self._plan.folder.write(self._content)


def _refuse_other(plan: Plan, earlier: dict[str, Any], difference: str | None, facts: ListingFacts) -> None:
    if difference is None:
        return
    if difference.startswith("listing "):
        before = earlier["listing"]["files"]
        difference = (
            f"the listing differs: {before:,} files then, {facts.files:,} now"
            if before != facts.files
            else f"the listing differs: a name, size, time or label of the {before:,} files has changed"
        )
    raise MribatchError(
        f"--out {plan.folder.path} holds another run: {difference}",
        "name another --out, or replace the run with --overwrite",
    )


def _new_content(plan: Plan, facts: ListingFacts) -> dict[str, Any]:
    bundle, runs_with = plan.bundle, plan.classifier.runs_with
    return {
        "tool_version": __version__,
        "schema_version": parquet.SCHEMA_VERSION,
        "research_notice": RESEARCH_NOTICE,
        "notice": bundle.spec.notice,
        "inputs": [{"path": item.text, "kind": item.kind, "root": escape(item.root)[0]} for item in plan.inputs],
        "bundle": {
            "name": bundle.spec.name,
            "folder": str(bundle.folder),
            "bundle_sha256": bundle.sha256,
            "model_sha256": bundle.spec.model_sha256,
            "classes": list(bundle.spec.classes),
            "trained": bundle.spec.trained,
        },
        "backend": runs_with.backend.name,
        "decoder": runs_with.decoder.name,
        "precision": runs_with.precision,
        "batch_size": plan.classifier.batch_size,
        "threads": plan.threads,
        "reasons": {"backend": runs_with.backend.reason, "decoder": runs_with.decoder.reason},
        "versions": {
            "python": platform.python_version(),
            runs_with.backend.name: runs_with.backend_version,
            runs_with.decoder.name: runs_with.decoder_version,
        },
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        "listing": facts.to_json(),
        "labels": plan.options.labels,
        "counts": {},
        "attempts": [],
    }


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {stage: round(value, 3) for stage, value in seconds.items()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
