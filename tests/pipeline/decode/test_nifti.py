"""Voxels of NIfTI files: types, scaling, volumes, what is not a number, and files that are broken."""

import gzip
import tracemalloc
from itertools import product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mribatch.pipeline.decode.nifti import evenly_spaced, open_nifti
from mribatch.pipeline.decode.values import StoredSlice, ValueRange, Window, to_grey
from mribatch.pipeline.records import Flag, Status, Verdict
from mribatch.pipeline.storage.source import LocalSource
from mribatch.pipeline.studies.facts import StudyFile, StudyFormat
from mribatch.pipeline.studies.nifti_header import read_nifti_header
from mribatch.pipeline.studies.options import HeaderOptions
from tests.pipeline.studies.nifti_bytes import CODES, broken, header, nifti, voxels

MAX_VOXELS = 1 << 16
BROKEN = broken()


def options(volume: int | None = 0) -> HeaderOptions:
    return HeaderOptions(max_pixels=MAX_VOXELS, volume=volume)


def read(path: Path, volume: int | None = 0) -> tuple[StudyFile, list[tuple[Verdict, StoredSlice | None]]]:
    """The header, and every slice that it announces, also where the header is refused."""
    name = str(path).encode()
    study = read_nifti_header(LocalSource(name), options(volume))
    verdict, opened = open_nifti(LocalSource(name), options(volume))
    assert verdict == study.verdict
    if opened is None:
        assert study.verdict.status is not Status.OK
        return study, [(study.verdict, None)]
    with opened:
        return study, [opened.slice(facts.slice if facts.slice is not None else -1) for facts in study.slices]


def values(path: Path, volume: int | None = 0) -> NDArray[np.float32]:
    """All slices, which must be ok: (slices, rows, columns)."""
    _, slices = read(path, volume)
    assert {verdict.status for verdict, _ in slices} == {Status.OK}
    return np.stack([stored.values for _, stored in slices if stored is not None])


def shown(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """An array stored as "LAS" -> its axial pictures: columns lead left, rows to posterior."""
    return np.asarray(array).transpose(2, 1, 0)[:, ::-1, :]


@pytest.mark.parametrize(("code", "order", "version"), list(product(CODES, "<>", (1, 2))))
def test_types_and_byte_orders(tmp_path: Path, code: str, order: str, version: int) -> None:
    array = voxels(dtype=order + code)
    if code[0] != "u":
        array = (array.astype(float) - 100).astype(array.dtype)
    (tmp_path / "volume.nii").write_bytes(nifti(array, version=version, scl_slope=0.5, scl_inter=-3))
    found = values(tmp_path / "volume.nii")
    assert np.allclose(found, shown(array).astype(float) * 0.5 - 3, rtol=1e-6)
    (tmp_path / "volume.nii.gz").write_bytes(gzip.compress((tmp_path / "volume.nii").read_bytes()))
    assert np.array_equal(values(tmp_path / "volume.nii.gz"), found)


@pytest.mark.parametrize("name", list(BROKEN))
def test_broken_files_get_their_status(tmp_path: Path, name: str) -> None:
    content, status = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    study, slices = read(tmp_path / name)
    assert {verdict.status for verdict, _ in slices} == {status}, slices[0]
    assert study.format is StudyFormat.NIFTI
    for verdict, stored in slices:
        assert stored is None
        assert verdict.format == "nifti"
        assert verdict.error
        assert verdict.error.endswith(".")


@pytest.mark.parametrize(("slope", "intercept"), [(0, 7), (np.nan, 7), (np.inf, 7), (1, 0), (-2, 5)])
def test_slope_and_intercept_are_those_of_nibabel(tmp_path: Path, slope: float, intercept: float) -> None:
    path = tmp_path / "volume.nii"
    path.write_bytes(nifti(scl_slope=slope, scl_inter=intercept))
    assert np.array_equal(values(path), shown(nibabel.load(path).get_fdata()))


def test_pairs_are_found_from_either_file(tmp_path: Path) -> None:
    array = voxels()
    (tmp_path / "a.hdr").write_bytes(header(array, one_file=False, vox_offset=16))
    (tmp_path / "a.img.gz").write_bytes(gzip.compress(bytes(16) + array.tobytes(order="F")))
    (tmp_path / "B.HDR").write_bytes(header(array, one_file=False, version=2))
    (tmp_path / "B.IMG").write_bytes(array.tobytes(order="F"))
    for name in ("a.hdr", "a.img.gz", "B.HDR", "B.IMG"):
        assert np.array_equal(values(tmp_path / name), shown(array)), name


def test_extension_blocks_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "volume.nii").write_bytes(nifti(extension=b"\x20\0\0\0\4\0\0\0" + b"Planted^Name".ljust(24)))
    assert np.array_equal(values(tmp_path / "volume.nii"), shown(voxels()))


