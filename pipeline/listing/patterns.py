"""Patterns for files and folders that are left out of a listing: a documented part of what .gitignore files can say.

*.tmp       a name, at any depth: there is no slash in the pattern
a/*.png     a path from the input on: there is a slash before the end
/notes      a leading slash, too, means from the input on
masks/      folders only
**          any number of folders: **/masks, a/**/b.png, a/**
* ? [a-z]   any letters, one letter, one of these letters, [!a-z] none of these; none of them crosses a slash
\\*          the letter after the backslash itself

What lies in a folder that matches is left out, too. Upper and lower case differ.
"""

import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mribatch.core.errors import MribatchError

_FIX = "write it like a line of a .gitignore file: '*_mask.png', 'masks/', 'a/**/b.png'"


@dataclass(frozen=True, slots=True)
class _Pattern:
    text: str
    regex: re.Pattern[str]
    folders_only: bool
    on_names: bool  # compared with the last part of a path instead of all of it


class PathPatterns:
    """Patterns that were given together; a path is left out where any of them matches.

    Raises:
        MribatchError: One is empty, begins with "!", or holds a wrong set of letters.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._patterns = tuple(map(_compile, patterns))

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def find(self, path: bytes, *, folder: bool) -> str | None:
        """The first pattern that matches this file or folder itself, or None.

        Args:
            path: Relative to its input, with "/".
            folder: Whether it is a folder.
        """
        if not self._patterns:
            return None
        whole = _clean(os.fsdecode(path))
        name = whole.rpartition("/")[2]
        for pattern in self._patterns:
            if pattern.folders_only and not folder:
                continue
            if pattern.regex.fullmatch(name if pattern.on_names else whole):
                return pattern.text
        return None

    def find_above(self, path: bytes, *, folder: bool = False) -> str | None:
        """The first pattern that matches this path or a folder above it, or None."""
        if not self._patterns:
            return None
        for above in _folders_above(path):
            if (found := self.find(above, folder=True)) is not None:
                return found
        return self.find(path, folder=folder)


def _folders_above(path: bytes) -> Iterator[bytes]:
    """b"a/b/c" -> b"a", b"a/b"."""
    position = path.find(b"/")
    while position >= 0:
        if position > 0:
            yield path[:position]
        position = path.find(b"/", position + 1)


def _clean(path: str) -> str:
    """A path without what a list may write before it: "./a" and "/a" are "a"."""
    return posixpath.normpath(path).lstrip("/") if path.startswith((".", "/")) else path


def _compile(text: str) -> _Pattern:
    body = text.rstrip("/")
    if not body or text.startswith("!"):
        what = "begins with '!', which is not supported" if text.startswith("!") else "is empty"
        raise MribatchError(f"the pattern '{text}' {what}", _FIX)
    try:
        regex = re.compile(_translate(body.removeprefix("/")), re.DOTALL)
    except re.error as error:
        raise MribatchError(f"the pattern '{text}' cannot be read: {error}", _FIX) from error
    return _Pattern(text, regex, folders_only=text.endswith("/"), on_names="/" not in body)


def _translate(pattern: str) -> str:
    """A pattern as a regular expression over the whole path, or over a name if there is no slash in it."""
    if "/" not in pattern:
        return _translate_part(pattern)
    *parts, last = pattern.split("/")
    folders = "".join("(?:[^/]+/)*" if part == "**" else f"{_translate_part(part)}/" for part in parts)
    return folders + (".+" if last == "**" else _translate_part(last))


def _translate_part(part: str) -> str:
    regex, position = [], 0
    while position < len(part):
        letter = part[position]
        position += 1
        closing = part.find("]", position + 2 if part[position : position + 1] in ("!", "^") else position + 1)
        if letter == "*":
            regex.append("[^/]*")
        elif letter == "?":
            regex.append("[^/]")
        elif letter == "[" and closing > 0:
            letters = re.sub(r"([\\\[&~|])", r"\\\1", part[position:closing])
            negated = letters[0] in "!^"
            regex.append(f"(?!/)[{'^' if negated else ''}{letters[negated:]}]")
            position = closing + 1
        elif letter == "\\" and position < len(part):
            regex.append(re.escape(part[position]))
            position += 1
        else:
            regex.append(re.escape(letter))
    return "".join(regex)
