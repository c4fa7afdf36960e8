"""What every peer's script is told and what it answers; standard library only, for it runs in the peers' environments.

A script gets a folder of images and writes a CSV file with the columns path,class: one row per image. Its last line on
standard output is JSON: {"stages": [{"first", "first_s", "last", "last_s"}, …]}. Each stage says how many images were
through it at about a quarter of the way and at the end, and when (seconds of the monotonic clock). Stages that overlap
are one stage; stages that follow each other, such as decoding everything before the first prediction, are listed one
by one, and their times per image add up.
"""

import argparse
import csv
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".png")  # the image types that every peer lists
STEADY_FROM = 0.25  # share of the images after which the rate is steady: caches are full, threads have started


@dataclass(frozen=True)
class Job:
    """What to classify and how.

    Attributes:
        data: Folder of images, with sub-folders.
        out: CSV file to write.
        threads: Cores to use.
        pixels: Height and width that images are resized to.
        model: File of the network, for the peers that load one.
    """

    data: Path
    out: Path
    threads: int
    pixels: int
    model: Path | None

    @property
    def model_file(self) -> Path:
        """The file of the network.

        Raises:
            SystemExit: The command line names none.
        """
        if self.model is None:
            raise SystemExit("this peer needs --model FILE")
        return self.model


class Stage:
    """How far one stage has come, and when."""

    def __init__(self, images: int) -> None:
        self._images = images
        self._marks: list[tuple[int, float]] = []

    def reach(self, done: int, seconds: float | None = None) -> None:
        """Record that `done` images are through this stage.

        Args:
            done: At least as many as in the call before.
            seconds: When, on the monotonic clock; now by default.
        """
        mark = (done, time.monotonic() if seconds is None else seconds)
        if not self._marks:
            if done >= STEADY_FROM * self._images:
                self._marks.append(mark)
        else:
            self._marks[1:] = [mark]

    def to_json(self) -> dict[str, float] | None:
        """Both marks; None if there were too few batches for two of them."""
        if len(self._marks) < 2:
            return None
        (first, first_s), (last, last_s) = self._marks
        return {"first": first, "first_s": first_s, "last": last, "last_s": last_s}


def parse_job(description: str | None) -> Job:
    """Read the command line that every peer's script has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of images")
    parser.add_argument("--out", type=Path, required=True, help="CSV file to write")
    parser.add_argument("--threads", type=int, required=True, help="cores to use")
    parser.add_argument("--pixels", type=int, default=160, help="height and width of the network's input")
    parser.add_argument("--model", type=Path, help="file of the network")
    options = parser.parse_args()
    return Job(options.data, options.out, options.threads, options.pixels, options.model)


def image_paths(data: Path) -> list[Path]:
    """The images of a folder and its sub-folders, in order."""
    return sorted(path for path in data.rglob("*") if path.suffix.lower() in SUFFIXES)


def write_result(job: Job, rows: Iterable[tuple[str | Path, object]], stages: Sequence[Stage]) -> None:
    """Write the result file and print the JSON line."""
    with job.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "class"))
        writer.writerows(rows)
    marks = [stage.to_json() for stage in stages]
    print(json.dumps({"stages": None if None in marks else marks}), flush=True)
