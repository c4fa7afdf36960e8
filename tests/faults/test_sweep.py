"""Every call that a command makes may fail: it ends well, with a row, or with one line, and the next call goes on."""

import errno
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.scenarios import SCENARIOS, Place, Scenario
from tests.faults.server import Server
from tests.faults.shim import Control, Fault
from tests.faults.sweep import Sweep

FEW = 12  # faults of each command in the quick test


def sweep(scenario: Scenario, folder: Path, disturbed: tuple[Control, Server], most: int | None) -> dict[str, str]:
    """What is wrong, by fault; `most` faults are tried, spread evenly."""
    trial = Sweep(scenario, folder.resolve() / "place", disturbed[1], disturbed[0])
    trial.prepare()
    faults = list(trial.faults())
    step = 1 if most is None else max(len(faults) // most, 1)
    outcomes = [trial.inject(fault) for fault in faults[::step]]
    assert {outcome.end for outcome in outcomes} >= {"error"}, "no fault was felt"
    return {f"{one.fault} at {one.what}": one.problem for one in outcomes if one.problem}


def test_some_calls_that_fail(disturbed: tuple[Control, Server], tmp_path: Path) -> None:
    assert sweep(SCENARIOS[0], tmp_path, disturbed, FEW) == {}


@pytest.mark.parametrize(
    ("name", "kind", "watched"),
    [
        ("classify", "stat", lambda place: [place.inputs]),  # an input folder that is not named is no file
        ("classify", "close", lambda place: [place.out / ".fresh"]),  # a folder that is removed and does not close
        ("report", "thread", lambda place: [place.out]),  # Arrow's threads, too
    ],
)
def test_calls_that_once_went_wrong(
    name: str,
    kind: str,
    watched: Callable[[Place], Sequence[Path]],
    disturbed: tuple[Control, Server],
    tmp_path: Path,
) -> None:
    scenario = next(one for one in SCENARIOS if one.name == name)
    trial = Sweep(replace(scenario, watched=watched), tmp_path.resolve() / "place", disturbed[1], disturbed[0])
    trial.prepare()
    faults = [fault for fault in trial.faults() if fault.kind == kind and not fault.sticky][:FEW]
    outcomes = [trial.inject(fault) for fault in faults]
    assert {f"{one.fault} at {one.what}": one.problem for one in outcomes if one.problem} == {}


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_call_that_fails(scenario: Scenario, disturbed: tuple[Control, Server], tmp_path: Path) -> None:
    assert sweep(scenario, tmp_path, disturbed, None) == {}


def test_the_library_makes_the_call_fail_that_was_asked_for(disturbed: tuple[Control, Server], tmp_path: Path) -> None:
    """Without this, a sweep in which nothing fails would pass."""
    control, server = disturbed
    control.watch([tmp_path], Fault("open", 1, errno.EIO, sticky=True))  # a call that fails once is made again
    ended = server.run(["verify", tmp_path / "run"])
    assert control.injected >= 1 and ended.code == 1
    assert control.what == f"open {tmp_path}/run/run.json"
    assert "Input/output error" in ended.stderr and "Traceback" not in ended.stderr
