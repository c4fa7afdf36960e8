"""What a pool of processes or actors tells the run, and how much it bears."""

from collections.abc import Mapping
from dataclasses import dataclass

from mribatch.core.errors import MribatchError
from mribatch.pipeline.executor.messages import Failed, Halted, PartMade, Rows
from mribatch.pipeline.records import RunsWith

DEATHS_BEFORE_CARE = 2  # over one part; one may be somebody's kill
MOST_DEATHS = 10  # over one part, then the run ends


@dataclass(frozen=True)
class Lost:
    """A process died over a part, and the rows that it had told of are to be made again."""

    part: int
    by_status: Mapping[str, int]

    @property
    def count(self) -> int:
        return sum(self.by_status.values())


@dataclass(frozen=True)
class Remark:
    """A line for the user."""

    text: str


Event = Rows | PartMade | Lost | Halted | Remark


def differing(found: RunsWith, wanted: RunsWith) -> Failed:
    """A process that would make other rows than the run has."""
    return Failed(
        f"it runs with {_name(found)} instead of {_name(wanted)}",
        "install the same versions everywhere, or leave out that GPU or machine",
    )


def hopeless(part: int, deaths: int, how: str) -> MribatchError:
    """Return the error of a part over which all processes die."""
    return MribatchError(
        f"{deaths} processes died over part {part}, the last one was {how}",
        "see worker.log in the output folder, and use fewer --workers if memory is short",
    )


def _name(runs_with: RunsWith) -> str:
    return (
        f"{runs_with.backend.name} {runs_with.backend_version} ({runs_with.precision.name}) +"
        f" {runs_with.decoder.name} {runs_with.decoder_version}"
    )
