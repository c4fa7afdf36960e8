"""What does not look like training is flagged, what does is not; a row stands for itself; damaged files are refused."""

import io
import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy import uint8
from numpy.typing import NDArray

from mribatch.core import training_look
from mribatch.core.bundle import SPEC_FILE, TRAINING_LOOK_FILE, load_bundle
from mribatch.core.errors import BundleError
from mribatch.core.synthetic import draw_slice
from mribatch.core.training_images import TrainingImages
from mribatch.core.training_look import TrainingLook
from mribatch.training.export.training_images import KnownImages, add_training_images

SIDE = 96
SIZE = (200, 200)


def slices(first: int, count: int) -> NDArray[uint8]:
    return np.stack([draw_slice(number, SIDE, SIDE) for number in range(first, first + count)])[..., None]


@pytest.fixture(scope="module")
def look() -> TrainingLook:
    found = TrainingLook.of_images(slices(0, 240), [SIZE] * 240, np.arange(240) // 2)
    assert found is not None
    return found


def strange() -> dict[str, NDArray[uint8]]:
    random = np.random.default_rng(0)
    head = slices(500, 1)[0, ..., 0]
    ramp = np.tile(np.linspace(0, 255, SIDE), (SIDE, 1)).astype(uint8)
    return {
        "noise": random.integers(0, 256, (SIDE, SIDE)).astype(uint8),
        "inverted": 255 - head,
        "ramp": ramp,
        "white border": np.pad(head[8:-8, 8:-8], 8, constant_values=255),
        "dark": head // 8,
        "noisy": np.clip(head + random.normal(0, 60, head.shape), 0, 255).astype(uint8),
        "flat": np.full((SIDE, SIDE), 128, uint8),
    }


def test_left_out_images_look_like_training(look: TrainingLook) -> None:
    others = slices(1000, 200)
    assert look.find_unlike(others, [SIZE] * 200).mean() < 0.05
    assert look.false_alarms < 0.03 and look.images == 240


@pytest.mark.parametrize("name", strange())
def test_other_pictures_do_not(look: TrainingLook, name: str) -> None:
    assert look.find_unlike(strange()[name][None, ..., None], [SIZE]).all()


def test_sizes_far_from_those_of_training_are_unlike(look: TrainingLook) -> None:
    image = slices(1, 1)
    sizes = [SIZE, (100, 100), (400, 400), (99, 120), (410, 390), (200, 300), (None, None)]
    found = [bool(look.find_unlike(image, [size])[0]) for size in sizes]
    assert found == [False, False, False, True, True, True, False]


def test_a_row_does_not_depend_on_its_neighbours(look: TrainingLook) -> None:
    images = np.concatenate([slices(300, 20), np.stack(list(strange().values()))[..., None]])
    together = look.find_unlike(images, [SIZE] * len(images)).tolist()
    assert together == [bool(look.find_unlike(image[None], [SIZE])[0]) for image in images]


def test_too_few_or_too_small_images_say_nothing() -> None:
    images = slices(0, 120)
    assert TrainingLook.of_images(images[:99], [SIZE] * 99, np.arange(99)) is None
    assert TrainingLook.of_images(images, [SIZE] * 120, np.arange(120) % 9) is None
    assert TrainingLook.of_images(images[:, :8, :8], [SIZE] * 120, np.arange(120)) is None


@pytest.fixture
def bundle(look: TrainingLook, tiny_model: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    add_training_images(folder, KnownImages(TrainingImages.of_pixels(slices(0, 3)), look))
    return folder


def test_a_bundle_keeps_it(bundle: Path, look: TrainingLook) -> None:
    kept = load_bundle(str(bundle)).training_look
    assert kept is not None and kept.false_alarms == look.false_alarms
    images = np.concatenate([slices(2000, 5), np.stack(list(strange().values()))[..., None]])
    sizes = [SIZE] * len(images)
    assert kept.find_unlike(images, sizes).tolist() == look.find_unlike(images, sizes).tolist()
    assert (bundle / TRAINING_LOOK_FILE).stat().st_size < 50_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layout_transform", np.zeros((3, 2), np.float32)),
        ("layout_transform", np.zeros(384, np.float32)),
        ("layout_mean", np.full(384, np.nan, np.float32)),
        ("statistics_limit", np.array([1.0, 2.0])),
        ("images", np.array("many")),
        ("sides", None),
    ],
)
def test_a_file_that_does_not_fit_is_refused(bundle: Path, name: str, value: NDArray[Any] | None) -> None:
    path = bundle / TRAINING_LOOK_FILE
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files} | {name: value}
    stream = io.BytesIO()
    np.savez(stream, **{key: array for key, array in arrays.items() if array is not None})
    path.write_bytes(stream.getvalue())
    content = json.loads((bundle / SPEC_FILE).read_bytes())
    content["training_look_sha256"] = sha256(stream.getvalue()).hexdigest()
    (bundle / SPEC_FILE).write_text(json.dumps(content))
    with pytest.raises(BundleError, match=r"training_look\.npz does not hold statistics of training images"):
        load_bundle(str(bundle))


@pytest.mark.parametrize("name", ["efficientnet-lite2", "cnn"])
def test_shipped_models_have_it(name: str) -> None:
    look = load_bundle(name).training_look
    assert look is not None and look.images >= 2000 and look.false_alarms < 0.01
    noise = np.random.default_rng(0).integers(0, 256, (4, 160, 160, 1)).astype(uint8)
    assert look.find_unlike(noise, [(512, 512)] * 4).all()


def test_numbers_of_an_image_are_those_of_the_image_alone_and_as_defined() -> None:
    images = np.stack([draw_slice(number, 65, 97) for number in range(21)])  # odd sides, and no whole number of batches
    together = training_look._describe_all(images[..., None])
    alone = [training_look._describe_all(one[None, ..., None]) for one in images]
    for name, values in together.items():
        assert np.array_equal(values, np.concatenate([one[name] for one in alone]))
    half = images[:, :64, :96].reshape(21, 32, 2, 48, 2).sum(axis=(2, 4)).astype(np.float32) / np.float32(4 * 255)
    assert np.array_equal(training_look._halve(images), half)
    for image, found in zip(images, training_look._quantiles(images), strict=True):
        levels = np.sort(image[1::4, 1::4].ravel())
        wanted = [levels[np.arange(1, len(levels) + 1) / len(levels) >= share][0] / 255 for share in (0.25, 0.5, 0.99)]
        assert found[[0, 1, 4]].tolist() == wanted
