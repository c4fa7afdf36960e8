"""Object stores and distributed file systems: list, read, write and delete, with timeouts and patience.

s3://, gs:// and hdfs:// go through pyarrow, other schemes through fsspec. What a store refuses becomes a StoreError, an
OSError that says in a few words what is wrong and what helps; what may pass (throttling, a server that is down) is
asked again for up to PATIENCE_S seconds.
"""

import contextlib
import errno
import io
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from mribatch.core.errors import MribatchError, StorageError
from mribatch.core.install import install_command
from mribatch.core.regular_file import MAX_FILE_BYTES
from mribatch.pipeline.storage.address import Address
from mribatch.pipeline.storage.raw_stream import RawStream

if TYPE_CHECKING:
    import pyarrow.fs as fs

PATIENCE_S = 45.0  # for one request; a store that throttles or restarts is back by then
FIRST_PATIENCE_S = 10.0  # for the first request of a command, whose address may be wrong
_CONNECT_S, _REQUEST_S = 5, 10
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_BUFFER = 1 << 20  # bytes that a stream reads at once

Result = TypeVar("Result")

_CREDENTIALS = "check the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or those of the cloud)"
_NETWORK = "check the network, the address of the store (AWS_ENDPOINT_URL) and its state, and try again"
_NAMES = "check the address"
_REGION_NAMED = re.compile(r"bucket is located in '([a-z0-9-]+)'")
_AWS = re.compile(r"AWS Error ([A-Z_]+)(?: \(HTTP status (\d+)\))? during (\w+) operation: (.*)", re.DOTALL)
# What a store says -> errno, in a few words, and what helps; the first that fits. Anything else is asked again.
_MEANINGS: tuple[tuple[tuple[str, ...], int, str, str], ...] = (
    (("Unable to load libjvm", "libhdfs"), errno.ENOSYS, "the libraries of Hadoop are not found", "set JAVA_HOME,"
     " HADOOP_HOME and CLASSPATH as libhdfs needs them"),
    (("NO_SUCH_BUCKET", "bucket does not exist"), errno.ENOENT, "the bucket does not exist", _NAMES),
    (
        ("is located in '", "HTTP status 301", "PermanentRedirect", "AuthorizationHeaderMalformed"),
        errno.EREMOTE,
        "the bucket is in another region",
        "set AWS_REGION to the region of the bucket",
    ),
    (
        ("NO_SUCH_KEY", "RESOURCE_NOT_FOUND", "NoSuchKey", "Path does not exist", "No such file", "HTTP status 404"),
        errno.ENOENT,
        "there is no such object",
        _NAMES,
    ),
    (
        (
            *("ACCESS_DENIED", "AccessDenied", "HTTP status 403", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH"),
            *("INVALID_CLIENT_TOKEN_ID", "EXPIRED_TOKEN", "ExpiredToken", "Permission denied", "Forbidden"),
        ),
        errno.EACCES,
        "the store refuses access",
        f"{_CREDENTIALS} and what they may do",
    ),
    (("INVALID_ARGUMENT", "Invalid bucket", "InvalidBucketName"), errno.EINVAL, "it is no valid name", _NAMES),
)  # fmt: skip


class StoreError(OSError):
    """A store does not give what was asked for. `strerror` says why, `fix` what helps."""

    def __init__(self, number: int, reason: str, fix: str) -> None:
        super().__init__(number, reason)
        self.fix = fix

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.errno == errno.EIO

    def to_user(self, problem: str) -> MribatchError:
        """Return it as an error of one line, whose fix no command knows better."""
        kind = StorageError if self.may_pass else MribatchError
        error = kind(f"{problem}: {self.strerror}", self.fix)
        error.advised = True
        return error


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What a store says of a name."""

    size: int
    mtime_ns: int | None
    is_folder: bool = False


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes, and what was said of the whole file when they were read; None: ask the file system."""

    data: bytes
    facts: ObjectFacts | None = None


def look_up(address: Address, patience_s: float = PATIENCE_S) -> ObjectFacts | None:
    """What is under an address; None where nothing is.

    Args:
        address: Of an object or a folder.
        patience_s: Seconds for which a store that does not answer is asked again.

    Raises:
        StoreError: The store does not say.
    """

    def ask() -> ObjectFacts | None:
        system, path = _open(address)
        return _facts_of(system.get_file_info(path))

    return _persist(ask, patience_s)


def list_folder(address: Address) -> Iterator[tuple[str, ObjectFacts]]:
    """Yield name and facts of what lies directly in a folder, in the order of the store.

    Raises:
        StoreError: It cannot be listed.
    """

    def ask() -> list[Any]:
        import pyarrow.fs as fs

        system, path = _open(address)
        found: list[Any] = system.get_file_info(fs.FileSelector(path, allow_not_found=not address.key))
        return found

    for info in _persist(ask):
        facts = _facts_of(info)
        if facts is not None:
            yield info.base_name, facts


def walk_files(address: Address) -> Iterator[tuple[str, ObjectFacts]]:
    """Yield every file below a folder with its name relative to it, folder by folder.

    Raises:
        StoreError: A folder cannot be listed.
    """
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        for name, facts in list_folder(address / folder):
            relative = f"{folder}/{name}" if folder else name
            if facts.is_folder:
                waiting.append(relative)
            else:
                yield relative, facts


def read_object(address: Address, begin: int = 0, size: int | None = None, limit: int = MAX_FILE_BYTES) -> Content:
    """Read an object, or a piece of it, and what is said of it at that moment.

    Args:
        address: Of the object.
        begin: First byte.
        size: Bytes to read at most; None: to the end.
        limit: A whole object may have so many.

    Raises:
        StoreError: There is no such object, or it cannot be read.
    """

    def ask() -> Content:
        system, path = _open(address)
        with system.open_input_file(path) as stream:
            total = stream.size()
            if size is None and total > limit:
                raise StoreError(errno.EFBIG, f"it has {total:,} bytes; the limit is {limit:,}", _NAMES)
            stream.seek(min(begin, total))
            wanted = total - begin if size is None else size
            return Content(stream.read(max(0, wanted)), _facts_while_open(system, path, stream, total))

    return _persist(ask)


def open_object(address: Address, size: int | None = None, buffer: int = _BUFFER) -> io.BufferedReader:
    """Open an object for reading and seeking, with a buffer.

    Args:
        address: Of the object.
        size: Bytes of it, at least; None: the store is asked.
        buffer: Bytes that are read at once.

    Raises:
        StoreError: There is no such object, or it cannot be read; also from what is read of it.
    """
    return io.BufferedReader(_RawObject(address, size), buffer)


def put_object(address: Address, content: bytes | memoryview) -> None:
    """Write an object; it is there as a whole when this returns, or as it was before.

    Raises:
        StoreError: The store refuses.
    """

    def ask() -> None:
        system, path = _open(address)
        if address.scheme != "hdfs":
            _write(system, path, content)
            return
        folder, _, name = path.rpartition("/")  # a file of HDFS can be seen while it is written
        system.create_dir(folder or "/")
        temporary = f"{folder}/.{name}.tmp"
        _write(system, temporary, content)
        with contextlib.suppress(FileNotFoundError):
            system.delete_file(path)
        system.move(temporary, path)

    _persist(ask)


def delete_object(address: Address) -> None:
    """Delete an object; one that is not there is no error.

    Raises:
        StoreError: The store refuses.
    """

    def ask() -> None:
        system, path = _open(address)
        with contextlib.suppress(FileNotFoundError):
            system.delete_file(path)

    try:
        _persist(ask)
    except StoreError as error:
        if error.errno != errno.ENOENT:
            raise


def check_bucket(address: Address) -> None:
    """Make sure that the bucket is there and answers.

    Raises:
        StoreError: It does not exist, is in another region, or may not be listed.
    """
    bucket = Address(address.scheme, address.authority, "")
    if address.authority and look_up(bucket, FIRST_PATIENCE_S) is None:
        raise StoreError(errno.ENOENT, f"the bucket {bucket} does not exist", _NAMES)


def _write(system: "fs.FileSystem", path: str, content: bytes | memoryview) -> None:
    with system.open_output_stream(path, compression=None) as stream:  # else a name in .gz would have it packed
        stream.write(content)


class _RawObject(RawStream):
    """An object; each piece that is read is a request of its own."""

    def __init__(self, address: Address, size: int | None) -> None:
        super().__init__(_size_of(address) if size is None else size)
        self._address = address

    def read_at(self, place: int, size: int) -> bytes:
        return read_object(self._address, place, size).data


def _size_of(address: Address) -> int:
    facts = look_up(address)
    if facts is None or facts.is_folder:
        raise StoreError(errno.ENOENT, "there is no such object", _NAMES)
    return facts.size


def _facts_of(info: Any) -> ObjectFacts | None:
    import pyarrow.fs as fs

    if info.type == fs.FileType.NotFound:
        return None
    is_folder = info.type == fs.FileType.Directory
    return ObjectFacts(0 if is_folder else info.size or 0, info.mtime_ns, is_folder)


def _facts_while_open(system: "fs.FileSystem", path: str, stream: Any, size: int) -> ObjectFacts | None:
    """Of the very object that is read: S3 has said when it opened; others are asked."""
    said = (stream.metadata() or {}).get("Last-Modified")
    if said is None:
        return _facts_of(system.get_file_info(path))
    return ObjectFacts(size, int(datetime.fromisoformat(said.decode()).timestamp()) * 10**9)


def _persist(call: Callable[[], Result], patience_s: float = PATIENCE_S) -> Result:
    """Call, again and again with growing pauses while the store may come back.

    Raises:
        StoreError: What the store said last.
    """
    end, pause = time.monotonic() + patience_s, _FIRST_PAUSE_S
    while True:
        try:
            return call()
        except StoreError:
            raise
        except (OSError, ValueError, NotImplementedError) as error:
            found = _explain(error)
            if not found.may_pass or time.monotonic() + pause > end:
                raise found from error
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def _explain(error: Exception) -> StoreError:
    """What a library in C++ says in a thousand characters, in a few words."""
    text = str(error)
    region = _REGION_NAMED.search(text)
    if region is not None:
        return StoreError(errno.EREMOTE, f"the bucket is in the region {region[1]}", f"set AWS_REGION={region[1]}")
    for words, number, reason, fix in _MEANINGS:
        if any(word in text for word in words):
            return StoreError(number, reason, fix)
    if isinstance(error, FileNotFoundError):
        return StoreError(errno.ENOENT, "there is no such object", _NAMES)
    if isinstance(error, PermissionError):
        return StoreError(errno.EACCES, "the store refuses access", f"{_CREDENTIALS} and what they may do")
    if isinstance(error, ValueError | NotImplementedError):
        return StoreError(errno.EINVAL, " ".join(text.split())[:120], _NAMES)
    found = _AWS.search(text)
    said = f"{found[1]} ({found[3]})" if found is not None else " ".join(text.split())[:120]
    return StoreError(errno.EIO, f"the store does not answer as it should: {said}", _NETWORK)


_OPENING = threading.Lock()


def _open(address: Address) -> "tuple[fs.FileSystem, str]":
    """The file system of an address, opened once per process, and the path in it."""
    with _OPENING:
        if address.scheme == "s3":
            return _open_s3(address.authority, *_s3_environment()), f"{address.authority}/{address.key}".rstrip("/")
        if address.scheme in ("gs", "gcs"):
            return _open_gcs(), f"{address.authority}/{address.key}".rstrip("/")
        if address.scheme in ("hdfs", "viewfs"):
            return _open_hdfs(f"{address.scheme}://{address.authority}"), f"/{address.key}"
        return _open_other(address.scheme, address.authority), _path_of_other(address)


def _s3_environment() -> tuple[str | None, str | None]:
    """The endpoint and the region that the user names."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return endpoint, os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


@cache
def _open_s3(bucket: str, endpoint: str | None, region: str | None) -> "fs.FileSystem":
    import pyarrow.fs as fs

    if region is None and endpoint is None:
        with contextlib.suppress(OSError):  # then the first request says what is wrong
            region = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        connect_timeout=_CONNECT_S,
        request_timeout=_REQUEST_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),  # `_persist` does that, for all stores alike
    )


@cache
def _open_gcs() -> "fs.FileSystem":
    import pyarrow.fs as fs

    return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=_REQUEST_S))


@cache
def _open_hdfs(host: str) -> "fs.FileSystem":
    import pyarrow.fs as fs

    scheme, _, name = host.partition("://")
    return fs.HadoopFileSystem.from_uri(f"{scheme}://{name or 'default'}/")


@cache
def _open_other(scheme: str, authority: str) -> "fs.FileSystem":
    import pyarrow.fs as fs

    try:
        import fsspec
    except ImportError as error:
        fix = f"install it: {install_command('storage')}"
        raise StoreError(errno.ENOSYS, f"{scheme}:// needs fsspec, which is not installed", fix) from error
    try:
        system, _ = fsspec.url_to_fs(f"{scheme}://{authority}")
        return fs.PyFileSystem(fs.FSSpecHandler(system))
    except (ImportError, ValueError) as error:
        reason = str(error).splitlines()[0]
        known = "use s3://, gs://, hdfs:// or file://, or install the package of fsspec for it"
        raise StoreError(errno.ENOSYS, f"{scheme}:// cannot be opened: {reason}", known) from error


def _path_of_other(address: Address) -> str:
    import fsspec

    return str(fsspec.get_filesystem_class(address.scheme)._strip_protocol(str(address)))
