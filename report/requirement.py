"""`--require "sensitivity[glioma_tumor]@low>=0.9"`: what is required, and whether it holds."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mribatch.core.errors import OptionError
from mribatch.report.metrics import metric_keys, name_metric
from mribatch.report.metrics_file import Level, MetricRow, RequirementResult
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

    def judge(self, level: Level | None, no_metrics: str | None) -> RequirementResult:
        """Whether a level meets it. What is undefined or was not measured never does.

        Args:
            level: The figures per image, or None where there are none.
            no_metrics: Why there are none.
        """
        row = None if level is None else level.find(self.metric, self.class_)
        value = None if row is None else _select(row, self.bound)
        met = value is not None and _HOLDS[self.sign](value, self.limit)
        return RequirementResult(
            required=f"{self.subject}{self.sign}{self.limit:g}",
            value=value,
            met=met,
            found=self._describe_undefined(row, no_metrics) if value is None else self._describe(row, value, met),
        )

    def _describe(self, row: MetricRow | None, value: float, met: bool) -> str:
        sign = self.sign if met else _OPPOSITE[self.sign]
        text = _format_distinct(value, self.limit)
        if self.bound == "value" and row is not None and row.low is not None:
            text += f" ({format_number(row.low)}–{format_number(row.high)})"
        return f"{self.subject} = {text} {sign} {self.limit:g}"

    def _describe_undefined(self, row: MetricRow | None, no_metrics: str | None) -> str:
        reason = no_metrics if row is None else row.note
        why = f" ({reason})" if reason else ""
        return f"{self.subject} is undefined{why}, required {self.sign} {self.limit:g}"


def parse_requirement(
    text: str, classes: Sequence[str], *, option: str = "--require", bound: str = "value"
) -> Requirement:
    """Read `metric[class]@bound>=number`; class and bound may be absent; the signs are >= > <= <.

    Args:
        text: As typed.
        classes: Of the model.
        option: Where it was typed, for errors.
        bound: What is compared where the text does not say: "value", "low" or "high".

    Raises:
        MribatchError: Not of that form, or a metric or class that is not measured; lists those that are.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise OptionError(
            f"{option} '{text}' is not understood",
            "write e.g. 'accuracy>=0.9', 'sensitivity[CLASS]>=0.95' or 'sensitivity[CLASS]@low>=0.9'",
        )
    metric, class_, typed, sign, limit = match.groups()
    keys = metric_keys(classes)
    if metric not in {key[0] for key in keys}:
        known = ", ".join(dict.fromkeys(key[0] for key in keys))
        raise OptionError(f"{option} '{text}': there is no metric '{metric}'", f"choose one of {known}")
    if (metric, class_) not in keys:
        problem = f"{metric} needs a class" if class_ is None else f"there is no {metric} of '{class_}'"
        valid = ", ".join(name_metric(*key) for key in keys if key[0] == metric)
        raise OptionError(f"{option} '{text}': {problem}", f"choose one of {valid}")
    return Requirement(metric=metric, class_=class_, bound=typed or bound, sign=sign, limit=float(limit))


def _select(row: MetricRow, bound: str) -> float | None:
    return {"value": row.value, "low": row.low, "high": row.high}[bound]


def _format_distinct(value: float, limit: float) -> str:
    """Four digits, or all of them where four would make a different value look like the limit."""
    text = format_number(value)
    return text if float(text) != limit or value == limit else repr(value)
