"""A classified batch as a few bytes for each image, for the pipe from the worker process to its parent.

An image has a record of fixed length. What most images of a batch have in common (status, format, flags, …) is said
once: a record names one of a few *kinds*. The files themselves are not sent back: the parent knows them.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from mribatch.pipeline.records import ClassifiedBatch, DecodedFile, Flag, ImageFile, Status, Verdict

# kind, width, height, bytes, perceptual hash, seconds, SHA-256; -1, and 0 for the hash, stand for None
_RECORD = struct.Struct("<IqqqQd32s")
_NO_DIGEST = bytes(32)


@dataclass(frozen=True)
class PackedBatch:
    """kinds: JSON of [status, error, format, bits, flags] each. records: one of _RECORD for each image.

    probabilities: As in ClassifiedBatch.
    """

    kinds: str
    records: bytes
    probabilities: NDArray[float32] | None

    @classmethod
    def of(cls, batch: ClassifiedBatch) -> Self:
        kinds: dict[tuple[Any, ...], int] = {}
        records = b"".join([_pack(file, kinds) for file in batch.files])
        return cls(json.dumps(list(kinds)), records, batch.probabilities)

    def unpack(self, files: Sequence[ImageFile]) -> ClassifiedBatch:
        """The batch with the files that were asked for, in the same order.

        Raises:
            ValueError: There are more or fewer of them.
        """
        kinds = [
            (Status(status), error, image_format, bits, tuple(map(Flag, flags)))
            for status, error, image_format, bits, flags in json.loads(self.kinds)
        ]
        decoded = [
            _unpack(file, kinds, record) for file, record in zip(files, _RECORD.iter_unpack(self.records), strict=True)
        ]
        return ClassifiedBatch(tuple(decoded), self.probabilities)

    def to_bytes(self) -> bytes:
        scores = self.probabilities
        shape = None if scores is None else scores.shape
        head = json.dumps([len(self.kinds.encode()), len(self.records), shape]).encode()
        content = b"" if scores is None else np.ascontiguousarray(scores, float32).tobytes()
        return b"\n".join((head, self.kinds.encode() + self.records + content))

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        head, _, rest = content.partition(b"\n")
        kinds, records, shape = json.loads(head)
        scores = None
        if shape is not None:
            scores = np.frombuffer(rest, float32, offset=kinds + records).reshape(shape)
        return cls(rest[:kinds].decode(), rest[kinds : kinds + records], scores)


def _pack(decoded: DecodedFile, kinds: dict[tuple[Any, ...], int]) -> bytes:
    verdict = decoded.verdict
    kind = (verdict.status, verdict.error, verdict.format, verdict.bits, verdict.flags)
    return _RECORD.pack(
        kinds.setdefault(kind, len(kinds)),
        -1 if verdict.width is None else verdict.width,
        -1 if verdict.height is None else verdict.height,
        -1 if decoded.bytes is None else decoded.bytes,
        decoded.perceptual_hash or 0,
        decoded.seconds,
        _NO_DIGEST if decoded.sha256 is None else bytes.fromhex(decoded.sha256),
    )


def _unpack(file: ImageFile, kinds: Sequence[tuple[Any, ...]], record: tuple[Any, ...]) -> DecodedFile:
    kind, width, height, size, picture, seconds, digest = record
    status, error, image_format, bits, flags = kinds[kind]
    verdict = Verdict(
        status,
        error,
        image_format,
        None if width < 0 else width,
        None if height < 0 else height,
        flags,
        bits,
    )
    known = size >= 0
    return DecodedFile(
        file, verdict, size if known else None, digest.hex() if known else None, seconds, picture or None
    )
