"""NIfTI files of nibabel's test data get what the page says."""

import nibabel
import pytest

from benchmarks.nifti_files import EXPECTED, PAGE, files, outcome, page

FILES = files()


@pytest.mark.skipif(not FILES, reason="this nibabel comes without its test data")
def test_every_file_is_as_expected_and_the_page_is_fresh() -> None:
    outcomes = [outcome(path) for path in FILES]
    assert [one for one in outcomes if one.name in EXPECTED and not one.is_as_expected] == []
    text = PAGE.read_text(encoding="utf-8")
    if f"nibabel {nibabel.__version__}:" in text:
        assert text == page(outcomes), "stale: python -m benchmarks.nifti_files"
