"""Tables and lists as a stranger could write them, for --labels, --groups and --from-file.

HOSTILE_TABLES    name -> writes a table that should have the columns path, label and patient_id
HOSTILE_LISTS     name -> writes a list of names
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

Write = Callable[[Path], object]

_HEADER = "path,label,patient_id\n"
_LARGE = 100_000_000  # bytes of a field, a line, a file


def _text(text: str, encoding: str = "utf-8") -> Write:
    return lambda path: path.write_bytes(text.encode(encoding, "surrogatepass"))


def _large(begin: bytes, end: bytes = b"") -> Write:
    def write(path: Path) -> None:
        with path.open("wb") as stream:
            stream.write(begin)
            for _ in range(_LARGE // 1_000_000):
                stream.write(b"x" * 1_000_000)
            stream.write(end)

    return write


HOSTILE_TABLES: Mapping[str, Write] = {
    "empty": _text(""),
    "a header alone": _text(_HEADER),
    "a byte-order mark": _text("\ufeff" + _HEADER + "a.png,no_tumor,1\n"),
    "UTF-16 with a mark": _text(_HEADER + "a.png,no_tumor,1\n", "utf-16"),
    "UTF-16 without a mark": _text(_HEADER + "a.png,no_tumor,1\n", "utf-16-le"),
    "UTF-32": _text(_HEADER, "utf-32"),
    "Latin-1": _text(_HEADER + "ä.png,no_tumor,1\n", "latin-1"),
    "EBCDIC": _text(_HEADER, "cp500"),
    "a surrogate": _text(_HEADER + "\ud800.png,no_tumor,1\n"),
    "NUL bytes": _text(_HEADER + "a\0.png,no_tumor,1\n"),
    "zeros alone": lambda path: path.write_bytes(bytes(1000)),
    "a field of 100 MB": _large(_HEADER.encode(), b",no_tumor,1\n"),
    "a quoted field of 100 MB": _large(_HEADER.encode() + b'"', b'",no_tumor,1\n'),
    "a line of 100 MB in the header": _large(b"path,label,patient_id,"),
    "a quote that never ends": _text(_HEADER + '"a.png,no_tumor,1\n' * 1000),
    "quotes in the middle": _text(_HEADER + 'a"b".png,"no"_tumor,1\n'),
    "100,000 columns": _text("path,label,patient_id" + ",x" * 100_000 + "\na.png,no_tumor,1\n"),
    "100,000 columns of one name": _text("path" + ",path" * 100_000 + "\n"),
    "two labels for one path": _text(_HEADER + "a.png,no_tumor,1\na.png,glioma_tumor,2\n"),
    "the same line 10,000 times": _text(_HEADER + "a.png,no_tumor,1\n" * 10_000),
    "10,000 labels that steer a terminal": _text(
        _HEADER + "".join(f'"{i}\x1b[2J\r.png","\x1b]0;x\x07{i}",1\n' for i in range(10_000))
    ),
    "formulas": _text(_HEADER + '=cmd|x,"=HYPERLINK(""http://x"")",@x\n'),
    "paths that lead elsewhere": _text(_HEADER + "../../../etc/passwd,no_tumor,1\n/dev/zero,no_tumor,2\n"),
    "short rows": _text(_HEADER + "a.png\n\n,\n,,,,,,\n"),
    "a folder": Path.mkdir,
    "a device without an end": lambda path: path.symlink_to("/dev/zero"),
}

HOSTILE_LISTS: Mapping[str, Write] = {
    "empty": _text(""),
    "a name of 100 MB": _large(b""),
    "a name of 100 MB in UTF-16": _large(b"\xff\xfea\0"),
    "NUL bytes": _text("a.png\0b.png\n"),
    "UTF-16 cut in a character": lambda path: path.write_bytes("a.png\n".encode("utf-16") + b"\x00"),
    "names that are not UTF-8": lambda path: path.write_bytes(b"\xff\xfe\xfd.png\n\x80.jpg\n"),
    "names that steer a terminal": _text("\x1b[2J.png\n\u202egnp.exe\n"),
    "paths that lead elsewhere": _text("/etc/passwd\n../../../etc/shadow\n"),
    "devices and folders of the kernel": _text("/dev/zero\n/dev/random\n/proc/self/mem\n/proc/kmsg\n"),
    "the same name 10,000 times": _text("a.png\n" * 10_000),
    "names of 5,000 letters": _text(("x" * 5000 + ".png\n") * 10),
    "a folder": Path.mkdir,
    "a socket": lambda path: os.mknod(path, 0o140644),
}
