"""The folder that everybody classifies: images that mribatch calls ok, of types that every peer lists."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.race.job import SUFFIXES, image_paths
from mribatch.core.bundle import MODEL_FILE, SPEC_FILE

MRIBATCH = (sys.executable, "-m", "mribatch.cli")
_FINISHED = (0, 3)  # exit codes of a run that gave every file its row


@dataclass(frozen=True)
class RaceData:
    """What is raced over.

    Attributes:
        folder: Of the images.
        single: A folder with one of them, for the cold start.
        kind: "real" or "synthetic".
        images: How many.
        image_bytes: Of all files together.
        bundle: Name of mribatch's default model.
        graph: Its ONNX file.
        pixels: Height and width of its input.
    """

    folder: Path
    single: Path
    kind: str
    images: int
    image_bytes: int
    bundle: str
    graph: Path
    pixels: int


def prepare(data: Path | None, count: int | None, scratch: Path) -> RaceData:
    """Choose the images; also reads each one once, so that the page cache is warm.

    Peers end with an error on a broken file, so only files that mribatch calls ok take part. The folder itself is
    raced where all of its files do; a copy in `scratch` otherwise.

    Args:
        data: Folder of images; None draws synthetic slices.
        count: At most so many images, at even distances. Of synthetic ones, how many are drawn.
        scratch: Folder for what is made here.

    Raises:
        RuntimeError: There is no image, or mribatch failed.
    """
    folder = data
    if folder is None:
        folder = scratch / "drawn"
        _mribatch("demo", str(folder), "--count", str(count or 1000))
    elif count is not None:
        paths = [str(path.relative_to(folder)) for path in image_paths(folder)]
        folder = _copy(folder, paths[:: max(1, len(paths) // count)][:count], scratch / "some")
    run = scratch / "check"
    _mribatch("classify", str(folder), "--out", str(run), "--backend", "onnxruntime", "--labels", "none", "--quiet")
    table = pq.read_table(run / "predictions", columns=["path", "status"]).to_pylist()
    images = [row["path"] for row in table if row["status"] == "ok" and row["path"].lower().endswith(SUFFIXES)]
    if not images:
        raise RuntimeError(f"{folder} holds no JPEG or PNG image that can be classified")
    if len(images) != len(image_paths(folder)):
        folder = _copy(folder, images, scratch / "images")
    single = _copy(folder, images[:1], scratch / "single")
    bundle = json.loads((run / "run.json").read_text())["bundle"]
    return RaceData(
        folder=folder,
        single=single,
        kind="synthetic" if data is None else "real",
        images=len(images),
        image_bytes=sum((folder / path).stat().st_size for path in images),
        bundle=bundle["name"],
        graph=Path(bundle["folder"]) / MODEL_FILE,
        pixels=json.loads((Path(bundle["folder"]) / SPEC_FILE).read_text())["input"]["height"],
    )


def _copy(folder: Path, images: list[str], to: Path) -> Path:
    for path in images:
        (to / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, to / path)
    return to


def _mribatch(*arguments: str) -> None:
    done = subprocess.run([*MRIBATCH, *arguments], capture_output=True, text=True, check=False)
    if done.returncode not in _FINISHED:
        raise RuntimeError(f"mribatch {' '.join(arguments)}: {done.stderr.strip()}")
