"""What a run says to the processes that make its parts, and what they answer: JSON, never pickle.

run -> process: PartsOrder first, then MakePart, one at a time, or Halt.
process -> run: Note while it starts, Ready, then Rows of each batch and PartMade; Halted after Halt; Failed.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mribatch.core.agreement import Agreement
from mribatch.pipeline.inference.order import WorkOrder, read_choices
from mribatch.pipeline.listing.discover import Input, InputKind
from mribatch.pipeline.output.layout import PartLayout
from mribatch.pipeline.output.parts import PartFacts
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
    increments: tuple[int, ...]
    address: str | None = None  # of the run folder, where it is in a store and each process has a copy of its own

    @property
    def folder(self) -> Path:
        return Path(self.run)

    @property
    def inputs(self) -> list[Input]:
        """The inputs, as far as they lead to the files."""
        return [Input(InputKind.FOLDER, "", root.encode("latin-1")) for root in self.roots]

    @property
    def layout(self) -> PartLayout:
        return PartLayout(self.increments)

    @property
    def part_facts(self) -> PartFacts:
        return PartFacts(self.classes, self.facts, self.run_id)


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


Message = PartsOrder | MakePart | Halt | Note | Ready | Rows | PartMade | Halted | Failed
_KINDS: Mapping[str, Any] = {
    kind.__name__: kind for kind in (PartsOrder, MakePart, Halt, Note, Ready, Rows, PartMade, Halted, Failed)
}


def message_bytes(message: Message) -> bytes:
    return json.dumps([type(message).__name__, asdict(message)]).encode()


def read_message(content: bytes) -> Message:
    name, values = json.loads(content)
    if name == "PartsOrder":
        work = WorkOrder(**read_choices(values["work"]))
        lists = {key: tuple(values[key]) for key in ("roots", "classes", "increments")}
        return PartsOrder(**values | {"work": work} | lists)
    if name == "Ready":
        return Ready(RunsWith(**read_choices(values["runs_with"])), Agreement(**values["agreement"]))
    message: Message = _KINDS[name](**values)
    return message
