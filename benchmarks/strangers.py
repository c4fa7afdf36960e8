"""What strangers could send, through the commands that read it: python -m benchmarks.strangers

Every hostile run folder, bundle, table and list of tests/strangers/ is made and given to its commands, in one process
with little address space and a time limit. Counts go to benchmarks/results/strangers-*.json, and the exit code is 1
where one was neither read nor refused in one line with a fix.
"""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.conditions import RESULTS, conditions, machine
from mribatch.core.files import write_json
from tests.make_models import make_tiny
from tests.strangers.commands import MEMORY_BYTES, SECONDS, Answer
from tests.strangers.test_bundles import try_bundles
from tests.strangers.test_runs import try_runs
from tests.strangers.test_tables import try_tables

_MEMORY = Path("/dev/shm")  # hundreds of small files


def main() -> int:
    """Run and write; return the exit code."""
    facts = conditions()
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as name:
        folder = Path(name)
        model = make_tiny(folder / "model", trained=True)
        kinds = {
            "hostile run folders, each with five commands": _count(try_runs(folder / "runs", model)),
            "hostile model bundles, with `classify`": _count(try_bundles(folder / "bundles")),
            "hostile tables and lists, with `classify` and `report`": _count(try_tables(folder / "tables", model)),
        }
    content = {
        "command": "python -m benchmarks.strangers",
        "conditions": facts,
        "address_space_bytes": MEMORY_BYTES,
        "core_seconds_limit": SECONDS,
        "kinds": kinds,
    }
    write_json(RESULTS / f"strangers-{machine(facts)}.json", content)
    bad = [problem for one in kinds.values() for problem in one["problems"]]
    print("\n".join(bad) or "each was read, or refused in one line with a fix")
    return int(bool(bad))


def _count(answers: Mapping[str, Answer]) -> dict[str, Any]:
    bad = [one for one in answers.values() if one.problem or not one.shows_plain_text]
    return {
        "tried": len(answers),
        "refused": sum(one.code in (1, 2) for one in answers.values()),
        "slowest_core_seconds": round(max(one.seconds for one in answers.values()), 1),
        "problems": [f"{one.name}: {one.problem[-200:]}" for one in bad],
    }


if __name__ == "__main__":
    sys.exit(main())
