"""No file may crash or hang the process that decodes it: mutated images through probe and decoder, in a child process.

FUZZ_SECONDS (default 60) is how long. A crash is reproduced with the seed and case number of the report:

    python -m tests.pipeline.decode.test_fuzz --case SEED NUMBER
"""

import json
import mmap
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mribatch.pipeline.decode.grey import decode_grey
from mribatch.pipeline.decode.probe import probe
from mribatch.pipeline.records import Status
from tests.broken_files import broken_files, good_files

MAX_PIXELS = 4_000_000  # keeps one case fast; the walks do not depend on it
MEMORY_BYTES = 6 << 30  # address space of the child: an image that asks for more must fail, not take the machine down
HANG_SECONDS = 30
DEADLY_CASE = -1  # the child dies in it for certain, to show that the supervisor sees a death
EDGES = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
ROOT = Path(__file__).parents[3]


# ------------------------------------------------------------------------------------------------------------ mutations


def _flip(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _flip_early(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 2, 3))):
        data[dice.randrange(min(len(data), 256))] = dice.randrange(256)


def _cut(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) + 1 :]


def _delete(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    del data[at : at + dice.choice((1, 2, 4, 50, 500))]


def _repeat(data: bytearray, dice: random.Random) -> None:
    at, length = dice.randrange(len(data)), dice.choice((1, 4, 20, 300))
    data[at:at] = data[at : at + length]


def _insert(data: bytearray, dice: random.Random) -> None:
    data[(at := dice.randrange(len(data))) : at] = dice.randbytes(dice.choice((1, 2, 8, 64)))


def _overwrite(data: bytearray, dice: random.Random) -> None:
    at, length = dice.randrange(len(data)), dice.choice((1, 4, 40, 400))
    fill = dice.choice((b"\0", b"\xff", b"\xff\xd9", b"\x80"))
    length = min(length, len(data) - at)
    data[at : at + length] = (fill * length)[:length]


def _edge_number(data: bytearray, dice: random.Random) -> None:
    code = dice.choice(("<H", ">H", "<I", ">I"))
    size = struct.calcsize(code)
    at = dice.randrange(max(1, min(len(data), dice.choice((64, 300, 1 << 30))) - size))
    if at + size <= len(data):
        struct.pack_into(code, data, at, dice.choice(EDGES) & ((1 << 8 * size) - 1))


def _mend_png(data: bytearray) -> None:
    """Make the checksums of a PNG right again, so that the damage reaches the decoder."""
    position = 8
    while position + 12 <= len(data):
        end = position + 8 + int.from_bytes(data[position : position + 4], "big")
        if end + 4 > len(data):
            return
        struct.pack_into(">I", data, end, zlib.crc32(data[position + 4 : end]))
        position = end + 4


def _mend_riff(data: bytearray) -> None:
    """Make the length of a WebP right again."""
    if len(data) >= 12:
        struct.pack_into("<I", data, 4, len(data) - 8)


MUTATIONS: Sequence[Callable[[bytearray, random.Random], None]] = (
    _flip,
    _flip_early,
    _cut,
    _delete,
    _repeat,
    _insert,
    _overwrite,
    _edge_number,
)


def mutated(files: Sequence[bytes], seed: int, number: int) -> bytes:
    """The file of one case: one to three mutations of one of `files`, the same for the same seed and number."""
    dice = random.Random(seed << 32 | number)
    data = bytearray(dice.choice(files))
    for _ in range(dice.choice((1, 1, 2, 3))):
        if data:
            dice.choice(MUTATIONS)(data, dice)
    if dice.random() < 0.7:
        mend_checks(data)
    return bytes(data)


def mend_checks(data: bytearray) -> None:
    """Make right again what would keep the damage from the decoder: checksums of a PNG, the length of a WebP."""
    if data.startswith(b"\x89PNG"):
        _mend_png(data)
    elif data.startswith(b"RIFF"):
        _mend_riff(data)


def corpus() -> list[bytes]:
    """Every file once, but each format with the same weight: a JPEG is no more likely than a WebP."""
    groups: dict[str, list[bytes]] = {}
    for data in good_files().values():
        groups.setdefault(str(probe(data).format), []).append(data)
    longest = max(len(group) for group in groups.values())
    files = [group[number % len(group)] for group in groups.values() for number in range(longest)]
    return files + [data for data, _ in broken_files().values() if data]


# ------------------------------------------------------------------------------------------------------------ the child


def run_case(data: bytes) -> tuple[str, str, bool]:
    """(format, final status, did the decoder refuse what the probe let through); raises where a promise is broken."""
    verdict = probe(data, MAX_PIXELS)
    final, pixels = decode_grey(data, verdict, 40, 40)
    if (final.status is Status.OK) != (pixels is not None) or (final.error is None) != (final.status is Status.OK):
        raise AssertionError(f"inconsistent answer: {final}")
    if pixels is not None and (pixels.shape != (40, 40, 1) or pixels.dtype.name != "uint8"):
        raise AssertionError(f"wrong pixels: {pixels.shape} {pixels.dtype}")
    return final.format or "unknown", final.status.value, verdict.status is not final.status


def run_child(
    files: Sequence[bytes], run_case: Callable[[bytes], tuple[str, str, bool]], arguments: Sequence[str]
) -> None:
    """Run cases on one of `files` each; the number of the case in hand stands in a file before it begins.

    Args:
        files: What is mutated.
        run_case: As `run_case`.
        arguments: Seed, first case, seconds, and the file for the number, as `_supervise` gives them.
    """
    seed, first, seconds, progress = int(arguments[0]), int(arguments[1]), float(arguments[2]), arguments[3]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    counts: Counter[str] = Counter()
    slowest, slow_case = 0.0, -1
    stop = time.monotonic() + seconds
    number = first
    with Path(progress).open("r+b") as stream, mmap.mmap(stream.fileno(), 8) as shared:
        while time.monotonic() < stop:
            shared[:] = struct.pack("<q", number)
            if number == DEADLY_CASE:
                os.abort()
            begin = time.monotonic()
            kind, status, overruled = run_case(mutated(files, seed, number))
            if (spent := time.monotonic() - begin) > slowest:
                slowest, slow_case = spent, number
            counts[f"{kind}:{status}"] += 1
            counts["overruled"] += overruled
            number += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    report = {"cases": number - first, "counts": counts, "slowest_s": slowest, "slow_case": slow_case, "peak_mib": peak}
    print(json.dumps(report))


def _supervise(module: str, seed: int, first: int, seconds: float, folder: Path) -> tuple[str, str, int]:
    """Run one child, which calls `run_child`: (what went wrong or "", its report, number of its last case)."""
    progress = folder / "progress"
    progress.write_bytes(struct.pack("<q", first))
    command = [sys.executable, "-m", module, str(seed), str(first), str(seconds), str(progress)]
    with (folder / "out").open("w+") as out, (folder / "err").open("w+") as err:
        # The allocator fills fresh memory, so that a decoder that reads what it never wrote shows it.
        environment = os.environ | {"OPENCV_LOG_LEVEL": "OFF", "MALLOC_PERTURB_": "165"}
        child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=err)
        last, since = first, time.monotonic()
        hung = False
        while child.poll() is None:
            time.sleep(0.2)
            (number,) = struct.unpack("<q", progress.read_bytes())
            if number != last:
                last, since = number, time.monotonic()
            elif time.monotonic() - since > HANG_SECONDS:
                hung = True
                child.send_signal(signal.SIGKILL)
                child.wait()
        (last,) = struct.unpack("<q", progress.read_bytes())
        out.seek(0)
        err.seek(max(0, err.seek(0, os.SEEK_END) - 1500))
        problem = "hangs" if hung else f"exits with {child.returncode}: {err.read()}" if child.returncode else ""
        return problem, out.read(), last


