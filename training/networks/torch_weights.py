"""PyTorch state dicts read without PyTorch: tensors of numbers, and nothing else that a pickle could hold.

A .pth file is a pickle, and a pickle is a program. Three checks are made before anything is built: every opcode of the
program must be on a short list; every name that it looks up must be one of a tensor's; every length, offset and stride
must lie within the file, and what was checked cannot be changed by the rest of the program. Both layouts are read: the
stream of pickles that PyTorch wrote before 1.6, and the zip since.

Source of both layouts: torch/serialization.py of PyTorch (_legacy_load and _load), https://github.com/pytorch/pytorch.
"""

import io
import pickle
import pickletools
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_LARGEST_FILE = 1 << 30  # bytes; the file is read into memory
_LARGEST_PICKLE = 16 << 20  # bytes: names, shapes and offsets only; 100,000 tensors fit
_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
}
_OPCODES = (
    "PROTO STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINUNICODE SHORT_BINUNICODE "
    "BINPUT LONG_BINPUT BINGET LONG_BINGET MEMOIZE FRAME EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND "
    "APPENDS EMPTY_DICT DICT SETITEM SETITEMS GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID"
)
_MEMO = ("BINPUT", "LONG_BINPUT")
_FIX = "give a state dict of plain tensors, as torch.save(model.state_dict(), FILE) writes it"


class _Finished:
    """What a pickle cannot alter once it is built: BUILD would write into it past every check, frozen or not."""

    def __setstate__(self, state: object) -> None:
        raise ValueError("its pickle alters what it has built")


@dataclass(frozen=True)
class _Storage(_Finished):
    dtype: str
    key: str
    count: int  # numbers in it


@dataclass(frozen=True)
class _Tensor(_Finished):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in numbers


class _Names(OrderedDict[str, Any]):
    """A state dict while it is read. PyTorch hangs its modules' versions on it as an attribute, which is dropped."""

    def __setstate__(self, state: object) -> None:
        pass


