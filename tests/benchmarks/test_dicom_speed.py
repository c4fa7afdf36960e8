"""The committed figures: an uncompressed DICOM slice costs no more than a JPEG."""

import json

from benchmarks.conditions import RESULTS


def test_a_slice_costs_no_more_than_a_jpeg() -> None:
    (path,) = RESULTS.glob("dicom_speed-*.json")
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["dicom_over_jpeg"] <= 1
    assert result["headers_per_s_and_core"] > 1000
