"""What a pool of processes or actors tells the run, and how much it bears."""

from collections.abc import Mapping
from dataclasses import dataclass

from mribatch.core.errors import MribatchError
from mribatch.pipeline.executor.messages import Failed, Halted, PartMade, Rows
from mribatch.pipeline.output.run_file import HostKind
from mribatch.pipeline.records import RunsWith

DEATHS_BEFORE_CARE = 2  # over one part; one may be somebody's kill
MOST_DEATHS = 10  # over one part, then the run ends


@dataclass(frozen=True)
class Maker:
    """A process or actor that makes parts.

    number: From 1. host: Name of its machine. kind: Of that machine in a cluster; None for this machine.
    """

    number: int
    host: str
    kind: HostKind | None = None


@dataclass(frozen=True)
class Told:
    """What a maker tells of the part that it makes."""

    maker: Maker
    message: Rows | PartMade


@dataclass(frozen=True)
class Lost:
    """A maker died over a part, and the rows that it had told of are to be made again."""

    number: int  # of the maker
    part: int
    by_status: Mapping[str, int]

    @property
    def count(self) -> int:
        return sum(self.by_status.values())


@dataclass(frozen=True)
class Remark:
    """A line for the user."""

    text: str


Event = Told | Lost | Halted | Remark


def differing(found: RunsWith, wanted: RunsWith, *, mixed: bool = False) -> Failed | None:
    """Return why a process would make other rows than the run has; None where it would make the same.

    Args:
        found: What it runs with.
        wanted: What the run does.
        mixed: Whether versions may differ.
    """
    differs = _name(found) != _name(wanted) if mixed else found != wanted
    if not differs:
        return None
    return Failed(
        f"it runs with {_describe(found)} instead of {_describe(wanted)}",
        "install the same versions everywhere, or leave out that GPU or machine",
    )


def hopeless(part: int, deaths: int, how: str) -> MribatchError:
    """Return the error of a part over which all processes die."""
    return MribatchError(
        f"{deaths} processes died over part {part}, the last one was {how}",
        "see worker.log in the output folder, and use fewer --workers if memory is short",
    )


def _name(runs_with: RunsWith) -> tuple[str, str, str]:
    return runs_with.backend.name, runs_with.precision.name, runs_with.decoder.name


def _describe(runs_with: RunsWith) -> str:
    backend, precision, decoder = _name(runs_with)
    return f"{backend} {runs_with.backend_version} ({precision}) + {decoder} {runs_with.decoder_version}"
