"""Fuzzes the readers of strangers' bytes with atheris: python -m benchmarks.fuzz [TARGET ...] [--seconds N] [--turn N]

Targets take turns, each in a child process that libFuzzer drives, with what earlier turns found worth keeping (their
corpus, in build/fuzz/). An input that makes a child crash, hang, raise what it should not or take too much memory is
kept in build/fuzz/TARGET/findings/ and run once more; if that goes wrong again, it is a finding. Counts go to
benchmarks/results/fuzz-readers-*.json after each turn; a further call adds to them. To see a finding again:

    python -m benchmarks.fuzz.child TARGET build/fuzz/TARGET /tmp build/fuzz/TARGET/findings/crash-...
"""

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.conditions import RESULTS, conditions, machine
from benchmarks.fuzz.counters import read_counters
from benchmarks.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "fuzz"
_HANG_S = 30  # for one input
_MEMORY_MIB = 4096
# Inputs of one child: code that atheris 3.0 instruments keeps what it compares, 13 kB for each input of images.
_RUNS = 100_000
_MEMORY_FOLDER = Path("/dev/shm")
ONCE = "not repeated: "
_SHORTEST_S = 2  # a turn
_GRACE_S = 900  # to prepare, and to run the corpus once


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fuzz the readers of strangers' bytes.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"Any of {', '.join(TARGETS)} (default: all).")
    parser.add_argument("--seconds", type=float, default=600, help="For all targets together (default: %(default)s).")
    parser.add_argument("--turn", type=float, default=120, help="Seconds for one target at a time.")
    parser.add_argument("--results", type=Path, default=RESULTS, help="Folder for the counts.")
    parser.add_argument("--work", type=Path, default=WORK, help="Folder for corpora and findings.")
    options = parser.parse_args(arguments)
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if find_spec("atheris") is None:
        parser.error("atheris is not installed: pip install atheris (Linux)")
    facts = conditions()
    results = options.results / f"fuzz-readers-{machine(facts)}.json"
    results.parent.mkdir(parents=True, exist_ok=True)
    stop = time.monotonic() + options.seconds
    for name in itertools.cycle(options.targets or TARGETS):
        if (left := stop - time.monotonic()) < _SHORTEST_S:
            break
        turn = min(options.turn, left)
        _keep(results, facts, name, options.work / name, turn, run_turn(name, turn, options.work / name))
    print(f"written: {results}")


def run_turn(name: str, seconds: float, work: Path) -> list[str]:
    """Fuzz one target in children until the time is over; return what was found, one line each.

    What did not go wrong again begins with `ONCE`, and is no finding.
    """
    work.mkdir(parents=True, exist_ok=True)
    stop, findings = time.monotonic() + seconds, []
    while (left := stop - time.monotonic()) > _SHORTEST_S / 2:
        problem = _run_child(name, left, work)
        if problem:
            findings.append(problem)
            print(f"{name}: {problem}", flush=True)
    return findings


def _run_child(name: str, seconds: float, work: Path) -> str:
    """Run one child; return what ended it early, or ""."""
    limits = [f"-max_total_time={max(1, round(seconds))}", f"-timeout={_HANG_S}", f"-rss_limit_mb={_MEMORY_MIB}"]
    limits += [f"-runs={_RUNS}"]
    # The allocator fills fresh memory, so that a decoder that reads what it never wrote shows it.
    environment = os.environ | {"OPENCV_LOG_LEVEL": "OFF", "MALLOC_PERTURB_": "165"}
    memory = _MEMORY_FOLDER if os.access(_MEMORY_FOLDER, os.W_OK) else None  # files are written for each input
    with (work / "log").open("w+b") as log, tempfile.TemporaryDirectory(dir=memory) as own:
        command = [sys.executable, "-m", "benchmarks.fuzz.child", name, str(work), own, *limits]
        child = subprocess.Popen(
            [*command, f"-seed={random.randrange(1, 1 << 31)}"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            code = child.wait(seconds + _GRACE_S)
        except subprocess.TimeoutExpired:
            return "hangs outside of an input"
        finally:
            child.kill()
            child.wait()
        log.seek(0)
        problem = _describe(code, log.read().decode("utf-8", "replace")) if code else ""
        found = sorted((work / "findings").glob("*"), key=lambda path: path.stat().st_mtime)
        if not code or not found or found[-1].name not in problem:
            return problem
        again = subprocess.run(
            [*command[: -len(limits)], f"-timeout={_HANG_S}", str(found[-1])],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            check=False,
        )
        return problem if again.returncode else f"{ONCE}{problem}"  # a busy machine makes an input hang that does not


def _describe(code: int, log: str) -> str:
    """One line about a child that ended early: the kind, the exception, and the input that did it."""
    lines = log.splitlines()
    error = [line for after, line in zip(lines, lines[1:] + [""], strict=True) if "Uncaught Python exception" in after]
    kinds = [line.split("ERROR: libFuzzer: ")[1] for line in lines if "ERROR: libFuzzer: " in line]
    saved = [line.rsplit("/", 1)[1] for line in lines if "Test unit written to" in line]
    return "; ".join([f"exit {code}", *error[:1], *kinds[:1], *saved[:1]])[:300]


def _keep(path: Path, facts: dict[str, Any], name: str, work: Path, seconds: float, findings: list[str]) -> None:
    """Add a turn to the counts."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"targets": {}}
    before = known["targets"].get(name, {"executions": 0, "taken": 0, "seconds": 0, "findings": []})
    executions, taken = read_counters(work / "counters")
    (work / "counters").unlink(missing_ok=True)
    known["targets"][name] = {
        "executions": before["executions"] + executions,
        "taken": before["taken"] + taken,
        "seconds": round(before["seconds"] + seconds),
        "corpus": sum(1 for _ in (work / "corpus").iterdir()),
        "findings": [*before["findings"], *(one for one in findings if not one.startswith(ONCE))],
        "not_repeated": [*before.get("not_repeated", []), *(one for one in findings if one.startswith(ONCE))],
    }
    done = {one: known["targets"][one] for one in TARGETS if one in known["targets"]}
    content = {
        "command": "python -m benchmarks.fuzz --seconds N",
        "conditions": facts,
        "hang_limit_s": _HANG_S,
        "memory_limit_mib": _MEMORY_MIB,
        "executions": sum(one["executions"] for one in done.values()),
        "findings": sum(len(one["findings"]) for one in done.values()),
        "targets": done,
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{name}: {executions:,} executions in {seconds:.0f} s, {len(findings)} findings", flush=True)


if __name__ == "__main__":
    main()
