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
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.run import classify
summary = classify([sys.argv[1]], sys.argv[2], ClassifyOptions(model=sys.argv[3]))
print(summary.files, re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


def peak_kib(data: Path, out: Path, model: Path) -> tuple[int, int]:
    command = [sys.executable, "-c", PEAK, str(data), str(out), str(model)]
    files, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(files), int(peak)


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
