"""JSON files as frozen dataclasses: read with every field checked, written in the order of the fields.

    @dataclass(frozen=True, kw_only=True)
    class Proof:
        golden_slices: int
        max_difference: float

    read_record(Proof, {"golden_slices": 8, "max_difference": 0.0})    # or ValueError: 'max_difference' is missing
    write_record(proof)                                                # {"golden_slices": 8, "max_difference": 0.0}

Fields may be str, int, float, bool, a StrEnum, None, a dataclass, tuple[X, ...], Mapping[str, X], or a union of these.
A field with a default may be absent. Keys that no field names are ignored, so that a newer file can still be read.
Messages between processes are records with the name of their class, as one line: `pack_record` and `unpack_record`.
"""

import contextlib
import dataclasses
import functools
import json
import types
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")


def read_record(kind: type[Record], content: object) -> Record:
    """Build a dataclass from parsed JSON.

    Raises:
        ValueError: A key is missing or its value has another type; names the key, e.g. 'bundle.classes'.
    """
    record: Record = _read_dataclass(kind, content, "")
    return record


def write_record(record: Any) -> dict[str, Any]:
    """Turn a dataclass into JSON values. A field whose default is None is left out while it is None."""
    content = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if value is not None or field.default is not None:
            content[field.name] = _write_value(value)
    return content


def pack_record(record: Any) -> bytes:
    """Turn a dataclass into a line of JSON that says which one it is."""
    return json.dumps([type(record).__name__, write_record(record)]).encode()


def unpack_record(line: bytes, kinds: Iterable[type[Record]]) -> Record:
    """Build the dataclass that a line of `pack_record` holds.

    Args:
        line: Its JSON.
        kinds: The classes that it may be of.

    Raises:
        ValueError: It is of none of them, or does not fit its class.
    """
    name, content = json.loads(line)
    for kind in kinds:
        if kind.__name__ == name:
            return read_record(kind, content)
    raise ValueError(f"'{name}' is unknown")


def _write_value(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return write_record(value)
    if isinstance(value, Mapping):
        return {key: _write_value(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_write_value(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def _read_dataclass(kind: Any, content: object, where: str) -> Any:
    if not isinstance(content, dict):
        raise ValueError(f"{_quote(where)} is not an object")
    hints, values = _find_hints(kind), {}
    for field in dataclasses.fields(kind):
        path = f"{where}.{field.name}" if where else field.name
        if field.name in content:
            values[field.name] = _read_value(hints[field.name], content[field.name], path)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{_quote(path)} is missing")
    return kind(**values)


@functools.cache
def _find_hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _read_value(hint: Any, value: object, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _read_union(hint, value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_read_value(get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: _read_value(get_args(hint)[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return _read_dataclass(hint, value, where)
    if isinstance(hint, type) and issubclass(hint, Enum) and value in [one.value for one in hint]:
        return hint(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # an integer of hundreds of digits
            return float(value)
    if hint in (str, int, bool, types.NoneType) and type(value) is hint:
        return value
    raise ValueError(f"{_quote(where)} has a value that does not fit: {str(value)[:60]}")


def _read_union(hint: Any, value: object, where: str) -> Any:
    problem = None
    for option in get_args(hint):
        try:
            return _read_value(option, value, where)
        except ValueError as error:
            problem = error if problem is None else problem
    raise problem or ValueError(f"{_quote(where)} has a value that does not fit")


def _quote(where: str) -> str:
    return f"'{where}'" if where else "the content"
