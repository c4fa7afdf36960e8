"""Write the generated parts of README.md: python -m docs.make_readme [--check] (make docs)

    badges     docs/pictures/badge-*.svg, from setup.cfg
    example    what the Python example prints, run on the slices that `mribatch demo` draws
    speed      from the newest race in benchmarks/results/, and without one from the ceiling that is there
    accuracy   from the shipped bundles and their cards

Each part stands between <!-- NAME --> and <!-- /NAME -->. With --check nothing is written, and the exit code is 1 where
something is stale; decimals of the example may differ, as they do between processors.
"""

import argparse
import configparser
import contextlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.race.table import conditions_line, plot, table_lines
from benchmarks.tradeoff import PICTURE as TRADEOFF
from benchmarks.tradeoff import describe as describe_tradeoff
from benchmarks.tradeoff import plot as plot_tradeoff
from benchmarks.tradeoff import read_points
from mribatch.core.bundle import CARD_FILE, DEFAULT_MODEL, MODEL_FILE, ROLES, load_bundle, shipped_models
from mribatch.core.model_spec import ModelSpec

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "docs" / "pictures"
_OTHER_RUNS = {  # names of runs in the cards -> what a reader of the README needs to know about them
    "official split": "the data set's own split into Training and Testing",
    "official split, leaked images": "the same, only the test images with a near-duplicate in training",
    "official split, clean images": "**the same, only the test images without one, most of them from other sources**",
    "random split": "a random 85/15 division, as the reference project's",
    "random split, leaked images": "the same, only the test images with a near-duplicate in training",
    "random split, clean images": "the same, only the test images without one",
    "source folds": "**each of three sources held out once**",
}
_BADGE_HEIGHT, _CHARACTER = 20, 6.6  # pixels


def files(results: Path = RESULTS) -> dict[Path, str]:
    """Every generated file with its content, README.md among them."""
    page = PAGE.read_text(encoding="utf-8")
    race = newest_race(results)
    parts = {"example": _example(page), "speed": speed(results), "accuracy": _accuracy(results)}
    for name, content in parts.items():
        page = _replace(page, name, content)
    made = {PAGE: page, **{PICTURES / f"badge-{name}.svg": text for name, text in _badges()}}
    if race is not None:
        made[race.with_suffix(".svg")] = plot(json.loads(race.read_text()))
    return made | _tradeoff(results)


def _replace(page: str, name: str, content: str) -> str:
    """The page with a part between its marks replaced.

    Raises:
        ValueError: The page has not exactly one such part.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    changed, count = re.subn(f"{begin}\n.*?{end}", lambda _: f"{begin}\n{content}\n{end}", page, flags=re.S)
    if count != 1:
        raise ValueError(f"README.md has {count} parts {begin}")
    return changed


def _alike(one: str, other: str) -> bool:
    """Whether two texts are the same but for decimals of the example."""
    first, second = (
        re.sub(r"<!-- example -->.*<!-- /example -->", lambda part: re.sub(r"\d\.\d+", "#", part[0]), text, flags=re.S)
        for text in (one, other)
    )
    return first == second


# Badges


def _badges() -> Iterator[tuple[str, str]]:
    """Names and pictures; what they say is what setup.cfg says."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    metadata = config["metadata"]
    versions = re.findall(r"Python :: (3\.\d+)", metadata["classifiers"])
    yield "licence", _badge("licence", metadata["license"], "#0b6e6e")
    yield "python", _badge("python", " | ".join(versions), "#2b5b84")
    yield "use", _badge("use", "research only", "#8a4b00")


