"""The shards of an array job -> the run folder that one process would have written.

Every shard has listed all inputs, so their listings and fingerprints are equal, and each holds its own part files. They
are copied byte by byte; nothing is computed again.
"""

import contextlib
import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mribatch.core.errors import MribatchError, OptionError, RunError, advising
from mribatch.core.files import publishing, sha256_of_file
from mribatch.core.local_paths import utf8_path
from mribatch.pipeline.listing.table import LISTING_FILE, PATHS_FILE, SKIPPED_FILE
from mribatch.pipeline.options import FIXES
from mribatch.pipeline.output.copies import write_copies
from mribatch.pipeline.output.folder import Fingerprint, RunFolder, open_run_folder
from mribatch.pipeline.output.mirror import Place, run_copy
from mribatch.pipeline.output.part_hashes import record_part
from mribatch.pipeline.output.parts import PARTS_FOLDER, count_rows, done_parts, part_path
from mribatch.pipeline.output.run_file import RunFile, RunProof, RunState, read_run_file
from mribatch.pipeline.output.shard import Shard
from mribatch.pipeline.output.summary import RunSummary, record_counts, summarize
from mribatch.pipeline.output.xlsx_table import require_openpyxl
from mribatch.pipeline.progress import Progress, SilentProgress

_MOST_NAMED = 5  # missing shards


@dataclass(frozen=True)
class _ShardRun:
    """The folder of one finished shard."""

    path: Path
    content: RunFile
    shard: Shard


