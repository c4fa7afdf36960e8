"""One image, from the start of the process to its row: python -m benchmarks.one_image WHEEL

Makes an empty virtual environment in build/one_image/, installs the wheel there with what it requires and nothing else,
and runs `mribatch classify` on one drawn slice, each time in a new process and to a new folder. So it also proves that
the wheel works outside the checkout. A first run is not counted: the disk is warm. Times are of the whole process, from
its start to its end, which is a little after the row is on the disk. On a busy machine the figures are noise.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

from benchmarks.conditions import conditions, machine, spread
from benchmarks.race.environments import versions_of
from mribatch.core.bundle import DEFAULT_MODEL

ENVIRONMENT = Path("build/one_image/venv")
LIBRARIES = ("mribatch", "numpy", "pyarrow", "onnxruntime", "opencv-python-headless")
SLICE = "no_tumor/slice-00002.jpg"  # of `mribatch demo`


def install(wheel: Path, environment: Path) -> Path:
    """Make the environment anew and install the wheel; returns its Python."""
    shutil.rmtree(environment, ignore_errors=True)
    venv.create(environment, with_pip=True, symlinks=True)
    python = environment.absolute() / "bin" / "python"
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", wheel.absolute()]
    subprocess.run(pip, check=True, cwd=environment, env=_environ())
    return python


def _environ() -> dict[str, str]:
    """This process' variables without those that would show the checkout to another Python."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_", "VIRTUAL_ENV"))}


def measure(python: Path, model: str, repeats: int) -> tuple[list[float], dict[str, Any]]:
    """Seconds of each run, and the row of the last.

    Raises:
        CalledProcessError: A run fails.
    """
    environ, seconds = _environ(), []
    with tempfile.TemporaryDirectory(prefix="mribatch-one-") as folder:

        def run(*words: str) -> str:
            command = [os.fspath(python.with_name("mribatch")), *words]
            done = subprocess.run(command, cwd=folder, env=environ, check=True, stdout=subprocess.PIPE, text=True)
            return done.stdout

        run("demo", "slices")
        for number in range(repeats + 1):
            begin = time.perf_counter()
            run("classify", f"slices/{SLICE}", "--out", f"results-{number}", "--model", model, "--quiet")
            seconds.append(time.perf_counter() - begin)
        return seconds[1:], json.loads(run("table", f"results-{repeats}", "--json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--environment", type=Path, default=ENVIRONMENT)
    parser.add_argument("--results", type=Path, help="folder for a result file; none is written without it")
    options = parser.parse_args()
    facts = conditions()
    python = install(options.wheel, options.environment)
    seconds, row = measure(python, options.model, options.repeats)
    if row["status"] != "ok":
        sys.exit(f"Error: the row is {row}")
    figure = spread(seconds)
    versions = versions_of(python, LIBRARIES)
    print(f"{options.wheel.name} works in an empty environment: {SLICE} is {row['predicted']} {row['confidence']:.4f}")
    print(
        f"one image, whole process, {options.repeats} repeats: median {figure['median']:.2f} s "
        f"({figure['low']:.2f} to {figure['high']:.2f}), load {facts['load_before']}"
    )
    if options.results:
        result = {"conditions": facts, "versions": versions, "model": options.model, "whole_process_seconds": figure}
        name = f"one_image-{options.model}-{machine(facts | {'gpu': None})}.json"
        (options.results / name).write_text(json.dumps(result, indent=2) + "\n")
        print(f"written: {options.results / name}")


if __name__ == "__main__":
    main()