def _badge(left: str, right: str, colour: str) -> str:
    widths = [round(len(text) * _CHARACTER + 12) for text in (left, right)]
    width, text = sum(widths), 'fill="#ffffff" text-anchor="middle" y="14"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{_BADGE_HEIGHT}" role="img" '
        'font-family="Verdana, DejaVu Sans, sans-serif" font-size="11">'
        f"<title>{escape(left)}: {escape(right)}</title>"
        f'<rect width="{width}" height="{_BADGE_HEIGHT}" rx="3" fill="{colour}"/>'
        f'<path d="M3 0h{widths[0] - 3}v{_BADGE_HEIGHT}h-{widths[0] - 3}a3 3 0 0 1 -3 -3v-14a3 3 0 0 1 3 -3z" '
        'fill="#444c56"/>'
        f'<text x="{widths[0] / 2}" {text}>{escape(left)}</text>'
        f'<text x="{widths[0] + widths[1] / 2}" {text}>{escape(right)}</text></svg>\n'
    )


# Example


def _example(page: str) -> str:
    """Run the page's Python example on the demo's slices; what it prints, as a block."""
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    from mribatch.pipeline.demo_folder import draw_demo_folder

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        draw_demo_folder(Path("slices"))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, {})
    return f"```text\n{printed.getvalue().rstrip()}\n```"


# Speed


def newest_race(results: Path) -> Path | None:
    """The race to show: over real images before drawn ones, then by its date."""
    found = {path: json.loads(path.read_text()) for path in sorted(results.glob("race-*.json"))}
    return max(found, key=lambda path: (found[path]["data"] == "real", found[path]["conditions"]["date"]), default=None)


def speed(results: Path) -> str:
    """Plot, table and conditions of the newest race; without one, what the ceiling of the processor says."""
    race = newest_race(results)
    if race is None:
        return _ceiling(results)
    content, link = json.loads(race.read_text()), os.path.relpath(race, ROOT)
    shown = ("way", "network", "images/s, whole process", "against the reference's way", "one image, s", "memory, GB")
    lines = table_lines(content, shown)
    picture = Path(link).with_suffix(".svg")
    return "\n".join(
        [
            f"![Images per second of every way to classify the same folder]({picture})",
            "",
            *lines,
            "",
            conditions_line(content),
            "",
            f"Versions and every repeat: [{race.name}]({link}).",
        ]
    )


def _ceiling(results: Path) -> str:
    """What is known without a race: one model against the ceiling of its own parts."""
    found = [(path, json.loads(path.read_text())) for path in sorted(results.glob("cpu_ceiling-*.json"))]
    lines = []
    for path, result in found:
        facts, rate = result["conditions"], result["rows_images_per_second"]
        share = rate["median"] / result["ceiling_all_cores_busy"]["median"]
        lines.append(
            f"`{result['model']}`: **{rate['median']:,.0f} images/s** ({rate['low']:,.0f} to {rate['high']:,.0f}) from "
            f"file to row on {facts['cores']} cores ({facts['processor']}, no GPU, {facts['date']}), which is "
            f"{share:.0%} of what decoding and the network alone allow on these cores "
            f"([result]({os.path.relpath(path, ROOT)})). No race against other tools is committed yet."
        )
    return "\n\n".join(lines)


# Accuracy


@dataclass(frozen=True, kw_only=True)
class AccuracyRow:
    """One line of the table; figures as they are shown, with their intervals."""

    model: str
    tested: str
    leak: str
    images: str
    accuracy: str
    f1: str
    ece: str

    def line(self) -> str:
        """As Markdown."""
        cells = (self.model, self.tested, self.leak, self.images, self.accuracy, self.f1, self.ece)
        return f"| {' | '.join(cells)} |"


def _tradeoff(results: Path) -> dict[Path, str]:
    """The plot of accuracy against speed, where the newest race says which bundles it ran."""
    race = newest_race(results)
    if race is None:
        return {}
    content = json.loads(race.read_text())
    points = read_points(content, results)
    return {TRADEOFF: plot_tradeoff(points, describe_tradeoff(content))} if points else {}


