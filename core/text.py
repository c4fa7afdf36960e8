"""Names from strangers as text that is safe to show: on a terminal line or on a page.

bytes of a file name --decode_name--> text --one_line--> a line of a terminal --html_text--> a cell of a web page
"""

import html


def decode_name(name: bytes) -> tuple[str, bool]:
    """Turn the file system's bytes into text.

    Returns:
        The text, and whether bytes that are not UTF-8 had to be written as backslash escapes.
    """
    try:
        return name.decode("utf-8"), False
    except UnicodeDecodeError:
        return name.decode("utf-8", "backslashreplace"), True


def one_line(text: object) -> str:
    """Write whatever would break the line or steer a terminal as escapes, e.g. a line feed as backslash n."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))


def html_text(text: object) -> str:
    """Escape one line of text for HTML, in an element or in a quoted attribute."""
    return html.escape(one_line(text))
