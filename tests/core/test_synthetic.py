from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mribatch.core.synthetic import draw_slice, golden_slices


def test_gives_the_same_pixels_on_every_machine() -> None:
    golden = golden_slices(64, 160, 160)
    assert sha256(golden.tobytes()).hexdigest() == "1adebe70b8bbe88dd795947f3d6e689c9dc99bcf2174c8ca8d883caf218c05bd"
    odd = golden_slices(8, 31, 47)
    assert sha256(odd.tobytes()).hexdigest() == "cb97a10994319f160031ac6392a1d204a8548ea461854188abcbf0e681e090cc"


def test_golden_slices_are_the_first_seeds() -> None:
    golden = golden_slices(3, 40, 50)
    assert golden.shape == (3, 40, 50, 1)
    assert golden.dtype == np.uint8
    assert golden.flags.c_contiguous
    assert (golden[2, ..., 0] == draw_slice(2, 40, 50)).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**63), st.integers(8, 90), st.integers(8, 90), st.sampled_from([None, True, False]))
def test_any_size_gives_a_slice_that_is_no_plain_surface(
    seed: int, height: int, width: int, lesion: bool | None
) -> None:
    image = draw_slice(seed, height, width, lesion)
    assert image.shape == (height, width)
    assert image.dtype == np.uint8
    assert image.std() > 20
    assert (image == draw_slice(seed, height, width, lesion)).all()


def test_shows_a_bright_skull_around_tissue_on_a_dark_ground() -> None:
    for seed in range(20):
        image = draw_slice(seed, 160, 160, lesion=False).astype(int)
        corners = image[[2, 2, -3, -3], [2, -3, 2, -3]]
        middle_row = image[80]
        tissue = np.median(image[60:100, 40:120])
        assert corners.max() < 30 < tissue < middle_row[:50].max()
        assert middle_row[110:].max() > 130


def test_a_lesion_changes_one_side_of_the_brain_and_nothing_else() -> None:
    for seed in range(20):
        with_lesion = draw_slice(seed, 160, 160, lesion=True).astype(int)
        without = draw_slice(seed, 160, 160, lesion=False).astype(int)
        changed = with_lesion != without
        assert 60 < changed.sum() < 0.25 * changed.size
        assert (np.abs(with_lesion - without) > 50).sum() > 40
        columns, rows = np.nonzero(changed.any(axis=0))[0], np.nonzero(changed.any(axis=1))[0]
        assert max(np.ptp(columns), np.ptp(rows)) < 90


def test_the_seed_decides_on_the_lesion_where_nobody_else_does() -> None:
    same_as = {True: 0, False: 0}
    for seed in range(60):
        image = draw_slice(seed, 32, 32)
        for lesion in (True, False):
            same_as[lesion] += bool((image == draw_slice(seed, 32, 32, lesion)).all())
    assert same_as[True] + same_as[False] == 60
    assert min(same_as.values()) > 15


def test_slices_differ_in_size_position_and_contrast() -> None:
    golden = golden_slices(64, 160, 160)[..., 0]
    widths = (golden[:, 80] > 60).sum(axis=1)
    assert widths.max() - widths.min() > 25
    assert np.ptp(np.median(golden[:, 70:90, 50:110], axis=(1, 2))) > 50


@pytest.mark.parametrize(("seed", "height", "width"), [(0, 7, 160), (0, 160, 0), (-1, 160, 160)])
def test_refuses_what_it_cannot_draw(seed: int, height: int, width: int) -> None:
    with pytest.raises(ValueError, match=r"smaller than 8x8|non-negative"):
        draw_slice(seed, height, width)
