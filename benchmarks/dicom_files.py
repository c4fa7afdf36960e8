"""What becomes of every file of pydicom's test set: python -m benchmarks.dicom_files

The set ships with pydicom and, the larger part, as `pydicom-data`. For each file the table has what is expected, what
was found, and, for grey images, by how many of 255 levels the pixels differ from those of an independent decoder:
SimpleITK (`pip install SimpleITK`), which reads DICOM with GDCM, and pydicom's own where SimpleITK is known to be
wrong. All modalities are read (--any-modality), since few files of the set are MR.

What is expected comes from pydicom's reading of the header and is stated here, with the reason, for the files on which
pydicom itself is lenient. It is never taken from what was found.
"""

import argparse
import csv
import os
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.conditions import RESULTS
from mribatch.pipeline.decode.dicom import DicomPixels
from mribatch.pipeline.decode.values import StoredSlice, Window, to_grey, value_range
from mribatch.pipeline.records import Status, Verdict
from mribatch.pipeline.storage.source import LocalSource
from mribatch.pipeline.studies.dicom_header import read_dicom_header
from mribatch.pipeline.studies.facts import NotAnImage
from mribatch.pipeline.studies.options import HeaderOptions
from mribatch.pipeline.studies.voi import Lut, VoiFunction, VoiWindow

MAX_PIXELS = 100_000_000
OPTIONS = HeaderOptions(max_pixels=MAX_PIXELS, any_modality=True)
_FRAMES = 3  # of a file that are compared: the first, one in the middle, the last

# Files on which pydicom is lenient, by name: what they must become, and why.
STATED = {
    "MR_truncated.dcm": ("truncated", "62 bytes of its pixels are missing"),
    "rtplan_truncated.dcm": ("truncated", "it ends inside a sequence"),
    "emri_small_jpeg_2k_lossless_too_short.dcm": ("truncated", "it ends inside a fragment"),
    "meta_missing_tsyntax.dcm": ("decode_failed", "its meta information has no transfer syntax"),
    "badVR.dcm": ("decode_failed", "its Number of Frames is 1A"),
    "nested_priv_SQ.dcm": ("decode_failed", "it has pixel data and neither rows nor columns"),
    "JPEG2000-embedded-sequence-delimiter.dcm": ("decode_failed", "a delimiter was written over the codestream's size"),
    "no_meta.dcm": ("unsupported", "a byte is missing or too much: its first group is no group of DICOM"),
    "gdcm-US-ALOKA-16.dcm": ("unsupported", "a segmented palette"),
    "gdcm-US-ALOKA-16_big.dcm": ("unsupported", "a segmented palette"),
}
# Grey images for which SimpleITK is no reference.
_NOT_SIMPLEITK = {
    "mlut_18.dcm": "it does not apply the Modality LUT sequence",
    "rtdose_expb.dcm": "it reads big-endian samples of 32 bits in the wrong order",
}


@dataclass(frozen=True)
class Row:
    file: str  # its folder in the set, and its name
    expected: str  # a status, or the reason why it is no image
    found: str
    as_expected: bool
    frames: int
    flags: str
    levels: int | None  # largest difference from the reference, of 255; None for what is no grey image
    reference: str
    why: str  # expected so


def find_files() -> Iterator[Path]:
    """Every file of the set that is installed."""
    from pydicom.data import get_testdata_files

    names = {Path(name) for name in get_testdata_files()}
    yield from sorted((name for name in names if name.is_file()), key=relative_name)


def relative_name(path: Path) -> str:
    """The name inside the set, whichever package holds it."""
    parts = path.parts
    start = max(i for i, part in enumerate(parts) if part in ("test_files", "data")) + 1
    return "/".join(parts[start:])


def expect(path: Path) -> tuple[str, str]:
    """(what must become of a file, why), from pydicom's reading of it."""
    if path.name in STATED:
        return STATED[path.name]
    from pydicom import dcmread
    from pydicom.uid import UID

    data: Any = dcmread(path, force=True)
    sop_class = data.get("SOPClassUID") or getattr(data, "file_meta", {}).get("MediaStorageSOPClassUID") or ""
    name = UID(sop_class).name
    if len(data) == 0 or not ("SOPClassUID" in data or getattr(data, "preamble", None)):
        return "unsupported", "no DICOM"
    if "Directory" in name:
        return "dicom_directory", name
    if "Segmentation" in name:
        return "dicom_segmentation", name
    if "PixelData" not in data:
        return "dicom_no_pixels", name or "no SOP class"
    return "ok", name


def find(path: Path) -> tuple[str, int, str]:
    """(what became of a file, its frames, its flags)."""
    header = read_dicom_header(LocalSource(bytes(path)), OPTIONS)
    if isinstance(header, NotAnImage):
        return header.reason, 0, ""
    flags = " ".join(header.flags)
    if header.verdict.status is not Status.OK:
        return header.verdict.status, len(header.slices), flags
    pixels = DicomPixels(path.read_bytes(), MAX_PIXELS)
    frames = [pixels.read(frame) for frame in _chosen(len(pixels))]
    bad = [frame.status for frame in frames if isinstance(frame, Verdict)]
    return (bad or [Status.OK])[0], len(header.slices), flags


