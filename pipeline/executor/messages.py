"""What a run says to the processes that make its parts, and what they answer: JSON, never pickle.

run -> process: PartsOrder first, then MakePart, one at a time, or Halt.
process -> run: Note while it starts, Ready, then Rows of each batch and PartMade; Halted after Halt; Failed.
run -> machine of a cluster, before anything is written: HostOrder, answered by HostFound or Failed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mribatch.core.agreement import Agreement
from mribatch.core.typed_json import pack_record, unpack_record
from mribatch.pipeline.inference.order import WorkOrder
from mribatch.pipeline.listing.discover import Input, InputKind
from mribatch.pipeline.output.layout import PartLayout
from mribatch.pipeline.output.parts import PartFacts
from mribatch.pipeline.output.run_file import HostKind
from mribatch.pipeline.records import RunsWith


@dataclass(frozen=True, kw_only=True)
class PartsOrder:
    """All that a process needs to make parts of a run; paths in Latin-1, which gives every byte a character."""

    work: WorkOrder
    run: str  # the run folder
    roots: tuple[str, ...]  # of the inputs
    classes: tuple[str, ...]
    facts: Mapping[str, str | int]  # of every part's metadata
    run_id: str
    tool_version: str
    layout: PartLayout
    address: str | None = None  # of the run folder, where it is in a store and each process has a copy of its own

    @property
    def folder(self) -> Path:
        return Path(self.run)

    @property
    def inputs(self) -> list[Input]:
        """The inputs, as far as they lead to the files."""
        return [Input(InputKind.FOLDER, "", root.encode("latin-1")) for root in self.roots]

    @property
    def part_facts(self) -> PartFacts:
        return PartFacts(self.classes, self.facts, self.run_id)


@dataclass(frozen=True, kw_only=True)
class HostOrder:
    """Asks a machine whether it sees what it needs. seen: files and folders that are there, in Latin-1."""

    tool_version: str
    run: str | None  # the lock in the run folder; None where that is in a store
    seen: tuple[str, ...]


@dataclass(frozen=True)
class HostFound:
    """The machine sees it all, and is of this kind."""

    kind: HostKind


@dataclass(frozen=True)
class MakePart:
    """careful: Decode and classify in a further process, which may die over a file without taking this one along."""

    part: int
    careful: bool


@dataclass(frozen=True)
class Halt:
    """Keep the rows of the part that is under way, and end."""


@dataclass(frozen=True)
class Note:
    """A line that the user should read while the process starts."""

    text: str


@dataclass(frozen=True)
class Ready:
    """The process has loaded everything, and its backend has passed the gate."""

    runs_with: RunsWith
    agreement: Agreement
    kind: HostKind


@dataclass(frozen=True)
class Rows:
    """New rows of a part. by_status: status -> how many. error: of the last of them."""

    part: int
    by_status: Mapping[str, int]
    error: str | None

    @property
    def count(self) -> int:
        return sum(self.by_status.values())


@dataclass(frozen=True)
class PartMade:
    """A part file is there. seconds: by stage, of this part."""

    part: int
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Halted:
    """lost: new rows that could not be kept."""

    lost: int


@dataclass(frozen=True)
class Failed:
    """Why the process ends.

    bug: A traceback, where the reason is not an error that a user can fix. ends_run: Another process would fare no
    better, since nothing can be written.
    """

    problem: str
    fix: str
    bug: str | None = None
    ends_run: bool = False


Message = PartsOrder | HostOrder | HostFound | MakePart | Halt | Note | Ready | Rows | PartMade | Halted | Failed
_KINDS: tuple[type[Message], ...] = (
    *(PartsOrder, HostOrder, HostFound, MakePart, Halt, Note, Ready, Rows, PartMade, Halted, Failed),
)


def message_bytes(message: Message) -> bytes:
    return pack_record(message)


def read_message(content: bytes) -> Message:
    return unpack_record(content, _KINDS)
