"""Small DICOM files and NIfTI volumes of drawn slices, written with pydicom and nibabel."""

from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from mribatch.core.synthetic import draw_slice

MR, SR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.88.11"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
PATIENT, UID = "Doe^Jane", "1.2.826.0.1.3680043.8.498"


def drawn_values(seed: int, side: int = 32, depth: int = 1000) -> NDArray[np.uint16]:
    """A drawn slice as a scanner would store it: uint16 (side, side), up to about `depth`."""
    return (draw_slice(seed, side, side).astype(np.float64) * depth / 255).astype(np.uint16)


def write_slice(path: Path, values: NDArray[Any] | None = None, **elements: Any) -> Path:
    """One DICOM file; `values` are uint16 (rows, columns) or (frames, rows, columns). `elements` by DICOM keyword."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset

    values = drawn_values(0) if values is None else values
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.UID(MR)
    meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(f"{UID}.9.{crc32(bytes(path))}")
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID, data.Modality = PATIENT, "P-0815", "MR"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.InstanceNumber = f"{UID}.1", f"{UID}.2", 1
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.Rows, data.Columns = values.shape[-2:]
    if values.ndim == 3:
        data.NumberOfFrames = len(values)
    data.PixelData = values.tobytes()
    for name, value in elements.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, count: int, number: int = 2, **elements: Any) -> list[Path]:
    """`count` files of one series, named as a PACS does, without a suffix; the brightness grows from file to file."""
    return [
        write_slice(
            folder / f"IM{place:06d}",
            drawn_values(number * 1000 + place, depth=500 + 100 * place),
            SeriesInstanceUID=f"{UID}.{number}",
            InstanceNumber=place + 1,
            ImagePositionPatient=[0, 0, 3.0 * place],
            **elements,
        )
        for place in range(count)
    ]


def write_report(path: Path) -> Path:
    """A structured report: DICOM without a picture."""
    import pydicom

    write_slice(path)
    data = pydicom.dcmread(path)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = pydicom.uid.UID(SR)
    data.Modality = "SR"
    for name in ("PixelData", "Rows", "Columns"):
        delattr(data, name)
    data.save_as(path)
    return path


def write_volume(path: Path, slices: int, blanks: int = 0) -> Path:
    """A NIfTI volume of `slices` axial slices, the first `blanks` of which are empty."""
    import nibabel

    volume = np.stack([drawn_values(7000 + place) for place in range(slices)], axis=-1)
    volume[..., :blanks] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.int16), np.diag([1.0, 1.0, 3.0, 1.0])), path)
    return path
