"""JSON of strangers becomes a record with the promised types, or an error that names the field."""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mribatch.core.json_record import FieldError, read_record


class Kind(StrEnum):
    A = "a"
    B = "b"


@dataclass(frozen=True)
class Inner:
    low: int
    note: str | None = None


@dataclass(frozen=True)
class Outer:
    name: str
    share: float
    on: bool
    kind: Kind
    inner: Inner
    words: tuple[str, ...]
    pair: tuple[int, int]
    other: Inner | None
    extra: tuple[Inner, ...] = field(default_factory=tuple)


GOOD: dict[str, Any] = {
    "name": "x",
    "share": 1,
    "on": True,
    "kind": "b",
    "inner": {"low": 3},
    "words": ["a"],
    "pair": [1, 2],
    "other": None,
}


def test_a_record_is_read_with_its_defaults_and_without_what_it_does_not_have() -> None:
    expected = Outer("x", 1.0, True, Kind.B, Inner(3), ("a",), (1, 2), None)
    assert read_record(Outer, GOOD | {"unknown": 1}) == expected
    assert type(read_record(Outer, GOOD).share) is float


@pytest.mark.parametrize(
    "changes, name",
    [
        ({"name": None}, "name"),
        ({"name": 1}, "name"),
        ({"share": "1"}, "share"),
        ({"share": True}, "share"),
        ({"share": float("nan")}, "share"),
        ({"share": 10**400}, "share"),
        ({"on": 1}, "on"),
        ({"kind": "c"}, "kind"),
        ({"kind": []}, "kind"),
        ({"inner": None}, "inner"),
        ({"inner": {}}, "inner.low"),
        ({"inner": {"low": True}}, "inner.low"),
        ({"inner": {"low": 1 << 63}}, "inner.low"),
        ({"inner": {"low": 1, "note": 2}}, "inner.note"),
        ({"words": "a"}, "words"),
        ({"words": [1]}, "words"),
        ({"pair": [1]}, "pair"),
        ({"pair": [1, 2, 3]}, "pair"),
        ({"other": []}, "other"),
        ({"extra": [{"low": "1"}]}, "extra.low"),
    ],
)
def test_a_field_of_another_type_is_named(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(FieldError) as caught:
        read_record(Outer, GOOD | changes)
    assert str(caught.value) == name


@pytest.mark.parametrize("key", GOOD)
def test_a_field_that_is_missing_is_named(key: str) -> None:
    with pytest.raises(FieldError, match=f"^{key}$"):
        read_record(Outer, {name: value for name, value in GOOD.items() if name != key})


@pytest.mark.parametrize("content", [None, [], "x", 1])
def test_what_is_not_an_object_is_refused(content: object) -> None:
    with pytest.raises(FieldError, match=r"^\(all\)$"):
        read_record(Outer, content)


numbers = st.integers(-(2**63), 2**63 - 1)
inners = st.builds(Inner, numbers, st.none() | st.text())


@settings(deadline=None)
@given(
    st.builds(
        Outer,
        st.text(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
        st.sampled_from(Kind),
        inners,
        st.lists(st.text()).map(tuple),
        st.tuples(numbers, numbers),
        st.none() | inners,
        st.lists(inners, max_size=3).map(tuple),
    )
)
def test_a_record_survives_the_round_trip(record: Outer) -> None:
    assert read_record(Outer, json.loads(json.dumps(asdict(record)))) == record
