"""classify_images gives arrays, bytes and paths the rows that classify gives the same images as files."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

import mribatch
from tests.folders import draw_images


def test_arrays_bytes_and_paths_have_the_rows_of_files(tiny_model: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    arrays = [
        random.integers(0, 256, (40, 50), np.uint8),
        random.integers(0, 256, (31, 20, 1), np.uint8),
        random.integers(0, 256, (33, 47, 3), np.uint8),
        random.integers(0, 60000, (25, 26), np.uint16),
        random.integers(0, 60000, (25, 26, 3), np.uint16),
    ]
    folder = tmp_path / "data"
    (path, other) = draw_images(folder, 2)
    for number, array in enumerate(arrays):
        stored = array[..., ::-1] if array.shape[2:] == (3,) else array
        cv2.imwrite(str(folder / f"{number}.png"), stored)
    (folder / "8.jpg").write_bytes(b"text")
    run = mribatch.classify(folder, tmp_path / "out", model=str(tiny_model), progress=False).to_arrow().to_pylist()
    files = {row["path"]: row for row in run}
    expected = [files[f"{number}.png"] for number in range(5)]
    expected += [files[str(one.relative_to(folder))] for one in (path, other, folder / "8.jpg")]
    results = mribatch.classify_images(
        [*arrays, path.read_bytes(), str(other), b"text"], model=str(tiny_model), progress=False
    )
    assert len(results) == 8 and [row["status"] for row in results] == ["ok"] * 7 + ["unsupported"]
    assert {row["status"] for row in expected[:7]} == {"ok"} and expected[7]["status"] == "unsupported"
    same = ("status", "error", "flags", "predicted", "confidence", "margin", "entropy", "width", "height")
    for got, row in zip(results, expected, strict=True):
        columns = [*same, *(name for name in row if name.startswith("p_"))]
        assert [got[name] for name in columns] == [row[name] for name in columns]
    assert [row["path"] for row in results][4:7] == ["image 4", "image 5", str(other)]
    assert results[-1]["error"] and "unsupported" in repr(results) and "<table>" in results._repr_html_()


def test_a_column_of_a_dataframe_and_an_empty_list(tiny_model: Path, tmp_path: Path) -> None:
    frame = pd.DataFrame({"file": list(map(str, draw_images(tmp_path / "data", 3)))})
    frame["predicted"] = mribatch.classify_images(frame["file"], model=str(tiny_model)).to_pandas()["predicted"]
    assert frame["predicted"].notna().all()
    assert len(mribatch.classify_images([], model=str(tiny_model))) == 0


@pytest.mark.parametrize("array", [np.zeros((3, 4)), np.zeros((0, 4), np.uint8), np.zeros((3, 4, 2), np.uint8)])
def test_another_array_is_refused(tiny_model: Path, array: np.ndarray) -> None:
    with pytest.raises(mribatch.MribatchError, match="image 0 is an array of .* Fix: give uint8 or uint16"):
        mribatch.classify_images([array], model=str(tiny_model))
    with pytest.raises(TypeError, match="not a single one"):
        mribatch.classify_images("scan.png")
