"""What a buffered reader needs of a source that is no file: a place, and the bytes there."""

import errno
import io
import os
from abc import abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class RawStream(io.RawIOBase):
    """A stream for reading that knows its place; its kinds say in `read_at` what is there.

    Args:
        size: Bytes of it.
    """

    def __init__(self, size: int) -> None:
        self._size, self._place = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        if begin + offset < 0:
            raise OSError(errno.EINVAL, "a place before the beginning")
        self._place = begin + offset
        return self._place

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        wanted = min(len(view), max(0, self._size - self._place))
        data = self.read_at(self._place, wanted) if wanted else b""
        view[: len(data)] = data
        self._place += len(data)
        return len(data)

    @abstractmethod
    def read_at(self, place: int, size: int) -> bytes:
        """Up to `size` bytes; none only where there are no more."""
