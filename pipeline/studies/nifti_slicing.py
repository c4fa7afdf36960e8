"""How a NIfTI volume is cut into pictures: along which axis, in which order, and how each picture is turned.

Pictures are in radiological orientation, as DICOM viewers show them: the patient's left is on the right of axial and
coronal pictures; anterior is up in axial ones and left in sagittal ones; superior is up in coronal and sagittal ones
(https://nipy.org/nibabel/neuro_radio_conventions.html). Slices are counted along the normal that a DICOM image of these
rows and columns has, the cross product of the directions of its Image Orientation (Patient) (DICOM PS3.3, C.7.6.2.1.1):
axial from inferior to superior, coronal from anterior to posterior, sagittal from left to right. Voxels are never
resampled: an oblique volume is cut along its own axes, turned as the nearest axes of the patient.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import float64
from numpy.typing import NDArray

from mribatch.pipeline.studies.facts import Plane

# Where slices, rows and columns lead to as their numbers grow, in nibabel's letters for ends of the patient's axes.
_SHOWN = {Plane.AXIAL: "SPL", Plane.CORONAL: "PIL", Plane.SAGITTAL: "RIP"}
_NORMAL_TO = (Plane.SAGITTAL, Plane.CORONAL, Plane.AXIAL)  # planes by the number of the patient's axis that they cut
_LPS = np.diag(
    [-1.0, -1.0, 1.0]
)  # from NIfTI's axes (right, anterior, superior) to DICOM's (left, posterior, superior)
_NEAR = float(np.cos(np.deg2rad(30)))
_SMALLEST, _LARGEST = 1e-6, 1e6  # mm of a voxel and of any distance that can be meant
_FLAT = 1e-3  # volume of the unit vectors along the axes under which they do not span space

_Affine = NDArray[float64]


@dataclass(frozen=True, slots=True)
class Slicing:
    """turn: Row i: the new axis (0 slices, 1 rows, 2 columns) and the sign of the stored axis i, as nibabel's
    orientations have it.
    """

    turn: tuple[tuple[int, int], ...]
    count: int  # slices of a volume
    height: int
    width: int
    plane: Plane | None  # None where the header does not say how the volume lies
    first_position: float | None  # mm along the normal, of the first pixel of the first slice; None where unknown
    step: float | None  # mm from one slice to the next
    oriented: bool  # the header says how the volume lies; otherwise the stored axes lead left, anterior and superior

    def position(self, number: int) -> float | None:
        """Return where slice `number` of a volume lies, in mm along the normal."""
        if self.first_position is None or self.step is None:
            return None
        return self.first_position + number * self.step


def slice_volume(header: Any, shape: tuple[int, int, int], wanted: Plane | None) -> Slicing:
    """Decide how a volume is cut.

    Args:
        header: nibabel's Nifti1Header or Nifti2Header.
        shape: Voxels along the three stored axes, each at least 1.
        wanted: The plane to cut in; None for the axis of acquisition, see `acquisition_axis`.
    """
    from nibabel import orientations

    affine, spacing, oriented = _placement(header)
    stored = orientations.io_orientation(affine)
    if wanted in _NORMAL_TO:
        axis = [int(number) for number in stored[:, 0]].index(_NORMAL_TO.index(wanted))
    else:
        axis = acquisition_axis(shape, spacing, header.get_dim_info()[2])
    shown = _SHOWN[_NORMAL_TO[int(stored[axis, 0])]]
    turn = orientations.ornt_transform(stored, orientations.axcodes2ornt(tuple(shown)))
    turned = affine @ orientations.inv_ornt_aff(turn, shape)
    normal = _normal(turned)
    ((_, count), (_, height), (_, width)) = sorted(zip(turn[:, 0], shape, strict=True))
    measured = oriented and spacing is not None
    return Slicing(
        turn=tuple((int(new), int(sign)) for new, sign in turn),
        count=int(count),
        height=int(height),
        width=int(width),
        plane=plane_of(normal) if oriented else None,
        first_position=float(normal @ _LPS @ turned[:3, 3]) if measured else None,
        step=float(normal @ _LPS @ turned[:3, 0]) if measured else None,
        oriented=oriented,
    )


def acquisition_axis(shape: tuple[int, int, int], spacing: tuple[float, ...] | None, stated: int | None) -> int:
    """Return the stored axis along which slices were most likely acquired.

    An axis of a single voxel where others have more; else the one with the largest spacing. Where two share the
    largest within 1 %, it is the third, since pixels are square as a rule; where all three do, or spacing is unknown,
    the axis that the header's dim_info states, else the last stored one.

    Args:
        shape: Voxels along the three stored axes.
        spacing: Millimetres between voxels along them; None where unknown.
        stated: The header's slice axis; None where it states none.
    """
    single = [axis for axis in range(3) if shape[axis] == 1]
    if single:
        return single[-1]
    by_default = 2 if stated is None else stated
    if spacing is None:
        return by_default
    largest = [axis for axis in range(3) if spacing[axis] >= 0.99 * max(spacing)]
    if len(largest) == 2:
        return 3 - sum(largest)
    return largest[0] if len(largest) == 1 else by_default


def plane_of(normal: NDArray[float64]) -> Plane:
    """Return the plane that a slice lies in.

    Args:
        normal: Its unit normal along the patient's three axes; directions do not matter.
    """
    axis = int(np.argmax(np.abs(normal)))
    return _NORMAL_TO[axis] if abs(normal[axis]) >= _NEAR else Plane.OBLIQUE


def _normal(affine: _Affine) -> NDArray[float64]:
    """The unit normal of the pictures in DICOM's axes, from an affine over slices, rows and columns."""
    along_row, along_column = _LPS @ affine[:3, 2], _LPS @ affine[:3, 1]
    normal = np.cross(along_row / np.linalg.norm(along_row), along_column / np.linalg.norm(along_column))
    return np.asarray(normal / np.linalg.norm(normal), float64)


