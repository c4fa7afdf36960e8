"""Slices of a NIfTI file as stored values. A volume is read once and stays in memory as it is stored.

header --open_nifti--> NiftiVolume --slice--> StoredSlice --values.to_grey--> uint8

Memory: up to two volumes as stored, so that threads at the border between two do not read them again and again. The
size of a volume that the header gives is checked against the file before anything is allocated.
"""

import os
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from mribatch.pipeline.decode.values import StoredSlice, ValueRange, Words, value_range
from mribatch.pipeline.records import Flag, Status, Verdict
from mribatch.pipeline.storage.source import ByteSource, ByteStream
from mribatch.pipeline.studies.gzip_stream import GzipError, GzipStream
from mribatch.pipeline.studies.nifti_files import NiftiError, of_gzip
from mribatch.pipeline.studies.nifti_header import NiftiLayout, read_layout
from mribatch.pipeline.studies.options import HeaderOptions
from mribatch.pipeline.studies.voi import Rescale

RANGE_SLICES = 16  # of a volume, evenly spaced, stand for it when its range of values is measured
GZIP_SLACK = 1 << 16  # bytes that a .gz may unpack to beyond its last voxel: padding of some writers
MAX_UNPACKED = 4 << 30  # bytes unpacked to reach a volume, or to see whether a file is whole
_VOLUMES_KEPT = 2


def open_nifti(source: ByteSource, options: HeaderOptions) -> tuple[Verdict, "NiftiVolume | None"]:
    """Read the header of a NIfTI file; its voxels are read when the first slice is asked for.

    Args:
        source: As for `read_nifti_header`; of an object or a member it is to be a whole.
        options: Likewise.

    Returns:
        The verdict, and None where it is not ok.

    Raises:
        OSError: The file is gone, forbidden or no regular file.
    """
    layout, verdict = read_layout(source, options)
    return verdict, None if layout is None else NiftiVolume(layout, verdict)


