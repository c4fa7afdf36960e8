"""Prints a pip constraint for the lowest version of every requirement in setup.cfg: python -m tests.lowest_versions

`make test-lowest` installs these, so that a lower bound is a version that was tried and not a guess.
"""

import configparser
import re
from collections.abc import Iterator
from pathlib import Path

SETUP = Path(__file__).parents[1] / "setup.cfg"
_BOUND = re.compile(r"([A-Za-z0-9_.-]+)\s*>=\s*([0-9.]+)")


def lowest_versions(setup: Path = SETUP) -> Iterator[str]:
    """`name==bound.*` for every `name>=bound`, of the package and its extras: the newest patch of the lowest version."""
    config = configparser.ConfigParser()
    config.read(setup, encoding="utf-8")
    texts = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    found = {bound[1]: bound[2] for text in texts for bound in _BOUND.finditer(text)}
    yield from (f"{name}=={version}.*" for name, version in sorted(found.items()))


if __name__ == "__main__":
    print("\n".join(lowest_versions()))
