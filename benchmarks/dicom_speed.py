"""Seconds of a core for a DICOM slice against a JPEG of the same picture: python -m benchmarks.dicom_speed

One drawn slice, 512 x 512, as 12 bits in the header of a real scanner (one of pydicom's test files, 42 KB of it) and as
a JPEG of quality 95. Every DICOM file has a window of its own, as MR series have, so that no table of grey values is
used twice. Processor time, the smallest of several rounds; what pydicom needs for the same is beside it.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.conditions import RESULTS, conditions
from mribatch.core.files import write_json
from mribatch.core.synthetic import draw_slice
from mribatch.pipeline.decode.dicom import DicomPixels
from mribatch.pipeline.decode.values import StoredSlice, Window, to_grey
from mribatch.pipeline.records import Verdict
from mribatch.pipeline.storage.source import LocalSource
from mribatch.pipeline.studies.dicom_header import read_dicom_header
from mribatch.pipeline.studies.options import HeaderOptions

SIDE = 512
FILES = 50
_MAX_PIXELS = 100_000_000
_TEMPLATE = "MR-SIEMENS-DICOM-WithOverlays.dcm"


def make_files(count: int) -> tuple[bytes, list[bytes]]:
    """(the JPEG, DICOM files of the same slice that differ in their windows)."""
    import pydicom
    from pydicom.data import get_testdata_file

    grey = draw_slice(1, SIDE, SIDE)
    jpeg = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    data: Any = pydicom.dcmread(str(get_testdata_file(_TEMPLATE)))
    data.Rows = data.Columns = SIDE
    data.PixelData = (grey.astype(np.uint16) * 16).tobytes()
    files = []
    for number in range(count):
        data.WindowCenter, data.WindowWidth = 2000 + number, 4000 + number
        stream = io.BytesIO()
        data.save_as(stream)
        files.append(stream.getvalue())
    return jpeg, files


def milliseconds(calls: Callable[[], int], rounds: int = 15) -> float:
    """Processor time of one of the calls, the smallest of several rounds; `calls` returns how many it made."""
    best = float("inf")
    for _ in range(rounds):
        begin = time.process_time()
        made = calls()
        best = min(best, (time.process_time() - begin) / made)
    return round(best * 1e3, 4)


def measure(count: int = FILES) -> dict[str, Any]:
    import pydicom

    cv2.setNumThreads(1)
    jpeg, files = make_files(count)
    options = HeaderOptions(max_pixels=_MAX_PIXELS)

    def decode_jpegs() -> int:
        for _ in files:
            cv2.imdecode(np.frombuffer(jpeg, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
        return len(files)

    def decode_slices() -> int:
        for content in files:
            _grey(DicomPixels(content, _MAX_PIXELS).read(0))
        return len(files)

    def decode_with_pydicom() -> int:
        for content in files:
            _ = pydicom.dcmread(io.BytesIO(content)).pixel_array
        return len(files)

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.dcm" for number in range(len(files))]
        for path, content in zip(paths, files, strict=True):
            path.write_bytes(content)

        def read_headers() -> int:
            for path in paths:
                read_dicom_header(LocalSource(bytes(path)), options)
            return len(paths)

        def read_headers_with_pydicom() -> int:
            for path in paths:
                pydicom.dcmread(path, stop_before_pixels=True)
            return len(paths)

        header, other_header = milliseconds(read_headers), milliseconds(read_headers_with_pydicom)
    decoded, jpeg_decoded = milliseconds(decode_slices), milliseconds(decode_jpegs)
    return {
        "slice": f"{SIDE} x {SIDE}, 12 bits",
        "bytes": {"jpeg": len(jpeg), "dicom": len(files[0])},
        "core_ms": {
            "jpeg_decode_opencv": jpeg_decoded,
            "dicom_decode_and_grey": decoded,
            "dicom_header": header,
            "pydicom_decode_without_grey": milliseconds(decode_with_pydicom, 5),
            "pydicom_header": other_header,
        },
        "dicom_over_jpeg": round(decoded / jpeg_decoded, 3),
        "headers_per_s_and_core": round(1000 / header),
    }


def _grey(stored: StoredSlice | Verdict) -> None:
    assert isinstance(stored, StoredSlice)
    to_grey(stored, Window(), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    result = measure()
    print(result)
    write_json(RESULTS / f"dicom_speed-synthetic{SIDE}px-12bit-1core.json", {**conditions(), **result})


if __name__ == "__main__":
    main()
