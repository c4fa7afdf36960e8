"""The page of what exports is that of the committed outcomes."""

import json

from benchmarks.what_exports.page import PAGE, RESULTS, page


def test_the_page_is_that_of_the_committed_outcomes() -> None:
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    stale = "stale: python -m benchmarks.what_exports --page"
    assert PAGE.read_text(encoding="utf-8") == page(content), stale


def test_what_should_export_does() -> None:
    """Rows that say no: a precision that is refused, and a layer that Keras itself cannot load again."""
    outcomes = json.loads(RESULTS.read_text(encoding="utf-8"))["outcomes"]
    failed = {one["name"] for one in outcomes if one["exports"] is False}
    assert failed <= {"float64 head is refused", "RandomShear"}
    assert all(one["spread"] >= 0.01 and one["difference"] <= 1e-4 for one in outcomes if one["exports"])
