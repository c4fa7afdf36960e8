import pytest

from mribatch.core.errors import MribatchError


def test_says_what_is_wrong_and_what_to_do() -> None:
    error = MribatchError("the folder holds no image.", "name another")
    assert str(error) == "the folder holds no image. Fix: name another"
    assert (error.problem, error.fix) == ("the folder holds no image.", "name another")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("a\r\x1b[2Jb", r"a\r\x1b[2Jb"),
        ("a\u2028b", r"a\u2028b"),
        ("\udcff", r"\udcff"),
        ("größe 腫瘍", "größe 腫瘍"),
    ],
)
def test_is_one_printable_line_whatever_a_file_is_called(name: str, shown: str) -> None:
    text = str(MribatchError(f"cannot read {name}", "rename it"))
    assert text == f"cannot read {shown}. Fix: rename it"
    assert len(text.splitlines()) == 1
    text.encode("utf-8")
