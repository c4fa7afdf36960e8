"""Archives among the inputs: a tar or zip file stands for what is in it, as a folder does."""

import os
from collections.abc import Iterator

from mribatch.pipeline.listing.entry import Entry, Scope, SkipReason, judge_name
from mribatch.pipeline.listing.headers import PAIR_SUFFIXES, Look
from mribatch.pipeline.listing.other_programs import describe_folder
from mribatch.pipeline.storage.address import join, of_member, place_in_archive
from mribatch.pipeline.storage.archive import ArchiveDamage, ArchiveEntry, list_archive


def expand(root: bytes, archive: Entry, scope: Scope) -> Iterator[Entry]:
    """Yield an entry for each file in an archive, and one for what keeps it from being read to its end.

    Args:
        root: Of the input.
        archive: As the walk found it.
        scope: What is left out.
    """
    location, inside = join(root, archive.path), archive.path + b"/"
    try:
        for found in list_archive(location):
            yield _member_entry(location, archive, found, scope)
    except ArchiveDamage as damage:
        yield Entry(inside, b"", None, None, SkipReason.DAMAGED_ARCHIVE, str(damage))
    except OSError as error:
        yield Entry(inside, b"", None, None, SkipReason.UNREADABLE_FILE, error.strerror or str(error))


def _member_entry(location: bytes, archive: Entry, found: ArchiveEntry, scope: Scope) -> Entry:
    path = archive.path + b"/" + found.name
    if found.member is None:
        return Entry(path, b"", None, None, SkipReason.ARCHIVE_MEMBER, found.problem)
    if (pattern := scope.patterns.find_above(path)) is not None:
        return Entry(path, b"", None, None, SkipReason.EXCLUDED, pattern)
    *folders, name = found.name.split(b"/")
    what = next(filter(None, map(describe_folder, folders)), None)
    if what is not None:
        return Entry(path, b"", None, None, SkipReason.OTHER_PROGRAM, what)
    reason, detail, look = judge_far(name, of_member(location, found.member))
    if reason is not None and look is Look.NO:
        return Entry(path, b"", None, None, reason, detail)
    return Entry(
        path,
        os.path.join(archive.real, found.name),
        found.member.size,
        archive.mtime_ns,
        reason,
        detail,
        look,
        member=place_in_archive(archive.path, found.member),
    )


def judge_far(name: bytes, location: bytes) -> tuple[SkipReason | None, str | None, Look]:
    """What a file in an archive or a store is by its name, as `judge_name`; there, NIfTI pairs are not read."""
    reason, detail, look = judge_name(name, location)
    if look is Look.EXPECTED and name.lower().endswith(PAIR_SUFFIXES):
        return SkipReason.STUDY_ELSEWHERE, "a NIfTI pair; copy both files to a folder to have them read", Look.NO
    return reason, detail, look
