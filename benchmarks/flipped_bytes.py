"""Flipped bytes in finished runs, and what `verify` takes: python -m benchmarks.flipped_bytes [--rows N] [--flips N]

Drawn slices are classified. Then, `--flips` times, one byte of a random part is changed and `verify_run` is asked; the
byte is put back each time. The result is in benchmarks/results/flipped_bytes-*.json.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.conditions import RESULTS, conditions, machine
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.parts import part_path
from mribatch.pipeline.run import classify
from mribatch.report.verify import verify_run
from tests.make_models import make_tiny

_SIDE = 16  # pixels: classifying is not what is measured
_CHECKED = 1100  # rows of the run whose bytes are flipped, in two parts; more parts would only be read again


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Flip bytes of finished parts, and time verify.")
    parser.add_argument("--rows", type=int, default=100_000, help="Of the run that is timed.")
    parser.add_argument("--flips", type=int, default=1000, help="Bytes to flip, one at a time.")
    options = parser.parse_args(arguments)
    facts = conditions()
    with tempfile.TemporaryDirectory() as folder:
        large = make_run(Path(folder) / "large", options.rows)
        begin, busy = time.monotonic(), time.process_time()
        found = verify_run(large)
        seconds, busy = time.monotonic() - begin, time.process_time() - busy
        assert found.problems == 0 and found.rows == options.rows, found
        small = make_run(Path(folder) / "small", min(options.rows, _CHECKED))
        noticed = count_noticed(small, options.flips)
    result = {
        "command": f"python -m benchmarks.flipped_bytes --rows {options.rows} --flips {options.flips}",
        "conditions": facts,
        "flipped_bytes": options.flips,
        "noticed": noticed,
        "verify_rows": options.rows,
        "verify_parts": found.parts,
        "verify_seconds": round(seconds, 2),
        "verify_core_seconds": round(busy, 2),
    }
    path = RESULTS / f"flipped_bytes-{options.rows}rows-{machine(facts)}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path}\n{noticed} of {options.flips} noticed, {seconds:.1f} s for {options.rows:,} rows")


def make_run(folder: Path, rows: int) -> Path:
    """Classify so many drawn slices; return the run."""
    import cv2

    from mribatch.core.synthetic import draw_slice

    (folder / "data").mkdir(parents=True)
    different = [cv2.imencode(".png", draw_slice(i, _SIDE, _SIDE))[1].tobytes() for i in range(min(rows, 64))]
    for number in range(rows):
        (folder / "data" / f"{number:06d}.png").write_bytes(different[number % len(different)])
    model = make_tiny(folder / "model", trained=True)
    classify([folder / "data"], folder / "run", ClassifyOptions(model=str(model)))
    return folder / "run"


def count_noticed(run: Path, flips: int) -> int:
    """Flip one byte of a random part at a time; return how often `verify_run` finds a problem."""
    dice, noticed = random.Random(0), 0
    parts = verify_run(run).parts
    for _ in range(flips):
        path = part_path(run, dice.randrange(parts))
        whole = path.read_bytes()
        place, change = dice.randrange(len(whole)), dice.randrange(1, 256)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
        noticed += verify_run(run).problems > 0
        path.write_bytes(whole)
    return noticed


if __name__ == "__main__":
    main()
