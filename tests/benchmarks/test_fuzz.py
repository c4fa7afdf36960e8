"""The readers that are fuzzed take what they should begin with; the slow test fuzzes each for a while."""

import os
from pathlib import Path

import pytest

from benchmarks.fuzz.__main__ import ONCE, run_turn
from benchmarks.fuzz.counters import Counters, read_counters
from benchmarks.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_reader_takes_some_of_its_seeds_and_refuses_others_properly(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    case = target.prepare(tmp_path)
    seeds = target.seeds()
    taken = [case(seed) for seed in seeds[:100]]
    assert any(taken)
    for damaged in (seeds[0][: len(seeds[0]) // 2], seeds[0][:1], seeds[-1] + seeds[-1]):
        case(damaged)


def test_counters_outlive_the_process_that_counts(tmp_path: Path) -> None:
    assert read_counters(tmp_path / "counters") == (0, 0)
    for _ in range(2):
        counters = Counters(tmp_path / "counters")
        counters.executed()
        counters.took()
        counters.executed()
    assert read_counters(tmp_path / "counters") == (4, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_no_invented_input_crashes_or_hangs_a_reader(name: str, tmp_path: Path) -> None:
    """FUZZ_SECONDS for each reader; `python -m benchmarks.fuzz` goes on for as long as it is told."""
    pytest.importorskip("atheris")
    findings = run_turn(name, float(os.environ.get("FUZZ_SECONDS", "20")), tmp_path)
    executions, taken = read_counters(tmp_path / "counters")
    assert not [one for one in findings if not one.startswith(ONCE)]
    assert executions > 100 and taken > 0


@pytest.mark.slow
def test_a_finding_is_reported_with_its_input(tmp_path: Path) -> None:
    """A corpus whose first input kills the child: the supervisor must see it."""
    pytest.importorskip("atheris")
    (tmp_path / "counters").write_bytes(b"")  # cannot be mapped: the child ends at once, with an error of its own
    assert run_turn("graphs", 4, tmp_path)