def merge(
    shards: Sequence[Place],
    out: Place,
    *,
    csv: bool = False,
    xlsx: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RunSummary:
    """Put the run folders of all shards of a run together; the shards stay as they are.

    The same call on an interrupted merge goes on with it; on a complete one it only returns the summary.

    Args:
        shards: Output folders of `classify` with `--shard 1/N`, … `--shard N/N`, in any order.
        out: A folder that is new, empty, or holds this merge.
        csv: Also write predictions.csv.
        xlsx: Also write predictions.xlsx; needs openpyxl.
        overwrite: Replace another run in `out`.
        progress: Receives the number of images; silent by default.

    Raises:
        RunError: A shard is missing, given twice, unfinished, damaged or of another run; nothing was written.
        MribatchError: The output folder cannot be used.
    """
    if xlsx:
        require_openpyxl()
    progress = progress if progress is not None else SilentProgress()
    with advising(FIXES), contextlib.closing(progress), contextlib.ExitStack() as stack:
        _check_apart(shards, out)
        found = _read_shards([stack.enter_context(run_copy(shard)) for shard in shards])
        merged = _describe_run(found)
        folder = stack.enter_context(open_run_folder(out))
        utf8_path(folder.path, "--out")
        _check_target(folder, merged, overwrite=overwrite)
        _make_folder(folder.path)
        with folder.locked(progress.note):
            earlier = _check_target(folder, merged, overwrite=overwrite)  # again: another may have been faster
            return _merge_locked(found, merged, folder, earlier, progress, csv=csv, xlsx=xlsx)


def _merge_locked(
    found: Sequence[_ShardRun],
    merged: RunFile,
    folder: RunFolder,
    earlier: RunFile | None,
    progress: Progress,
    *,
    csv: bool,
    xlsx: bool,
) -> RunSummary:
    """Copy what `earlier`, this merge's run.json of an interrupted call, lacks; None: begin anew."""
    if earlier is None:
        folder.overwrite()
        folder.write(replace(merged, state=RunState.LISTING))
        _copy_listing(found, folder.path)
        folder.write(merged)
    content = earlier if earlier is not None and earlier.state is RunState.COMPLETE else merged
    if content.state is not RunState.COMPLETE:
        _copy_parts(found, merged, folder.path, progress)
    counts = count_rows(folder.path, content.own_rows)
    if content.state is not RunState.COMPLETE:
        content = replace(content, counts=record_counts(counts), state=RunState.COMPLETE)
        folder.write(content)
    write_copies(folder.path, content, csv=csv, xlsx=xlsx)
    folder.synchronise()
    return summarize(folder.path, folder.place, content, counts)


def _check_apart(shards: Sequence[Place], out: Place) -> None:
    if _real(out) in set(map(_real, shards)):
        raise OptionError(f"--out {out} is one of the shards", "name another folder")


def _real(place: Place) -> Place:
    return place.resolve() if isinstance(place, Path) else place


def _read_shards(paths: Sequence[Path]) -> list[_ShardRun]:
    """Return all shards of one run, in order."""
    found = sorted((_read_shard(path) for path in paths), key=lambda one: one.shard)
    if not found:
        raise OptionError("there is no shard to merge", "name the folders that classify --shard wrote")
    for one, following in itertools.pairwise(found):
        _check_pair(one, following)
    there = {one.shard.number for one in found}
    missing = [number for number in range(1, found[0].shard.count + 1) if number not in there]
    if missing:
        named = ", ".join(f"{number}/{found[0].shard.count}" for number in missing[:_MOST_NAMED])
        more = f" and {len(missing) - _MOST_NAMED:,} more" if len(missing) > _MOST_NAMED else ""
        raise RunError(f"shards are missing: {named}{more}", "name the folders of all shards")
    return found


def _read_shard(path: Path) -> _ShardRun:
    content = read_run_file(path)
    if content.shard is None:
        raise RunError(f"{path} holds a whole run, not a shard of one", "name folders that classify --shard wrote")
    if content.state is not RunState.SHARD_COMPLETE:
        raise RunError(
            f"the shard {content.shard} in {path} is not complete: its state is '{content.state}'",
            "repeat its classify command; it continues where it stopped",
        )
    return _ShardRun(path, content, Shard.parse(content.shard))


def _check_pair(one: _ShardRun, other: _ShardRun) -> None:
    if one.shard.count != other.shard.count:
        raise RunError(
            f"{one.path} is shard {one.shard} and {other.path} is shard {other.shard}: they divide the run differently",
            "name the shards of one array job",
        )
    difference = Fingerprint(other.content.fingerprint).difference(one.content.fingerprint)
    if difference is not None or one.content.run_id != other.content.run_id:
        text = "run.json was changed" if difference is None else str(difference)
        raise RunError(
            f"{other.path} is of another run than {one.path}: {text}",
            "classify the shards with the same inputs, options and versions; what auto chooses may differ between"
            " machines, so give --batch-size, --backend, --decoder and --precision",
        )
    if one.shard == other.shard:
        raise RunError(f"{one.path} and {other.path} are the same shard, {one.shard}", "name each shard once")


def _describe_run(found: Sequence[_ShardRun]) -> RunFile:
    """Return the run.json of the whole run, before its rows are there."""
    contents = [one.content for one in found]
    proofs: list[RunProof] = [content.proof for content in contents if content.proof is not None]
    return replace(
        contents[0],
        shard=None,
        counts=None,
        state=RunState.RUNNING,
        attempts=tuple(attempt for content in contents for attempt in content.attempts),
        proof=max(proofs, key=lambda proof: proof.max_difference, default=None),  # the least exact of the machines
    )


def _check_target(folder: RunFolder, merged: RunFile, *, overwrite: bool) -> RunFile | None:
    """Return what an earlier call has written of this merge; None where there is nothing of use.

    Raises:
        RunError: The folder holds something else, and it is not to be overwritten.
    """
    earlier = folder.check_free()
    if earlier is None or earlier.state is RunState.LISTING:
        return None
    if earlier.run_id == merged.run_id and earlier.shard is None:
        return earlier
    if not overwrite:
        raise RunError(
            f"--out {folder.path} holds another run", "name another --out, or replace the run with --overwrite"
        )
    return None


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MribatchError(f"cannot make --out {out}: {error.strerror}", "name another folder") from error


def _copy_listing(found: Sequence[_ShardRun], out: Path) -> None:
    """Copy the listing, which every shard has; they are compared, since a copy on the way may be damaged."""
    first = found[0].path
    for name in (SKIPPED_FILE, PATHS_FILE, LISTING_FILE):
        if not (first / name).exists() and name == PATHS_FILE:
            continue
        try:
            hashes = {one.path: sha256_of_file(one.path / name) for one in found}
        except OSError as error:
            raise RunError(f"cannot read {name} of a shard: {error}", "restore the shard's folder") from error
        for path, digest in hashes.items():
            if digest != hashes[first]:
                raise RunError(f"{path / name} differs from that of {first}", "classify that shard again")
        with publishing(out / name) as temporary:
            shutil.copy(first / name, temporary)  # with its permissions: paths.parquet is for its owner only


def _copy_parts(found: Sequence[_ShardRun], merged: RunFile, out: Path, progress: Progress) -> None:
    layout = merged.layout
    (out / PARTS_FOLDER).mkdir(exist_ok=True)
    done = done_parts(out, layout, merged.run_id)
    progress.start(layout.files, layout.count_rows(done))
    for one in found:
        there = done_parts(one.path, layout, merged.run_id)
        lost = [part for part in one.content.own_parts if part not in there]
        if lost:
            raise RunError(f"{part_path(one.path, lost[0])} is missing", "restore it, or classify that shard again")
        for part in one.content.own_parts:
            if part not in done:
                _copy_part(one.path, out, part)
                progress.advance(len(layout.rows(part)), 0)
                progress.published(part, len(layout.rows(part)))


def _copy_part(shard: Path, out: Path, part: int) -> None:
    with publishing(part_path(out, part)) as temporary:
        content = part_path(shard, part).read_bytes()
        record_part(out, part, content)
        temporary.write_bytes(content)
