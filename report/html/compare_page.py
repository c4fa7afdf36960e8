"""The page of two runs compared: what changed, in figures, in one matrix and in pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32, int64
from numpy.typing import NDArray

from mribatch.core.files import publishing
from mribatch.pipeline.output.run_file import RunFile, read_finished_run
from mribatch.report.compare import ComparedRuns, Comparison
from mribatch.report.html.cards import LookEntry, LookTable
from mribatch.report.html.charts import Chart, draw_differences
from mribatch.report.html.pictures import Picture, PictureMaker
from mribatch.report.html.render import fill_template
from mribatch.report.run_images import RunImages
from mribatch.report.text.comparison import describe_figures

_TEMPLATE = "compare.html.j2"
_MAX_CHANGED = 60
_NO_PICTURE = Picture()


@dataclass(frozen=True, kw_only=True)
class ComparePage:
    """Everything that the template shows."""

    figures: Comparison
    run_a: RunFile
    run_b: RunFile
    sentences: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]  # rows are classes of A, columns classes of B
    chart: Chart | None
    table: LookTable


def write_compare_page(runs: ComparedRuns, path: Path) -> None:
    """Write the page: one file that opens offline, like report.html.

    Args:
        runs: From `compare_runs`; images that are no longer where run A, or else run B, found them have no picture.
        path: The HTML file.

    Raises:
        WriteError: The file system refused.
    """
    folders = Path(runs.figures.run_a), Path(runs.figures.run_b)
    files = tuple(map(read_finished_run, folders))
    chosen = _choose(runs.images.to_pylist())
    pictures = _draw(chosen, folders, files)
    differences = np.asarray(runs.images["max_difference"].to_numpy(), float32)
    page = ComparePage(
        figures=runs.figures,
        run_a=files[0],
        run_b=files[1],
        sentences=tuple(describe_figures(runs.figures)) if len(differences) else (),
        matrix=_count_pairs(runs, files[0].bundle.classes),
        chart=draw_differences(differences) if len(differences) else None,
        table=_tabulate(chosen, pictures),
    )
    text = fill_template(_TEMPLATE, {"page": page, "figures": runs.figures, "classes": files[0].bundle.classes})
    with publishing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _choose(images: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that changed class first, and within these and the others those that changed most."""
    changed = [row for row in images if row["max_difference"] > 0]
    ordered = sorted(changed, key=lambda row: (row["predicted_a"] == row["predicted_b"], -row["max_difference"]))
    return ordered[:_MAX_CHANGED]


def _draw(
    chosen: Sequence[Mapping[str, Any]], folders: tuple[Path, ...], files: tuple[RunFile, ...]
) -> dict[int, Picture]:
    """Row of run A -> its picture, from where run A found the image, or else run B."""
    found: dict[int, Picture] = {}
    for folder, file, column in zip(folders, files, ("index_a", "index_b"), strict=True):
        wanted = {row[column]: row["index_a"] for row in chosen if row["index_a"] not in found}
        with RunImages(folder, file) as images:
            made = PictureMaker(images).make_large(list(wanted), None)
        found |= {wanted[row]: picture for row, picture in made.items() if picture.large is not None}
    return found


def _count_pairs(runs: ComparedRuns, classes: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    places = {name: place for place, name in enumerate(classes)}
    counts: NDArray[int64] = np.zeros((len(classes), len(classes)), int64)
    pairs = zip(runs.images["predicted_a"].to_pylist(), runs.images["predicted_b"].to_pylist(), strict=True)
    for a, b in pairs:
        counts[places[a], places[b]] += 1
    return tuple(tuple(row) for row in counts.tolist())


def _tabulate(chosen: Sequence[Mapping[str, Any]], pictures: Mapping[int, Picture]) -> LookTable:
    return LookTable(
        first="change",
        columns=("label", "A", "B", "confidence A", "confidence B", "difference"),
        numeric=("confidence A", "confidence B", "difference"),
        entries=tuple(_make_entry(row, pictures.get(row["index_a"], _NO_PICTURE)) for row in chosen),
    )


def _make_entry(row: Mapping[str, Any], picture: Picture) -> LookEntry:
    label, a, b = row["label"] or "–", row["predicted_a"], row["predicted_b"]
    numbers = (f"{row[name]:.3f}" for name in ("confidence_a", "confidence_b", "max_difference"))
    return LookEntry(
        path=row["path_a"],
        picture=picture,
        first="class" if a != b else "probability",
        cells=(label, a, b, *numbers),
        wrong=tuple(name for name, said in (("A", a), ("B", b)) if row["label"] not in (None, said)),
        tags=(),
        text=f"A: {a} {row['confidence_a']:.3f}. B: {b} {row['confidence_b']:.3f}. Label: {label}.",
    )
