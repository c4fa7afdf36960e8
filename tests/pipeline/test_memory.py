"""Memory does not grow with the number of files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.folders import draw_images

# VmHWM and not ru_maxrss: the latter begins with what the parent had when it forked.
PEAK = """
import re, sys
from pathlib import Path
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.progress import SilentProgress
from mribatch.pipeline.run import classify

def peak(process):
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc", process, "status").read_text())[1])

class Last(SilentProgress):
    worker = 0
    def advance(self, rows, not_ok):
        children = Path("/proc/self/task", str(__import__("os").getpid()), "children").read_text().split()
        self.worker = max([self.worker, *map(peak, children)])

last = Last()
summary = classify([sys.argv[1]], sys.argv[2], ClassifyOptions(model=sys.argv[3], decoder=sys.argv[4]), last)
print(summary.files, peak("self"), last.worker)
"""


def peak_kib(data: Path, out: Path, model: Path, decoder: str = "opencv") -> tuple[int, int, int]:
    """Files, and the peak of the process and of its worker (0 where there is none)."""
    command = [sys.executable, "-c", PEAK, str(data), str(out), str(model), decoder]
    files, peak, worker = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(files), int(peak), int(worker)


@pytest.mark.slow
def test_dali_and_its_supervisor_need_no_more_for_50000_files(tmp_path: Path, tiny_model: Path) -> None:
    pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed: pip install '.[dali]'")
    images = draw_images(tmp_path / "few", 64, size=64)
    for name, count in (("small", 5_000), ("large", 50_000)):
        (tmp_path / name).mkdir()
        for number in range(count):
            os.link(images[number % 64], tmp_path / name / f"slice_{number:06d}.jpg")
    small = peak_kib(tmp_path / "small", tmp_path / "out_small", tiny_model, "dali")
    large = peak_kib(tmp_path / "large", tmp_path / "out_large", tiny_model, "dali")
    print(
        f"peak memory, KiB: {small[1]:,} and worker {small[2]:,} for {small[0]:,} files, {large[1]:,} and worker "
        f"{large[2]:,} for {large[0]:,}"
    )
    assert (small[0], large[0]) == (5_000, 50_000) and small[2] > 0
    assert large[2] <= 1.1 * small[2]
    assert large[1] + large[2] <= 1.1 * (small[1] + small[2])


@pytest.mark.slow
def test_100000_files_need_no_more_than_a_tenth_above_2000(tmp_path: Path, tiny_model: Path) -> None:
    images = draw_images(tmp_path / "few", 64, size=64)
    for name, count in (("small", 2_000), ("large", 100_000)):
        (tmp_path / name).mkdir()
        for number in range(count):  # a flat folder is the worst case; hard links are files of their own
            os.link(images[number % 64], tmp_path / name / f"slice_{number:06d}_of_a_rather_long_name.jpg")
    small = peak_kib(tmp_path / "small", tmp_path / "out_small", tiny_model)
    large = peak_kib(tmp_path / "large", tmp_path / "out_large", tiny_model)
    print(f"peak memory: {small[1]:,} KiB for {small[0]:,} files, {large[1]:,} KiB for {large[0]:,}")
    assert (small[0], large[0]) == (2_000, 100_000)
    assert large[1] <= 1.1 * small[1]