def _chosen(frames: int) -> list[int]:
    return sorted({0, frames // 2, frames - 1})[:_FRAMES] if frames else [0]


def compare(path: Path) -> tuple[int | None, str]:
    """(largest difference of grey levels from the reference, with the same window; which reference)."""
    pixels = DicomPixels(path.read_bytes(), MAX_PIXELS)
    stored = [(frame, pixels.read(frame)) for frame in _chosen(len(pixels))]
    if not all(isinstance(one, StoredSlice) for _, one in stored) or pixels.verdict.flags:
        return None, ""
    values, reference = _reference_values(path)
    levels = 0
    for frame, one in stored:
        assert isinstance(one, StoredSlice)
        expected = _grey_by_the_standard(values[frame].astype(np.float64), one)
        levels = max(levels, int(np.abs(to_grey(one, Window(), None) - expected).max()))
    return levels, reference


def _reference_values(path: Path) -> tuple[NDArray[Any], str]:
    """Values after the Modality LUT, (frames, rows, columns), by another decoder."""
    from pydicom import dcmread

    data = dcmread(path)
    if path.name not in _NOT_SIMPLEITK:
        try:
            return _values_of_simpleitk(path, data), "SimpleITK"
        except RuntimeError:  # it refuses some files of the set
            pass
    from pydicom.pixels.processing import apply_modality_lut

    array = apply_modality_lut(data.pixel_array, data)
    return array.reshape(-1, *array.shape[-2:]), "pydicom"


def _values_of_simpleitk(path: Path, data: Any) -> NDArray[Any]:
    import SimpleITK

    SimpleITK.ProcessObject_SetGlobalWarningDisplay(False)
    array: NDArray[Any] = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(os.fspath(path)))
    if data.PhotometricInterpretation == "MONOCHROME1":  # it inverts such images before slope and intercept
        slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
        array = slope * ((1 << data.BitsStored) - 1) + 2 * intercept - array.astype(np.float64)
    return array.reshape(-1, *array.shape[-2:])


def _grey_by_the_standard(values: NDArray[np.float64], stored: StoredSlice) -> NDArray[np.int64]:
    """PS3.3 C.11.2.1.2.1, C.11.2.1.3 and C.11.2.1.1 in double precision, each case as it is written there."""
    voi = stored.voi
    if voi is None:
        limits = value_range([stored])
        voi = VoiWindow((limits.low + limits.high) / 2, limits.high - limits.low, VoiFunction.LINEAR_EXACT)
    if isinstance(voi, Lut):
        entries = np.frombuffer(voi.entries, dtype=np.uint16)
        places = np.clip(values - voi.first, 0, len(entries) - 1).astype(int)
        levels = entries[places] * (255 / (2**voi.bits - 1))
    else:
        offset, width = (0.5, voi.width - 1) if voi.function is VoiFunction.LINEAR else (0, voi.width)
        if voi.function is VoiFunction.SIGMOID:
            levels = 255 / (1 + np.exp(-4 * (values - voi.center) / voi.width))
        else:
            levels = ((values - (voi.center - offset)) / max(width, 1e-9) + 0.5) * 255
            levels = np.where(values <= voi.center - offset - width / 2, 0, levels)
            levels = np.where(values > voi.center - offset + width / 2, 255, levels)
    grey: NDArray[np.int64] = np.rint(levels).astype(np.int64)
    return 255 - grey if stored.inverted else grey


def make_table(*, with_reference: bool = True) -> list[Row]:
    """One row per file."""
    rows = []
    for path in find_files():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected, why = expect(path)
            found, frames, flags = find(path)
            levels, reference = (None, "")
            if found == expected == "ok" and with_reference:
                levels, reference = compare(path)
        rows.append(
            Row(relative_name(path), expected, str(found), found == expected, frames, flags, levels, reference, why)
        )
    return rows


def write_table(rows: list[Row], target: Path) -> None:
    with target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(asdict(rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=None, help="table to write")
    arguments = parser.parse_args()
    rows = make_table()
    name = f"dicom_files-pydicom{version('pydicom')}-simpleitk{version('SimpleITK')}.csv"
    write_table(rows, arguments.out or RESULTS / name)
    compared = [row.levels for row in rows if row.levels is not None]
    wrong = [row for row in rows if not row.as_expected]
    print(
        f"{len(rows)} files, {len(rows) - len(wrong)} as expected; {len(compared)} grey images, at most "
        f"{max(compared)} of 255 levels from the reference"
    )
    for row in wrong:
        print(f"  {row.file}: expected {row.expected} ({row.why}), found {row.found}")


if __name__ == "__main__":
    main()
