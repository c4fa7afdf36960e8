"""The names in a --from-file list, as bytes: one per line, or each ended by a NUL byte.

Windows editors begin a text file with a byte-order mark and end its lines with CR LF, and PowerShell writes UTF-16;
none of this is part of a name.
"""

import codecs
import itertools
from collections.abc import Iterable, Iterator
from functools import partial
from typing import BinaryIO

from mribatch.core.errors import MribatchError

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_CHUNK = 1 << 16  # bytes; also the longest name between two NUL bytes, far above what a file system takes
_WITHOUT_NUL = "separate the names by NUL bytes (find -print0), or give one path per line"


def read_names(stream: BinaryIO, title: str, *, null: bool) -> Iterator[tuple[int, bytes]]:
    """Yield (number, name) for every name of a list; numbers begin at 0, and empty names are left out.

    Args:
        stream: Open for reading.
        title: What errors call the list.
        null: Whether NUL bytes end the names, instead of line feeds.

    Raises:
        MribatchError: A NUL byte is in a line, there is none where names should end, or the text is not UTF-16.
    """
    names = _split_at_nul(stream, title) if null else _lines(stream, title)
    yield from ((number, name) for number, name in enumerate(names) if name)


def _lines(stream: BinaryIO, title: str) -> Iterator[bytes]:
    first = stream.readline(_CHUNK)
    further = iter(partial(stream.readline, _CHUNK), b"")
    lines: Iterable[bytes] = itertools.chain([first.removeprefix(codecs.BOM_UTF8)], further)
    if first.startswith(_UTF16_MARKS) and b"\0" in first:
        lines = _utf16_lines(itertools.chain([first], further), title)
    for number, line in enumerate(lines, start=1):
        name = line.rstrip(b"\r\n")
        if len(name) >= _CHUNK:
            raise _too_long(title, f"line {number}")
        if b"\0" in name:
            raise MribatchError(
                f"line {number} of the list {title} holds a NUL byte, and --null is not given",
                "give one path per line (find -print), or say that NUL bytes end the names",
            )
        yield name


def _utf16_lines(chunks: Iterable[bytes], title: str) -> Iterator[bytes]:
    decoder, rest = codecs.getincrementaldecoder("utf-16")(), ""
    try:
        for chunk in chunks:
            *lines, rest = (rest + decoder.decode(chunk)).split("\n")
            if len(rest) > _CHUNK:
                raise _too_long(title)
            yield from (line.encode() for line in lines)
        yield (rest + decoder.decode(b"", final=True)).encode()
    except UnicodeError as error:
        raise MribatchError(f"the list {title} is not in UTF-16, as it begins: {error}", "save it in UTF-8") from error


def _too_long(title: str, where: str = "a line") -> MribatchError:
    return MribatchError(
        f"{where} of the list {title} has more than {_CHUNK:,} bytes, as no path has",
        "give one path per line, or say that NUL bytes end the names",
    )


def _split_at_nul(stream: BinaryIO, title: str) -> Iterator[bytes]:
    rest, seen = b"", False
    while chunk := stream.read(_CHUNK):
        *names, rest = (rest + chunk).split(b"\0")
        seen = seen or bool(names)
        if len(rest) > _CHUNK:
            raise MribatchError(f"the list {title} has no NUL byte in {_CHUNK:,} bytes", _WITHOUT_NUL)
        yield from names
    if rest and not seen and b"\n" in rest:
        raise MribatchError(f"the list {title} has no NUL byte", _WITHOUT_NUL)
    yield rest