def test_a_single_slice(tmp_path: Path) -> None:
    array = voxels((6, 5))
    (tmp_path / "slice.nii").write_bytes(nifti(array, pixdim=[1, 1, 1, 0, 0, 0, 0, 0]))
    assert np.array_equal(values(tmp_path / "slice.nii"), shown(array[:, :, None]))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_volumes(tmp_path: Path, suffix: str) -> None:
    array = voxels((6, 5, 4, 3))
    path = tmp_path / f"volumes{suffix}"
    path.write_bytes(gzip.compress(nifti(array)) if suffix.endswith("gz") else nifti(array))
    for wanted in (0, 1, 2, None):
        study, _ = read(path, wanted)
        chosen = range(3) if wanted is None else [wanted]
        assert [facts.slice for facts in study.slices] == [4 * volume + k for volume in chosen for k in range(4)]
        assert study.flags == ((Flag.FIRST_VOLUME,) if wanted == 0 else ())
        assert np.array_equal(values(path, wanted), np.concatenate([shown(array[..., volume]) for volume in chosen]))
    assert read(path, 3)[0].verdict.status is Status.UNSUPPORTED


def test_volumes_in_any_order_and_their_own_ranges(tmp_path: Path) -> None:
    array = voxels((6, 5, 4, 3))
    array[..., 1] *= 2
    path = tmp_path / "volumes.nii.gz"
    path.write_bytes(gzip.compress(nifti(array)))
    _, opened = open_nifti(LocalSource(str(path).encode()), options(None))
    assert opened is not None
    with opened:
        for number in (11, 0, 5, 10, 1, 4):
            stored = opened.slice(number)[1]
            assert stored is not None
            assert np.array_equal(stored.values, shown(array[..., number // 4])[number % 4])
        found = [opened.range_of(number) for number in (0, 4, 8)]
    assert found == [ValueRange(*percentiles(array[..., volume])) for volume in range(3)]


def percentiles(array: NDArray[np.generic]) -> tuple[float, float]:
    low, high = np.percentile(array.astype(float), (0.5, 99.8), method="inverted_cdf")
    return float(low), float(high)


def test_later_volumes_are_checked_only_where_the_size_is_not_as_promised(tmp_path: Path) -> None:
    whole = nifti(voxels((6, 5, 4, 3)))
    path = tmp_path / "volumes.nii.gz"
    for content, status in (
        (gzip.compress(whole[:-1]), Status.TRUNCATED),
        (gzip.compress(whole)[:-9], Status.TRUNCATED),
        (gzip.compress(whole + bytes(1 << 17)), Status.DECODE_FAILED),
        (gzip.compress(whole[:700]) + gzip.compress(whole[700:]), Status.OK),
    ):
        path.write_bytes(content)
        assert {verdict.status for verdict, _ in read(path)[1]} == {status}


def test_what_is_not_finite_is_flagged_and_has_no_part_in_the_range(tmp_path: Path) -> None:
    array = voxels(dtype="<f4")
    array[0, 0, 1] = np.nan
    array[1, 0, 1] = np.inf
    array[:, :, 2] = np.nan
    path = tmp_path / "volume.nii"
    path.write_bytes(nifti(array))
    _, slices = read(path)
    flags = [stored.flags for _, stored in slices if stored is not None]
    assert flags == [(), (Flag.NAN_REPLACED,), (Flag.NAN_REPLACED,), ()]
    counts = [
        np.count_nonzero(~stored.valid) for _, stored in slices if stored is not None and stored.valid is not None
    ]
    assert counts == [2, array[..., 0].size]
    _, opened = open_nifti(LocalSource(str(path).encode()), options())
    assert opened is not None
    assert opened.range_of(2) == ValueRange(*percentiles(array[np.isfinite(array)]))


def test_numbers_beyond_float32_are_not_finite(tmp_path: Path) -> None:
    array = voxels(dtype="<f8")
    array[0, 0, 0] = 1e300
    (tmp_path / "a.nii").write_bytes(nifti(array))
    assert [stored.flags for _, stored in read(tmp_path / "a.nii")[1][:2] if stored] == [(Flag.NAN_REPLACED,), ()]
    (tmp_path / "b.nii").write_bytes(nifti(voxels(), version=2, scl_slope=1e300, scl_inter=0))
    assert read(tmp_path / "b.nii")[1][0][0].status is Status.OK  # the one zero is a number


@pytest.mark.parametrize("slope", [1e-310, 1e-300, 1e-40, 1e30])
def test_extreme_slopes_give_grey_values(tmp_path: Path, slope: float) -> None:
    path = tmp_path / "volume.nii"
    path.write_bytes(nifti(version=2, scl_slope=slope))
    assert_grey(path)
    path.write_bytes(nifti(voxels(dtype="<i4"), version=2, scl_slope=slope))
    assert_grey(path)


def test_the_largest_numbers_give_grey_values(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii"
    path.write_bytes(nifti((voxels(dtype="<f4") - 100) * np.float32(3.4e36)))
    assert_grey(path)


def assert_grey(path: Path) -> None:
    """Every slice becomes grey by the range of its volume, without a warning."""
    _, opened = open_nifti(LocalSource(str(path).encode()), options())
    assert opened is not None
    with opened:
        for number in range(4):
            stored = opened.slice(number)[1]
            assert stored is not None
            assert to_grey(stored, Window(), opened.range_of(number)).shape == (5, 6)


def test_signalling_nan_in_the_header(tmp_path: Path) -> None:
    """NumPy warns when it converts such a number."""
    content = bytearray(nifti())
    content[280:284] = (0x7FA00000).to_bytes(4, "little")
    (tmp_path / "volume.nii").write_bytes(content)
    assert read(tmp_path / "volume.nii")[0].flags == (Flag.NO_ORIENTATION,)


def test_without_orientation_the_axes_are_those_of_analyze(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii"
    nowhere = [0.0] * 12
    cases: tuple[dict[str, Any], ...] = (
        {"sform_code": 0},
        {"srow": nowhere},
        {"srow": [np.nan] * 12},
        {"srow": [1, 0, 0, 0] * 3},
        {"sform_code": 0, "qform_code": 1, "quatern": [9.0, 9.0, 9.0]},
        {"sform_code": 0, "qform_code": 1, "quatern": [np.nan, 0.0, 0.0]},
        {"sform_code": 0, "pixdim": [1, 1, 1, 0, 1, 1, 1, 1]},
        {"sform_code": 0, "pixdim": [1, np.nan, -1, np.inf, 1, 1, 1, 1]},
    )
    for fields in cases:
        path.write_bytes(nifti(**fields))
        study, _ = read(path)
        assert study.flags == (Flag.NO_ORIENTATION,), fields
        assert {(facts.plane, facts.position) for facts in study.slices} == {(None, None)}
        assert np.array_equal(values(path), shown(voxels()))


def test_zero_spacing_with_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii"
    path.write_bytes(nifti(sform_code=0, qform_code=1, pixdim=[0, 1, 1, 0, 1, 1, 1, 1], quatern=[0.0, 1.0, 0.0]))
    study, _ = read(path)  # turned by 180 degrees about the axis to anterior: stored as "LAI"
    assert study.flags == ()
    assert study.slices[0].position is None
    assert np.array_equal(values(path), shown(voxels())[::-1])


def test_memory_is_not_spent_on_what_a_header_promises(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(nifti() + bytes(1 << 26)))
    tracemalloc.start()
    try:
        assert read(path)[1][0][0].status is Status.DECODE_FAILED
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_file_that_changes_after_its_header_was_read(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii"
    path.write_bytes(nifti())
    _, shorter = open_nifti(LocalSource(str(path).encode()), options())
    _, gone = open_nifti(LocalSource(str(path).encode()), options())
    assert shorter is not None
    assert gone is not None
    path.write_bytes(nifti()[:400])
    assert shorter.slice(0)[0].status is Status.TRUNCATED
    assert shorter.range_of(0) is None
    assert shorter.slice(4)[0].status is Status.DECODE_FAILED
    path.unlink()
    assert gone.slice(0)[0].status is Status.UNREADABLE


def test_files_that_give_no_bytes(tmp_path: Path) -> None:
    for name in (tmp_path, tmp_path / "gone.nii"):
        with pytest.raises(OSError, match=r"regular file|No such file"):
            read_nifti_header(LocalSource(str(name).encode()), options())


@given(count=st.integers(1, 400), most=st.integers(2, 20))
def test_evenly_spaced(count: int, most: int) -> None:
    chosen = evenly_spaced(count, most)
    assert len(set(chosen)) == len(chosen) == min(count, most)
    assert chosen == sorted(chosen)
    assert (chosen[0], chosen[-1]) == (0, count - 1)


WHOLE = (nifti(), nifti(version=2), nifti(voxels((6, 5, 4, 2), ">f4")))


@settings(max_examples=300, deadline=None)
@given(
    whole=st.sampled_from(WHOLE),
    changes=st.lists(st.tuples(st.integers(0, 543), st.integers(0, 255)), max_size=6),
    kept=st.integers(0, 1 << 10) | st.none(),
    packed=st.booleans(),
    wanted=st.none() | st.integers(0, 2),
)
def test_mutated_files_get_rows(
    tmp_path_factory: pytest.TempPathFactory,
    whole: bytes,
    changes: list[tuple[int, int]],
    kept: int | None,
    packed: bool,
    wanted: int | None,
) -> None:
    """No exception, at least one row, and the sizes that the header announced."""
    content = bytearray(whole)
    for place, byte in changes:
        content[place] = byte
    path = tmp_path_factory.getbasetemp() / "mutated.nii"
    path.write_bytes((gzip.compress(content, 1) if packed else bytes(content))[:kept])
    study, slices = read(path, wanted)
    assert slices
    for verdict, stored in slices:
        assert (stored is None) == (verdict.status is not Status.OK)
        if stored is not None:
            assert stored.values.shape == (study.verdict.height, study.verdict.width)
            assert np.isfinite(stored.values).all()
