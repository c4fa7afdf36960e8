"""Orientation: the same pictures whichever way the voxels are stored, and those of the DICOM series behind them."""

import shutil
import subprocess
import sys
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pydicom
import pytest

from mribatch.pipeline.decode.nifti import open_nifti
from mribatch.pipeline.storage.source import LocalSource
from mribatch.pipeline.studies.facts import Plane, StudyFile
from mribatch.pipeline.studies.nifti_header import read_nifti_header
from mribatch.pipeline.studies.nifti_slicing import acquisition_axis
from mribatch.pipeline.studies.options import HeaderOptions
from tests.pipeline.studies.drawn_head import Head, Matrix, Pictures, drawn_head, write_dicom_series, write_nifti

ORIENTATIONS = ["".join(ends) for axes in permutations(("RL", "AP", "SI")) for ends in product(*axes)]
PLANES = (Plane.AXIAL, Plane.CORONAL, Plane.SAGITTAL)
THICK = {Plane.AXIAL: (4.0, 1.0, 1.0), Plane.CORONAL: (1.0, 4.0, 1.0), Plane.SAGITTAL: (1.0, 1.0, 4.0)}
OPTIONS = HeaderOptions(max_pixels=1 << 20)


def options(plane: Plane | None) -> HeaderOptions:
    return HeaderOptions(max_pixels=1 << 20, plane=plane)


def rotation(x: float, y: float, z: float) -> Matrix:
    """Rotations by degrees about the three axes, one after the other."""
    turned = np.eye(3)
    for axis, degrees in enumerate((x, y, z)):
        sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
        step = np.eye(3)
        one, two = [other for other in range(3) if other != axis]
        step[one, one] = step[two, two] = cosine
        step[one, two], step[two, one] = -sine, sine
        turned = step @ turned
    return turned


def read(path: Path, asked: HeaderOptions = OPTIONS) -> tuple[StudyFile, Pictures]:
    """What the header says, and all the slices that it announces."""
    name = str(path).encode()
    study = read_nifti_header(LocalSource(name), asked)
    verdict, volume = open_nifti(LocalSource(name), asked)
    assert volume is not None, verdict
    with volume:
        stored = [volume.slice(facts.slice or 0)[1] for facts in study.slices]
    return study, np.stack([one.values for one in stored if one is not None]).astype(np.int16)


@pytest.mark.parametrize("plane", PLANES)
def test_every_orientation_gives_the_same_pictures(tmp_path: Path, plane: Plane) -> None:
    head = drawn_head(5, 12, 9, THICK[plane])
    shown = head.shown(plane).values
    assert len(ORIENTATIONS) == 48
    for ends in ORIENTATIONS:
        path = write_nifti(tmp_path / "head.nii", head.along(ends))
        for asked in (None, plane):
            study, pictures = read(path, options(asked))
            assert np.array_equal(pictures, shown), (ends, asked)
            assert {facts.plane for facts in study.slices} == {plane}


@pytest.mark.parametrize("plane", PLANES)
def test_any_plane_can_be_asked_for(tmp_path: Path, plane: Plane) -> None:
    head = drawn_head(5, 12, 9)
    _, pictures = read(write_nifti(tmp_path / "head.nii", head.along("PSR")), options(plane))
    assert np.array_equal(pictures, head.shown(plane).values)


@pytest.mark.parametrize("angles", [(12, -9, 17), (0, 0, 40), (25, 10, -20), (-35, 0, 0)])
def test_an_oblique_volume_is_cut_along_its_own_axes(tmp_path: Path, angles: tuple[float, float, float]) -> None:
    drawn = drawn_head(5, 12, 9)
    head = Head(drawn.pictures, drawn.spacing, rotation(*angles))
    for ends in ORIENTATIONS[::5]:
        study, pictures = read(write_nifti(tmp_path / "head.nii", head.along(ends)))
        assert np.array_equal(pictures, head.pictures), ends
        assert study.slices[0].plane == (Plane.OBLIQUE if angles[0] == -35 else Plane.AXIAL)


def test_qform_alone_orients_as_sform_does(tmp_path: Path) -> None:
    drawn = drawn_head(5, 12, 9)
    head = Head(drawn.pictures, drawn.spacing, rotation(5, 3, -8))
    for ends in ORIENTATIONS:
        study, pictures = read(write_nifti(tmp_path / "head.nii", head.along(ends), sform_code=0))
        assert np.array_equal(pictures, head.pictures), ends
        assert study.slices[0].plane is Plane.AXIAL


@pytest.mark.parametrize("turned", [None, rotation(12, -9, 17)], ids=["straight", "oblique"])
@pytest.mark.parametrize("plane", PLANES)
def test_slices_are_those_of_the_dicom_series(tmp_path: Path, plane: Plane, turned: Matrix | None) -> None:
    """dcm2niix converts; positions along the normal agree with those of the images, in the same order."""
    head = Head(drawn_head(6, 20, 16).pictures, THICK[plane], turned)
    images = [pydicom.dcmread(path) for path in write_dicom_series(tmp_path / "series", head, plane)]
    command = [converter(), "-b", "n", "-z", "y", "-f", "volume", "-o", str(tmp_path), str(tmp_path / "series")]
    subprocess.run(command, check=True, capture_output=True)
    study, pictures = read(tmp_path / "volume.nii.gz")
    assert np.array_equal(pictures, np.stack([image.pixel_array for image in images]))
    for facts, image in zip(study.slices, images, strict=True):
        along = np.array(image.ImageOrientationPatient, float)
        normal = np.cross(along[:3], along[3:])
        assert facts.position == pytest.approx(normal @ np.array(image.ImagePositionPatient, float), abs=1e-3)
        assert facts.instance == image.InstanceNumber
        assert facts.plane is plane


def converter() -> str:
    """The program of the dcm2niix package, which stands beside Python."""
    found = shutil.which("dcm2niix", path=str(Path(sys.executable).parent)) or shutil.which("dcm2niix")
    return found or pytest.skip("dcm2niix is not installed")


@pytest.mark.parametrize(
    ("shape", "spacing", "stated", "axis"),
    [
        ((9, 9, 9), (1.0, 1.0, 3.0), None, 2),
        ((9, 9, 9), (1.0, 3.0, 1.0), 2, 1),  # the largest, whatever dim_info states
        ((9, 9, 9), (1.2, 1.0, 1.0), None, 0),
        ((9, 9, 9), (1.0, 1.0, 0.9), None, 2),  # pixels are square
        ((9, 9, 9), (0.9, 1.0, 1.0), None, 0),
        ((9, 9, 9), (1.0, 1.0, 1.0), None, 2),
        ((9, 9, 9), (1.0, 1.001, 1.0), 0, 0),
        ((9, 9, 9), None, None, 2),
        ((9, 9, 9), None, 1, 1),
        ((9, 9, 1), (1.0, 1.0, 0.1), None, 2),
        ((1, 9, 9), (1.0, 2.0, 3.0), None, 0),
        ((9, 1, 1), (1.0, 2.0, 3.0), None, 2),
    ],
)
def test_axis_of_acquisition(
    shape: tuple[int, int, int], spacing: tuple[float, ...] | None, stated: int | None, axis: int
) -> None:
    assert acquisition_axis(shape, spacing, stated) == axis