def _placement(header: Any) -> tuple[_Affine, tuple[float, ...] | None, bool]:
    """Where the voxels lie: sform before qform, as nibabel has it, each only where it makes sense.

    Returns:
        The affine to mm (right, anterior, superior); the spacing of the stored axes in mm, None where the header gives
        none; and whether the affine is the header's. Where it is not, the axes lead left, anterior and superior, as
        in ANALYZE 7.5 (NIfTI-1, "method 1").
    """
    pixdim = [abs(float(size)) for size in header["pixdim"][1:4]]
    known = all(_SMALLEST <= size <= _LARGEST for size in pixdim)
    if (sform := _sform(header)) is not None:
        return sform, tuple(float(size) for size in np.linalg.norm(sform[:3, :3], axis=0)), True
    sizes = pixdim if known else [1.0, 1.0, 1.0]
    spacing = tuple(pixdim) if known else None
    if (qform := _qform(header, sizes)) is not None:
        return qform, spacing, True
    return np.diag([-sizes[0], sizes[1], sizes[2], 1.0]), spacing, False


def _sform(header: Any) -> _Affine | None:
    affine, code = header.get_sform(coded=True)
    return affine if code > 0 and _spans_space(affine) else None


def _qform(header: Any, sizes: list[float]) -> _Affine | None:
    repaired = header.copy()
    repaired["pixdim"][1:4] = sizes
    repaired["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1  # NIfTI-1: 0 counts as 1
    try:
        affine, code = repaired.get_qform(coded=True)
    except ValueError:  # the quaternion has no real part
        return None
    return affine if code > 0 and _spans_space(affine) else None


def _spans_space(affine: _Affine) -> bool:
    """Whether an affine has plausible sizes and its axes lead in different directions."""
    if not (np.abs(affine) <= _LARGEST).all():  # NaN is refused, too
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(lengths.min() >= _SMALLEST and abs(np.linalg.det(affine[:3, :3] / lengths)) > _FLAT)
