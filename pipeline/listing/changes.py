"""Files that are no longer what was listed: another size or another time, seen when their row is made."""

from dataclasses import replace

from mribatch.core.system_errors import is_system_error
from mribatch.pipeline.records import ClassifiedBatch, DecodedFile, Flag, ImageFile, Status
from mribatch.pipeline.storage.content import has_changed


def flag_changed(batch: ClassifiedBatch) -> ClassifiedBatch:
    """Flag the images whose files were changed, or deleted, after they were listed and before their row was made.

    A file that was gone before it could be read has a row that says so. Where paths lead to slow servers this costs no
    question more: what a client has just read, it knows. An object of a store was compared when it was read.
    """
    known: dict[bytes, bool] = {}
    files = tuple(_flagged(decoded, known) for decoded in batch.files)
    return replace(batch, files=files) if any(known.values()) else batch


def _flagged(decoded: DecodedFile, known: dict[bytes, bool]) -> DecodedFile:
    file, verdict = decoded.file, decoded.verdict
    if file.listed is None or verdict.status is Status.UNREADABLE:
        return decoded
    if file.file not in known:
        known[file.file] = _has_changed(file)
    if not known[file.file]:
        return decoded
    return replace(decoded, verdict=replace(verdict, flags=(*verdict.flags, Flag.CHANGED_SINCE_LISTING)))


def _has_changed(file: ImageFile) -> bool:
    assert file.listed is not None, "the caller has asked"
    try:
        return has_changed(file.file, file.listed)
    except OSError as error:
        return not is_system_error(error)
