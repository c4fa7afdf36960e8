"""A race's result as a Markdown table and as a plot, both made from the JSON file alone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _LABEL, _ROW, _TOP = 960, 440, 34, 46  # pixels
_COLUMNS = (
    "way",
    "network",
    "images/s, whole process",
    "against the reference's way",
    "images/s, steady",
    "one image, s",
    "memory, GB",
)
_OURS, _PEER, _INK, _FAINT = "#0b6e6e", "#9aa5b1", "#1f2933", "#616e7c"


def write_table(result: Path) -> str:
    """Write RESULT.md and RESULT.svg beside RESULT.json; returns the Markdown."""
    content = json.loads(result.read_text())
    table = markdown(content, result.with_suffix(".svg").name)
    result.with_suffix(".md").write_text(table)
    result.with_suffix(".svg").write_text(plot(content))
    return table


def by_rate(content: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The entrants, the slowest first."""
    return sorted(content["entrants"].items(), key=lambda item: item[1]["whole_images_per_second"]["median"])


def table_lines(content: dict[str, Any], columns: Sequence[str] = _COLUMNS) -> list[str]:
    """The table as lines of Markdown, with some of its columns or all of them."""
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for name, one in by_rate(content):
        ratio = one.get("whole_to_reference")
        steady = one["steady_images_per_second"]
        values = (
            f"**{one['label']}**" if is_ours(one) else one["label"],
            one["network"],
            _range(one["whole_images_per_second"], 0),
            "1" if name == "reference" else "" if ratio is None else f"{ratio['median']:.1f}",
            "" if steady is None else _range(steady, 0),
            _range(one["start_seconds"], 2),
            f"{one['peak_memory_bytes']['median'] / 1e9:.2f}",
        )
        cells = dict(zip(_COLUMNS, values, strict=True))
        lines.append(f"| {' | '.join(cells[column] for column in columns)} |")
    return lines


def markdown(content: dict[str, Any], picture: str) -> str:
    """The table with its conditions."""
    lines = table_lines(content)
    lines += ["", f"![Images per second, whole process]({picture})", "", conditions_line(content), ""]
    lines += [f"- {one['label']}: {_versions(one)}" for _, one in by_rate(content)]
    if content["left_out"]:
        lines += ["", "Left out:", ""] + [f"- {name}: {why}" for name, why in content["left_out"].items()]
    return "\n".join(lines) + "\n"


def conditions_line(content: dict[str, Any]) -> str:
    """On what the figures were measured, in one paragraph."""
    facts, each = content["conditions"], content["image_bytes"] / content["images"] / 1000
    return (
        f"{content['images']:,} {content['data']} images ({each:.0f} kB each), {content['threads']} cores for "
        f"everybody ({facts['processor']}), no GPU, {facts['date']}, mribatch {facts['mribatch']}. "
        f"Median of {content['repeats']} interleaved rounds (lowest to highest); ratios within a round. "
        "Whole process: from its start to its end, result file included. Steady: from a quarter of the images to the "
        "last. One image: whole process for a folder of one. Memory: peak over the process and its descendants. "
        "Random weights decide the answers, not the speed."
    )


def is_ours(one: dict[str, Any]) -> bool:
    """Whether an entrant of a result is mribatch."""
    return bool(one["runs"].startswith("mribatch "))


def plot(content: dict[str, Any]) -> str:
    """Bars of the whole process' images per second, with the range of the rounds."""
    rows = by_rate(content)
    highest = max((one["whole_images_per_second"]["high"] for _, one in rows), default=1.0)
    scale = (_WIDTH - _LABEL - 150) / highest
    height = _TOP + _ROW * len(rows) + 14
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="13" role="img">',
        "<title>Images per second of each way to classify the folder, whole process</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{_LABEL}" y="26" fill="{_INK}" font-weight="600">images/s, folder to result file, '
        f"{content['threads']} cores</text>",
    ]
    for number, (_, one) in enumerate(rows):
        parts += _bar(one, _TOP + _ROW * number, scale)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(one: dict[str, Any], y: int, scale: float) -> list[str]:
    rate, colour = one["whole_images_per_second"], _OURS if is_ours(one) else _PEER
    middle, end = y + _ROW // 2, _LABEL + rate["median"] * scale
    low, high = (_LABEL + rate[key] * scale for key in ("low", "high"))
    ratio = one.get("whole_to_reference")
    times = "" if ratio is None else f" ({ratio['median']:.1f} ×)"
    left = f'<text x="{_LABEL - 10}" text-anchor="end"'
    return [
        f'{left} y="{middle - 2}" fill="{_INK}">{escape(one["label"])}</text>',
        f'{left} y="{middle + 11}" fill="{_FAINT}" font-size="10">{escape(one["network"])}</text>',
        f'<rect x="{_LABEL}" y="{y + 5}" width="{end - _LABEL:.1f}" height="{_ROW - 10}" fill="{colour}"/>',
        f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="{_INK}" stroke-width="2"/>',
        f'<text x="{max(end, high) + 8:.1f}" y="{middle + 5}" fill="{_INK}">{rate["median"]:,.0f}{times}</text>',
    ]


def _range(figure: dict[str, Any], digits: int) -> str:
    median, low, high = (f"{figure[key]:,.{digits}f}" for key in ("median", "low", "high"))
    return median if low == high else f"{median} ({low} to {high})"


def _versions(one: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in one["versions"].items())
