"""Try the fastest backend first and fall back to the next one that proves itself; remember why.

The order for a bundle is: an FP16 engine, an FP32 engine, ONNX Runtime. A run's run.json says which one it was and
what became of those before it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mribatch.core.errors import Interrupted, MribatchError
from mribatch.trt.gate import GateReport

T = TypeVar("T")


@dataclass(frozen=True)
class Candidate(Generic[T]):
    """One way to classify.

    name: as run.json and the user see it, e.g. "tensorrt fp16". prepare: makes it ready (builds, loads, enters).
    prove: passes it through the gate. discard: releases it where it is not used.
    """

    name: str
    prepare: Callable[[], T]
    prove: Callable[[T], GateReport]
    discard: Callable[[T], None]


@dataclass(frozen=True)
class Refusal:
    """A candidate that was not used, and why, in one line."""

    name: str
    reason: str


@dataclass(frozen=True)
class Choice(Generic[T]):
    """The candidate that is used: prepared, proven and not discarded; and those that were tried before it."""

    name: str
    value: T
    report: GateReport
    refused: tuple[Refusal, ...]

    @property
    def note(self) -> str | None:
        """Why it is not the first choice, in one line; None where it is."""
        if not self.refused:
            return None
        reasons = "; ".join(f"{refusal.name}: {refusal.reason}" for refusal in self.refused)
        return f"fell back to {self.name} ({reasons})"


def first_that_holds(candidates: Sequence[Candidate[T]]) -> Choice[T]:
    """Prepare and prove the candidates in turn until one holds; every other one is discarded.

    Raises:
        MribatchError: None can be made ready and holds; gives each one's reason.
        Interrupted: The user stopped it; nothing further is tried.
    """
    refused: list[Refusal] = []
    for candidate in candidates:
        try:
            value = candidate.prepare()
        except Interrupted:
            raise
        except MribatchError as error:
            refused.append(Refusal(candidate.name, error.problem))
            continue
        outcome = _proven(candidate, value)
        if isinstance(outcome, GateReport):
            return Choice(candidate.name, value, outcome, tuple(refused))
        refused.append(outcome)
    reasons = "; ".join(f"{refusal.name}: {refusal.reason}" for refusal in refused)
    raise MribatchError(
        f"nothing that was tried can be used ({reasons or 'nothing was tried'})",
        "mend the first reason that is given, or use --backend onnxruntime",
    )


def _proven(candidate: Candidate[T], value: T) -> GateReport | Refusal:
    """The report of a candidate that holds; else the reason, with the candidate discarded whatever happens."""
    holds = False
    try:
        report = candidate.prove(value)
        holds = report.holds
        return report if holds else Refusal(candidate.name, str(report))
    except Interrupted:
        raise
    except MribatchError as error:
        return Refusal(candidate.name, error.problem)
    finally:
        if not holds:
            candidate.discard(value)