def read_state_dict(path: Path) -> dict[str, NDArray[Any]]:
    """Read every tensor of a state dict.

    Returns:
        Name -> array, in the file's order; read-only. Shapes are PyTorch's: a convolution is (out, in, height, width).

    Raises:
        MribatchError: The file cannot be read, holds anything but tensors of numbers, or contradicts itself.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise MribatchError(f"{path} is larger than {_LARGEST_FILE >> 20} MiB", _FIX)
        content = path.read_bytes()
    except OSError as error:
        raise MribatchError(
            f"cannot read {path}: {error.strerror or error}", "give --weights a readable file"
        ) from error
    try:
        return _from_zip(content) if zipfile.is_zipfile(io.BytesIO(content)) else _from_stream(content)
    except MribatchError:
        raise
    except Exception as error:  # a damaged pickle raises anything at all
        raise MribatchError(f"{path} is not a state dict: {_describe(error)}", _FIX) from error


def _from_stream(content: bytes) -> dict[str, NDArray[Any]]:
    """Before PyTorch 1.6: magic number, protocol, sizes, state dict, keys; then each storage with its count."""
    stream = io.BytesIO(content)
    if _load(stream) != _MAGIC or _load(stream) != _PROTOCOL:
        raise ValueError("the magic number is not PyTorch's")
    sizes = _load(stream)
    if not isinstance(sizes, dict) or sizes.get("little_endian") is not True:
        raise ValueError("the byte order is not little-endian")
    tensors, keys = _tensors(_load(stream)), _load(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("the list of storages is damaged")
    wanted = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    if len(set(keys)) != len(keys) or set(keys) != set(wanted):
        raise ValueError("the list of storages does not fit the tensors")
    data: dict[str, NDArray[Any]] = {}
    for key in keys:
        count = int.from_bytes(stream.read(8), "little", signed=True)
        data[key] = _numbers(stream.getbuffer()[stream.tell() :], wanted[key], count)
        stream.seek(data[key].nbytes, io.SEEK_CUR)
    if stream.read(1):
        raise ValueError("there are more bytes after the last storage")
    return {name: _view(tensor, data[tensor.storage.key]) for name, tensor in tensors.items()}


def _from_zip(content: bytes) -> dict[str, NDArray[Any]]:
    """Since PyTorch 1.6: NAME/data.pkl and one stored entry NAME/data/KEY per storage."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) != len(archive.infolist()):
            raise ValueError("an entry is in the archive twice")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise ValueError("an entry is compressed, which PyTorch never does")
        if sum(entry.file_size for entry in entries.values()) > len(content):
            raise ValueError("its entries are longer than the file together")
        roots = [name.removesuffix("/data.pkl") for name in entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError(f"{len(roots)} entries are named data.pkl")
        order = entries.get(f"{roots[0]}/byteorder")
        if order is not None and archive.read(order) != b"little":
            raise ValueError("the byte order is not little-endian")
        tensors = _tensors(_load(io.BytesIO(archive.read(entries[f"{roots[0]}/data.pkl"]))))
        data = {
            key: _numbers(memoryview(archive.read(f"{roots[0]}/data/{key}")), storage, storage.count)
            for key, storage in {tensor.storage.key: tensor.storage for tensor in tensors.values()}.items()
        }
    return {name: _view(tensor, data[tensor.storage.key]) for name, tensor in tensors.items()}


def _load(stream: BinaryIO) -> Any:
    """The next pickle of the stream, after its program was looked through."""
    start, known = stream.tell(), set(_OPCODES.split())
    for opcode, argument, place in pickletools.genops(stream):
        if (place or 0) - start > _LARGEST_PICKLE:
            raise ValueError("its pickle is too long for names and shapes")
        if opcode.name not in known:
            raise ValueError(f"its pickle uses {opcode.name}")
        # the memo is a plain array: a large index alone would take all memory
        if opcode.name in _MEMO and isinstance(argument, int) and argument > _LARGEST_PICKLE // 2:
            raise ValueError("its pickle has an object number out of range")
    length = stream.tell() - start
    stream.seek(start)
    return _TensorsOnly(io.BytesIO(stream.read(length))).load()


class _TensorsOnly(pickle.Unpickler):
    """Knows a state dict's own names; nothing of Python or PyTorch is imported or called."""

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _Names
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Rebuild()
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise ValueError(f"it asks for {module}.{name}, which is not a tensor of numbers")

    def persistent_load(self, pid: Any, /) -> Any:
        kind, dtype, key, _, count = pid[:5]
        view = pid[5] if len(pid) > 5 else None
        texts = isinstance(dtype, str) and isinstance(key, str)
        if kind != "storage" or not texts or dtype not in _DTYPES.values() or view is not None or not _is_count(count):
            raise ValueError("a storage has an unknown description")
        return _Storage(dtype, key, count)


class _Rebuild(_Finished):
    """torch._utils._rebuild_tensor_v2, as far as a state dict needs it."""

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
        tuples = isinstance(shape, tuple) and isinstance(strides, tuple)
        counts = tuples and all(map(_is_count, (offset, *shape, *strides)))
        if not isinstance(storage, _Storage) or not counts or len(shape) != len(strides) or len(shape) > 8:
            raise ValueError("a tensor has an unknown description")
        return _Tensor(storage, offset, shape, strides)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= sys.maxsize


def _tensors(state: Any) -> Mapping[str, _Tensor]:
    if not isinstance(state, dict) or not state:
        raise ValueError("it holds no names with tensors")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise ValueError(f"'{name}' is not a tensor")
    storages: dict[str, _Storage] = {}
    if any(storages.setdefault(each.storage.key, each.storage) != each.storage for each in state.values()):
        raise ValueError("one storage has two descriptions")
    return state


def _numbers(content: memoryview, storage: _Storage, count: int) -> NDArray[Any]:
    dtype = np.dtype(storage.dtype)
    if count != storage.count or count * dtype.itemsize > len(content):
        raise ValueError(f"a storage of {storage.count} numbers has {min(count, len(content) // dtype.itemsize)}")
    return np.frombuffer(content, dtype, count)


def _view(tensor: _Tensor, data: NDArray[Any]) -> NDArray[Any]:
    """The tensor's part of its storage. Strides are checked first: NumPy would read outside without an error."""
    pairs = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((size - 1) * stride for size, stride in pairs)
    numbers = 1
    for size in tensor.shape:
        numbers *= size
    if numbers > len(data) or (numbers and last >= len(data)):
        raise ValueError(f"a tensor of shape {tensor.shape} is outside its storage")
    strides = tuple(stride * data.itemsize for stride in tensor.strides)
    part = data[min(tensor.offset, len(data)) :]
    return np.lib.stride_tricks.as_strided(part, tensor.shape, strides, writeable=False)


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__