class NiftiVolume:
    """The slices of one NIfTI file, for several threads. Close it, or use it with `with`.

    Args:
        layout: Of an ok header.
        verdict: That goes with it.
    """

    def __init__(self, layout: NiftiLayout, verdict: Verdict) -> None:
        self._layout = layout
        self._verdict = verdict
        self._words = _words(layout)
        self._lock = threading.Lock()
        self._voxels: _Voxels | None = None
        self._volumes: OrderedDict[int, NDArray[Any]] = OrderedDict()  # turned, (slices, rows, columns)
        self._ranges: dict[int, ValueRange] = {}
        self._failures: dict[int, Verdict] = {}

    def __enter__(self) -> "NiftiVolume":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file and the memory. A slice asked for afterwards is read anew."""
        with self._lock:
            self._volumes.clear()
            self._close_file()

    def slice(self, number: int) -> tuple[Verdict, StoredSlice | None]:
        """Return one slice in radiological orientation.

        Args:
            number: Of the file, as in `SliceFacts.slice`.

        Returns:
            The verdict of the file, and the slice, None where the verdict is not ok. Values that are no finite float32
            are not valid; the slice then has the flag nan_replaced.
        """
        volume_number, slice_number = self._layout.place(number)
        if volume_number not in self._layout.numbers:
            return self._failed(Status.DECODE_FAILED, f"The file has no slice {number} now."), None
        verdict, volume = self._volume(volume_number)
        if volume is None:
            return verdict, None
        return verdict, self._stored(volume, slice_number)

    def range_of(self, number: int) -> ValueRange | None:
        """Return the range of values of the volume that a slice belongs to, measured once for each volume.

        Args:
            number: Of the slice.

        Returns:
            As `values.value_range` of up to 16 evenly spaced slices, the first and the last among them; None where
            the slice cannot be read.
        """
        volume_number = self._layout.place(number)[0]
        if volume_number not in self._ranges:
            _, volume = self._volume(volume_number)
            if volume is None:
                return None
            chosen = evenly_spaced(self._layout.slicing.count, RANGE_SLICES)
            self._ranges[volume_number] = value_range(self._stored(volume, position) for position in chosen)
        return self._ranges[volume_number]

    def size_and_sha256(self) -> tuple[int, str]:
        """Return the bytes of the file with the voxels as it is stored, and the hex digest of them.

        Raises:
            OSError: The file is gone.
        """
        return self._layout.voxels.size_and_sha256()

    def _close_file(self) -> None:
        if self._voxels is not None:
            self._voxels.close()
            self._voxels = None

    def _volume(self, number: int) -> tuple[Verdict, NDArray[Any] | None]:
        with self._lock:
            if number in self._failures:
                return self._failures[number], None
            if number not in self._volumes:
                try:
                    self._volumes[number] = self._read(number)
                except NiftiError as error:
                    self._failures[number] = self._failed(error.status, str(error))
                    return self._failures[number], None
                finally:
                    if len(self._layout.numbers) == 1:
                        self._close_file()
                while len(self._volumes) > _VOLUMES_KEPT:
                    self._volumes.popitem(last=False)
            self._volumes.move_to_end(number)
            return self._verdict, self._volumes[number]

    def _read(self, number: int) -> NDArray[Any]:
        """The volume as a view, shape (slices, rows, columns), of what is stored."""
        from nibabel.orientations import apply_orientation

        layout = self._layout
        try:
            if self._voxels is None:
                self._voxels = _PackedVoxels(layout) if layout.packed else _PlainVoxels(layout)
            stored = np.empty(layout.volume_bytes, np.uint8)
            self._voxels.read(number, stored.data)
        except OSError as error:
            raise NiftiError(Status.UNREADABLE, f"The voxels cannot be read: {error.strerror}.") from None
        except MemoryError:
            raise NiftiError(
                Status.DECODE_FAILED, f"A volume of {layout.volume_bytes:,} bytes does not fit into memory."
            ) from None
        volume = stored.view(layout.dtype).reshape(layout.shape, order="F")
        turned = np.asarray(apply_orientation(volume, np.array(layout.slicing.turn)))
        if not any(self._has_values(turned, position) for position in range(len(turned))):
            raise NiftiError(Status.DECODE_FAILED, f"None of the {turned.size:,} voxels is a finite number.")
        return turned

    def _has_values(self, volume: NDArray[Any], number: int) -> bool:
        valid = self._stored(volume, number).valid
        return valid is None or bool(valid.any())

    def _stored(self, volume: NDArray[Any], number: int) -> StoredSlice:
        if self._words is not None:
            native = volume[number].astype(volume.dtype.newbyteorder("="), order="C")
            return StoredSlice(native.view(f"u{native.dtype.itemsize}"), self._words)
        values = _values(volume[number], self._layout.slope, self._layout.intercept)
        valid = np.isfinite(values)
        if valid.all():
            return StoredSlice(values)
        values[~valid] = 0
        return StoredSlice(values, valid=valid, flags=(Flag.NAN_REPLACED,))

    def _failed(self, status: Status, error: str) -> Verdict:
        known = self._verdict
        return Verdict(status, error, known.format, known.width, known.height, known.flags, known.bits)


def evenly_spaced(count: int, most: int) -> list[int]:
    """Return up to `most` positions of 0 .. count-1, evenly spaced, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(step * (count - 1) / (most - 1)) for step in range(most)]


def _words(layout: NiftiLayout) -> Words | None:
    """How 8- and 16-bit integers become values; None for other types, and where a value is no finite float32."""
    bits = layout.itemsize * 8
    largest = abs(layout.slope) * (1 << bits) + abs(layout.intercept)
    if "f" in layout.dtype or bits > 16 or largest > float(np.finfo(float32).max):
        return None
    return Words(bits, bits - 1, signed="i" in layout.dtype, modality=Rescale(layout.slope, layout.intercept))


