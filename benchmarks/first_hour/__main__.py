"""What only a GPU can tell, asked in one go: python -m benchmarks.first_hour [--steps A,B] (make first-hour)

Each step runs in a process of its own, so that one that dies takes no other along. What was found is written after
every step, as JSON and as a page, to benchmarks/results/. A step that cannot be done here is skipped, with the reason.

Exit codes: 0 every step was done; 1 a step has failed; 3 none has failed, and some were skipped.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.conditions import RESULTS, conditions, machine
from benchmarks.first_hour.steps import ROOT, STEPS, Settings, find_obstacle
from mribatch.core.bundle import DEFAULT_MODEL
from mribatch.core.files import write_json
from mribatch.pipeline.choices import Machine

DONE, FAILED, SKIPPED = "done", "failed", "skipped"
_LIMIT_S = 3600  # of one step: engines are built
_IN_MEMORY = "FAKE_GPUS" in os.environ  # tests/trt/fake_gpu: nothing that is found is a GPU's


@dataclass(frozen=True)
class Outcome:
    """What became of a step. state: DONE, FAILED or SKIPPED; why: None where it was done."""

    state: str
    why: str | None
    figures: Mapping[str, Any]


def run_step(name: str, settings: Settings, here: Machine) -> Outcome:
    """Do one step in a process of its own, or skip it."""
    obstacle = find_obstacle(name, here)
    if obstacle is not None:
        return Outcome(SKIPPED, obstacle, {})
    command = [sys.executable, "-m", "benchmarks.first_hour.steps", name, json.dumps(asdict(settings))]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    except subprocess.TimeoutExpired:
        return Outcome(FAILED, f"it has not ended after {_LIMIT_S} s", {})
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["it said nothing"]
        return Outcome(FAILED, f"its process ended with {done.returncode}: {words[-1][:500]}", {})
    return Outcome(DONE, None, json.loads(done.stdout.splitlines()[-1]))


def find_ratio(outcomes: Mapping[str, Outcome]) -> float | None:
    """E / min(decode_bare, I beside decoding): how near whole runs come to what the GPU can do."""
    steps = [outcomes.get(name) for name in ("whole_runs", "decoding", "inference")]
    if any(one is None or one.state != DONE for one in steps):
        return None
    whole, decoding, inference = (one.figures for one in steps if one is not None)
    return float(whole["best"] / min(decoding["best"], inference["best_beside_decoding"]))


def format_page(facts: Mapping[str, Any], outcomes: Mapping[str, Outcome]) -> str:
    """The page for people."""
    gpu = facts["gpu"]
    name = "no GPU" if not gpu else f"{gpu['name']} IN MEMORY, of the tests: no GPU" if _IN_MEMORY else gpu["name"]
    lines = ["# The first hour on a GPU", "", f"Machine: {name}, {facts['processor']}, "]
    lines[-1] += f"{facts['cores']} cores; {facts['date']}, mribatch {facts['mribatch']}."
    ratio = find_ratio(outcomes)
    if ratio is not None:
        lines += ["", f"E / min(decode_bare, I beside decoding) = {ratio:.3f}"]
    for name, outcome in outcomes.items():
        purpose = (STEPS[name].__doc__ or "").strip().splitlines()[0]
        lines += ["", f"## {name}: {outcome.state}", "", purpose]
        lines += ["", f"{outcome.why}."] if outcome.why else []
        if outcome.figures:
            lines += ["", "```json", json.dumps(outcome.figures, indent=2), "```"]
    return "\n".join([*lines, "", "Research use only, not a medical device.", ""])


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the steps; returns the exit code."""
    chosen = _parse(arguments)
    settings = Settings(
        model=chosen.model,
        batches=chosen.batches,
        seconds=chosen.seconds,
        parts=chosen.parts,
        kilobytes=chosen.kilobytes,
    )
    facts, here, outcomes = conditions(), Machine.inspect(), dict[str, Outcome]()
    place = chosen.results / f"first_hour-{machine(facts)}{'-in_memory' if _IN_MEMORY else ''}"
    chosen.results.mkdir(parents=True, exist_ok=True)
    for name in chosen.steps:
        print(f"{name} ...", flush=True)
        outcomes[name] = outcome = run_step(name, settings, here)
        print(f"{name}: {outcome.state}" + (f": {outcome.why}" if outcome.why else ""), flush=True)
        steps = {step: asdict(one) for step, one in outcomes.items()}
        write_json(place.with_suffix(".json"), {"conditions": facts, "ratio": find_ratio(outcomes), "steps": steps})
        place.with_suffix(".md").write_text(format_page(facts, outcomes), encoding="utf-8")
    print(f"written: {place.with_suffix('.json')} and {place.with_suffix('.md')}")
    states = {outcome.state for outcome in outcomes.values()}
    return 1 if FAILED in states else 3 if SKIPPED in states else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--steps", type=lambda text: text.split(","), default=list(STEPS), help=f"of {', '.join(STEPS)}"
    )
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--batches", type=int, default=Settings.batches, help="of each rate")
    parser.add_argument("--seconds", type=float, default=Settings.seconds, help="of each trial of the tuning")
    parser.add_argument("--parts", type=int, default=Settings.parts, help="part files of 1,024 images in a whole run")
    parser.add_argument("--kilobytes", type=int, default=Settings.kilobytes, help="size of a file in whole runs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.steps if name not in STEPS]
    if unknown:
        parser.error(f"--steps {unknown[0]} is not one of {', '.join(STEPS)}")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
