"""parts.sha256: the SHA-256 of each part file, recorded when it is published, in the format of sha256sum.

A line is appended and fsynced before its part appears under its name. So a part without a line, in a run that has the
file, is of an earlier version; and a line without a part is of a process that was killed between the two. Of several
lines of one part, the last one counts.
"""

import os
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from mribatch.core.errors import RunError
from mribatch.core.files import append_line
from mribatch.core.regular_file import read_file

HASHES_FILE = "parts.sha256"
_LINE = re.compile(rb"([0-9a-f]{64})  predictions/part-([0-9]{5,15})\.parquet")
_MAX_BYTES = 1 << 30  # of nine million parts


def record_part(run: Path, part: int, content: bytes) -> None:
    """Append the hash of a part that is about to be published.

    Raises:
        WriteError: The file system refused.
    """
    append_line(run / HASHES_FILE, f"{sha256(content).hexdigest()}  predictions/part-{part:05d}.parquet".encode())


def recorded_hashes(run: Path) -> dict[int, str]:
    """Part -> hex digest; nothing of a run of an earlier version.

    Raises:
        RunError: The file cannot be read.
    """
    path = run / HASHES_FILE
    try:
        lines = read_file(os.fsencode(path), _MAX_BYTES).split(b"\n")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}", "make it readable") from error
    return {int(found[2]): found[1].decode() for found in map(_LINE.fullmatch, lines) if found}


def differs_from_record(content: bytes, part: int, hashes: Mapping[int, str]) -> bool:
    """Whether a part's bytes are others than those that were published; never where no hash is recorded."""
    return part in hashes and sha256(content).hexdigest() != hashes[part]
