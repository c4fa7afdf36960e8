"""One model to be exported, and what became of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model that is built, saved and exported.

    Attributes:
        group: Heading in the page.
        name: Row of the page.
        build: Returns a keras.Model.
        skipped: Why it is not tried; empty where it is.
        remark: What a reader should know.
    """

    group: str
    name: str
    build: Callable[[], Any]
    skipped: str = ""
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What `export` did with a case.

    Attributes:
        exports: None where it was not tried.
        difference: Largest |Δp| on the golden slices; None without a bundle.
        spread: Largest range of a class over the golden slices.
        seconds: Of loading, converting and comparing.
    """

    group: str
    name: str
    exports: bool | None
    difference: float | None = None
    spread: float | None = None
    seconds: float | None = None
    remark: str = ""
