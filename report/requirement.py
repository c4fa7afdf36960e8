"""`--require "sensitivity[glioma_tumor]@low>=0.9"`: what is required, and whether it holds."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mribatch.core.errors import OptionError
from mribatch.report.metrics import Key, metric_keys, name_metric
from mribatch.report.metrics_file import RequirementResult
from mribatch.report.text.sentences import format_number

_FORM = re.compile(
    r"\s*([a-z_0-9]+)\s*(?:\[\s*([^\[\]]+?)\s*\])?\s*(?:@(low|high))?\s*(>=|<=|>|<)"
    r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*"
)
_HOLDS: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda value, limit: value >= limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    "<": lambda value, limit: value < limit,
}
_OPPOSITE = {">=": "<", "<=": ">", ">": "<=", "<": ">="}


class Measured(Protocol):
    """A figure that may be required; None where it is not defined, and the note says why."""

    @property
    def value(self) -> float | None: ...

    @property
    def low(self) -> float | None: ...

    @property
    def high(self) -> float | None: ...

    @property
    def note(self) -> str | None: ...


class FigureSet(Protocol):
    """Figures by name, such as those of a level."""

    def find(self, metric: str, class_: str | None = None) -> Measured: ...


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """`sensitivity[glioma_tumor]@low>=0.9`, parsed."""

    metric: str
    class_: str | None
    bound: str  # "value", "low" or "high"
    sign: str
    limit: float

    @property
    def subject(self) -> str:
        """What is compared, as typed, e.g. `sensitivity[glioma_tumor]@low`."""
        name = name_metric(self.metric, self.class_)
        return name if self.bound == "value" else f"{name}@{self.bound}"

    def judge(self, figures: FigureSet | None, no_metrics: str | None) -> RequirementResult:
        """Whether figures meet it. What is undefined or was not measured never does.

        Args:
            figures: E.g. those of a level, or None where there are none.
            no_metrics: Why there are none.
        """
        row = None if figures is None else figures.find(self.metric, self.class_)
        value = None if row is None else _select(row, self.bound)
        met = value is not None and _HOLDS[self.sign](value, self.limit)
        return RequirementResult(
            required=f"{self.subject}{self.sign}{self.limit:g}",
            value=value,
            met=met,
            found=self._describe_undefined(row, no_metrics) if value is None else self._describe(row, value, met),
        )

    def _describe(self, row: Measured | None, value: float, met: bool) -> str:
        sign = self.sign if met else _OPPOSITE[self.sign]
        text = _format_distinct(value, self.limit)
        if self.bound == "value" and row is not None and row.low is not None:
            text += f" ({format_number(row.low)}–{format_number(row.high)})"
        return f"{self.subject} = {text} {sign} {self.limit:g}"

    def _describe_undefined(self, row: Measured | None, no_metrics: str | None) -> str:
        reason = no_metrics if row is None else row.note
        why = f" ({reason})" if reason else ""
        return f"{self.subject} is undefined{why}, required {self.sign} {self.limit:g}"


def parse_requirement(
    text: str, classes: Sequence[str], *, option: str = "--require", bound: str = "value"
) -> Requirement:
    """Read a requirement on the metrics of a report; the arguments are those of `parse_requirement_on`."""
    example = "'accuracy>=0.9', 'sensitivity[CLASS]>=0.95' or 'sensitivity[CLASS]@low>=0.9'"
    return parse_requirement_on(metric_keys(classes), text, example, option=option, bound=bound)


def parse_requirement_on(
    keys: Sequence[Key], text: str, example: str, *, option: str = "--require", bound: str = "value"
) -> Requirement:
    """Read `metric[class]@bound>=number`; class and bound may be absent; the signs are >= > <= <.

    Args:
        keys: What is measured.
        text: As typed.
        example: What an error proposes.
        option: Where it was typed, for errors.
        bound: What is compared where the text does not say: "value", "low" or "high".

    Raises:
        MribatchError: Not of that form, or a metric or class that is not measured; lists those that are.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise OptionError(
            f"{option} '{text}' is not understood",
            f"write e.g. {example}",
        )
    metric, class_, typed, sign, limit = match.groups()
    if metric not in {key[0] for key in keys}:
        known = ", ".join(dict.fromkeys(key[0] for key in keys))
        raise OptionError(f"{option} '{text}': there is no metric '{metric}'", f"choose one of {known}")
    if (metric, class_) not in keys:
        problem = f"{metric} needs a class" if class_ is None else f"there is no {metric} of '{class_}'"
        valid = ", ".join(name_metric(*key) for key in keys if key[0] == metric)
        raise OptionError(f"{option} '{text}': {problem}", f"choose one of {valid}")
    return Requirement(metric=metric, class_=class_, bound=typed or bound, sign=sign, limit=float(limit))


def _select(row: Measured, bound: str) -> float | None:
    return {"value": row.value, "low": row.low, "high": row.high}[bound]


def _format_distinct(value: float, limit: float) -> str:
    """Four digits, or all of them where four would make a different value look like the limit."""
    text = format_number(value)
    return text if float(text) != limit or value == limit else repr(value)
