"""The fastest backend that proves itself is used; the reasons against the others are kept."""

import pytest

from mribatch.core.agreement import Agreement
from mribatch.core.errors import ExitCode, Interrupted, MribatchError
from mribatch.trt.fallback import Candidate, Refusal, first_that_holds
from mribatch.trt.gate import BatchCheck, GateReport


class Trail:
    """What happened to the candidates, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def candidate(self, name: str, *, prepare: Exception | None = None, prove: Exception | float = 0) -> Candidate[str]:
        def do_prepare() -> str:
            self.events.append(f"prepare {name}")
            if prepare:
                raise prepare
            return f"the {name}"

        def do_prove(value: str) -> GateReport:
            assert value == f"the {name}"
            self.events.append(f"prove {name}")
            if isinstance(prove, Exception):
                raise prove
            agreement = Agreement(rows=1, max_difference=prove, flips=0, limit=0.01)
            return GateReport(
                backend=name,
                library_version="1",
                precision="fp16",
                verified="gpu",
                checks=(BatchCheck(batch_size=1, agreement=agreement),),
            )

        return Candidate(name, do_prepare, do_prove, lambda value: self.events.append(f"discard {value}"))


def test_the_first_is_used_when_it_holds_and_nothing_else_is_touched() -> None:
    trail = Trail()
    choice = first_that_holds([trail.candidate("fp16"), trail.candidate("fp32")])
    assert (choice.name, choice.value, choice.refused, choice.note) == ("fp16", "the fp16", (), None)
    assert choice.report.holds
    assert trail.events == ["prepare fp16", "prove fp16"]


def test_the_chain_goes_on_and_says_why() -> None:
    trail = Trail()
    choice = first_that_holds(
        [
            trail.candidate("fp16", prove=0.5),
            trail.candidate("fp32", prepare=MribatchError("the build failed", "try again")),
            trail.candidate("other", prove=MribatchError("the device is lost", "reboot")),
            trail.candidate("onnxruntime"),
        ]
    )
    assert choice.name == "onnxruntime" and choice.value == "the onnxruntime"
    assert [refusal.name for refusal in choice.refused] == ["fp16", "fp32", "other"]
    assert "max |Δp| 5.00e-01" in choice.refused[0].reason
    assert choice.refused[1:] == (Refusal("fp32", "the build failed"), Refusal("other", "the device is lost"))
    assert trail.events == [
        "prepare fp16",
        "prove fp16",
        "discard the fp16",
        "prepare fp32",
        "prepare other",
        "prove other",
        "discard the other",
        "prepare onnxruntime",
        "prove onnxruntime",
    ]
    assert choice.note is not None and choice.note.startswith("fell back to onnxruntime (fp16: ")


def test_a_nan_does_not_hold() -> None:
    trail = Trail()
    choice = first_that_holds([trail.candidate("fp16", prove=float("nan")), trail.candidate("fp32")])
    assert choice.name == "fp32"


def test_none_that_holds_is_an_error_with_every_reason() -> None:
    trail = Trail()
    with pytest.raises(MribatchError) as caught:
        first_that_holds(
            [trail.candidate("fp16", prove=0.5), trail.candidate("fp32", prepare=MribatchError("no", "x"))]
        )
    assert "fp16: " in caught.value.problem and "fp32: no" in caught.value.problem
    assert trail.events[-1] == "prepare fp32" and "discard the fp16" in trail.events
    with pytest.raises(MribatchError):
        first_that_holds([])


@pytest.mark.parametrize("error", [Interrupted(ExitCode.INTERRUPTED, "stopped", "again"), ZeroDivisionError("a bug")])
def test_a_signal_or_a_bug_ends_the_chain(error: Exception) -> None:
    trail = Trail()
    with pytest.raises(type(error)):
        first_that_holds([trail.candidate("fp16", prepare=error), trail.candidate("fp32")])
    assert trail.events == ["prepare fp16"]
    trail = Trail()
    with pytest.raises(type(error)):
        first_that_holds([trail.candidate("fp16", prove=error), trail.candidate("fp32")])
    assert trail.events == ["prepare fp16", "prove fp16", "discard the fp16"]
