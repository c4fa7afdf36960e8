"""Pairs and groups of images that were drawn, and what must hold for any order of them."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import uint8
from numpy.typing import NDArray

from mribatch.core.synthetic import draw_slice
from mribatch.pipeline.records import DecodedFile, ImageFile, Status, StudyImage, Verdict
from mribatch.report.audit import images as audited_images
from mribatch.report.audit.duplicates import PairKind, find_duplicates
from mribatch.report.audit.images import AuditedImages
from mribatch.report.audit.leaks import Ties, expect_random_leak, find_leaked, measure_leaks
from mribatch.report.audit.series import find_series, natural_order


def make_images(pixels: list[NDArray[uint8]], studies: list[StudyImage | None] | None = None) -> AuditedImages:
    """What the audit knows of images in memory, through the code that reads them from files."""
    parts = audited_images._Parts(("a", "b"))
    stack = np.stack(pixels)[..., None]
    decoded = [
        DecodedFile(
            ImageFile(place, 0, f"folder/{place}.png", b"", study=None if studies is None else studies[place]),
            Verdict(Status.OK, format="png", width=160, height=160),
            sha256=f"{place:x}",
        )
        for place in range(len(pixels))
    ]
    parts.add(decoded, stack)
    return parts.join()


def permute(images: AuditedImages, order: list[int]) -> AuditedImages:
    return dataclasses.replace(
        images,
        files=[images.files[place] for place in order],
        decoded=[images.decoded[place] for place in order],
        encodings=[images.encodings[place] for place in order],
        content=[images.content[place] for place in order],
        hashes=images.hashes[order],
        thumbnails=images.thumbnails[order],
        borders=images.borders[order],
        labels=images.labels[order],
    )


@pytest.fixture(scope="module")
def drawn() -> AuditedImages:
    """Twelve heads; one as it is, one noisy, one cropped to the head, and two flat images."""
    heads = [draw_slice(seed, 160, 160) for seed in range(12)]
    noisy = np.clip(heads[1].astype(int) + np.random.default_rng(0).integers(-2, 3, (160, 160)), 0, 255).astype(uint8)
    small = np.zeros((160, 160), uint8)
    small[20:140, 20:140] = draw_slice(2, 120, 120)
    flat = [np.full((160, 160), level, uint8) for level in (7, 8)]
    return make_images([*heads, heads[0], noisy, small, *flat])


def test_copies_noise_and_margins_are_found_and_other_heads_are_not(drawn: AuditedImages) -> None:
    found = find_duplicates(drawn)
    assert [(pair.first, pair.second, pair.kind) for pair in found.pairs] == [
        (0, 12, PairKind.SAME_PIXELS),
        (1, 13, PairKind.NEAR),
        (2, 14, PairKind.NEAR),
    ]
    assert found.groups.tolist() == [*range(12), 0, 1, 2, 12, 13]  # flat images are near to nothing
    assert found.sizes().tolist() == [2, 2, 2, *[1] * 9, 2, 2, 2, 1, 1]


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(17)))
def test_the_order_does_not_matter(drawn: AuditedImages, order: list[int]) -> None:
    straight, shuffled = find_duplicates(drawn), find_duplicates(permute(drawn, order))
    assert {frozenset((pair.first, pair.second)) for pair in straight.pairs} == {
        frozenset((order[pair.first], order[pair.second])) for pair in shuffled.pairs
    }
    for one in range(17):
        for other in range(17):
            together = straight.groups[order[one]] == straight.groups[order[other]]
            assert together == (shuffled.groups[one] == shuffled.groups[other])


def test_neighbours_of_one_known_series_are_no_duplicates() -> None:
    head = draw_slice(3, 160, 160)
    nearly = np.clip(head.astype(int) + 1, 0, 255).astype(uint8)
    one, other = (StudyImage("dicom", series=series, patient="p") for series in ("x", "y"))
    assert not find_duplicates(make_images([head, nearly], [one, one])).pairs
    (pair,) = find_duplicates(make_images([head, nearly], [one, other])).pairs
    assert pair.kind is PairKind.NEAR


def test_known_series_are_taken_and_neighbours_are_joined() -> None:
    volume = [draw_slice(4, 160, 160)]
    rng = np.random.default_rng(1)
    for _ in range(3):  # a scan whose slices change slowly
        volume.append(np.clip(volume[-1].astype(float) + rng.normal(0, 12, (160, 160)), 0, 255).astype(uint8))
    others = [draw_slice(seed, 160, 160) for seed in range(30, 60)]
    images = make_images([*others[:15], *volume, *others[15:]])
    series = find_series(images, find_duplicates(images).groups)
    assert len(set(series.numbers[15:19].tolist())) == 1
    assert not series.known.any()
    alone = [number for place, number in enumerate(series.numbers.tolist()) if not 15 <= place < 19]
    assert len(set(alone)) > 25
    study = StudyImage("nifti", series="x", patient="p")
    known = find_series(make_images(others[:3], [study, None, study]), np.arange(3))
    assert known.numbers.tolist() == [0, 1, 0] and known.known.tolist() == [True, False, True]


def test_names_are_ordered_by_their_numbers() -> None:
    names = ["a/image(10).jpg", "a/image (2).jpg", "a/Image(1).jpg", "a/image(²).jpg"]
    assert sorted(names, key=natural_order) == [
        "a/Image(1).jpg",
        "a/image (2).jpg",
        "a/image(10).jpg",
        "a/image(²).jpg",
    ]


def test_leaks_are_of_later_parts_into_earlier_ones() -> None:
    parts = ["train", "train", "validation", "validation", "test", "test", None, "test"]
    duplicates = np.array([0, 1, 0, 2, 2, 3, 3, -1])
    readable = duplicates >= 0
    nothing = np.full(8, -1)
    ties = Ties(pixels=np.array([0, 1, 0, 3, 4, 5, 6, -1]), duplicates=duplicates, series=nothing, patients=nothing)
    validation, test = measure_leaks(parts, readable, ties)
    assert (validation.images, validation.duplicates, validation.same_pixels) == (2, 1, 1)
    assert (test.known_from, test.images, test.duplicates, test.same_pixels) == (("train", "validation"), 2, 1, 0)
    assert find_leaked(parts, readable, ties).tolist() == [False, False, True, False, True, False, False, False]
    assert measure_leaks(["test"] * 8, readable, ties) == ()


def test_the_leak_of_a_random_split_is_the_mean_over_draws() -> None:
    groups = np.array([0] * 4 + [1] * 2 + [2] * 2 + list(range(3, 35)) + [-1])
    expected = expect_random_leak(groups)
    rng, leaked = np.random.default_rng(0), []
    for _ in range(4000):
        tested = np.zeros(41, bool)
        tested[rng.permutation(40)[:6]] = True
        trained = ~tested & (groups >= 0)
        leaked.append(np.isin(groups[tested], groups[trained]).mean())
    assert expected == pytest.approx(float(np.mean(leaked)), abs=0.01)
    assert expect_random_leak(np.array([0, 1])) is None
    assert expect_random_leak(np.arange(20)) == 0
