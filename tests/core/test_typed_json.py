"""JSON files as frozen dataclasses: what fits is read and written back equal, everything else names its key."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pytest

from mribatch.core.typed_json import read_record, write_record


class Colour(StrEnum):
    GREY = "grey"


@dataclass(frozen=True, kw_only=True)
class Size:
    width: int


@dataclass(frozen=True, kw_only=True)
class Picture:
    name: str
    colour: Colour
    size: Size | None
    sizes: tuple[Size, ...]
    scores: Mapping[str, float]
    facts: Mapping[str, str | int | None]
    done: bool
    note: str | None = None


CONTENT: dict[str, Any] = {
    "name": "a",
    "colour": "grey",
    "size": {"width": 3},
    "sizes": [{"width": 1}, {"width": 2}],
    "scores": {"x": 0.5},
    "facts": {"a": "b", "c": 1, "d": None},
    "done": True,
}


def test_what_fits_is_read_and_written_back_in_the_same_order() -> None:
    picture = read_record(Picture, CONTENT)
    assert (picture.colour, picture.size, picture.sizes[1].width) == (Colour.GREY, Size(width=3), 2)
    assert list(write_record(picture).items()) == list(CONTENT.items())
    assert write_record(read_record(Picture, CONTENT | {"note": "x", "size": None})) == CONTENT | {
        "note": "x",
        "size": None,
    }


def test_a_key_that_is_not_known_is_ignored_and_a_whole_number_is_a_float() -> None:
    picture = read_record(Picture, CONTENT | {"newer": 1, "scores": {"x": 1}})
    assert type(picture.scores["x"]) is float


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": 3}, "'name' has a value that does not fit: 3"),
        ({"colour": "red"}, "'colour' has a value that does not fit: red"),
        ({"size": {}}, "'size.width' is missing"),
        ({"size": {"width": True}}, "'size.width' has a value that does not fit: True"),
        ({"sizes": [{"width": 1}, {"width": "1"}]}, r"'sizes\[1\].width' has a value that does not fit: 1"),
        ({"sizes": {}}, "'sizes' has a value that does not fit"),
        ({"scores": {"x": True}}, "'scores.x' has a value that does not fit: True"),
        ({"facts": {"c": 0.5}}, "'facts.c' has a value that does not fit: 0.5"),
        ({"done": 1}, "'done' has a value that does not fit: 1"),
        ({"done": None}, "'done' has a value that does not fit: None"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}"):
        read_record(Picture, CONTENT | change)


@pytest.mark.parametrize("content", [None, [], "text", 3])
def test_anything_but_an_object_is_refused(content: object) -> None:
    with pytest.raises(ValueError, match="the content is not an object"):
        read_record(Picture, content)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ValueError, match="'done' is missing"):
        read_record(Picture, {key: value for key, value in CONTENT.items() if key != "done"})
