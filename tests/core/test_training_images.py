"""Hashes recognise training images, also encoded again, and nothing else; damaged files are refused."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy import uint8, uint64
from numpy.typing import NDArray

from mribatch.core.bundle import SPEC_FILE, TRAINING_IMAGES_FILE, load_bundle
from mribatch.core.errors import BundleError
from mribatch.core.synthetic import draw_slice
from mribatch.core.training_images import TrainingImages, TrainingMatch, group_near, perceptual_hashes
from mribatch.training.export.training_images import KnownImages, add_training_images

EXACT, NEAR = TrainingMatch.EXACT, TrainingMatch.NEAR


def slices(first: int, count: int, size: int = 160) -> NDArray[uint8]:
    return np.stack([draw_slice(number, size, size) for number in range(first, first + count)])[..., None].astype(uint8)


def test_the_same_pixels_are_exact_and_the_same_picture_is_near() -> None:
    images = slices(0, 40)
    known = TrainingImages.of_pixels(images)
    assert len(known) == 40 and known.find(images) == [EXACT] * 40
    noise = np.random.default_rng(1).integers(-2, 3, images.shape)
    again = np.clip(images.astype(int) + noise, 0, 255).astype(uint8)
    encoded = [cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1], 0) for image in images]
    decoded = np.stack([image for image in encoded if image is not None])[..., None].astype(uint8)
    for changed in (again, decoded):
        found = known.find(changed)
        assert set(found) <= {NEAR, None} and found.count(NEAR) >= 38
    assert known.find(images[:, ::-1]).count(None) >= 39


def test_a_flat_image_matches_only_itself() -> None:
    flat = [np.full((1, 20, 30, 1), value, uint8) for value in (0, 7, 255)]
    assert [int(perceptual_hashes(image)[0]) for image in flat] == [0, 0, 0]
    known = TrainingImages.of_pixels(flat[1])
    assert [known.find(image)[0] for image in flat] == [None, EXACT, None]


def test_equal_images_count_once_and_an_empty_set_finds_nothing() -> None:
    assert len(TrainingImages.of_pixels(np.concatenate([slices(0, 3), slices(0, 3)]))) == 3
    none = np.empty(0, uint64)
    assert TrainingImages(none, none).find(slices(0, 2)) == [None, None]


def test_every_pair_within_two_bits_is_found() -> None:
    random = np.random.default_rng(2)
    hashes = random.integers(0, 2**63, 500, uint64)
    image = slices(5, 1)
    value = perceptual_hashes(image)[0]
    for _ in range(200):
        first, second = random.choice(64, 2, replace=False).tolist()
        near = np.append(hashes, value ^ uint64(1 << first) ^ uint64(1 << second))
        assert TrainingImages(near, near).find(image) == [NEAR]


@pytest.fixture
def bundle(tiny_model: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "bundle"))
    spec = load_bundle(str(folder)).spec
    pixels = np.random.default_rng(0).integers(0, 256, (5, spec.height, spec.width, 1), uint8)
    add_training_images(folder, KnownImages(TrainingImages.of_pixels(pixels)))
    return folder


def set_content(bundle: Path, content: bytes) -> None:
    (bundle / TRAINING_IMAGES_FILE).write_bytes(content)
    spec = json.loads((bundle / SPEC_FILE).read_bytes())
    spec["training_images_sha256"] = sha256(content).hexdigest()
    (bundle / SPEC_FILE).write_text(json.dumps(spec))


def test_a_bundle_with_hashes_is_read_and_written_back_as_it_was(bundle: Path) -> None:
    found = load_bundle(str(bundle))
    assert found.training_images is not None and len(found.training_images) == 5
    assert list(found.spec.to_json()) == list(json.loads((bundle / SPEC_FILE).read_bytes()))


def test_a_damaged_file_is_refused(bundle: Path, tmp_path: Path) -> None:
    path = bundle / TRAINING_IMAGES_FILE
    good = path.read_bytes()
    path.write_bytes(good + b"x")
    with pytest.raises(BundleError, match=r"training_images\.npz has sha256"):
        load_bundle(str(bundle))
    set_content(bundle, b"no archive")
    with pytest.raises(BundleError, match="does not hold hashes of training images"):
        load_bundle(str(bundle))
    np.savez(tmp_path / "x.npz", exact=np.zeros(3, uint64), perceptual=np.zeros((3, 1), uint64))
    set_content(bundle, (tmp_path / "x.npz").read_bytes())
    with pytest.raises(BundleError, match=r"'perceptual' is uint64 \(3, 1\)"):
        load_bundle(str(bundle))
    path.unlink()
    with pytest.raises(BundleError, match="cannot read"):
        load_bundle(str(bundle))


def test_near_pictures_are_grouped_also_through_others() -> None:
    random = np.random.default_rng(3)
    base = random.integers(1, 2**63, 300, uint64)
    chain = [base[0], base[0] ^ uint64(3), base[0] ^ uint64(15), base[0] ^ uint64(63)]  # two bits from one to the next
    hashes = np.concatenate([base, np.array(chain[1:], uint64), base[5:8], np.zeros(2, uint64)])
    groups = group_near(hashes)
    bits = np.array([[int(a ^ b).bit_count() <= 2 and a != 0 for b in hashes.tolist()] for a in hashes.tolist()])
    for _ in range(3):  # every way through others, by brute force
        bits = bits | (bits.astype(int) @ bits.astype(int) > 0)
    for row, group in enumerate(groups.tolist()):
        expected = np.flatnonzero(bits[row]).tolist() or [row]
        assert np.flatnonzero(groups == group).tolist() == expected and group == expected[0]
    assert group_near(np.empty(0, uint64)).tolist() == []
