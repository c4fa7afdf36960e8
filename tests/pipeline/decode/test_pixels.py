"""One rule for pixels (docs/reference/pixels.md), obeyed by both decoders: a matrix of files against independent readers.

NVIDIA DALI runs on its CPU backend here, and only where it is installed.
"""

import importlib.util
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy import uint8
from numpy.typing import NDArray

from mribatch.pipeline.decode.dali import DaliDecoder
from mribatch.pipeline.decode.dali_graph import CPU, GraphOptions
from mribatch.pipeline.decode.grey import decode_grey, opencv_version
from mribatch.pipeline.decode.opencv import OpenCvDecoder
from mribatch.pipeline.decode.probe import probe
from mribatch.pipeline.records import DecodedBatch, ImageFile, Status, Verdict
from tests.container_matrix import SIDE, Entry, matrix, refused

HAS_DALI = importlib.util.find_spec("nvidia.dali") is not None if importlib.util.find_spec("nvidia") else False
BATCH = 64
# Largest difference in levels, of 255. Rounding gives a half; libpng rounds colour down, and Pillow 5-bit samples.
LARGEST = {"jpeg": 0.51, "exif": 0.51, "png": 1.01, "bmp": 1.3, "tiff": 0.51, "webp": 0.51, "jp2": 0.51}

ANIMATED = ("webp_animated_1.webp", "webp_animated_2.webp")  # OpenCV 4.10 reads none; they are `decode_failed`

Found = dict[str, tuple[Verdict, NDArray[uint8]]]


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return list(matrix())


@pytest.fixture(scope="module")
def decoded(entries: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    """Decoder -> name -> verdict and pixels."""
    folder = tmp_path_factory.mktemp("matrix")
    groups = written(folder, {entry.name: entry.content for entry in entries})
    return by_decoder(groups)


def written(folder: Path, contents: dict[str, bytes]) -> list[list[ImageFile]]:
    files = []
    for index, (name, content) in enumerate(contents.items()):
        (folder / name).write_bytes(content)
        files.append(ImageFile(index, 0, name, bytes(folder / name)))
    return [files[start : start + BATCH] for start in range(0, len(files), BATCH)]


def by_decoder(groups: Sequence[Sequence[ImageFile]]) -> dict[str, Found]:
    found: dict[str, Found] = {}
    with OpenCvDecoder(height=SIDE, width=SIDE, batch_size=BATCH, threads=2, max_pixels=10**8, timeout_s=60) as decoder:
        found["opencv"] = by_name(list(decoder.batches(groups)))
    if HAS_DALI:
        graph = GraphOptions(device=CPU, height=SIDE, width=SIDE, threads=2)
        with DaliDecoder(graph, batch_size=BATCH, max_pixels=10**8, timeout_s=60) as dali:
            found["dali"] = by_name(list(dali.batches(groups)))
    return found


def by_name(batches: Sequence[DecodedBatch]) -> Found:
    return {
        file.file.path: (file.verdict, batch.pixels[place, ..., 0])
        for batch in batches
        for place, file in enumerate(batch.files)
    }


def test_the_matrix_is_large_and_its_names_are_unique(entries: list[Entry]) -> None:
    kinds = Counter(entry.name.split("_")[0] for entry in entries)
    assert len({entry.name for entry in entries}) == len(entries) > 1900
    assert kinds.keys() == LARGEST.keys() and min(kinds.values()) > 20


@pytest.mark.parametrize("kind", sorted(LARGEST))
def test_pixels_are_those_of_independent_readers(kind: str, entries: list[Entry], decoded: dict[str, Found]) -> None:
    for decoder, found in decoded.items():
        largest, wrong = 0.0, []
        for entry in entries:
            if entry.name.split("_")[0] != kind or (entry.name in ANIMATED and opencv_version() < "4.11"):
                continue
            verdict, pixels = found[entry.name]
            difference = float(np.abs(pixels - entry.expected).max())
            largest = max(largest, difference)
            if verdict.status is not Status.OK or difference > LARGEST[kind]:
                wrong.append((entry.name, verdict.status.value, verdict.error, round(difference, 2)))
        print(f"{decoder}, {kind}: largest difference {largest:.2f} of 255")
        assert not wrong, f"{decoder}: {wrong[:10]}"


def test_verdicts_do_not_depend_on_the_decoder(decoded: dict[str, Found]) -> None:
    for found in decoded.values():
        for name, (verdict, _) in found.items():
            assert verdict == decoded["opencv"][name][0], name


@pytest.mark.parametrize("name", sorted(refused()))
def test_what_is_not_read_right_is_refused_with_the_reason(name: str) -> None:
    verdict, pixels = decode_grey(refused()[name], probe(refused()[name]), SIDE, SIDE)
    assert (verdict.status, pixels) == (Status.UNSUPPORTED, None)
    assert verdict.error is not None and verdict.error.endswith(".")
