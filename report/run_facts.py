"""What the report needs to know of a run, from its run.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mribatch.core.errors import MribatchError
from mribatch.pipeline.output.run_file import RUN_FILE, RunState

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


def read_facts(run: Path) -> RunFacts:
    """Read run.json of a complete run.

    Raises:
        MribatchError: It is not the folder of a run, not readable, damaged, or the run is not complete.
    """
    path = run / RUN_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        state, facts = content["state"], _to_facts(content)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MribatchError(
            f"{run} is not the output folder of a run: it has no {RUN_FILE}",
            "give the folder that mribatch classify wrote",
        ) from error
    except OSError as error:
        raise MribatchError(f"cannot read {path}: {error.strerror or error}", "make it readable") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MribatchError(f"{path} is damaged or of another version", RESTORE) from error
    if state != RunState.COMPLETE:
        raise MribatchError(
            f"the run in {run} is not complete: its state is '{state}'",
            "repeat the classify command; it continues where it stopped",
        )
    return facts


def _to_facts(content: Mapping[str, Any]) -> RunFacts:
    """The only place that knows the keys of run.json."""
    bundle, inputs = content["bundle"], content.get("inputs", [])
    if not isinstance(bundle["classes"], list) or len(bundle["classes"]) < 2:
        raise ValueError("classes")
    return RunFacts(
        model=bundle.get("name"),
        trained=bool(bundle.get("trained", True)),
        classes=tuple(map(str, bundle["classes"])),
        inputs=tuple(str(item.get("path")) for item in inputs),
        roots=tuple(
            str(item.get("root") or (item.get("path") if item.get("kind") == "folder" else None) or "")
            for item in inputs
        ),
        backend=content.get("backend"),
        decoder=content.get("decoder"),
        precision=content.get("precision"),
        tool_version=content.get("tool_version"),
        notice=content.get("notice"),
        labels=content.get("labels"),
        unknown_labels=tuple(content.get("listing", {}).get("unknown_labels") or ()),
        by_status={str(key): int(n) for key, n in content["counts"].get("by_status", {}).items()},
    )