def fuzz(module: str) -> None:
    """Run children of a module for FUZZ_SECONDS and assert that none crashed or hung."""
    seconds = float(os.environ.get("FUZZ_SECONDS", "60"))
    seed = int(os.environ.get("FUZZ_SEED", str(int(time.time()))))
    stop, first = time.monotonic() + seconds, 0
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        while (left := stop - time.monotonic()) > 1:
            problem, report, last = _supervise(module, seed, first, left, Path(folder))
            print(f"seed {seed}, from case {first}: {report.strip()}")
            if problem:
                problems.append(f"seed {seed}, case {last} {problem}")
            first = last + 1
    print(f"{first} cases, {len(problems)} problems")
    assert not problems, "\n".join(problems)
    assert first > 100 * seconds / 10


@pytest.mark.slow
def test_no_mutated_file_crashes_or_hangs() -> None:
    fuzz(__name__)


def test_the_supervisor_sees_a_dead_child(tmp_path: Path) -> None:
    """The slow test proves something only if a child that dies in a case is reported with that case."""
    files = corpus()
    assert mutated(files, 5, 17) == mutated(files, 5, 17) != mutated(files, 5, 18)
    problem, _, last = _supervise(__name__, 5, DEADLY_CASE, 5, tmp_path)
    assert problem.startswith(f"exits with -{signal.SIGABRT:d}")
    assert last == DEADLY_CASE


if __name__ == "__main__":
    if sys.argv[1] == "--case":
        print(run_case(mutated(corpus(), int(sys.argv[2]), int(sys.argv[3]))))
    else:
        run_child(corpus(), run_case, sys.argv[1:])
