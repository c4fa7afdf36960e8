"""Pictures and numbers of where the model looked."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mribatch.core.errors import OptionError
from mribatch.core.synthetic import draw_slice
from mribatch.pipeline.demo_study import draw_demo_study
from mribatch.pipeline.options import ClassifyOptions
from mribatch.report.explain import Explained, ExplainOptions, explain

HOSTILE = "a b;$(x)\n<é>.png"


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    cv2.imwrite(str(folder / "wide.png"), draw_slice(1, 60, 120))
    (folder / HOSTILE).write_bytes((folder / "wide.png").read_bytes())
    (folder / "broken.png").write_bytes(b"\x89PNG")
    draw_demo_study(folder / "study", seed=0)
    for path in [*folder.glob("study/series-*/*"), *folder.glob("study/report/*")]:
        path.unlink()
    return folder


def run(scans: Path, out: Path, model: Path, **options: object) -> list[Explained]:
    chosen = ExplainOptions(classify=ClassifyOptions(model=str(model), labels="none"), **options)  # type: ignore[arg-type]
    return list(explain([str(scans)], out, chosen))


def test_every_image_has_a_line_and_every_good_one_a_picture(scans: Path, tmp_path: Path, tiny_model: Path) -> None:
    found = run(scans, tmp_path, tiny_model)
    assert [json.loads(line)["path"] for line in (tmp_path / "explained.jsonl").read_text().splitlines()] == [
        each.path for each in found
    ]
    assert [each.status for each in found].count("ok") == 16
    pictures = [each.picture for each in found if each.picture]
    assert len(set(pictures)) == len(pictures) == 16
    assert {path.name for path in tmp_path.iterdir()} == {*pictures, "explained.jsonl"}
    wide = next(each for each in found if each.path == "wide.png")
    picture = cv2.imread(str(tmp_path / str(wide.picture)))
    assert picture is not None
    assert picture.shape == (256, 1024, 3), "image and map side by side, in the image's proportions"
    assert wide.map is not None
    assert np.array(wide.map).shape == (15, 15)
    assert wide.explained == wide.predicted


def test_another_class_and_a_limit(scans: Path, tmp_path: Path, tiny_model: Path) -> None:
    found = run(scans, tmp_path, tiny_model, class_name="no_tumor", limit=2)
    assert [each.explained for each in found if each.picture] == ["no_tumor"] * 2
    assert len(found) == 19


def test_a_class_that_the_model_does_not_have_is_refused(scans: Path, tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(OptionError, match="not a class of the model"):
        run(scans, tmp_path / "out", tiny_model, class_name="stroke")
    assert not (tmp_path / "out").exists()
