"""What was measured to be fastest on one GPU with one model: kept beside the engines, as JSON.

A tuning is for exactly one GPU, number of cores, bundle and set of library versions; with another of any of these it is
not found, and nothing is taken from it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Self

from mribatch.core.typed_json import read_record, write_record

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Settings of a run, and how fast they were.

    Attributes:
        batch_size: Images in a batch.
        workers: Processes that share the GPU.
        threads: Of each of them, for reading and checking files.
        hw_decoder_load: Share of the JPEGs for the GPU's own JPEG engine, 0 or 1.
        huffman_threshold: Pixels from which an image's Huffman codes are read on the GPU as well; None: DALI's own.
        width, height: Of nearly all images that were tried, stored; memory for them is allocated beforehand.
        images_per_second: With these settings, of decoding and inference together.
        measured: Date, ISO 8601.
    """

    batch_size: int
    workers: int
    threads: int
    hw_decoder_load: float
    huffman_threshold: int | None = None
    width: int | None = None
    height: int | None = None
    images_per_second: float
    measured: str

    def __str__(self) -> str:
        where = "on its JPEG engine" if self.hw_decoder_load else "without its JPEG engine"
        return (
            f"batches of {self.batch_size}, {self.workers} workers of {self.threads} threads, decoded {where}; "
            f"{self.images_per_second:,.0f} images/s on {self.measured}"
        )


@dataclass(frozen=True, kw_only=True)
class TuningKey:
    """What a tuning is for. versions: library -> version."""

    gpu: str
    memory_bytes: int
    cores: int
    bundle_sha256: str
    versions: Mapping[str, str]

    @property
    def file_name(self) -> str:
        content = json.dumps(write_record(self), sort_keys=True).encode()
        return f"tuning-{sha256(content).hexdigest()[:16]}.json"


@dataclass(frozen=True, kw_only=True)
class TuningFile:
    """The content of the file."""

    schema: int
    key: TuningKey
    tuning: Tuning

    @classmethod
    def parse(cls, content: bytes, key: TuningKey) -> Self | None:
        """Read what `to_bytes` gave; None where it is damaged, for something else, or of another version."""
        try:
            found: Self = read_record(cls, json.loads(content))
        except (ValueError, RecursionError):
            return None
        return found if (found.schema, found.key) == (SCHEMA, key) and _is_usable(found.tuning) else None

    def to_bytes(self) -> bytes:
        content: dict[str, Any] = write_record(self)
        return (json.dumps(content, indent=2) + "\n").encode()


def _is_usable(tuning: Tuning) -> bool:
    """Whether the numbers can be used; the file may have been edited."""
    numbers = (tuning.batch_size, tuning.workers, tuning.threads)
    return all(1 <= number <= 4096 for number in numbers) and tuning.hw_decoder_load in (0.0, 1.0)
