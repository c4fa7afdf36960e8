"""Walks through Keras and ONNX models with `mribatch export`: python -m benchmarks.what_exports [--only WORD]

Every model is built, saved, loaded, converted and compared in a child process with a time limit, at low priority. The
outcomes go to benchmarks/results/what-exports.json, and from there to docs/reference/what-exports.md; `--page` only
writes the page. `--onnx FOLDER` tries NAME.onnx files instead, each with its options in NAME.json, {"options": [...]}.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.what_exports.case import Outcome
from benchmarks.what_exports.page import PAGE, RESULTS, page, read_rounding
from benchmarks.what_exports.trial import names, versions

LIMIT = 1200.0  # seconds for one model


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Try mribatch export on many models.")
    parser.add_argument("--only", default="", help="Names or groups that contain this word; other outcomes are kept.")
    parser.add_argument("--page", action="store_true", help="Only write the page from the committed outcomes.")
    parser.add_argument("--onnx", type=Path, help="Folder of ONNX models with their options.")
    parser.add_argument("--limit", type=float, default=LIMIT, help="Seconds for one model (default: %(default)s).")
    options = parser.parse_args(arguments)
    if options.onnx:
        _keep(_try_onnx(options.onnx, options.limit))
    elif not options.page:
        chosen = [one for one in names() if options.only.lower() in f"{one[0]} {one[1]}".lower()]
        _keep(_try_all(chosen, options.limit))
    PAGE.write_text(page(json.loads(RESULTS.read_text(encoding="utf-8")), read_rounding()), encoding="utf-8")
    print(f"written: {PAGE}")


def _keep(outcomes: Iterator[Outcome]) -> None:
    """Write each outcome at once; those of other runs stay."""
    former = json.loads(RESULTS.read_text(encoding="utf-8"))["outcomes"] if RESULTS.exists() else []
    known = {(one["group"], one["name"]): one for one in former}
    order = {one: place for place, one in enumerate(names())}
    for outcome in outcomes:
        known[outcome.group, outcome.name] = asdict(outcome)
        print(outcome, flush=True)
        kept = sorted(known.items(), key=lambda item: (order.get(item[0], len(order)), item[0]))
        content = {"versions": versions(), "outcomes": [one for _, one in kept]}
        RESULTS.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _try_onnx(folder: Path, limit: float) -> Iterator[Outcome]:
    """Run the command itself on every model of a folder."""
    for model in sorted(folder.glob("*.onnx")):
        given = json.loads(model.with_suffix(".json").read_text(encoding="utf-8"))["options"]
        classes = "negative,positive" if "for two classes" in model.stem else "a,b,c,d"
        with tempfile.TemporaryDirectory() as out:
            command = [
                sys.executable,
                "-m",
                "mribatch",
                "export",
                str(model),
                "--out",
                f"{out}/bundle",
                "--json",
                "--quiet",
            ]
            start = time.perf_counter()
            done = subprocess.run(
                [*command, "--classes", classes, *given], capture_output=True, text=True, timeout=limit
            )
            seconds = round(time.perf_counter() - start, 1)
        shown = " ".join(given)
        if done.returncode:
            remark = next(line for line in done.stderr.splitlines() if line.startswith("Error"))[:240]
            yield Outcome(group="ONNX", name=model.stem, exports=False, remark=remark)
            continue
        facts = json.loads(done.stdout)
        yield Outcome(
            group="ONNX",
            name=model.stem,
            exports=True,
            difference=float(f"{facts['golden_max_difference']:.2g}"),
            spread=float(f"{facts['golden_spread']:.2g}"),
            seconds=seconds,
            remark=f"`{shown}`",
        )


def _try_all(cases: list[tuple[str, str]], limit: float) -> Iterator[Outcome]:
    """Try the cases one after the other; a child that dies or hangs costs its case, and a new one goes on after it."""
    waiting = list(cases)
    while waiting:
        for outcome in _one_child(waiting, limit):
            yield outcome
            waiting.pop(0)
        if waiting:
            group, name = waiting.pop(0)
            remark = f"not finished: the process ended or took longer than {limit:.0f} s"
            yield Outcome(group=group, name=name, exports=None, remark=remark)


def _one_child(cases: list[tuple[str, str]], limit: float) -> Iterator[Outcome]:
    command = [sys.executable, "-m", "benchmarks.what_exports.trial"]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: os.nice(10),
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert child.stdin is not None
    child.stdin.write(json.dumps(cases))
    child.stdin.close()
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_lines, args=(child, lines), daemon=True).start()
    try:
        while line := lines.get(timeout=limit):
            yield Outcome(**json.loads(line))
    except queue.Empty:
        pass
    finally:
        child.kill()
        child.wait()


def _read_lines(child: "subprocess.Popen[str]", lines: "queue.Queue[str]") -> None:
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("{"):
            lines.put(line)
    lines.put("")


if __name__ == "__main__":
    main()