def _values(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[float32]:
    """Values as float32, C-contiguous, of the caller's own; what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        if (slope, intercept) == (1.0, 0.0):
            return stored.astype(float32, order="C")
        values: NDArray[Any] = stored.astype(np.float64, order="C")
        values *= slope
        values += intercept
        return values.astype(float32)


class _Voxels(ABC):
    """The file with the voxels, open."""

    def __init__(self, layout: NiftiLayout) -> None:
        self._layout = layout
        self._file: ByteStream = layout.voxels.open()

    @abstractmethod
    def read(self, number: int, target: memoryview) -> None:
        """Fill `target` with the bytes of a volume.

        Raises:
            NiftiError: The file has not got them, or is broken.
            OSError: The operating system does not give them.
        """

    def close(self) -> None:
        self._file.close()


class _PlainVoxels(_Voxels):
    def read(self, number: int, target: memoryview) -> None:
        self._file.seek(self._layout.offset + number * self._layout.volume_bytes)
        filled = 0
        while filled < len(target):
            got = self._file.readinto(target[filled:])
            if not got:
                raise NiftiError(Status.TRUNCATED, "The file has become shorter since its header was read.")
            filled += got


class _PackedVoxels(_Voxels):
    """Unpacked from the start to the volume wanted, and from there on to a later one.

    The last volume is read to the end of the file, whose check sum is compared; a file that goes on for longer than its
    header says is refused. For an earlier volume that is spared where gzip states the size that the header promises.
    """

    def __init__(self, layout: NiftiLayout) -> None:
        super().__init__(layout)
        self._stream = GzipStream(self._file)
        self._whole = False

    def read(self, number: int, target: memoryview) -> None:
        begin = self._layout.offset + number * self._layout.volume_bytes
        is_last = number == self._layout.volumes - 1
        try:
            if not is_last:
                self._check_whole()
            _refuse_long(begin + len(target))
            if begin < self._stream.position:
                self._file.seek(0)
                self._stream = GzipStream(self._file)
            self._stream.skip(begin - self._stream.position)
            if self._stream.read_into(target) < len(target):
                raise self._too_short(self._stream)
            if is_last:
                _refuse_surplus(self._stream, self._layout)
        except GzipError as error:
            raise of_gzip(error) from None

    def _check_whole(self) -> None:
        """Unpack the whole file once where the size at its end is not what the header promises."""
        if self._whole:
            return
        with self._layout.voxels.open() as file:
            file.seek(-4, os.SEEK_END)
            stated = int.from_bytes(file.read(4), "little")  # RFC 1952: ISIZE, modulo 2**32, of the last member
            if not 0 <= stated - self._layout.total_bytes % (1 << 32) <= GZIP_SLACK:
                _refuse_long(self._layout.total_bytes)
                file.seek(0)
                stream = GzipStream(file)
                if stream.skip(self._layout.total_bytes) < self._layout.total_bytes:
                    raise self._too_short(stream)
                _refuse_surplus(stream, self._layout)
        self._whole = True

    def _too_short(self, stream: GzipStream) -> NiftiError:
        reason = f"The header promises {self._layout.total_bytes:,} bytes; the .gz unpacks to {stream.position:,}."
        return NiftiError(Status.TRUNCATED, reason)


def _refuse_surplus(stream: GzipStream, layout: NiftiLayout) -> None:
    """Refuse a stream that goes on for more than the slack after the last voxel, where it stands."""
    if stream.skip(GZIP_SLACK + 1) > GZIP_SLACK:
        reason = f"The .gz unpacks to more than the {layout.total_bytes:,} bytes that the header promises."
        raise NiftiError(Status.DECODE_FAILED, reason)


def _refuse_long(size: int) -> None:
    if size > MAX_UNPACKED:
        reason = f"The .gz must be unpacked for {size:,} bytes to reach the volume; the limit is {MAX_UNPACKED:,}."
        raise NiftiError(Status.TOO_LARGE, reason)
