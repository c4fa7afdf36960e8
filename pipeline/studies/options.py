"""What a user may ask of DICOM and NIfTI files, as far as their headers decide it."""

from dataclasses import dataclass

from mribatch.pipeline.studies.facts import Plane


@dataclass(frozen=True, kw_only=True)
class HeaderOptions:
    """How headers are read."""

    max_pixels: int  # of an image, width times height, or voxels of a NIfTI volume; larger ones are too_large
    any_modality: bool = False  # DICOM: images of other modalities than MR count, too
    dicom_anywhere: bool = False  # DICOM: also files without the preamble
    plane: Plane | None = None  # NIfTI: how volumes are sliced; None: along the axis of acquisition
    volume: int | None = 0  # NIfTI of four dimensions: the volume to use; None: all of them
