"""Keyed hashes in place of what identifies a patient: nobody without the key can tell whose they are.

The key is made once per run folder, or shared by several runs, so that they agree. HMAC is RFC 2104.
"""

import base64
import contextlib
import hmac
import os
import secrets
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from mribatch.core.errors import MribatchError
from mribatch.core.files import publishing
from mribatch.pipeline.studies.facts import StudyIds

_KEY_BYTES = 32
_LEAST_KEY_BYTES = 16
_PSEUDONYM_BYTES = 10  # 16 letters of base 32; two of a million patients share one with a chance of 1 in 10**12


@dataclass(frozen=True)
class Pseudonyms:
    """What stands for patients, studies, series and paths, under one key."""

    key: bytes

    def of_ids(self, ids: StudyIds) -> StudyIds:
        """The same identities as pseudonyms; what is not known stays None."""
        return StudyIds(
            patient=self._of("patient", ids.patient),
            study=self._of("study", ids.study),
            series=self._of("series", ids.series),
        )

    def of_file(self, path: bytes) -> str:
        """A pseudonym for a file that is a series of its own; `path` is absolute."""
        return self._hash("file", path)

    def of_path(self, path: bytes) -> str:
        """What `--anonymize-paths` shows in place of a path."""
        return self._hash("path", path)

    @property
    def fingerprint(self) -> str:
        """Tells whether two runs have the same key, without giving it away."""
        return self._hash("key", b"")

    def _of(self, kind: str, text: str | None) -> str | None:
        return None if text is None else self._hash(kind, text.encode("utf-8", "surrogateescape"))

    def _hash(self, kind: str, content: bytes) -> str:
        # The kind comes first, so that equal texts of two kinds have nothing in common.
        digest = hmac.digest(self.key, kind.encode() + b"\0" + content, sha256)
        return base64.b32encode(digest[:_PSEUDONYM_BYTES]).decode().lower()


def random_pseudonyms() -> Pseudonyms:
    """Pseudonyms that agree with nothing else, under a new key."""
    return Pseudonyms(secrets.token_hex(_KEY_BYTES).encode())


def keep_key(path: Path, pseudonyms: Pseudonyms) -> None:
    """Write the key, whole or not at all, and readable for its owner only.

    Raises:
        WriteError: The file system refused.
    """
    with publishing(path) as temporary:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()  # left by a killed process, perhaps with other permissions
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(pseudonyms.key + b"\n")


def read_pseudonyms(path: Path) -> Pseudonyms | None:
    """Read a key; None where there is no such file.

    Raises:
        MribatchError: The file cannot be read, or holds less than 16 bytes.
    """
    try:
        key = path.read_bytes().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MribatchError(
            f"the key {path} cannot be read: {error.strerror or error}", "check its permissions, or name another file"
        ) from error
    if len(key) < _LEAST_KEY_BYTES:
        raise MribatchError(
            f"the key {path} has {len(key)} bytes; at least {_LEAST_KEY_BYTES} are needed",
            "name a file that does not exist yet, to have a key made",
        )
    return Pseudonyms(key)