def _accuracy(results: Path) -> str:
    names = sorted(shipped_models(), key=lambda name: (name != DEFAULT_MODEL, name))
    head = (
        "model",
        "how it was tested",
        "test images with a near-duplicate in training",
        "test images",
        "accuracy",
        "macro F1",
        "calibration error",
    )
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [row.line() for name in names for row in _rows(name)]
    lines += ["", *[text for name in names for text in _warning(name)], _sizes(names)]
    if _tradeoff(results):
        picture = TRADEOFF.relative_to(ROOT)
        lines += ["", f"![Accuracy on grouped images against images per second, of every bundle]({picture})"]
    return "\n".join(lines)


def _rows(name: str) -> Iterator[AccuracyRow]:
    """The bundle's own figures, then those of the other runs that its card names."""
    bundle = load_bundle(name)
    figures = {(figure["metric"], figure["class"]): figure for figure in bundle.spec.metrics}
    own = figures["accuracy", None]
    yield AccuracyRow(
        model=f"[`{name}`](models/{name}/{CARD_FILE}){_roles(name)}",
        tested=own["protocol"].split(" (")[0],
        leak=f"{own['leak_rate']:.1%}",
        images=f"{own['n']:,}",
        accuracy=_interval(own),
        f1=_interval(figures["f1", "macro"]),
        ece=_interval(figures["ece", None]),
    )
    for run in _other_runs(name):
        yield AccuracyRow(
            model="",
            tested=_OTHER_RUNS.get(run["run"], run["run"]),
            leak=run["leak rate"].split(" (")[0] or ("0.0%" if "clean" in run["run"] else "100.0%"),
            images=f"{int(run['images']):,}",
            accuracy=_shorten(run["accuracy"]),
            f1=_shorten(run["macro F1"]),
            ece=_shorten(run["expected calibration error, 15 bins"]),
        )


def _roles(name: str) -> str:
    """What else the bundle is called, in brackets."""
    return "".join(f" ({role})" for role, model in ROLES.items() if model == name)


def _other_runs(name: str) -> list[Mapping[str, str]]:
    """The table of other runs in a card, by its headings."""
    card = (shipped_models()[name] / CARD_FILE).read_text(encoding="utf-8")
    lines = re.search(r"^\| run \|.*\n(?:\|.*\n)+", card, re.M)
    if lines is None:
        return []
    head, _, *rows = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in lines[0].splitlines()]
    return [dict(zip(head, row, strict=True)) for row in rows if len(row) == len(head)]


def _warning(name: str) -> list[str]:
    """What to expect elsewhere, from the run that comes nearest to it."""
    clean = [run["accuracy"] for run in _other_runs(name) if run["run"] == "official split, clean images"]
    if not clean:
        return []
    own = next(figure["value"] for figure in load_bundle(name).spec.metrics if figure["metric"] == "accuracy")
    return [
        f"**On slices from other sources expect `{name}` to be right in about {float(clean[0].split()[0]):.0%} of the "
        f"cases, not in {own:.0%}.**",
        "",
    ]


def _sizes(names: Sequence[str]) -> str:
    def describe(name: str) -> str:
        spec: ModelSpec = load_bundle(name).spec
        megabytes = (shipped_models()[name] / MODEL_FILE).stat().st_size / 1e6
        return f"`{name}` {megabytes:.1f} MB at {spec.width} × {spec.height} pixels"

    return f"Size of the graphs: {', '.join(map(describe, names))}."


def _interval(figure: Mapping[str, Any]) -> str:
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    return f"{value:.3f}" if low is None else f"{value:.3f} ({low:.3f} to {high:.3f})"


def _shorten(cell: str) -> str:
    """A cell of a card with three digits instead of four, halves rounded up."""
    three = Decimal("0.001")
    return re.sub(r"\d\.\d{4}", lambda found: str(Decimal(found[0]).quantize(three, ROUND_HALF_UP)), cell)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where something is stale")
    check = parser.parse_args().check
    made = files()
    stale = [path for path, text in made.items() if not path.exists() or not _alike(path.read_text("utf-8"), text)]
    if check:
        print("\n".join(f"stale: {path}" for path in stale) or "README.md is up to date")
        return int(bool(stale))
    for path, content in made.items():
        path.write_text(content, encoding="utf-8")
        print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
