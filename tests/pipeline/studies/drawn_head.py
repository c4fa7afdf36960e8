"""One drawn head as a NIfTI volume in any orientation and as a DICOM series, to compare what is read from them.

The head is kept as its axial pictures in radiological orientation, int16, shape (slices, rows, columns): slices lead to
superior, rows to posterior, columns to the patient's left. Everything else is made of them by transposing and mirroring
by hand, without the functions that are tested.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float64, int16
from numpy.typing import NDArray

from mribatch.core.synthetic import draw_slice
from mribatch.pipeline.studies.facts import Plane

Pictures = NDArray[int16]
Matrix = NDArray[float64]

# The picture axis and the sign of each end of the patient's axes, and its direction in NIfTI's mm.
_ENDS = {"S": (0, 1), "I": (0, -1), "P": (1, 1), "A": (1, -1), "L": (2, 1), "R": (2, -1)}
_TO = {
    end: sign * np.eye(3)[axis]
    for axis, ends in enumerate(("RL", "AP", "SI"))
    for end, sign in zip(ends, (1, -1), strict=True)
}
_SHOWN = {Plane.AXIAL: "SPL", Plane.CORONAL: "PIL", Plane.SAGITTAL: "RIP"}


@dataclass(frozen=True)
class Placed:
    """An array with the directions of its axes. step: mm (right, anterior, superior), one column for each axis."""

    values: Pictures
    steps: Matrix
    origin: Matrix  # of the first voxel, mm


@dataclass(frozen=True)
class Head:
    """pictures: axial. spacing: mm along slices, rows and columns of them. turned: a rotation of the patient."""

    pictures: Pictures
    spacing: tuple[float, float, float] = (4.0, 1.0, 1.0)
    turned: Matrix | None = None

    def along(self, ends: str) -> Placed:
        """The head stored along these ends of the patient's axes, e.g. "RAS"."""
        chosen = [_ENDS[end] for end in ends]
        values = self.pictures.transpose([axis for axis, _ in chosen])
        values = values[tuple(slice(None, None, sign) for _, sign in chosen)]
        rotation = np.eye(3) if self.turned is None else self.turned
        steps = np.array([_TO[end] for end in ends], float).T * [self.spacing[axis] for axis, _ in chosen]
        # The first axial pixel stays in its place: the origin moves by the axes that are mirrored against "SPL".
        corner = [0 if sign > 0 else size - 1 for (_, sign), size in zip(chosen, values.shape, strict=True)]
        first = np.array([60.0, 50.0, -40.0])
        return Placed(np.ascontiguousarray(values), rotation @ steps, rotation @ (first - steps @ corner))

    def shown(self, plane: Plane) -> Placed:
        """The pictures of a plane as they are to be shown, in their order."""
        return self.along(_SHOWN[plane])


def drawn_head(
    slices: int = 8, height: int = 40, width: int = 32, spacing: tuple[float, float, float] = (4, 1, 1)
) -> Head:
    """Draw a head of different slices, symmetric in no direction, values 0 to about 4000."""
    axial = np.stack([draw_slice(seed, height, width) for seed in range(slices)]).astype(int16) * 15
    axial[:, : height // 5, :] += 100  # anterior
    axial[:, :, : width // 5] += 40  # right
    axial += 5 * np.arange(slices, dtype=int16)[:, None, None]
    return Head(np.minimum(axial, 4095), spacing)  # what 12 bits hold


def write_nifti(path: Path, placed: Placed, **fields: Any) -> Path:
    """Write a NIfTI-1 file (.nii, .nii.gz or .img) with sform and qform; `fields` replace those of the header."""
    import nibabel

    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = placed.steps, placed.origin
    image = (
        nibabel.nifti1.Nifti1Image(placed.values, affine)
        if path.suffix != ".img"
        else nibabel.nifti1.Nifti1Pair(placed.values, affine)
    )
    image.set_qform(affine, 1)
    for name, value in fields.items():
        image.header[name] = value
    image.to_filename(path)
    return path


def write_dicom_series(folder: Path, head: Head, plane: Plane) -> list[Path]:
    """Write a series of MR images, one file a slice, uncompressed, in the order of the slices.

    Rows and columns lie as the plane is shown; names of the files do not tell the order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    placed = head.shown(plane)
    lps = np.diag([-1.0, -1.0, 1.0])
    sizes = np.linalg.norm(placed.steps, axis=0)
    directions = lps @ placed.steps / sizes
    count = len(placed.values)
    paths = []
    for number, picture in enumerate(placed.values):
        image = _mr_image(number + 1)
        image.ImageOrientationPatient = [float(f"{x:.10f}") for x in (*directions[:, 2], *directions[:, 1])]
        image.ImagePositionPatient = [float(f"{x:.8f}") for x in lps @ (placed.origin + number * placed.steps[:, 0])]
        image.PixelSpacing = [float(sizes[1]), float(sizes[2])]
        image.SliceThickness = image.SpacingBetweenSlices = float(sizes[0])
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.Rows, image.Columns = picture.shape
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
        image.PixelData = picture.astype("<u2").tobytes()
        path = folder / f"{count - number:04d}"
        image.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _mr_image(number: int) -> Any:
    """What the images of the series share, and the number of one."""
    import pydicom
    from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

    root = "1.2.826.0.1.3680043.8.498"
    image = pydicom.Dataset()
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = MRImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = UID(f"{root}.1.{number}")
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = f"{root}.2", f"{root}.3", f"{root}.4"
    image.Modality, image.Manufacturer, image.PatientID, image.PatientName = "MR", "Drawn", "drawn-1", "Drawn^Head"
    image.StudyDate, image.StudyTime, image.SeriesTime = "20200101", "120000", "120000"
    image.ImageType, image.SeriesDescription = ["ORIGINAL", "PRIMARY", "M"], "drawn"
    image.SeriesNumber, image.AcquisitionNumber, image.InstanceNumber = 1, 1, number
    return image
