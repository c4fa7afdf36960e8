"""run.json as a typed record: what a run was asked to do, with what, how far it has come, and what it counted.

The keys are documented in docs/reference/run-json.md and in run.schema.json beside this module; a test compares all
three. Only `RunRecord` and `RunFolder` write the file.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Any

from mribatch.core.errors import RunError
from mribatch.core.model_spec import are_class_names
from mribatch.core.regular_file import read_file
from mribatch.core.typed_json import read_record, write_record
from mribatch.pipeline.listing.table import ListingFacts
from mribatch.pipeline.output.layout import PART_ROWS, PartLayout, is_part_rows
from mribatch.pipeline.output.shard import Shard

RUN_FILE = "run.json"
_MAX_BYTES = 1 << 26
TOOL = "mribatch"
PART_ROWS_KEY = "part_rows"  # of the fingerprint
_RESTORE = "restore the folder, or classify the images again"

JsonScalar = str | int | float | bool | None


class RunState(StrEnum):
    """How far a run has come."""

    LISTING = "listing"  # the inputs are being walked
    RUNNING = "running"  # also what a killed run says
    INTERRUPTED = "interrupted"  # by a signal
    STOPPED = "stopped"  # by an error
    COMPLETE = "complete"  # rows == images was checked
    SHARD_COMPLETE = "shard_complete"  # of a shard: its rows were checked, and `merge` may take them


@dataclass(frozen=True, kw_only=True)
class RunInput:
    """One input as the user gave it."""

    path: str
    kind: str  # "folder", "file", "glob" or "list"
    root: str  # absolute folder that the rows' paths are relative to


@dataclass(frozen=True, kw_only=True)
class RunBundle:
    """The model of the run."""

    name: str
    folder: str
    bundle_sha256: str
    model_sha256: str
    classes: tuple[str, ...]  # in the order of the probability columns
    trained: bool
    training_images: int | None = None  # whose hashes it has; absent where it has none
    unlike_false_alarms: float | None = None  # share of left-out training images that it calls unlike; absent: no flag


@dataclass(frozen=True, kw_only=True)
class RunReasons:
    """Why this backend, this decoder and this precision were used."""

    backend: str
    decoder: str
    precision: str | None = None  # absent in runs of earlier versions
    warning: str | None = None  # what is done on the CPU although there is a GPU; absent where nothing is


@dataclass(frozen=True, kw_only=True)
class RunMachine:
    """Where the run began."""

    system: str
    processor: str
    cores: int | None


@dataclass(frozen=True, kw_only=True)
class RunCounts:
    """What the rows of a complete run add up to."""

    rows: int
    by_status: Mapping[str, int]
    by_class: Mapping[str, int]  # predicted class, of the rows that are ok
    labelled: int
    correct: int  # labelled rows whose label was predicted
    seen_in_training: int | None = None  # rows that are ok with that flag; absent where there are none
    near_match: int | None = None  # of these, rows where only nearly the same picture was found
    unlike_training: int | None = None  # rows that are ok with that flag; absent where there are none


@dataclass(frozen=True, kw_only=True)
class HostKind:
    """What the last bits of a row may depend on: machines of one kind write the same bytes."""

    processor: str
    gpu: str | None = None  # absent where there is none
    python: str
    libraries: Mapping[str, str]  # name -> version


@dataclass(frozen=True, kw_only=True)
class RunHost:
    """A machine of a cluster that made parts."""

    name: str
    kind: HostKind
    parts: str  # their numbers: "0-3,7"


@dataclass(frozen=True, kw_only=True)
class RunAttempt:
    """One process that worked on the run. One that was killed has a beginning only."""

    started: str  # UTC, ISO 8601
    pid: int
    max_failures: str | None = None  # as given; absent where the user set no limit
    error: str | None = None
    ended: str | None = None
    rows: int | None = None
    seconds: Mapping[str, float] | None = None  # wall seconds by stage; decoding in core-seconds
    batch_size: int | None = None  # of its last batches, where the GPU had too little memory for those of the run
    hosts: tuple[RunHost, ...] | None = None  # that made parts; absent where no cluster was used


@dataclass(frozen=True, kw_only=True)
class RunIncrement:
    """Images that came together: those that the run began with, or those of one `--add-new`."""

    added: str  # UTC, ISO 8601
    first_index: int  # of its rows; a new part file begins there
    files: int  # images: rows
    listing_sha256: str  # of all files that the inputs held then, as in `listing`


@dataclass(frozen=True, kw_only=True)
class RunProof:
    """How closely the backend reproduced the golden answers before it wrote a row."""

    golden_slices: int
    max_difference: float
    limit: float
    flips: int
    row_spread: float | None = None  # between rows of one slice in one batch; absent where no place can matter


@dataclass(frozen=True, kw_only=True)
class RunFile:
    """The content of run.json. Fields are in the order of the file."""

    tool: str
    tool_version: str
    schema_version: int  # of the part files
    research_notice: str
    notice: str | None  # what is said of a model that was never trained
    inputs: tuple[RunInput, ...]
    bundle: RunBundle
    backend: str
    decoder: str
    precision: str  # "fp32", "fp16" or "int8"
    batch_size: int
    threads: int
    reasons: RunReasons
    versions: Mapping[str, str]
    machine: RunMachine
    listing: ListingFacts
    labels: str  # "auto", "none" or the labels file, as given
    counts: RunCounts | None  # None, in the file an empty object, until the run is complete
    attempts: tuple[RunAttempt, ...]
    fingerprint: Mapping[str, JsonScalar]  # when the run began; must be equal for it to be resumed
    run_id: str  # hash of the fingerprint, also in every part
    state: RunState
    proof: RunProof | None = None  # absent until the backend has passed its gate
    increments: tuple[RunIncrement, ...] | None = None  # absent until files are added
    shard: str | None = None  # "2/4": the folder has only the second quarter of the parts; absent in whole runs

    @property
    def layout(self) -> PartLayout:
        """Which rows of the listing each part file holds."""
        if self.increments is None:
            return PartLayout((self.listing.rows,), self.part_rows)
        return PartLayout(tuple(increment.files for increment in self.increments), self.part_rows)

    @property
    def part_rows(self) -> int:
        """Rows of each part but the last one of an increment, as chosen when the run began."""
        rows = self.fingerprint.get(PART_ROWS_KEY, PART_ROWS)
        assert isinstance(rows, int), "parse_run_file has checked it"
        return rows

    @property
    def own_parts(self) -> range:
        """The numbers of the parts that this folder has when it is finished: all, or those of its shard."""
        parts = self.layout.parts
        return range(parts) if self.shard is None else Shard.parse(self.shard).parts(parts)

    @property
    def own_rows(self) -> range:
        """The rows of the listing that these parts hold."""
        return self.layout.span(self.own_parts)

    @property
    def model_name(self) -> str:
        """The model's name, with a warning in it where it was never trained."""
        return self.bundle.name if self.bundle.trained else f"{self.bundle.name} (not trained)"

    def to_json(self) -> dict[str, Any]:
        """Return JSON values with the keys in the order of the fields."""
        content = write_record(self)
        return content | {"counts": content["counts"] or {}}


