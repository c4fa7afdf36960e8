"""Write the table of docs/reliability.md: python -m docs.make_reliability [--check] (make docs)

Each line comes from a committed result in benchmarks/results/. A kind of result of which there is no file has no line;
of a kind with several, each file has its own. With --check nothing is written, and the exit code is 1 where the page is
stale.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "benchmarks" / "results"
_BEGIN, _END = "<!-- table -->", "<!-- /table -->"
_HEAD = ("| what was tried | how often | what survived | command | result |", "| --- | ---: | --- | --- | --- |")

Result = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One line of the table. times: how often it was tried; survived: in words, with the number that did not."""

    tried: str
    times: int
    survived: str
    command: str


def main() -> int:
    """Write the page, or compare it; return the exit code."""
    parser = argparse.ArgumentParser(description="Write the table of docs/reliability.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where the page is stale")
    check = parser.parse_args().check
    before = PAGE.read_text(encoding="utf-8")
    after = with_table(before, RESULTS)
    if check:
        if before != after:
            print(f"{PAGE} is stale", file=sys.stderr)
        return int(before != after)
    PAGE.write_text(after, encoding="utf-8")
    return 0


def with_table(page: str, results: Path) -> str:
    """Return the page with the table of these results."""
    begin, end = page.index(_BEGIN) + len(_BEGIN), page.index(_END)
    return f"{page[:begin]}\n{table(results)}\n{page[end:]}"


def table(results: Path) -> str:
    """Return the table, one line or more for each result that is known."""
    lines = list(_HEAD)
    for pattern, describe in _KINDS:
        for path in sorted(results.glob(pattern)):
            link = f"[json](../benchmarks/results/{path.name})"
            for line in describe(json.loads(path.read_text(encoding="utf-8"))):
                cells = (line.tried, f"{line.times:,}", line.survived, f"`{line.command}`", link)
                lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def _all_but(times: int, bad: int, good: str, wrong: str) -> str:
    """E.g. "all found", or "**597 of 600 found, 3 not**"."""
    return f"all {good}" if not bad else f"**{times - bad:,} of {times:,} {good}; {bad:,} {wrong}**"


def _damage(result: Result) -> Iterator[Line]:
    real = "files_as_they_are" in result
    command = f"{'MRIBATCH_DATA=... ' if real else ''}python -m benchmarks.damage"
    source = "real" if real else "drawn"
    kinds = result["kinds"]
    jpegs = [one for kind, one in kinds.items() if kind.startswith("jpeg")]
    others = {kind: one for kind, one in kinds.items() if not kind.startswith("jpeg")}
    made, found = (sum(one[key] for one in jpegs) for key in ("made", "found"))
    yield Line(f"JPEGs of {source} slices, damaged inside the data", made, _found(made, found), command)
    for kind, one in others.items():
        tried = f"{kind} files of {source} slices, damaged inside the data"
        yield Line(tried, one["made"], _found(one["made"], one["found"]), command)
    whole, alarms = (sum(one[key] for one in kinds.values()) for key in ("whole", "false_alarms"))
    yield Line(f"whole files of {source} slices", whole, _all_but(whole, alarms, "ok", "called bad"), command)
    if real:
        as_they_are = result["files_as_they_are"]
        files = sum(as_they_are.values())
        bad = files - as_they_are.get("ok", 0)
        yield Line("files of the real data as they are", files, _all_but(files, bad, "ok", "called bad"), command)


def _found(made: int, found: int) -> str:
    share = f" ({found / made:.1%})" if made and found != made else ""
    return "all found, none classified as if it were whole" if found == made else f"{found:,} of {made:,} found{share}"


def _sweep(result: Result) -> Iterator[Line]:
    command = "python -m benchmarks.faults --kills 0"
    for name, one in result["scenarios"].items():
        bad = one["ends"].get("bad", 0)
        survived = _all_but(
            one["faults"], bad, "ended in a row, or in one line with a fix, and the table was equal", "not"
        )
        yield Line(f"a call of the file system fails: {name}", one["faults"], survived, command)


def _kills(result: Result) -> Iterator[Line]:
    for name, one in result["modes"].items():
        problems = len(one["problems"]) if isinstance(one["problems"], list) else int(one["problems"])
        survived = _all_but(one["kills"], problems, "resumed to the same table, and left nothing", "did not")
        yield Line(
            f"SIGKILL at a random moment: {name}", one["kills"], survived, "python -m benchmarks.faults --step 0"
        )


def _flipped(result: Result) -> Iterator[Line]:
    flips, noticed = result["flipped_bytes"], result["noticed"]
    survived = _all_but(flips, flips - noticed, "noticed by `mribatch verify`", "not")
    yield Line("one byte of a finished part is changed", flips, survived, result["command"])
    seconds = f"no problem found, in {result['verify_core_seconds']:g} core-seconds"
    yield Line("`mribatch verify` of an untouched run, rows", result["verify_rows"], seconds, result["command"])


def _fuzz(result: Result) -> Iterator[Line]:
    words = {
        "images": "probe and decoders of images",
        "studies": "headers and pixels of DICOM and NIfTI",
        "bundles": "the loader of bundles",
        "graphs": "the reader of ONNX graphs",
        "tables": "labels, groups and lists of names",
        "records": "run.json and engine sidecars",
    }
    for name, one in result["targets"].items():
        bad = len(one["findings"])
        survived = _all_but(one["executions"], bad, "refused or read; no crash, no hang", "crashed or hung")
        yield Line(f"atheris on {words.get(name, name)}", one["executions"], survived, result["command"])


def _fuzz_studies(result: Result) -> Iterator[Line]:
    bad = result["crashes"] + result["hangs"]
    survived = _all_but(result["cases"], bad, "got a verdict; no crash, no hang", "crashed or hung")
    yield Line("DICOM files and NIfTI volumes with random changes", result["cases"], survived, result["command"])


def _broken_folder(result: Result) -> Iterator[Line]:
    command = "python -m benchmarks.broken_folder"
    tried = f"a folder with {result['broken']:,} broken files among {result['files']:,}, with DALI"
    yield Line(tried, result["files"], "every file has its row; good rows bit for bit as without the broken", command)


def _strangers(result: Result) -> Iterator[Line]:
    for name, one in result["kinds"].items():
        survived = _all_but(one["tried"], len(one["problems"]), "read, or refused in one line with a fix", "not")
        yield Line(name, one["tried"], survived, result["command"])


_KINDS: Sequence[tuple[str, Callable[[Result], Iterator[Line]]]] = (
    ("damage-*.json", _damage),
    ("broken_folder-*.json", _broken_folder),
    ("faults-sweep-*.json", _sweep),
    ("faults-kills-*.json", _kills),
    ("flipped_bytes-*.json", _flipped),
    ("strangers-*.json", _strangers),
    ("fuzz-*.json", _fuzz),
    ("fuzz_studies-*.json", _fuzz_studies),
)


if __name__ == "__main__":
    sys.exit(main())
