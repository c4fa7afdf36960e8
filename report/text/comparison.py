"""Two runs compared, as text for a terminal."""

from typing import TYPE_CHECKING

from mribatch.core.about import RESEARCH_NOTICE
from mribatch.core.tables import PLAIN, Cell, Column, Screen, count, format_table
from mribatch.core.text import one_line
from mribatch.report.compare import ComparedRuns, Comparison

if TYPE_CHECKING:
    import pyarrow as pa


def format_comparison(runs: ComparedRuns, screen: Screen = PLAIN, top: int = 10) -> str:
    """The figures, the classes that changed, and the images that changed most.

    Args:
        runs: From `compare_runs`.
        screen: Where it will be shown.
        top: Maximum number of images.
    """
    figures = runs.figures
    lines = [one_line(f"A: {figures.run_a} ({figures.model_a})"), one_line(f"B: {figures.run_b} ({figures.model_b})")]
    lines.append(
        f"{count(figures.matched, 'image')} in both (only in A {figures.only_a:,}, only in B {figures.only_b:,}); "
        f"{figures.compared:,} are ok in both, {figures.ok_in_one:,} in one of them."
    )
    if figures.max_difference is not None and figures.mean_difference is not None:
        lines += describe_figures(figures)
        lines.append(_format_classes(figures, screen))
    changed = _list_changed(runs.images, top)
    if changed:
        lines += ["Images that changed most:", _format_images(changed, screen)]
    return "\n".join([*lines, RESEARCH_NOTICE])


def describe_figures(figures: Comparison) -> list[str]:
    """What changed, in sentences; images were compared."""
    kappa = "undefined" if figures.kappa is None else f"{figures.kappa:.4f}"
    lines = [
        f"{count(figures.flips, 'image')} changed class ({figures.flips / figures.compared:.2%}). Largest difference "
        f"of a probability {figures.max_difference:.2g}, mean {figures.mean_difference:.2g}. Cohen's kappa {kappa}."
    ]
    if figures.mcnemar is not None:
        test = figures.mcnemar
        lines.append(
            f"Of the labelled images A alone is right on {test.only_a_right:,}, B alone on {test.only_b_right:,} "
            f"(McNemar's exact test: p = {test.p_value:.2g})."
        )
    return lines


def _format_classes(figures: Comparison, screen: Screen) -> str:
    columns = [Column("class"), *(Column(title, "right") for title in ("A", "B", "A alone", "B alone"))]
    rows = [
        (each.name, f"{each.in_a:,}", f"{each.in_b:,}", f"{each.lost:,}", f"{each.gained:,}")
        for each in figures.classes
    ]
    return format_table(columns, rows, screen, indent=2)


def _list_changed(images: "pa.Table", top: int) -> list[dict[str, object]]:
    changed = [row for row in images.to_pylist() if row["predicted_a"] != row["predicted_b"]]
    return sorted(changed, key=lambda row: -row["max_difference"])[:top]


def _format_images(rows: list[dict[str, object]], screen: Screen) -> str:
    columns = [Column("file", wraps=True), Column("label"), Column("A"), Column("B"), Column("difference", "right")]
    cells = [
        (
            str(row["path_a"]),
            str(row["label"] or "-"),
            Cell(str(row["predicted_a"]), "yellow"),
            Cell(str(row["predicted_b"]), "yellow"),
            f"{row['max_difference']:.3f}",
        )
        for row in rows
    ]
    return format_table(columns, cells, screen, indent=2)
