"""The demo's study: one drawn head as DICOM series and as a NIfTI volume, with files that are no images to classify."""

import gzip
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import uint16
from numpy.typing import NDArray

from mribatch.core.synthetic import draw_volume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

STUDY_FOLDER = "study"
_SLICES, _HEIGHT, _WIDTH = 16, 224, 192
_SPACING, _THICKNESS = 1.0, 8.0  # mm
_WHITE = 4095  # the largest stored value of 12 bits
_COMPRESSED = 8  # position of the slice that is stored as JPEG 2000
_MR_IMAGE, _COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.88.33"  # PS3.4, B.5
_EXPLICIT, _JPEG_2000 = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.90"  # PS3.5, A.2 and A.4.4
_AXIAL, _SAGITTAL = [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1]
_BOX_OF_CODESTREAM = b"jp2c"  # ISO/IEC 15444-1, Annex I.5.4


@dataclass(frozen=True)
class DemoStudy:
    """What was written."""

    folder: Path
    images: int  # slices that are not blank
    blank: int
    others: int  # files without an image to classify


@dataclass(frozen=True, kw_only=True)
class _Series:
    """One DICOM series of the study."""

    number: int
    description: str
    orientation: list[int]
    photometric: str = "MONOCHROME2"
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M")
    window: tuple[int, int] | None = None  # centre and width; None: the header brings no window


def draw_demo_study(folder: Path, seed: int) -> DemoStudy:
    """Write a head of `draw_volume` three times: as MONOCHROME2 and MONOCHROME1 DICOM series and as a NIfTI volume.

    One slice is compressed with JPEG 2000; a localizer and a structured report are beside them. The DICOM files have no
    suffix, as scanners write them. The same arguments give the same bytes.

    Args:
        folder: Made where it is missing.
        seed: 0 or more; of the drawing.

    Raises:
        OSError: The folder cannot be written to.
    """
    volume = draw_volume(seed, _SLICES, _HEIGHT, _WIDTH)
    plain = _Series(number=1, description="drawn, bright fat", orientation=_AXIAL, window=(1600, 3200))
    inverted = _Series(number=2, description="drawn, inverted", orientation=_AXIAL, photometric="MONOCHROME1")
    for series, stored in ((plain, volume), (inverted, _WHITE - volume)):
        for position, pixels in enumerate(stored):
            compressed = series is plain and position == _COMPRESSED
            content = _image_file(series, seed, pixels, position, compressed=compressed)
            _write(folder / f"series-{series.number}" / f"IM{position + 1:04d}", content)
    middle = np.ascontiguousarray(np.repeat(volume[::-1, :, _WIDTH // 2], 12, axis=0))
    scout = _Series(
        number=3,
        description="drawn, localizer",
        orientation=_SAGITTAL,
        image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"),
    )
    _write(folder / "series-3" / "IM0001", _image_file(scout, seed, middle, 0, compressed=False))
    _write(folder / "report" / "SR0001", _report_file(seed))
    _write(folder / "brain.nii.gz", _nifti_file(volume))
    return DemoStudy(folder, images=3 * (_SLICES - 2) + 1, blank=3 * 2, others=1)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _image_file(series: _Series, seed: int, pixels: NDArray[uint16], position: int, *, compressed: bool) -> bytes:
    from pydicom.uid import generate_uid

    dataset = _study_dataset(seed, _MR_IMAGE, f"{series.number}.{position}")
    dataset.Modality = "MR"
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[f"{seed} series {series.number}"])
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=[f"{seed} frame"])
    dataset.SeriesNumber, dataset.InstanceNumber = series.number, position + 1
    dataset.SeriesDescription = series.description
    dataset.ImageType = list(series.image_type)
    dataset.ImageOrientationPatient = series.orientation
    dataset.ImagePositionPatient = [-_WIDTH / 2, -_HEIGHT / 2, position * _THICKNESS]
    dataset.PixelSpacing, dataset.SliceThickness = [_SPACING, _SPACING], _THICKNESS
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, series.photometric
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    if series.window is not None:
        dataset.WindowCenter, dataset.WindowWidth = series.window
    if compressed:
        from pydicom.encaps import encapsulate

        dataset.PixelData = encapsulate([_jpeg_2000(pixels)])
        dataset["PixelData"].VR = "OB"
        return _to_bytes(dataset, _JPEG_2000)
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    return _to_bytes(dataset, _EXPLICIT)


def _report_file(seed: int) -> bytes:
    """A structured report that says nothing: whole, and no image."""
    from pydicom.uid import generate_uid

    dataset = _study_dataset(seed, _COMPREHENSIVE_SR, "report")
    dataset.Modality, dataset.SeriesInstanceUID = "SR", generate_uid(entropy_srcs=[f"{seed} report"])
    dataset.SeriesNumber, dataset.InstanceNumber = 4, 1
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.CompletionFlag, dataset.VerificationFlag = "PARTIAL", "UNVERIFIED"
    return _to_bytes(dataset, _EXPLICIT)


def _study_dataset(seed: int, sop_class: str, name: str) -> "Dataset":
    """What every file of the study has; there is no patient, so nobody is named."""
    from pydicom.dataset import Dataset
    from pydicom.uid import generate_uid

    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid(entropy_srcs=[f"{seed} file {name}"])
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[f"{seed} study"])
    dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate, dataset.PatientSex = "DRAWN", "", "", ""
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "", "", "", ""
    dataset.Manufacturer, dataset.ReferringPhysicianName = "mribatch demo", ""
    return dataset


def _to_bytes(dataset: "Dataset", transfer_syntax: str) -> bytes:
    from pydicom import dcmwrite
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax)
    dataset.file_meta = meta
    stream = io.BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def _jpeg_2000(pixels: NDArray[Any]) -> bytes:
    """The lossless code stream alone, as DICOM wants it (PS3.5, A.4.4), without the boxes of a .jp2 file."""
    import cv2

    worked, content = cv2.imencode(".jp2", pixels, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
    if not worked:
        raise RuntimeError(f"OpenCV did not encode {pixels.shape} as JPEG 2000")
    data = bytes(content)
    return data[data.index(_BOX_OF_CODESTREAM) + len(_BOX_OF_CODESTREAM) :]


def _nifti_file(volume: NDArray[uint16]) -> bytes:
    """The volume in RAS axes, as NIfTI counts them: x to the right, y to the front, z to the top."""
    import nibabel

    affine = np.diag([-_SPACING, -_SPACING, _THICKNESS, 1.0])
    affine[:3, 3] = [_WIDTH / 2, _HEIGHT / 2, 0]
    image = nibabel.Nifti1Image(volume.transpose(2, 1, 0).astype(np.int16), affine)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), mtime=0)
