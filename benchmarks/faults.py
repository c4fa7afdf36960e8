"""What faults and kills do to a run: python -m benchmarks.faults [--step N] [--scenarios "A;B"] [--kills N]

The sweep makes each call of a command about its inputs or its output folder fail once (open, read, write, fsync,
rename, ...; EIO, ENOSPC, EMFILE, EDQUOT, ESTALE, EINTR, short reads and writes, in turns), and some from then on. What
must hold: the command ends, with everything as ever, with a row that has the reason, or with one line and its fix; the
same command then ends well, and its rows are those of an undisturbed run. The kills are SIGKILL at random moments.
Both are written to benchmarks/results/, and the exit code is 1 where anything did not hold.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.conditions import RESULTS, conditions, machine
from mribatch.core.cores import usable_cores
from mribatch.core.files import write_json
from tests.faults.kills import MODES, Killer, draw_many
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.server import Server
from tests.faults.shim import Control, compile_shim
from tests.faults.sweep import Outcome, Sweep
from tests.make_models import make_tiny

_MEMORY = Path("/dev/shm")  # the faults do not come from the disk, so none has to turn
_SHOWN = 20
_TOLD_EVERY = 50  # faults


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--step", type=int, default=1, help="Try every N-th fault only.")
    parser.add_argument("--scenarios", default="", help="Names, separated by semicolons; all by default.")
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="Scenarios at a time; all cores by default.")
    parser.add_argument("--kills", type=int, default=200, help="Kills of each kind; 0: none.")
    parser.add_argument("--modes", default="", help="Kinds of kills, separated by semicolons; all by default.")
    chosen = parser.parse_args(arguments)
    start = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=start) as name:
        folder = Path(name).resolve()
        good = _sweep(folder, chosen) if chosen.step else True
        with Server(folder, os.environ) as server:
            good &= _kill(folder, server, chosen) if chosen.kills else True
    return 0 if good else 1


def _sweep(folder: Path, chosen: argparse.Namespace) -> bool:
    wanted = [name.strip() for name in chosen.scenarios.split(";") if name.strip()]
    scenarios = [one for one in SCENARIOS if not wanted or one.name in wanted]
    library = compile_shim(folder)

    def sweep(scenario: Scenario) -> dict[str, Any]:
        own = folder / scenario.name.replace(" ", "_")
        own.mkdir()
        with Control(library, own / "control") as control, Server(own, control.environment) as server:
            result = sweep_scenario(scenario, own / "place", server, control, chosen.step)
        shutil.rmtree(own)
        print(scenario.name, {key: result[key] for key in ("faults", "ends")}, flush=True)
        return result

    with ThreadPoolExecutor(chosen.jobs) as pool:  # the commands run in processes of their own
        found = {one.name: result for one, result in zip(scenarios, pool.map(sweep, scenarios), strict=True)}
    bad = sum(one["ends"].get("bad", 0) for one in found.values())
    facts = conditions()
    content = {"conditions": facts, "step": chosen.step, "scenarios": found, "bad": bad}
    total = sum(one["faults"] for one in found.values())
    write_json(RESULTS / f"faults-sweep-{machine(facts)}-{total}faults.json", content)
    return not bad


def sweep_scenario(scenario: Scenario, root: Path, server: Server, control: Control, step: int) -> dict[str, Any]:
    """Try every step-th fault; what was tried, how often, and what became of it."""
    sweep = Sweep(scenario, root, server, control)
    sweep.prepare()
    faults, outcomes = list(sweep.faults())[::step], list[Outcome]()
    for fault in faults:
        outcomes.append(sweep.inject(fault))
        if len(outcomes) % _TOLD_EVERY == 0:
            print(f"{scenario.name}: {len(outcomes):,} of {len(faults):,}", flush=True)
    return {
        "calls": sweep.counts,
        "faults": len(outcomes),
        "by_call": dict(Counter(one.fault.kind for one in outcomes)),
        "by_error": dict(Counter(one.fault.name for one in outcomes)),
        "lasting": sum(one.fault.sticky for one in outcomes),
        "ends": dict(Counter(one.end for one in outcomes)),
        "problems": [_describe(one) for one in outcomes if one.problem][:_SHOWN],
    }


def _describe(outcome: Outcome) -> str:
    return f"{outcome.fault}: {Path(outcome.what).name}: {(outcome.problem or '')[:200]}"


def _kill(folder: Path, server: Server, chosen: argparse.Namespace) -> bool:
    wanted = [name.strip() for name in chosen.modes.split(";") if name.strip()]
    data, model = draw_many(folder), make_tiny(folder / "model", trained=True)
    killer, found = Killer(folder, data, model, server), {}
    for mode in MODES:
        if not wanted or mode.name in wanted:
            found[mode.name] = asdict(killer.kill(mode, chosen.kills))
            print(mode.name, found[mode.name], flush=True)
    total = sum(one["kills"] for one in found.values())
    facts = conditions()
    write_json(RESULTS / f"faults-kills-{machine(facts)}-{total}kills.json", {"conditions": facts, "modes": found})
    return not any(one["problems"] for one in found.values())


if __name__ == "__main__":
    sys.exit(main())
