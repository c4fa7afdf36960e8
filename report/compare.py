"""Two runs over the same images: what changed. For two models, two engines, before and after an update.

Images are matched by the SHA-256 of their file and, where a file holds several, their slice; copies of one file are
matched in the order of the listing. Names and folders do not count, so that a copied folder compares with its original.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import float64, int64
from numpy.typing import NDArray

from mribatch.core.about import JSON_SCHEMA_VERSION
from mribatch.core.errors import MribatchError
from mribatch.core.files import publishing
from mribatch.core.local_paths import arrow_path
from mribatch.pipeline.output.parts import read_table
from mribatch.pipeline.records import Status
from mribatch.report.run_facts import RunFacts, read_facts

if TYPE_CHECKING:
    import pyarrow as pa

Key = tuple[str, int | None, int]  # sha256, slice, the how manieth of these in its run


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """McNemar's test of two paired shares (McNemar 1947), exact: binomial with p = 1/2."""

    only_a_right: int
    only_b_right: int
    p_value: float  # two-sided; 1 where no image tells the runs apart


@dataclass(frozen=True, kw_only=True)
class ClassChange:
    """How often a class was predicted, and how often it was lost or gained."""

    name: str
    in_a: int
    in_b: int
    lost: int  # predicted by A alone
    gained: int  # predicted by B alone
    only_a_right: int | None  # images of this label that A alone gets right; None where no image has a label
    only_b_right: int | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Figures of two runs over the images that both have."""

    schema_version: int
    run_a: str
    run_b: str
    model_a: str | None
    model_b: str | None
    matched: int  # images in both runs
    only_a: int
    only_b: int
    compared: int  # of the matched ones, those that are ok in both
    ok_in_one: int
    flips: int  # compared images with another class
    max_difference: float | None  # |Δp| of any class; None where nothing was compared
    mean_difference: float | None  # mean over images of the largest |Δp| of each
    kappa: float | None  # Cohen's kappa (Cohen 1960) of the predicted classes; None where both have one class only
    mcnemar: McNemar | None  # None where no compared image has a label
    classes: tuple[ClassChange, ...]


@dataclass(frozen=True)
class ComparedRuns:
    """The figures, and the compared images: rows, paths, label, both classes, both confidences, largest |Δp|."""

    figures: Comparison
    images: "pa.Table"


def compare_runs(run_a: Path, run_b: Path) -> ComparedRuns:
    """Compare two complete runs.

    Raises:
        MribatchError: A folder is no complete run, the classes differ, or the runs have no image in common.
    """
    facts_a, facts_b = read_facts(run_a), read_facts(run_b)
    classes = _common_classes(facts_a, facts_b)
    table_a, table_b = read_table(run_a), read_table(run_b)
    rows_a, rows_b = _match(table_a, table_b)
    if not len(rows_a):
        raise MribatchError(
            f"{run_a} and {run_b} have no image in common", "compare runs over the same files, or copies of them"
        )
    matched_a, matched_b = table_a.take(rows_a), table_b.take(rows_b)
    ok_a, ok_b = _is_ok(matched_a), _is_ok(matched_b)
    both = ok_a & ok_b
    left, right = matched_a.filter(both), matched_b.filter(both)
    scores_a, scores_b = _scores(left, classes), _scores(right, classes)
    differences = np.abs(scores_a - scores_b).max(axis=1, initial=0.0)
    predicted_a, predicted_b = scores_a.argmax(axis=1), scores_b.argmax(axis=1)
    figures = Comparison(
        schema_version=JSON_SCHEMA_VERSION,
        run_a=str(run_a),
        run_b=str(run_b),
        model_a=facts_a.model,
        model_b=facts_b.model,
        matched=len(rows_a),
        only_a=table_a.num_rows - len(rows_a),
        only_b=table_b.num_rows - len(rows_b),
        compared=int(both.sum()),
        ok_in_one=int((ok_a ^ ok_b).sum()),
        flips=int((predicted_a != predicted_b).sum()),
        max_difference=float(differences.max()) if len(differences) else None,
        mean_difference=float(differences.mean()) if len(differences) else None,
        kappa=_measure_kappa(predicted_a, predicted_b),
        mcnemar=_test_mcnemar(_positions(left, classes), predicted_a, predicted_b),
        classes=tuple(_list_changes(classes, _positions(left, classes), predicted_a, predicted_b)),
    )
    return ComparedRuns(figures, _to_table(left, right, differences))


def write_images(runs: ComparedRuns, path: Path) -> None:
    """Write the compared images as a Parquet file.

    Raises:
        WriteError: The file system refused.
    """
    import pyarrow.parquet as pq

    with publishing(path) as temporary:
        pq.write_table(runs.images, arrow_path(temporary))


def _common_classes(a: RunFacts, b: RunFacts) -> tuple[str, ...]:
    if set(a.classes) != set(b.classes):
        raise MribatchError(
            f"the runs have different classes: {', '.join(a.classes)}, and {', '.join(b.classes)}",
            "compare runs of models with the same classes",
        )
    return a.classes


def _match(a: "pa.Table", b: "pa.Table") -> tuple[NDArray[int64], NDArray[int64]]:
    """Row numbers of the images that both have, in the order of A."""
    places = {key: row for row, key in enumerate(_keys(b)) if key is not None}
    pairs = [(row, places[key]) for row, key in enumerate(_keys(a)) if key is not None and key in places]
    found = np.array(pairs, int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _keys(table: "pa.Table") -> Iterator[Key | None]:
    """A key for each row; None for a file that could not be read."""
    slices = table["slice"].to_pylist() if "slice" in table.column_names else [None] * table.num_rows
    seen: Counter[tuple[str, int | None]] = Counter()
    for digest, position in zip(table["sha256"].to_pylist(), slices, strict=True):
        if digest is None:
            yield None
            continue
        yield (digest, position, seen[digest, position])
        seen[digest, position] += 1


def _is_ok(table: "pa.Table") -> NDArray[np.bool_]:
    return np.array([status == Status.OK for status in table["status"].to_pylist()], np.bool_)


def _scores(table: "pa.Table", classes: Sequence[str]) -> NDArray[float64]:
    columns = [table[f"p_{name}"].to_numpy().astype(float64) for name in classes]
    return np.stack(columns, axis=1) if columns else np.zeros((0, 0))


def _positions(table: "pa.Table", classes: Sequence[str]) -> NDArray[int64]:
    """Positions of the labels in the classes, -1 where there is none."""
    places = {name: position for position, name in enumerate(classes)}
    return np.array([places.get(label, -1) for label in table["label"].to_pylist()], int64)


def _measure_kappa(a: NDArray[int64], b: NDArray[int64]) -> float | None:
    from sklearn.metrics import cohen_kappa_score

    if len(np.union1d(a, b)) < 2:
        return None
    return float(cohen_kappa_score(a, b))


def _test_mcnemar(labels: NDArray[int64], a: NDArray[int64], b: NDArray[int64]) -> McNemar | None:
    from scipy.stats import binomtest

    known = labels >= 0
    if not known.any():
        return None
    right_a, right_b = (a == labels)[known], (b == labels)[known]
    only_a, only_b = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    p_value = float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a_right=only_a, only_b_right=only_b, p_value=p_value)


def _list_changes(
    classes: Sequence[str], labels: NDArray[int64], a: NDArray[int64], b: NDArray[int64]
) -> Iterator[ClassChange]:
    known = bool((labels >= 0).any())
    for position, name in enumerate(classes):
        in_a, in_b, labelled = a == position, b == position, labels == position
        yield ClassChange(
            name=name,
            in_a=int(in_a.sum()),
            in_b=int(in_b.sum()),
            lost=int((in_a & ~in_b).sum()),
            gained=int((~in_a & in_b).sum()),
            only_a_right=int((labelled & in_a & ~in_b).sum()) if known else None,
            only_b_right=int((labelled & in_b & ~in_a).sum()) if known else None,
        )


def _to_table(a: "pa.Table", b: "pa.Table", differences: NDArray[float64]) -> "pa.Table":
    import pyarrow as pa

    columns: Mapping[str, Any] = {
        "index_a": a["index"],
        "index_b": b["index"],
        "path_a": a["path"],
        "path_b": b["path"],
        "sha256": a["sha256"],
        "label": a["label"],
        "predicted_a": a["predicted"],
        "predicted_b": b["predicted"],
        "confidence_a": a["confidence"],
        "confidence_b": b["confidence"],
        "max_difference": pa.array(differences.astype(np.float32)),
    }
    return pa.table(dict(columns))
