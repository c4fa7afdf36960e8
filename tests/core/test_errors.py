import pytest

from mribatch.core.errors import BundleError, DiskFullError, MribatchError, WriteError, advising


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


def test_a_command_gives_the_fix_that_it_knows() -> None:
    with (
        pytest.raises(WriteError) as caught,
        advising({DiskFullError: "free space", WriteError: "choose another --out"}),
    ):
        raise WriteError("could not write a", "make sure that you may")
    assert str(caught.value) == "could not write a. Fix: choose another --out"
    with (
        pytest.raises(DiskFullError) as full,
        advising({DiskFullError: "free space", WriteError: "choose another --out"}),
    ):
        raise DiskFullError("could not write a", "make sure that you may")
    assert full.value.fix == "free space"


def test_other_errors_keep_their_fix_and_the_innermost_advice_holds() -> None:
    with pytest.raises(BundleError, match="Fix: restore it"), advising({WriteError: "choose another --out"}):
        raise BundleError("it is damaged", "restore it")
    with (
        pytest.raises(WriteError, match="Fix: choose another --cache"),
        advising({MribatchError: "choose another --out"}),
        advising({WriteError: "choose another --cache"}),
    ):
        raise WriteError("could not write a", "make sure that you may")
