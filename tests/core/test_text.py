"""Names from strangers as text that is safe to show."""

import pytest

from mribatch.core.text import decode_name, html_text, one_line


@pytest.mark.parametrize(
    ("name", "text", "escaped"),
    [
        (b"\xff\xe9.jpg", "\\xff\\xe9.jpg", True),
        ("é.jpg".encode(), "é.jpg", False),
        (b"a\nb.jpg", "a\nb.jpg", False),
    ],
)
def test_a_file_name_becomes_text(name: bytes, text: str, escaped: bool) -> None:
    assert decode_name(name) == (text, escaped)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\r\x1b[2Jb", r"a\r\x1b[2Jb"), ("a\u2028b", r"a\u2028b"), ("\udcff", r"\udcff"), ("größe 腫瘍", "größe 腫瘍")],
)
def test_one_line_cannot_break_a_line_or_steer_a_terminal(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_html_is_escaped_and_on_one_line() -> None:
    assert html_text("<b>\"x\" & 'y'\n") == "&lt;b&gt;&quot;x&quot; &amp; &#x27;y&#x27;\\n"
