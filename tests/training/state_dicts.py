"""State dicts as PyTorch writes them, and as an attacker would, put together opcode by opcode without PyTorch."""

import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
}


@dataclass(frozen=True)
class Global:
    module: str
    name: str


@dataclass(frozen=True)
class Call:
    function: Any
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Stored:
    """A persistent id."""

    identity: tuple[Any, ...]


def pickled(value: Any) -> bytes:
    """A pickle of protocol 2."""
    return b"\x80\x02" + code(value) + b"."


def code(value: Any) -> bytes:
    match value:
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if 0 <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        case int():
            length = value.bit_length() // 8 + 1
            return b"\x8a" + bytes([length]) + value.to_bytes(length, "little", signed=True)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(code, value)) + b"t"
        case list():
            return b"](" + b"".join(map(code, value)) + b"e"
        case Global():
            return f"c{value.module}\n{value.name}\n".encode()
        case Call():
            return code(value.function) + code(value.arguments) + b"R"
        case Stored():
            return code(value.identity) + b"Q"
        case dict():
            return b"}(" + b"".join(code(key) + code(item) for key, item in value.items()) + b"u"
        case bytes():  # opcodes as they are
            return value
    raise TypeError(type(value))


def tensor(array: NDArray[Any], key: str, view: bool = True, **changed: Any) -> Call:
    """A tensor as PyTorch pickles it; `changed` lies about it: offset, shape, strides, count, storage."""
    facts: dict[str, Any] = {
        "offset": 0,
        "shape": array.shape,
        "strides": tuple(step // array.itemsize for step in array.strides),
        "count": array.size,
        "storage": STORAGES[array.dtype.name],
    } | changed
    identity = ("storage", Global("torch", facts["storage"]), key, "cpu", facts["count"])
    return Call(
        Global("torch._utils", "_rebuild_tensor_v2"),
        (
            Stored((*identity, b"N") if view else identity),
            facts["offset"],
            facts["shape"],
            facts["strides"],
            False,
            Call(Global("collections", "OrderedDict"), ()),
        ),
    )


def write_stream(path: Path, arrays: Mapping[str, NDArray[Any]], state: Any = None, tail: bytes = b"") -> Path:
    """The layout before PyTorch 1.6; `state` in the place of the honest state dict."""
    keys = {name: str(1000 + place) for place, name in enumerate(arrays)}
    if state is None:
        state = {name: tensor(array, keys[name]) for name, array in arrays.items()}
    sizes = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    content = b"".join(pickled(part) for part in (0x1950A86A20F9469CFC6C, 1001, sizes, state, list(keys.values())))
    content += b"".join(struct.pack("<q", array.size) + array.tobytes() for array in arrays.values())
    path.write_bytes(content + tail)
    return path


def write_zip(
    path: Path, arrays: Mapping[str, NDArray[Any]], state: Any = None, compression: int = zipfile.ZIP_STORED
) -> Path:
    """The layout since PyTorch 1.6."""
    keys = {name: str(place) for place, name in enumerate(arrays)}
    if state is None:
        state = {name: tensor(array, keys[name], view=False) for name, array in arrays.items()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("net/data.pkl", pickled(state))
        archive.writestr("net/byteorder", "little")
        for name, array in arrays.items():
            archive.writestr(f"net/data/{keys[name]}", array.tobytes())
    return path


def some_arrays() -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(3)
    return {
        "stem.weight": random.normal(size=(4, 3, 2, 2)).astype(np.float32),
        "bn.count": np.array(7, dtype=np.int64),
        "half": random.normal(size=(5,)).astype(np.float16),
        "bytes": np.arange(6, dtype=np.uint8).reshape(2, 3),
    }
