"""docs/reference/what-exports.md, from the committed outcomes."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "what-exports.json"
ROUNDING = ROOT / "benchmarks" / "results" / "what-exports-rounding.json"
PAGE = ROOT / "docs" / "reference" / "what-exports.md"
_INTRO = """# What exports

Generated from [what-exports.json](../../benchmarks/results/what-exports.json) by `python -m benchmarks.what_exports`; a
test fails where it is stale. Versions: {versions}.

Every model of Keras was built with random weights, saved, and given to `mribatch export`, which compares the bundle
with Keras, or with the ONNX model alone, on 64 golden slices. Weights that start as zeros or ones were drawn at random,
running statistics were taken from slices (in later runs from slices and patterns), and the last layer was scaled so
that the answers vary. **Spread** says how much: the largest range of a class over the golden slices. **max |Δp|** is
the largest difference of a probability; the limit is 1e-04. Seconds were measured on two busy cores, loading and
comparing included, in several runs of one day. Networks of keras.applications took images of 64 to 75 pixels; their
width and depth are as published. The ONNX models were written by PyTorch 2.13 from networks of timm 1.0.31, at 64 or 96
pixels.

Deep networks with random weights give every image nearly the same features, and a last layer that makes much of what
differs makes as much of the rounding. With logits ten times as large as in the rows below, VGG16, VGG19, ResNet50,
ResNet101 and InceptionV3 differed from Keras by 1e-04 to 7e-04 and were refused; with statistics of slices alone,
EfficientNetB0 by 4e-04. With the smaller logits ResNet101 and InceptionV3 agree within 5e-05, with the same graphs.
{rounding}

{exported} of {tried} models and layers that could be built export."""


_REMARKS = {
    True: "Whether such a difference is rounding is measured [below](#rounding).",
    False: "Whether such a difference is rounding can be measured by `python -m benchmarks.what_exports.rounding`.",
}
_ROUNDING = """## Rounding

By `python -m benchmarks.what_exports.rounding NETWORK [--head SPREAD]`: the same weights, answered by Keras in float32,
by the converted graph, and by Keras in float64. An error of the conversion would put the graph far from float64 where
Keras in float32 is near; rounding puts both about equally far, and then a limit of 1e-04 says nothing about the graph.
The limit stays as it is, since trained networks are not like this: what `export` refuses there is to be looked at."""


def page(content: dict[str, Any], rounding: Sequence[dict[str, Any]] = ()) -> str:
    """Return the text of the page, from the outcomes and the lines of `benchmarks.what_exports.rounding`."""
    outcomes = content["outcomes"]
    tried = [one for one in outcomes if one["exports"] is not None]
    named = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    exported = sum(one["exports"] for one in tried)
    parts = [_INTRO.format(versions=named, exported=exported, tried=len(tried), rounding=_REMARKS[bool(rounding)])]
    groups = dict.fromkeys(one["group"] for one in outcomes)
    parts += [f"## {name}\n\n{_table([one for one in outcomes if one['group'] == name])}" for name in groups]
    if rounding:
        parts.append(f"{_ROUNDING}\n\n{_rounding_table(rounding)}")
    return "\n\n".join([*parts, "Research use only, not a medical device.\n"])


def _table(outcomes: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| model or layer | exports | max \\|Δp\\| | spread | seconds | remark |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in outcomes:
        exports = {True: "yes", False: "**no**", None: "not tried"}[one["exports"]]
        numbers = ("" if one[key] is None else f"{one[key]:{form}}" for key, form in _FORMS.items())
        lines.append(f"| {one['name']} | {exports} | {' | '.join(numbers)} | {_clean(one['remark'])} |")
    return "\n".join(lines)


def read_rounding() -> list[dict[str, Any]]:
    """Return the committed lines; none where nothing was measured."""
    lines: list[dict[str, Any]] = json.loads(ROUNDING.read_text(encoding="utf-8")) if ROUNDING.exists() else []
    return lines


def is_rounding(line: dict[str, Any]) -> bool:
    """Whether the graph is about as far from float64 as Keras in float32 is, and no slice changes class."""
    return line["graph_to_float64"] <= _ALIKE * line["keras_to_float64"] and not line["other_class"]


def _rounding_table(lines: Sequence[dict[str, Any]]) -> str:
    rows = [
        "| network | logits' deviation | spread | graph to Keras | Keras to float64 | graph to float64 | rounding |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in lines:
        distances = (one["graph_to_keras"], one["keras_to_float64"], one["graph_to_float64"])
        numbers = " | ".join(f"{value:.1e}" for value in distances)
        verdict = "yes" if is_rounding(one) else "**no**"
        rows.append(f"| {one['network']} | {one['head']:g} | {one['spread']:.2f} | {numbers} | {verdict} |")
    return "\n".join(rows)


_ALIKE = 3.0  # times
_FORMS = {"difference": ".0e", "spread": ".2f", "seconds": ".1f"}


def _clean(remark: str) -> str:
    """Return a remark for a cell: no temporary path, no bars or tags."""
    text = re.sub(r"/tmp/\S*/", "", remark)
    return text.replace("|", "\\|").replace("<", "&lt;")
