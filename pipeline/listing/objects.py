"""Inputs in an object store or a distributed file system: folders are walked as those of a disk are."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from mribatch.core.errors import MribatchError
from mribatch.pipeline.listing.archives import judge_far
from mribatch.pipeline.listing.entry import IMAGE_SUFFIXES, Entry, Scope, SkipReason, left_out_folder
from mribatch.pipeline.listing.headers import PAIR_SUFFIXES, Look
from mribatch.pipeline.storage.address import Address, join
from mribatch.pipeline.storage.archive import ARCHIVE_SUFFIXES, SHARD_SUFFIXES
from mribatch.pipeline.storage.store import ObjectFacts, StoreError, list_folder, look_up

_ASKED_AT_ONCE = 32


def walk_objects(root: bytes, start: bytes, scope: Scope) -> Iterator[Entry]:
    """Yield what is below `root/start`, folder by folder; the names of one folder are in memory at a time."""
    waiting = [start]
    while waiting:
        folder = waiting.pop()
        address = Address.parse(join(root, folder) if folder else root)
        if str(address).encode() == scope.own:
            continue
        try:
            for name, facts in list_folder(address):
                path = join(folder, name.encode())
                if not facts.is_folder:
                    yield _found_object(root, path, facts, scope)
                elif (left_out := left_out_folder(name.encode(), path, scope)) is not None:
                    yield left_out
                else:
                    waiting.append(path)
        except StoreError as error:
            yield Entry(folder + b"/", b"", None, None, SkipReason.UNREADABLE_FOLDER, error.strerror)


def name_object(root: bytes, name: bytes, scope: Scope) -> Entry:
    """An object that is named outright is a candidate whatever its suffix, also when it is not there."""
    if (pattern := scope.patterns.find_above(name)) is not None:
        return Entry(name, b"", None, None, SkipReason.EXCLUDED, pattern)
    location = join(root, name)
    facts, fault = _ask(location)
    return _named_entry(name, location, facts, fault, scope)


def _ask(location: bytes) -> tuple[ObjectFacts | None, str | None]:
    """What the store says of an object, or why it does not answer."""
    try:
        return look_up(Address.parse(location)), None
    except StoreError as error:
        return None, error.strerror if error.may_pass else None
    except MribatchError:  # a line of a list that is no address after all earns its row
        return None, None


def _named_entry(name: bytes, location: bytes, facts: ObjectFacts | None, fault: str | None, scope: Scope) -> Entry:
    if name.lower().endswith(PAIR_SUFFIXES):
        reason, detail, _ = judge_far(name.rpartition(b"/")[2], location)
        return Entry(name, b"", None, None, reason, detail)
    look = Look.NO if name.lower().endswith(IMAGE_SUFFIXES) else Look.NAMED
    if facts is None:
        return Entry(name, location, None, None, look=look if fault else Look.NO, fault=fault)
    archive = scope.archives and name.lower().endswith(ARCHIVE_SUFFIXES)
    return Entry(name, location, facts.size, facts.mtime_ns, look=look, is_archive=archive)


def name_objects(addresses: Sequence[bytes], scope: Scope) -> Iterator[Iterator[Entry]]:
    """For each address, in order, its entry, or those of the folder that it is; many are asked for at once."""
    if not addresses:
        return
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        yield from pool.map(partial(_name_one, scope=scope), addresses)


def _name_one(address: bytes, scope: Scope) -> Iterator[Entry]:
    name = address.rstrip(b"/")
    if (pattern := scope.patterns.find_above(name)) is not None:
        return iter([Entry(name, b"", None, None, SkipReason.EXCLUDED, pattern)])
    facts, fault = _ask(name)
    if facts is not None and facts.is_folder:
        return walk_objects(b"", name, scope)
    return iter([_named_entry(name, name, facts, fault, scope)])


def _found_object(root: bytes, path: bytes, facts: ObjectFacts, scope: Scope) -> Entry:
    if (pattern := scope.patterns.find(path, folder=False)) is not None:
        return Entry(path, b"", None, None, SkipReason.EXCLUDED, pattern)
    location = join(root, path)
    reason, detail, look = judge_far(path.rpartition(b"/")[2], location)
    archive = scope.archives and reason is SkipReason.SUFFIX and path.lower().endswith(SHARD_SUFFIXES)
    if reason is not None and look is Look.NO and not archive:
        return Entry(path, b"", None, None, reason, detail)
    return Entry(path, location, facts.size, facts.mtime_ns, reason, detail, look, is_archive=archive)
