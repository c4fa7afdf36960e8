"""Paths for libraries in C++, and names that these cannot have."""

import os
from pathlib import Path

import pytest

from mribatch.core.errors import OptionError
from mribatch.core.local_paths import arrow_path, utf8_path
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.folder import RunFolder
from mribatch.pipeline.plan import make_plan


def test_arrow_paths() -> None:
    assert arrow_path(Path("run:1/a")) == "./run:1/a"
    assert arrow_path(Path("/schéma/a")) == "/schéma/a"


def test_a_name_that_is_not_utf_8_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    out = Path(os.fsdecode(bytes(tmp_path) + b"/b\xe9"))
    with pytest.raises(OptionError, match=r"--out .*b\\xe9 is not UTF-8.* Fix: choose a folder whose name is UTF-8"):
        make_plan([tmp_path], RunFolder(out), ClassifyOptions(), print)
    with pytest.raises(OptionError, match="is not UTF-8"):
        utf8_path(out)
    assert not out.exists()
