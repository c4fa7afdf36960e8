"""What the header of a DICOM file or a NIfTI volume says, in one form for both."""

from dataclasses import dataclass
from enum import StrEnum

from mribatch.pipeline.records import Flag, Verdict


class StudyFormat(StrEnum):
    DICOM = "dicom"
    NIFTI = "nifti"


class Plane(StrEnum):
    """How a slice lies in the patient."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"
    OBLIQUE = "oblique"  # no axis of the patient within 30 degrees of the slice's normal


@dataclass(frozen=True, slots=True)
class StudyIds:
    """Whose images a file holds, as its header says. These texts identify a patient: only pseudonyms leave."""

    patient: str | None = None  # DICOM: PatientID with its issuer; NIfTI: None
    study: str | None = None  # DICOM: StudyInstanceUID
    series: str | None = None  # DICOM: SeriesInstanceUID; NIfTI: None, since the file is the series


@dataclass(frozen=True, slots=True)
class SliceFacts:
    """One image of a file."""

    slice: int | None  # position in the file, from 0; None where the file holds a single image by its kind
    instance: int | None = None  # DICOM: InstanceNumber; else position in the series, from 1
    plane: Plane | None = None  # None where the header does not say how the slice lies
    position: float | None = None  # mm along the slice's normal; slices of a series are ordered by it


@dataclass(frozen=True, slots=True)
class StudyFile:
    """One file. Where its header alone refuses it, it has one SliceFacts, all None, and a verdict that is not ok."""

    format: StudyFormat
    verdict: Verdict  # ok, with width and height as decoded, or the status and reason that its rows get
    slices: tuple[SliceFacts, ...]  # at least one
    ids: StudyIds = StudyIds()
    flags: tuple[Flag, ...] = ()  # of every image of the file, e.g. localizer
    needs_range: bool = False  # the file brings no usable window: grey values follow the range of the series


@dataclass(frozen=True, slots=True)
class NotAnImage:
    """A file that is whole and holds nothing to classify: a report, a segmentation, another modality."""

    reason: str  # a SkipReason's value
    detail: str  # never a text of the header that could identify somebody
