"""The same slices as a DICOM series, as the NIfTI volume that dcm2niix makes of it, and as PNG files: the same rows."""

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mribatch.pipeline.studies.facts import Plane
from tests.folders import mribatch, rows
from tests.pipeline.studies.drawn_head import Pictures, drawn_head, write_dicom_series

CONVERTER = shutil.which("dcm2niix", path=str(Path(sys.executable).parent)) or shutil.which("dcm2niix")
SLICES = 10
P = ("p_glioma_tumor", "p_meningioma_tumor", "p_no_tumor", "p_pituitary_tumor")


@pytest.mark.skipif(CONVERTER is None, reason="dcm2niix is not installed")
def test_the_same_slices_from_three_containers(tmp_path: Path) -> None:
    """Same class, probabilities within 0.02, matched by slice."""
    folder = tmp_path / "in"
    head = drawn_head(SLICES, 120, 100)
    write_dicom_series(folder / "dicom", head, Plane.AXIAL)
    command = [str(CONVERTER), "-b", "n", "-z", "y", "-f", "volume", "-o", str(folder), str(folder / "dicom")]
    subprocess.run(command, check=True, capture_output=True)
    write_png(folder / "png", head.pictures)
    done = mribatch("classify", folder, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "run")
    assert len(found) == 3 * SLICES
    dicom = sorted((row for row in found if row["path"].startswith("dicom")), key=lambda row: row["instance"])
    nifti = [row for row in found if row["path"] == "volume.nii.gz"]
    png = [row for row in found if row["path"].startswith("png")]
    assert [row["slice"] for row in nifti] == list(range(SLICES))
    for one, two, three in zip(dicom, nifti, png, strict=True):
        assert {row["status"] for row in (one, two, three)} == {"ok"}
        assert one["predicted"] == two["predicted"] == three["predicted"]
        for name in P:
            assert one[name] == two[name]  # the same stored values by the same rule
            assert one[name] == pytest.approx(three[name], abs=0.02)


def write_png(folder: Path, pictures: Pictures) -> None:
    """What a viewer exports that shows the 0.5 and 99.8 percentiles of the series as black and white."""
    folder.mkdir()
    low, high = np.percentile(pictures, (0.5, 99.8))
    for number, picture in enumerate(pictures):
        grey = np.clip(np.rint((picture - low) * (255 / (high - low))), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:04d}.png"), grey)
