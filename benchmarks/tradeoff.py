"""Accuracy against speed of every shipped bundle in every precision: python -m benchmarks.tradeoff [--race RESULT.json]

The speed is that of a race (whole process, folder to result file); the accuracy is that of the grouped protocol in the
bundle, and for INT8 graphs that of `benchmarks/int8_folds.py`. Where a graph in 8 bits has not been measured so, it is
drawn hollow at the accuracy of its FP32 graph. Writes docs/pictures/tradeoff.svg.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.conditions import RESULTS
from benchmarks.int8_folds import hash_weights
from mribatch.core.bundle import load_bundle, shipped_models
from mribatch.core.model_spec import INT8

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "tradeoff.svg"
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 420, 70, 200, 40, 50  # pixels
_LETTER, _LINE = 6.6, 14  # width of a letter on average, height of a line of text, pixels
_COLOURS = ("#0b6e6e", "#8a4b00", "#5b3f8c", "#2b5b84", "#8c2f39")
_INK = "#1f2933"


@dataclass(frozen=True, kw_only=True)
class Point:
    """One graph of one bundle."""

    model: str
    precision: str
    rate: float  # images per second
    accuracy: float
    low: float  # 95 % interval of the accuracy
    high: float
    measured: bool  # False: the accuracy is that of the FP32 graph


def read_points(race: Mapping[str, Any], results: Path) -> list[Point]:
    """Return a point for each of mribatch's own entrants whose bundle ships and was tested on grouped images."""
    points = []
    for one in race["entrants"].values():
        if one.get("model") not in shipped_models():
            continue
        model, precision = one["model"], one["precision"]
        figure, measured = _find_accuracy(model, precision, results)
        if figure is not None:
            rate = one["whole_images_per_second"]["median"]
            low, high = figure["low"], figure["high"]
            points.append(
                Point(
                    model=model,
                    precision=precision,
                    rate=rate,
                    accuracy=figure["value"],
                    low=low,
                    high=high,
                    measured=measured,
                )
            )
    return points


def _find_accuracy(model: str, precision: str, results: Path) -> tuple[Mapping[str, Any] | None, bool]:
    """The figure with its interval, and whether it is of those weights; None without a grouped protocol."""
    bundle = load_bundle(model)
    spec = bundle.spec
    own = next((one for one in spec.metrics if one["metric"] == "accuracy" and one["class"] is None), None)
    if own is None or not own["protocol"].startswith("grouped"):
        return None, False
    if precision != INT8:
        return own, True
    for path in sorted(results.glob(f"int8_folds-{model}-real-*.json")):
        content = json.loads(path.read_text())
        if content["weights_sha256"] == hash_weights(bundle.model):
            return content[INT8]["accuracy"], True
    return own, False


def plot(points: Sequence[Point], title: str) -> str:
    """Images per second across, on a logarithmic scale, accuracy upwards; one colour for each bundle."""
    rates, accuracies = [point.rate for point in points], [edge for point in points for edge in (point.low, point.high)]
    left, right = math.log(min(rates) / 1.25), math.log(max(rates) * 1.25)
    floor, ceiling = math.floor(min(accuracies) * 50) / 50, math.ceil(max(accuracies) * 50) / 50

    def across(rate: float) -> float:
        return _LEFT + (math.log(rate) - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)

    def down(accuracy: float) -> float:
        return _TOP + (ceiling - accuracy) / (ceiling - floor) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="system-ui, sans-serif" font-size="12" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="22" fill="{_INK}" font-size="13" font-weight="600">{escape(title)}</text>',
    ]
    for step in range(round(floor * 50), round(ceiling * 50) + 1):
        y = down(step / 50)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#e4e7eb"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="{_INK}">{step / 50:.2f}</text>')
    for rate in _choose_ticks(min(rates) / 1.25, max(rates) * 1.25):
        x = across(rate)
        parts.append(f'<path d="M{x:.1f} {_TOP}V{_HEIGHT - _BOTTOM}" stroke="#e4e7eb"/>')
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle" fill="{_INK}">{rate}</text>')
    parts.append(
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 10}" text-anchor="middle" fill="{_INK}">images/s, '
        "folder to result file (lines: 95 % intervals of the accuracy)</text>"
    )
    models = sorted({point.model for point in points})
    taken: list[tuple[float, float, float]] = []  # of labels: left, right, base line
    for point in points:
        x, y, colour = across(point.rate), down(point.accuracy), _COLOURS[models.index(point.model) % len(_COLOURS)]
        fill = colour if point.measured else "#ffffff"
        name = f"{point.model}, {point.precision.upper()}" + ("" if point.measured else " (accuracy of FP32)")
        line = _place_label(x + 9, y + 4, name, taken)
        parts += [
            f'<path d="M{x:.1f} {down(point.low):.1f}V{down(point.high):.1f}" stroke="{colour}" stroke-width="1.5"/>',
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="{colour}" stroke-width="2"/>',
            f'<text x="{x + 9:.1f}" y="{line:.1f}" fill="{_INK}">{escape(name)}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _place_label(left: float, line: float, text: str, taken: list[tuple[float, float, float]]) -> float:
    """Return the base line nearest to the wanted one at which the label covers no other, and take it."""
    right = left + _LETTER * len(text)
    for shift in (0, *(sign * step * _LINE for step in range(1, len(taken) + 1) for sign in (1, -1))):
        free = line + shift
        if all(right < first or left > last or abs(free - other) >= _LINE for first, last, other in taken):
            break
    taken.append((left, right, free))
    return free


def _choose_ticks(low: float, high: float) -> list[int]:
    """Round numbers of images per second within the range."""
    round_numbers = [factor * 10**power for power in range(6) for factor in (1, 2, 5)]
    return [number for number in round_numbers if low <= number <= high]


def describe(race: Mapping[str, Any]) -> str:
    """The plot's title."""
    return f"Accuracy on grouped images against speed on {race['threads']} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--race", type=Path, help="result of a race (the newest over real images)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=PICTURE)
    options = parser.parse_args()
    races = sorted(
        options.results.glob("race-real-*.json"), key=lambda path: json.loads(path.read_text())["conditions"]["date"]
    )
    if options.race is None and not races:
        parser.error("there is no race over real images in the results; run python -m benchmarks.race --data FOLDER")
    race = json.loads((options.race or races[-1]).read_text())
    points = read_points(race, options.results)
    if not points:
        parser.error("the race does not say which bundles it ran; run it again")
    options.out.write_text(plot(points, describe(race)))
    for point in points:
        print(f"{point.model:<28}{point.precision:<6}{point.rate:8.0f} images/s  accuracy {point.accuracy:.4f}")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
