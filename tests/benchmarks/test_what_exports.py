"""The page of what exports is that of the committed outcomes."""

import json

from benchmarks.what_exports.page import PAGE, RESULTS, is_rounding, page, read_rounding


def test_the_page_is_that_of_the_committed_outcomes() -> None:
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    stale = "stale: python -m benchmarks.what_exports --page"
    assert PAGE.read_text(encoding="utf-8") == page(content, read_rounding()), stale


def test_what_should_export_does() -> None:
    """Rows that say no: a precision that is refused, a layer that Keras itself cannot load again, and differences of
    deep networks with random weights that are rounding, or whose origin is not measured (EfficientNetV2M)."""
    outcomes = json.loads(RESULTS.read_text(encoding="utf-8"))["outcomes"]
    failed = {one["name"] for one in outcomes if one["exports"] is False}
    rounded = {line["network"] for line in read_rounding() if is_rounding(line)}
    assert failed <= {"float64 head is refused", "RandomShear", "EfficientNetV2M"} | rounded
    assert all(one["spread"] >= 0.01 and one["difference"] <= 1e-4 for one in outcomes if one["exports"])
