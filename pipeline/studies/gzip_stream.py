"""Unpacks gzip piece by piece, so that no more memory is spent than the caller offers."""

import zlib
from typing import BinaryIO

MAGIC = b"\x1f\x8b"
MAX_RATIO = 1032  # deflate cannot shrink by more: https://zlib.net/zlib_tech.html, "Maximum Compression Factor"
_MEMBERS = 1 << 18  # of one file; the 64 KiB blocks of bgzip reach 16 GiB with it
_PACKED_BLOCK = 1 << 17  # bytes
_PLAIN_BLOCK = 1 << 20  # bytes
_GZIP = 16 + zlib.MAX_WBITS  # zlib checks the header, and the check sum and size at the end of each member


class GzipError(Exception):
    """The stream is cut or damaged; the text is the reason, as a sentence."""

    def __init__(self, error: str, *, cut: bool) -> None:
        super().__init__(error)
        self.cut = cut  # it ends too early; otherwise what is there is wrong


class GzipStream:
    """What a gzip file unpacks to, in order. Several members count as one stream; bytes after the last are ignored.

    Args:
        file: At the first byte of the gzip header; stays the caller's to close.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._packed = b""
        self._member = zlib.decompressobj(_GZIP)
        self._members = 1
        self.position = 0  # unpacked bytes handed out so far

    def read_into(self, target: memoryview) -> int:
        """Fill `target` from its start.

        Args:
            target: Of bytes, writable.

        Returns:
            Bytes written: fewer than the size of `target` only at the end of the stream.

        Raises:
            GzipError: The stream is cut, damaged or has too many members.
        """
        filled = 0
        while filled < len(target):
            if self._member.eof:
                if not self._next_member():
                    break
                continue
            piece = self._unpack(min(len(target) - filled, _PLAIN_BLOCK))
            target[filled : filled + len(piece)] = piece
            filled += len(piece)
        self.position += filled
        return filled

    def skip(self, count: int) -> int:
        """Unpack and forget up to `count` bytes. Returns how many there were; raises as `read_into`."""
        scratch = memoryview(bytearray(min(max(count, 0), _PLAIN_BLOCK)))
        skipped = 0
        while skipped < count:
            wanted = min(count - skipped, len(scratch))
            got = self.read_into(scratch[:wanted])
            skipped += got
            if got < wanted:
                break
        return skipped

    def _unpack(self, at_most: int) -> bytes:
        """The next piece, perhaps empty, of the present member."""
        ended = not self._packed and not self._refill()
        try:
            piece = self._member.decompress(self._packed, at_most)
        except zlib.error:
            raise GzipError("The gzip data are damaged.", cut=False) from None
        self._packed = self._member.unconsumed_tail
        if ended and not piece and not self._member.eof:
            raise GzipError("The gzip data end too early.", cut=True)
        return piece

    def _refill(self) -> bool:
        self._packed += self._file.read(_PACKED_BLOCK)
        return bool(self._packed)

    def _next_member(self) -> bool:
        """Go on to the member that follows, past zero bytes. False where there is none."""
        self._packed = self._member.unused_data or self._packed
        while True:
            self._packed = self._packed.lstrip(b"\0")
            if len(self._packed) >= len(MAGIC):
                break
            before = len(self._packed)
            self._refill()
            if len(self._packed) == before:
                break
        if not self._packed.startswith(MAGIC):
            return False
        self._members += 1
        if self._members > _MEMBERS:
            raise GzipError(f"The gzip file has more than {_MEMBERS:,} members.", cut=False)
        self._member = zlib.decompressobj(_GZIP)
        return True