class ForeignRunFile(ValueError):
    """The file was not written by mribatch."""


def parse_run_file(content: bytes) -> RunFile:
    """Read the bytes of a run.json.

    Raises:
        ForeignRunFile: Another tool wrote the file, or it is not JSON.
        ValueError: A key is missing or has another type; names it.
    """
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ForeignRunFile(f"its {RUN_FILE} cannot be read: {error}") from error
    if not isinstance(values, dict) or values.get("tool") != TOOL:
        raise ForeignRunFile(f"its {RUN_FILE} was not written by mribatch")
    if values.get("state") not in list(RunState) or not isinstance(values.get("fingerprint"), dict):
        raise ForeignRunFile(f"its {RUN_FILE} has no state or fingerprint that this version knows")
    if not is_part_rows(values["fingerprint"].get(PART_ROWS_KEY, PART_ROWS)):
        raise ValueError(f"'fingerprint.{PART_ROWS_KEY}' is no number of rows that a part has")
    return read_record(RunFile, values | {"counts": values.get("counts") or None})


def read_run_bytes(path: Path) -> bytes:
    """The bytes of a run.json.

    Raises:
        OSError: Missing, forbidden, no regular file, or larger than any run.json.
    """
    return read_file(os.fsencode(path), _MAX_BYTES)


def read_run_file(run: Path) -> RunFile:
    """Read run.json of a run folder, complete or not.

    Raises:
        RunError: There is no run.json, or it is damaged or of another version.
    """
    path = run / RUN_FILE
    try:
        return parse_run_file(read_run_bytes(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(
            f"{run} is not the output folder of a run: it has no {RUN_FILE}", "name a folder that classify wrote"
        ) from error
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}", "make it readable") from error
    except ValueError as error:
        raise RunError(f"{path} is damaged or of another version: {error}", _RESTORE) from error


def read_finished_run(run: Path) -> RunFile:
    """Read run.json of a complete run.

    Raises:
        RunError: As `read_run_file`; or the run is not complete.
    """
    facts = read_run_file(run)
    if facts.shard is not None:
        raise RunError(
            f"{run} holds shard {facts.shard} of a run, not all of its rows",
            "put the shards together with mribatch merge, and name the folder that it writes",
        )
    if facts.state is not RunState.COMPLETE:
        raise RunError(
            f"the run in {run} is not complete: its state is '{facts.state}'",
            "repeat the classify command; it continues where it stopped",
        )
    if facts.counts is None or len(facts.bundle.classes) < 2 or not are_class_names(facts.bundle.classes):
        raise RunError(f"{run / RUN_FILE} is damaged or of another version: it has no counts or classes", _RESTORE)
    return facts


def run_file_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of run.json, as shipped with the package."""
    text = resources.files("mribatch.pipeline.output").joinpath("run.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
