"""Fuzzes one target until libFuzzer ends it: python -m benchmarks.fuzz.child TARGET WORK OWN [option of libFuzzer ...]

WORK holds the corpus, the counters and the inputs that were found to be wrong; OWN is for the files of a case. An
option that is a file is run once, and nothing else. Started by `python -m benchmarks.fuzz`.
"""

import resource
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import atheris

from benchmarks.fuzz.counters import Counters

with atheris.instrument_imports(include=["mribatch"]):
    from benchmarks.fuzz.targets import TARGETS, Case

_ADDRESS_SPACE = 6 << 30  # an input that makes a reader ask for more must fail, not take the machine down


def main(arguments: list[str]) -> None:
    """Write the seeds into the corpus, and hand over to libFuzzer, which never returns."""
    name, work = arguments[0], Path(arguments[1])
    target = TARGETS[name]
    for folder in ("corpus", "findings"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["mribatch"]):  # modules that are imported where they are used
        seeds = [seed for seed in target.seeds() if seed]
        case = target.prepare(Path(arguments[2]))
        for seed in seeds[:50]:
            case(seed)
    for seed in seeds:
        (work / "corpus" / sha256(seed).hexdigest()[:40]).write_bytes(seed)
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    given = arguments[3:]
    alone = any(not option.startswith("-") for option in given)
    options = [f"-max_len={target.longest}", f"-artifact_prefix={work}/findings/", *given]
    options += [] if alone else [f"{work}/corpus"]
    mutator = {"custom_mutator": target.mutator} if target.mutator else {}
    atheris.Setup([sys.argv[0], *options], _counted(case, Counters(work / "counters")), **mutator)
    atheris.Fuzz()


def _counted(case: Case, counters: Counters) -> Callable[[bytes], None]:
    def counted(data: bytes) -> None:
        counters.executed()
        if case(data):
            counters.took()

    return counted


if __name__ == "__main__":
    main(sys.argv[1:])
