"""A list of names that has no end of a line is refused before it is in memory."""

import io

import pytest

from mribatch.core.errors import MribatchError
from mribatch.pipeline.listing.name_list import read_names

LONG = b"x" * 70_000


@pytest.mark.parametrize(
    ("content", "null", "where"),
    [
        (LONG, False, "line 1"),
        (b"a.png\n" + LONG + b"\n", False, "line 2"),
        (("\ufeffa.png\n" + "x" * 70_000).encode("utf-16-le"), False, "a line"),
    ],
)
def test_a_name_longer_than_any_path_is_refused(content: bytes, null: bool, where: str) -> None:
    with pytest.raises(MribatchError, match=f"{where} of the list names has more than 65,536 bytes, as no path has"):
        list(read_names(io.BytesIO(content), "names", null=null))


def test_a_name_of_the_longest_path_is_taken() -> None:
    name = b"x" * 4096
    assert list(read_names(io.BytesIO(name + b"\n" + name), "names", null=False)) == [(0, name), (1, name)]
