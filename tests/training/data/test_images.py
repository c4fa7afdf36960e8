"""What is read from a folder of class folders, what is left out, and that nothing is left out silently."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mribatch.core.data_sets import CONTENT_SIZE
from mribatch.core.errors import MribatchError
from mribatch.core.synthetic import draw_slice
from mribatch.pipeline.records import Status
from mribatch.training.data.classes import BRAIN_TUMORS, ClassList, parse_classes
from mribatch.training.data.images import load
from mribatch.training.data.protocols import deal_folds
from mribatch.training.data.split import group
from tests.training.toy import draw_data


def test_every_slice_with_its_label_in_path_order(toy_data: Path) -> None:
    data = load(toy_data, BRAIN_TUMORS, 32)
    assert len(data.paths) == 48 and list(data.paths) == sorted(data.paths)
    assert np.bincount(data.labels).tolist() == [12, 12, 12, 12]
    wanted = {"glioma_tumor": 0, "Meningioma": 1, "no": 2, "pituitary-tumor": 3}
    assert [wanted[path.split("/")[1]] for path in data.paths] == data.labels.tolist()
    assert data.pixels.shape == (48, 32, 32, 1) and data.pixels.dtype == np.uint8
    assert data.left_out == () and data.other_folders == {}
    assert [Path(file.decode()) for file in data.files] == [toy_data / path for path in data.paths]


def test_pixels_are_the_decoders(toy_data: Path) -> None:
    data = load(toy_data, BRAIN_TUMORS, 40)
    grey = cv2.imread(str(toy_data / data.paths[7]), cv2.IMREAD_GRAYSCALE)
    assert grey is not None and data.stored_sizes[7] == grey.shape[::-1]
    assert (data.pixels[7, :, :, 0] == cv2.resize(grey, (40, 40), interpolation=cv2.INTER_LINEAR)).all()


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    root = draw_data(tmp_path / "brain", per_class=3)
    (root / "Training/glioma_tumor/cut.jpg").write_bytes(cv2.imencode(".jpg", draw_slice(1, 80, 80))[1].tobytes()[:900])
    (root / "Testing/no/empty.png").write_bytes(b"")
    (root / "Testing/no/notes.txt").write_text("no image")
    (root / "Testing/stroke").mkdir()
    cv2.imwrite(str(root / "Testing/stroke/1.png"), draw_slice(2, 80, 80))
    data = load(root, BRAIN_TUMORS, 32)
    assert len(data.paths) == 12 and data.other_folders == {"stroke": 1}
    left_out = {item.path: item.status for item in data.left_out}
    assert left_out == {"Testing/no/empty.png": Status.EMPTY, "Training/glioma_tumor/cut.jpg": Status.TRUNCATED}
    assert all(item.error for item in data.left_out)


def test_slices_are_dealt_by_pixels_that_do_not_depend_on_the_size(toy_data: Path) -> None:
    small, large = load(toy_data, BRAIN_TUMORS, 40), load(toy_data, BRAIN_TUMORS, CONTENT_SIZE)
    assert small.content_sha256 == large.content_sha256 == large.pixel_sha256 != small.pixel_sha256
    dealt = [deal_folds(data, group(data.paths, data.content_sha256, None), 3, 0) for data in (small, large)]
    assert (dealt[0] == dealt[1]).all()


def test_the_fingerprint_sees_pixels_labels_and_names(tmp_path: Path) -> None:
    root = draw_data(tmp_path / "brain", per_class=2)
    first = load(root, BRAIN_TUMORS, 32).fingerprint
    assert load(root, BRAIN_TUMORS, 32).fingerprint == first
    assert load(root, BRAIN_TUMORS, 33).fingerprint != first
    (root / "Testing/no/0.png").rename(root / "Testing/no/7.png")
    renamed = load(root, BRAIN_TUMORS, 32).fingerprint
    assert renamed != first
    (root / "Testing/no/7.png").rename(root / "Testing/pituitary-tumor/7.png")
    assert load(root, BRAIN_TUMORS, 32).fingerprint not in (first, renamed)


def test_equal_pixels_have_equal_hashes_whatever_the_file(tmp_path: Path) -> None:
    root = draw_data(tmp_path / "brain", per_class=1)
    cv2.imwrite(str(root / "Testing/no/copy.bmp"), cv2.imread(str(root / "Testing/no/0.png")))
    data = load(root, BRAIN_TUMORS, 32)
    hashes = dict(zip(data.paths, data.pixel_sha256, strict=True))
    assert hashes["Testing/no/copy.bmp"] == hashes["Testing/no/0.png"]
    assert len(set(hashes.values())) == 4


def test_a_missing_class_is_refused_with_what_is_there(tmp_path: Path) -> None:
    root = draw_data(tmp_path / "brain", per_class=1)
    (root / "Testing/no").rename(root / "Testing/control")
    with pytest.raises(
        MribatchError, match=r"has no images of no_tumor; folders not named like a class: control \(1\)"
    ):
        load(root, BRAIN_TUMORS, 32)


def test_a_class_of_broken_files_is_refused(tmp_path: Path) -> None:
    root = draw_data(tmp_path / "brain", per_class=1)
    (root / "Testing/no/0.png").write_bytes(b"GIF?")
    with pytest.raises(MribatchError, match=r"no image of 'no_tumor' in .* can be read \(e.g. Testing/no/0.png"):
        load(root, BRAIN_TUMORS, 32)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MribatchError, match="there is no folder"):
        load(tmp_path / "none", BRAIN_TUMORS, 32)


def test_classes_of_ones_own() -> None:
    own = parse_classes("benign, malignant")
    assert own.names == ("benign", "malignant") and own.index_of("Malignant") == 1 and own.index_of("no") is None
    short = parse_classes("glioma,meningioma,no_tumor,pituitary")
    assert [short.index_of(name) for name in ("glioma_tumor", "meningioma", "notumor", "Pituitary Tumour")] == [
        0,
        1,
        2,
        3,
    ]
    assert parse_classes(None) is BRAIN_TUMORS
    assert [BRAIN_TUMORS.index_of(name) for name in ("No Tumor", "notumor", "GLIOMA", "x")] == [2, 2, 0, None]


@pytest.mark.parametrize("names", ["only", "a,A", "a b,a_b,c"])
def test_classes_that_are_not_different_are_refused(names: str) -> None:
    with pytest.raises(MribatchError, match="are not two or more different names"):
        parse_classes(names)


def test_the_aliases_make_a_valid_parse_classes() -> None:
    assert set(BRAIN_TUMORS.aliases.values()) <= set(BRAIN_TUMORS.names)
    assert isinstance(BRAIN_TUMORS, ClassList)
