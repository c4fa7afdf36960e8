"""What the parent and its worker process say to each other: JSON, and classified batches as packed records.

No pickle: the worker reads images from strangers, and what comes out of it must not be able to run anything.

parent -> worker: Batch (answered in order, many under way), OneByOne (nothing else under way), NoMore (ends batches).
worker -> parent: StartupNote while it starts, Started, then FileBegun and Answer; WorkerFailed where it cannot go on.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mribatch.core.agreement import Agreement
from mribatch.core.typed_json import pack_record, unpack_record
from mribatch.pipeline.records import Flag, ImageFile, RunsWith, SliceSource, Status, StudyImage, Verdict
from mribatch.pipeline.worker.packed_batch import PackedBatch


@dataclass(frozen=True)
class Batch:
    """Images to classify together."""

    files: tuple[ImageFile, ...]


@dataclass(frozen=True)
class OneByOne:
    """Images to decode one after the other, each announced, and to classify together."""

    files: tuple[ImageFile, ...]


@dataclass(frozen=True)
class NoMore:
    """No more batches for now: answer what is under way."""


@dataclass(frozen=True)
class StartupNote:
    """A line that the user should read while the worker starts: that an engine is being built."""

    text: str


@dataclass(frozen=True)
class Started:
    """The worker has loaded everything, and its backend has passed the gate."""

    runs_with: RunsWith
    agreement: Agreement
    groups_ahead: int  # batches that must be under way before it answers the first one


@dataclass(frozen=True)
class FileBegun:
    """position: of the file that is decoded from now on; None: the model runs on all of them."""

    position: int | None


@dataclass(frozen=True)
class Answer:
    """What became of the files of a request, in their order."""

    batch: PackedBatch
    seconds: Mapping[str, float]  # wall seconds by stage since the last answer


@dataclass(frozen=True)
class WorkerFailed:
    """Why the worker ends.

    bug: A traceback, where the reason is not an error that a user can fix. out_of_memory: Whether the GPU had too
    little memory; it may have enough for smaller batches.
    """

    problem: str
    fix: str
    bug: str | None = None
    out_of_memory: bool = False


Request = Batch | OneByOne | NoMore
_PlainReply = StartupNote | Started | FileBegun | WorkerFailed
_PLAIN: tuple[type[_PlainReply], ...] = (StartupNote, Started, FileBegun, WorkerFailed)
Reply = _PlainReply | Answer


def request_bytes(request: Request) -> bytes:
    """A JSON line. Of each image goes what the worker needs; the sources of a range of values go once."""
    files: Sequence[ImageFile] = getattr(request, "files", ())
    ranges: dict[tuple[SliceSource, ...], int] = {}
    images = [_encode_image(file, ranges) for file in files]
    sources = [[[_text(source.file), source.slice] for source in sampled] for sampled in ranges]
    return json.dumps([type(request).__name__, images, sources]).encode()


def read_request(message: bytes) -> Request:
    kind, images, sources = json.loads(message)
    if kind == "NoMore":
        return NoMore()
    ranges = [tuple(SliceSource(path.encode("latin-1"), place) for path, place in sampled) for sampled in sources]
    files = tuple(_decode_image(position, facts, ranges) for position, facts in enumerate(images))
    return Batch(files) if kind == "Batch" else OneByOne(files)


def _text(path: bytes) -> str:
    """Latin-1 gives every byte of a path one character, whatever the path's encoding."""
    return path.decode("latin-1")


def _encode_image(file: ImageFile, ranges: dict[tuple[SliceSource, ...], int]) -> list[Any]:
    study = file.study
    if study is None:
        return [_text(file.file), file.listed]
    refused = study.refused
    return [
        _text(file.file),
        file.listed,
        study.format,
        study.slice,
        list(study.flags),
        None if refused is None else [refused.status, refused.error],
        ranges.setdefault(study.range_from, len(ranges)) if study.range_from else None,
    ]


def _decode_image(position: int, facts: list[Any], ranges: Sequence[tuple[SliceSource, ...]]) -> ImageFile:
    path, listed, *rest = facts
    study = None
    if rest:
        study_format, place, flags, refused, sampled = rest
        study = StudyImage(
            format=study_format,
            slice=place,
            flags=tuple(map(Flag, flags)),
            refused=None if refused is None else Verdict(Status(refused[0]), refused[1], study_format),
            range_from=() if sampled is None else ranges[sampled],
        )
    known = None if listed is None else (listed[0], listed[1])
    return ImageFile(position, 0, "", path.encode("latin-1"), study=study, listed=known)


def reply_bytes(reply: Reply) -> bytes:
    """A JSON line; after an Answer's, which is the frequent one and has a form of its own, its batch."""
    if not isinstance(reply, Answer):
        return pack_record(reply) + b"\n"
    return json.dumps(dict(reply.seconds)).encode() + b"\n" + reply.batch.to_bytes()


def read_reply(message: bytes) -> Reply:
    line, _, rest = message.partition(b"\n")
    if not line.startswith(b"{"):
        return unpack_record(line, _PLAIN)
    return Answer(PackedBatch.from_bytes(rest), json.loads(line))
