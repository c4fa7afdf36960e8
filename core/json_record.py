"""JSON from a file that anybody may have written -> a frozen dataclass whose fields have the types they promise."""

import math
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

Record = TypeVar("Record")
_BEYOND_64_BITS = 1 << 63


class FieldError(ValueError):
    """A field is missing or has another type. The message is its dotted name."""


def read_record(kind: type[Record], content: object, name: str = "") -> Record:
    """Read a JSON object as a dataclass: field by field, by name; keys that it does not have are left out.

    Args:
        kind: A dataclass with fields of type str, int (64 bits), float (finite), bool, StrEnum, tuple, another such
            dataclass, or one of these or None.
        content: What `json.loads` gave.
        name: Dotted name of the object itself, for errors; "" at the top.

    Raises:
        FieldError: A field without a default is missing, or one has another type.
        ValueError: From the dataclass's own `__post_init__`.
    """
    if not isinstance(content, dict):
        raise FieldError(name or "(all)")
    hints, values = get_type_hints(kind), dict[str, Any]()
    for field in fields(cast(Any, kind)):
        path = f"{name}.{field.name}" if name else field.name
        if field.name in content:
            values[field.name] = _read_value(hints[field.name], content[field.name], path)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise FieldError(path)
    return kind(**values)


def _read_value(hint: Any, value: object, path: str) -> Any:
    if get_origin(hint) in (Union, UnionType):
        (inner,) = [one for one in get_args(hint) if one is not NoneType]
        return None if value is None else _read_value(inner, value, path)
    if is_dataclass(hint):
        return read_record(cast(type[Any], hint), value, path)
    if get_origin(hint) is tuple:
        return _read_tuple(get_args(hint), value, path)
    if hint is float:
        return _read_float(value, path)
    if issubclass(hint, StrEnum):
        if isinstance(value, str) and value in list(hint):
            return hint(value)
        raise FieldError(path)
    if not isinstance(value, hint):
        raise FieldError(path)
    if hint is int and (isinstance(value, bool) or not -_BEYOND_64_BITS <= value < _BEYOND_64_BITS):
        raise FieldError(path)
    return value


def _read_tuple(hints: tuple[Any, ...], value: object, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise FieldError(path)
    if hints[-1] is Ellipsis:
        hints = (hints[0],) * len(value)
    if len(hints) != len(value):
        raise FieldError(path)
    return tuple(_read_value(hint, item, path) for hint, item in zip(hints, value, strict=True))


def _read_float(value: object, path: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise FieldError(path)
    try:
        number = float(value)
    except OverflowError as error:  # an integer of hundreds of digits
        raise FieldError(path) from error
    if not math.isfinite(number):
        raise FieldError(path)
    return number
