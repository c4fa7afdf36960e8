"""The benchmark of the audit: what it measures of a few drawn slices."""

import re
from pathlib import Path

from benchmarks.audit import draw, measure


def test_counts_and_seconds_and_no_name_are_in_the_result(tmp_path: Path) -> None:
    result = measure(draw(tmp_path / "slices", 8, 24), repeats=1)
    assert result["images"] == result["files"]["readable"] == 8
    assert result["seconds"]["median"] > 0 and result["page_bytes"] > 1000
    assert not re.search(r"\.(png|jpe?g)", str(result)) and str(tmp_path) not in str(result)
