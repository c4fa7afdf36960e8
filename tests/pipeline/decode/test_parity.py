"""The same folder decoded by OpenCV and by DALI, with the shipped model: how far apart pixels and answers are.

Real slices where MRIBATCH_DATA names them, else drawn ones; in every format that is read.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy import uint8
from numpy.typing import NDArray

from mribatch.core.bundle import DEFAULT_MODEL, load_bundle
from mribatch.core.synthetic import draw_slice
from mribatch.pipeline.decode.dali import DaliDecoder
from mribatch.pipeline.decode.dali_graph import CPU, GraphOptions
from mribatch.pipeline.decode.opencv import OpenCvDecoder
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.records import ImageFile
from mribatch.pipeline.run import classify
from tests.broken_files import good_files
from tests.folders import rows

pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed: pip install '.[dali]'")

SUFFIXES = (".jpg", ".png", ".bmp", ".tif", ".webp", ".jp2")
MAX_CHANGE = 0.05  # of any probability; a class may change only where the margin was smaller
_PIXELS = 1.0  # of 255, the most that any pixel may differ, and far above the mean that was seen (0.09)


def originals() -> Iterator[tuple[str, bytes, NDArray[uint8]]]:
    """Name, JPEG and pixels of some slices."""
    data = os.environ.get("MRIBATCH_DATA")
    if data:
        for path in sorted((Path(data) / "brain-mri").rglob("*.jpg"))[::51]:
            pixels = cv2.imread(str(path))
            assert pixels is not None, path
            yield path.stem, path.read_bytes(), pixels
        return
    for seed in range(64):
        grey = draw_slice(seed, 300 + seed, 280)
        yield f"drawn{seed}", cv2.imencode(".jpg", grey)[1].tobytes(), cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("parity")
    for number, (name, jpeg, pixels) in enumerate(originals()):
        suffix = SUFFIXES[number % len(SUFFIXES)] if number % 3 else ".jpg"
        content = jpeg if suffix == ".jpg" else cv2.imencode(suffix, pixels)[1].tobytes()
        (made / f"{number:03d}_{name}{suffix}").write_bytes(content)
    return made


def test_pixels(folder: Path, tmp_path: Path) -> None:
    """Of the slices, and of small test images with every feature of the formats (which no model was made for)."""
    spec = load_bundle(DEFAULT_MODEL).spec
    for name, content in good_files().items():
        (tmp_path / name).write_bytes(content)
    paths = sorted([*folder.iterdir(), *tmp_path.iterdir()])
    group = [ImageFile(index, 0, path.name, bytes(path)) for index, path in enumerate(paths)]
    graph = GraphOptions(device=CPU, height=spec.height, width=spec.width, threads=2)
    with (
        DaliDecoder(graph, batch_size=len(group), max_pixels=10**8, timeout_s=60) as dali,
        OpenCvDecoder(
            height=spec.height, width=spec.width, batch_size=len(group), threads=2, max_pixels=10**8, timeout_s=60
        ) as opencv,
    ):
        (got,), (expected,) = dali.batches([group]), opencv.batches([group])
    assert [file.verdict for file in got.files] == [file.verdict for file in expected.files]
    difference = np.abs(got.pixels.astype(int) - expected.pixels)
    grey = np.array([not path.name.startswith(("colour", "palette", "rgb", "cmyk")) for path in paths])
    print(f"{len(paths)} files: largest difference {difference.max()}, mean {difference.mean():.3f} of 255")
    assert difference[grey].max() <= 2 and difference.mean() < _PIXELS / 4


def test_answers(folder: Path, tmp_path: Path) -> None:
    classes = load_bundle(DEFAULT_MODEL).spec.classes
    for decoder in ("opencv", "dali"):
        classify([folder], tmp_path / decoder, ClassifyOptions(decoder=decoder))
    flips, largest = 0, 0.0
    for opencv, dali in zip(rows(tmp_path / "opencv"), rows(tmp_path / "dali"), strict=True):
        assert (opencv["path"], opencv["status"]) == (dali["path"], "ok")
        change = max(abs(opencv[f"p_{name}"] - dali[f"p_{name}"]) for name in classes)
        largest = max(largest, change)
        if opencv["predicted"] != dali["predicted"]:
            flips += 1
            assert opencv["margin"] <= MAX_CHANGE, opencv["path"]
    print(f"largest change of a probability {largest:.4f}, {flips} classes changed")
    assert largest <= MAX_CHANGE
