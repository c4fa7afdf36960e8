"""What the report needs to know of a run, from its run.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mribatch.pipeline.output.run_file import read_finished_run

RESTORE = "restore the folder, or run mribatch classify again with --overwrite"


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A complete run, as run.json describes it."""

    model: str | None
    trained: bool
    classes: tuple[str, ...]  # in the order of the probability columns
    inputs: tuple[str, ...]  # as given to classify
    roots: tuple[str, ...]  # per input, the folder that its paths are relative to; "" where it is not known
    backend: str | None
    decoder: str | None
    precision: str | None
    tool_version: str | None
    notice: str | None  # what classify said about the model
    labels: str | None  # the option --labels
    unknown_labels: tuple[str, ...]  # names that are not a class of the model
    by_status: Mapping[str, int]
    training_images: int | None = None  # whose hashes the bundle has
    unlike_false_alarms: float | None = None  # of the flag unlike_training; None where the bundle cannot tell


def read_facts(run: Path) -> RunFacts:
    """Read run.json of a complete run.

    Raises:
        RunError: It is not the folder of a run, not readable, damaged, or the run is not complete.
    """
    file = read_finished_run(run)
    return RunFacts(
        model=file.bundle.name,
        trained=file.bundle.trained,
        classes=file.bundle.classes,
        inputs=tuple(one.path for one in file.inputs),
        roots=tuple(one.root for one in file.inputs),
        backend=file.backend,
        decoder=file.decoder,
        precision=file.precision,
        tool_version=file.tool_version,
        notice=file.notice,
        labels=file.labels,
        unknown_labels=tuple(file.listing.unknown_labels),
        training_images=file.bundle.training_images,
        unlike_false_alarms=file.bundle.unlike_false_alarms,
        by_status=file.counts.by_status if file.counts is not None else {},
    )
