"""A finished run folder to metrics.parquet, metrics.json, report.md and a table for the console.

    read_facts, load_rows -> groups and patients -> headline -> content -> the files

`content` is what metrics.json holds; the page and the table are drawn from it alone, so they cannot differ from it.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32, float64, int64
from numpy.typing import NDArray

from mribatch.core.about import RESEARCH_NOTICE, __version__
from mribatch.core.errors import MribatchError
from mribatch.core.files import publishing, write_json
from mribatch.report import metrics
from mribatch.report.groups import (
    Grouping,
    Patients,
    aggregate,
    column_of_predictions,
    groups_of,
    patients_of,
)
from mribatch.report.metrics import Metric
from mribatch.report.rows import RunRows, load_rows, read_facts
from mribatch.report.text import NAMED, console_table, number, page

SCHEMA_VERSION = 1
METRICS_PARQUET, METRICS_JSON, PAGE = "metrics.parquet", "metrics.json", "report.md"
PROTOCOL_UNKNOWN = "protocol not given"
QUANTILES = {"min": 0.0, "q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "max": 1.0}

_REQUIREMENT = re.compile(
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
class ReportOptions:
    """What `mribatch report` is told; the texts are as the user types them."""

    run: Path
    groups: str | None = None  # FILE.csv, FILE.csv:column, or a column of the predictions
    group_by: str | None = None  # patient=REGEX or patient=FILE.csv
    require: tuple[str, ...] = ()
    protocol: str | None = None
    seed: int = 0  # of the bootstrap


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
        name = self.metric if self.class_ is None else f"{self.metric}[{self.class_}]"
        return name if self.bound == "value" else f"{name}@{self.bound}"

    def of(self, measured: Metric) -> float | None:
        """The value or bound that is compared."""
        value: float | None = getattr(measured, self.bound)
        return value

    def met_by(self, measured: Metric) -> bool:
        """False too where the value or the bound is undefined."""
        value = self.of(measured)
        return value is not None and _HOLDS[self.sign](value, self.limit)


@dataclass(frozen=True)
class Report:
    """What was written, for whoever called. `table` is the console text, `content` what metrics.json holds."""

    table: str
    content: Mapping[str, Any]
    unmet: tuple[str, ...]  # one text per requirement that failed, with its number

    def check(self) -> None:
        """Raises MribatchError where a requirement was not met."""
        if self.unmet:
            raise MribatchError(
                f"requirement not met: {'; '.join(self.unmet)}",
                "use another model, or lower the requirement if the figure is good enough",
            )


@dataclass(frozen=True, kw_only=True)
class _Level:
    """One set of figures: the images, or the patients by one way of aggregating their slices.

    labels: int64 (n,). probabilities: float32 (n, classes). groups: int64 (n,), or None where each row is its own.
    """

    name: str  # "image", "patient_mean", "patient_worst"
    unit: str  # what a row is: "image" or "patient"
    how: str  # e.g. "per patient (mean probability)"
    labels: NDArray[int64]
    probabilities: NDArray[float32]
    groups: NDArray[int64] | None = None
    source: str | None = None  # of the groups
    unmatched: int = 0  # rows without a group


def report(options: ReportOptions) -> Report:
    """Measure a complete run; write metrics.parquet, metrics.json and report.md into its folder.

    Without a single label the files say so and hold no metric. Nothing is written when an option is wrong; everything
    is written, and `Report.unmet` filled, when a requirement fails.

    Raises:
        MribatchError: Not a complete run, a damaged one, or an option that does not fit it.
    """
    facts = read_facts(options.run)
    classes = tuple(facts["bundle"]["classes"])
    requirements = [parse_requirement(text, classes) for text in options.require]
    rows = load_rows(options.run, facts, column_of_predictions(options.groups, options.run))
    inputs = facts.get("inputs", [])
    patients = None if options.group_by is None else patients_of(options.group_by, rows, inputs)
    groups = patients if options.groups is None else groups_of(options.groups, rows, inputs)
    levels, aggregated = _image_level(rows, groups), None
    if patients is not None:
        aggregated = aggregate(rows, patients, classes)
        levels += _patient_levels(aggregated)
    content = _content(options, facts, rows, [_measured(level, classes, options) for level in levels])
    content["patients"] = None if aggregated is None else dict(aggregated.facts)
    content["requirements"] = [_verdict(requirement, content) for requirement in requirements]
    _write(options.run, content)
    unmet = tuple(verdict["found"] for verdict in content["requirements"] if not verdict["met"])
    return Report(console_table(content), content, unmet)


def metrics_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of metrics.json, as shipped with the package."""
    text = resources.files("mribatch.report").joinpath("metrics.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def parse_requirement(text: str, classes: Sequence[str]) -> Requirement:
    """Read `metric[class]@bound>=number`; class and bound may be absent; the signs are >= > <= <.

    Raises:
        MribatchError: Not of that form, or a metric or class that is not measured; lists those that are.
    """
    match = _REQUIREMENT.fullmatch(text)
    if match is None:
        raise MribatchError(
            f"--require '{text}' is not understood",
            "write e.g. 'accuracy>=0.9', 'sensitivity[CLASS]>=0.95' or 'sensitivity[CLASS]@low>=0.9'",
        )
    metric, class_, bound, sign, limit = match.groups()
    keys = metrics.metric_keys(classes)
    if metric not in {key[0] for key in keys}:
        known = ", ".join(dict.fromkeys(key[0] for key in keys))
        raise MribatchError(f"--require '{text}': there is no metric '{metric}'", f"choose one of {known}")
    if (metric, class_) not in keys:
        problem = f"{metric} needs a class" if class_ is None else f"there is no {metric} of '{class_}'"
        valid = ", ".join(metric if key[1] is None else f"{metric}[{key[1]}]" for key in keys if key[0] == metric)
        raise MribatchError(f"--require '{text}': {problem}", f"choose one of {valid}")
    return Requirement(metric=metric, class_=class_, bound=bound or "value", sign=sign, limit=float(limit))


# ---------------------------------------------------------------------------------------------- levels


def _image_level(rows: RunRows, groups: Grouping | None) -> list[_Level]:
    scored = rows.scored
    if not scored.any():
        return []
    return [
        _Level(
            name="image",
            unit="image",
            how="per image",
            labels=rows.labels[scored],
            probabilities=rows.probabilities[scored],
            groups=None if groups is None else groups.with_singles()[scored],
            source=None if groups is None else groups.source,
            unmatched=0 if groups is None else int((groups.codes[scored] < 0).sum()),
        )
    ]


def _patient_levels(patients: Patients) -> list[_Level]:
    if len(patients.labels) == 0:
        return []
    ways = {"patient_mean": ("mean probability", patients.mean), "patient_worst": ("worst slice", patients.worst)}
    return [
        _Level(name=name, unit="patient", how=f"per patient ({way})", labels=patients.labels, probabilities=scores)
        for name, (way, scores) in ways.items()
    ]


def _measured(level: _Level, classes: Sequence[str], options: ReportOptions) -> dict[str, Any]:
    """A level as it stands in metrics.json."""
    count = None if level.groups is None else len(np.unique(level.groups))
    over = metrics.describe_unit(len(level.labels), count, level.unit)
    over += f" ({level.source})" if level.source else ""
    protocol = f"{options.protocol or PROTOCOL_UNKNOWN}; {level.how}; {over}"
    found = metrics.headline(level.labels, level.probabilities, classes, level.groups, options.seed, protocol=protocol)
    bins = metrics.calibration(level.labels, level.probabilities, classes)
    return {
        "level": level.name,
        "title": level.how,
        "protocol": protocol,
        "n": len(level.labels),
        "intervals": _intervals(level, options.seed),
        "metrics": [_metric_json(metric) for metric in found],
        "confusion": metrics.confusion(level.labels, level.probabilities, classes).tolist(),
        "calibration": {
            "mean_confidence": float(level.probabilities.max(axis=1).mean(dtype=float64)),
            "accuracy": metrics.find(found, "accuracy").value,
            "bins": bins,
        },
    }


def _intervals(level: _Level, seed: int) -> dict[str, Any]:
    groups = np.arange(len(level.labels)) if level.groups is None else level.groups
    sizes = np.unique(groups, return_counts=True)[1]
    return {
        "method": "percentile bootstrap",
        "level": metrics.LEVEL,
        "resamples": metrics.RESAMPLES,
        "seed": seed,
        "unit": level.unit if level.groups is None else "group",
        "source": level.source,
        "units": len(sizes),
        "largest": int(sizes.max()),
        "without_group": level.unmatched,
    }


def _metric_json(metric: Metric) -> dict[str, Any]:
    return {
        "metric": metric.metric,
        "class": metric.class_,
        "value": metric.value,
        "low": metric.low,
        "high": metric.high,
        "n": metric.n,
        "note": metric.note,
    }


# ---------------------------------------------------------------------------------------------- content


def _content(
    options: ReportOptions, facts: Mapping[str, Any], rows: RunRows, levels: list[dict[str, Any]]
) -> dict[str, Any]:
    bundle = facts["bundle"]
    classes = list(bundle["classes"])
    notices = [facts["notice"]] if facts.get("notice") else []
    if not bundle.get("trained", True) and not notices:
        notices = [f"'{bundle.get('name')}' is no trained model: its predictions mean nothing"]
    return {
        "schema_version": SCHEMA_VERSION,
        "tool_version": __version__,
        "research_notice": RESEARCH_NOTICE,
        "notices": notices,
        "run": {
            "name": options.run.resolve().name,
            "model": bundle.get("name"),
            "trained": bool(bundle.get("trained", True)),
            "classes": classes,
            "inputs": [str(item.get("path")) for item in facts.get("inputs", [])],
        }
        | {key: facts.get(key) for key in ("backend", "decoder", "precision", "tool_version")},
        "protocol": options.protocol,
        "files": _files(rows),
        "predicted": _predicted(rows, classes),
        "no_metrics": None if levels else _why_no_metrics(facts, rows),
        "levels": levels,
    }


def _files(rows: RunRows) -> dict[str, Any]:
    damaged = np.flatnonzero(~rows.readable).tolist()
    labelled = rows.labels >= 0
    return {
        "total": len(rows),
        "by_status": dict(sorted(Counter(rows.statuses).items())),
        "readable": int(rows.readable.sum()),
        "labelled": int(labelled.sum()),
        "scored": int(rows.scored.sum()),
        "readable_without_label": int((rows.readable & ~labelled).sum()),
        "unreadable_with_label": int((~rows.readable & labelled).sum()),
        "not_readable": [
            {"path": rows.paths[i], "status": rows.statuses[i], "error": rows.errors[i]} for i in damaged[:NAMED]
        ],
    }


def _predicted(rows: RunRows, classes: Sequence[str]) -> dict[str, Any]:
    """Class counts and the spread of the confidence over every readable row, labelled or not."""
    scores = rows.probabilities[rows.readable]
    counts = np.bincount(scores.argmax(axis=1), minlength=len(classes)) if len(scores) else np.zeros(len(classes), int)
    spread = np.quantile(scores.max(axis=1).astype(float64), list(QUANTILES.values())) if len(scores) else None
    return {
        "counts": {name: int(counts[k]) for k, name in enumerate(classes)},
        "confidence": None if spread is None else dict(zip(QUANTILES, spread.tolist(), strict=True)),
    }


def _why_no_metrics(facts: Mapping[str, Any], rows: RunRows) -> str:
    if not rows.readable.any():
        return f"none of the {len(rows):,} files could be read"
    if (rows.labels >= 0).any():
        return "every file with a label could not be read"
    remedy = "classify again with --labels FILE.csv (columns path,label), or sort the files into one folder per class"
    if facts.get("labels") == "none":
        return f"the run was made with --labels none, so nothing says what each image shows; {remedy}"
    unknown = facts.get("listing", {}).get("unknown_labels") or {}
    named = f" ({', '.join(list(unknown)[:5])})" if unknown else ""
    return f"no label is known: no folder or given label{named} names a class of the model; {remedy}"


def _verdict(requirement: Requirement, content: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the image level meets it. What is undefined or not measured never does."""
    required = f"{requirement.subject}{requirement.sign}{requirement.limit:g}"
    key = (requirement.metric, requirement.class_)
    image = next((level for level in content["levels"] if level["level"] == "image"), None)
    row = next((row for row in image["metrics"] if (row["metric"], row["class"]) == key), None) if image else None
    if row is None:
        found = f"{requirement.subject} is undefined ({content['no_metrics']}), required {requirement.sign} "
        return {"required": required, "value": None, "met": False, "found": f"{found}{requirement.limit:g}"}
    measured = Metric(*key, row["value"], row["low"], row["high"], row["n"], "", row["note"])
    value, met = requirement.of(measured), requirement.met_by(measured)
    if value is None:
        why = f" ({measured.note})" if measured.note else ""
        found = f"{requirement.subject} is undefined{why}, required {requirement.sign} {requirement.limit:g}"
    else:
        sign = requirement.sign if met else _OPPOSITE[requirement.sign]
        shown = _distinct(value, requirement.limit)
        if requirement.bound == "value" and measured.low is not None:
            shown += f" ({number(measured.low)}–{number(measured.high)})"
        found = f"{requirement.subject} = {shown} {sign} {requirement.limit:g}"
    return {"required": required, "value": value, "met": met, "found": found}


def _distinct(value: float, limit: float) -> str:
    """Four digits, or all of them where four would make a different value look like the limit."""
    shown = number(value)
    return shown if float(shown) != limit or value == limit else repr(value)


# ---------------------------------------------------------------------------------------------- files


def _write(run: Path, content: Mapping[str, Any]) -> None:
    import pyarrow.parquet as pq

    with publishing(run / METRICS_PARQUET) as temporary:
        pq.write_table(_long_form(content), temporary)
    with publishing(run / PAGE) as temporary:
        temporary.write_text(page(content), encoding="utf-8")
    write_json(run / METRICS_JSON, content)


def _long_form(content: Mapping[str, Any]) -> Any:
    """metrics.parquet: metric, class, value, low, high, n, protocol; no rows where nothing could be measured."""
    import pyarrow as pa

    fields = [
        pa.field("metric", pa.string(), nullable=False),
        pa.field("class", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("n", pa.int64(), nullable=False),
        pa.field("protocol", pa.string(), nullable=False),
    ]
    facts = {key: content[key] for key in ("schema_version", "tool_version", "research_notice", "notices")}
    metadata = {
        f"mribatch.{key}": value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()
    }
    metadata["mribatch.model"] = str(content["run"]["model"])
    rows = [row | {"protocol": level["protocol"]} for level in content["levels"] for row in level["metrics"]]
    columns = [pa.array([row[each.name] for row in rows], each.type) for each in fields]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=metadata))
