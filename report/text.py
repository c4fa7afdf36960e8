"""The content of metrics.json as a Markdown page and as a table for the console. Text only; computes nothing."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mribatch.report.rows import counted

NAMED = 20  # files and notes that are named one by one; the rest is counted
PATIENT_DEFINITION = (
    "Mean probability: the mean over a patient's slices. Worst slice: of every class the highest probability in any "
    "slice, divided by their sum."
)
FEW_UNITS = 30  # below, percentile intervals are known to be too narrow (Cameron, Gelbach and Miller 2008)

HEADLINE: tuple[tuple[str, str | None, str], ...] = (
    ("accuracy", None, "accuracy"),
    ("balanced_accuracy", None, "balanced accuracy"),
    ("f1", "macro", "F1, macro"),
    ("sensitivity", "macro", "sensitivity, macro"),
    ("auroc", "macro", "AUROC, macro"),
    ("log_loss", None, "log loss"),
    ("brier", None, "Brier score"),
    ("ece", None, "ECE"),
)
_BY_CLASS = ("support", "precision", "sensitivity", "specificity", "f1", "auroc", "auprc")
_WITH_INTERVAL = frozenset({"sensitivity", "specificity"})
_HEADS = {"support": "n", "f1": "F1", "auroc": "AUROC", "auprc": "AUPRC"}
_WIDEST_MATRIX = {"page": 30, "console": 12}  # classes
_UNDEFINED = "undefined"


def number(value: float | None) -> str:
    """Four digits after the point; "undefined" for None."""
    return _UNDEFINED if value is None else f"{value:.4f}"


def page(content: Mapping[str, Any]) -> str:
    """report.md: notices first, then the files that could not be read, then the figures and what they are worth."""
    run = content["run"]
    lines = [f"# Classification report: {_escaped(run['name'])}", ""]
    lines += [f"> **Notice: {_escaped(notice)}.**\n>" for notice in content["notices"]]
    lines += [f"> {content['research_notice']}", ""]
    how = f"{run['backend']} ({run['precision']}), decoder {run['decoder']}, mribatch {run['tool_version']}"
    lines += [f"Model {_code(run['model'])}, {how}. Input: {', '.join(_code(item) for item in run['inputs'])}.", ""]
    lines += _files_section(content)
    if content["no_metrics"]:
        lines += ["## No accuracy", "", f"There is no accuracy here: {_escaped(content['no_metrics'])}.", ""]
    for level in content["levels"]:
        lines += _level_section(content, level)
    lines += _predicted_section(content["predicted"])
    lines += _requirements_section(content["requirements"])
    lines += ["## What the numbers are worth", "", *(f"- {line}" for line in _worth(content)), ""]
    return "\n".join(lines)


def console_table(content: Mapping[str, Any]) -> str:
    """The same for a terminal: files, headline figures, classes, confusion matrix, what the intervals rest on."""
    files = content["files"]
    lines = [f"NOTE: {notice}." for notice in content["notices"]]
    if files["readable"] < files["total"]:
        lines += [_unreadable_sentence(files)]
        lines += [f"  {_printable(item['path'])}: {_reason(item)}" for item in files["not_readable"][:5]]
        lines += _more(files["total"] - files["readable"], min(5, len(files["not_readable"])))
    lines += [_scored_sentence(files), ""]
    if content["no_metrics"]:
        lines += [f"No accuracy: {content['no_metrics']}.", "", *_predicted_lines(content["predicted"]), ""]
    for level in content["levels"]:
        lines += [*_level_lines(content["run"]["classes"], level), ""]
    if content["patients"]:
        lines += [*_patients_lines(content["patients"]), ""]
    for verdict in content["requirements"]:
        lines.append(f"Requirement {verdict['required']}: {'met' if verdict['met'] else 'NOT MET'}, {verdict['found']}")
    lines += [_protocol_sentence(content), content["research_notice"]]
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------- sections of the page


def _files_section(content: Mapping[str, Any]) -> list[str]:
    files = content["files"]
    lines = ["## Files", ""]
    if files["readable"] < files["total"]:
        lines += [_unreadable_sentence(files), ""]
        lines += [f"- {_code(item['path'])}: {_escaped(_reason(item))}" for item in files["not_readable"]]
        lines += [*_more(files["total"] - files["readable"], len(files["not_readable"])), ""]
    lines += [_scored_sentence(files), "", "| status | files |", "| --- | ---: |"]
    lines += [f"| {status} | {count:,} |" for status, count in files["by_status"].items()]
    return [*lines, ""]


def _level_section(content: Mapping[str, Any], level: Mapping[str, Any]) -> list[str]:
    classes = content["run"]["classes"]
    lines = [f"## Figures {level['title']}", ""]
    if level["level"] == "patient_mean" and content["patients"]:
        lines += [*(f"- {_escaped(line)}" for line in _patients_lines(content["patients"])), ""]
    lines += [
        _escaped(_interval_sentence(level)),
        "",
        "| metric | value | 95 % interval | n |",
        "| --- | ---: | :---: | ---: |",
    ]
    for title, row in _headline_rows(level):
        lines.append(f"| {title} | {number(row['value'])} | {_interval(row)} | {row['n']:,} |")
    heads = [_HEADS.get(metric, metric) for metric in _BY_CLASS]
    lines += ["", f"| class | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(heads)}"]
    lines += [f"| {' | '.join(cells)} |" for cells in _class_cells(classes, level)]
    lines += ["", *_matrix_section(classes, level), _calibration_sentence(level), ""]
    notes = _notes(level)
    lines += [f"- {_escaped(note)}" for note in notes[:NAMED]] + _more(len(notes), min(NAMED, len(notes)))
    return [*lines, ""] if notes else lines


def _matrix_section(classes: Sequence[str], level: Mapping[str, Any]) -> list[str]:
    if len(classes) > _WIDEST_MATRIX["page"]:
        return [f"The confusion matrix of {len(classes)} classes stands in metrics.json.", ""]
    lines = ["Confusion matrix: rows are labels, columns are predictions.", ""]
    lines += [f"| label | {' | '.join(classes)} |", f"| --- |{' ---: |' * len(classes)}"]
    for name, counts in zip(classes, level["confusion"], strict=True):
        lines.append(f"| {name} | {' | '.join(f'{count:,}' for count in counts)} |")
    return [*lines, ""]


def _predicted_section(predicted: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Predictions",
        "",
        "Over every readable file, with or without a label.",
        "",
        "| class | predicted |",
        "| --- | ---: |",
    ]
    lines += [f"| {name} | {count:,} |" for name, count in predicted["counts"].items()]
    return [*lines, "", _confidence_sentence(predicted), ""]


def _requirements_section(requirements: Sequence[Mapping[str, Any]]) -> list[str]:
    if not requirements:
        return []
    lines = ["## Requirements", "", "| required | found | |", "| --- | --- | --- |"]
    for verdict in requirements:
        shown = "met" if verdict["met"] else "**not met**"
        lines.append(f"| {_code(verdict['required'])} | {_escaped(verdict['found'])} | {shown} |")
    return [*lines, ""]


def _worth(content: Mapping[str, Any]) -> Iterator[str]:
    yield _escaped(_protocol_sentence(content))
    image = next((level for level in content["levels"] if level["level"] == "image"), None)
    if image is not None:
        intervals = image["intervals"]
        if intervals["unit"] == "image":
            yield (
                "The intervals take every image for independent. Slices of one patient are not; where there are "
                "several, the intervals are too narrow: give --groups or --group-by."
            )
        if intervals["units"] < FEW_UNITS:
            yield (
                f"With {intervals['units']} {intervals['unit']}s the intervals are rough, and rather too narrow "
                f"than too wide; below {FEW_UNITS} they are known to be."
            )
        yield (
            "Sensitivity and specificity hold for images like these. Where the classes come from different sources, "
            "a model can tell them apart by size or borders instead of by what they show."
        )
    if not content["run"]["trained"]:
        yield "The model was never trained: the figures test the tool, not a model."
    yield content["research_notice"]


# ---------------------------------------------------------------------------------------------- lines of the console


def _level_lines(classes: Sequence[str], level: Mapping[str, Any]) -> list[str]:
    lines = [f"Figures {level['title']}, n = {level['n']:,}"]
    headline = [(title, number(row["value"]), _interval(row)) for title, row in _headline_rows(level)]
    lines += _aligned([("", "value", "95 % interval"), *headline])
    lines += ["", *_aligned([("class", *(_HEADS.get(m, m) for m in _BY_CLASS)), *_class_cells(classes, level)])]
    if len(classes) <= _WIDEST_MATRIX["console"]:
        cells = [
            (name, *(f"{count:,}" for count in counts))
            for name, counts in zip(classes, level["confusion"], strict=True)
        ]
        lines += ["", "Confusion matrix (rows: label, columns: predicted)", *_aligned([("", *classes), *cells])]
    notes = _notes(level)
    lines += [f"  {note}" for note in notes[:5]] + _more(len(notes), min(5, len(notes)))
    return [*lines, _calibration_sentence(level), _interval_sentence(level)]


def _predicted_lines(predicted: Mapping[str, Any]) -> list[str]:
    cells = [(name, f"{count:,}") for name, count in predicted["counts"].items()]
    return [*_aligned([("class", "predicted"), *cells]), _confidence_sentence(predicted)]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


# ---------------------------------------------------------------------------------------------- sentences and cells


def _unreadable_sentence(files: Mapping[str, Any]) -> str:
    missing = {status: count for status, count in files["by_status"].items() if status != "ok"}
    total = files["total"] - files["readable"]
    labelled = files["unreadable_with_label"]
    return (
        f"{total:,} of {files['total']:,} files could not be classified and count in no metric: "
        f"{counted(missing)}. Labelled among them: {labelled:,}."
    )


def _scored_sentence(files: Mapping[str, Any]) -> str:
    text = f"{files['readable']:,} of {files['total']:,} files are readable, {files['scored']:,} of these have a label"
    if files["readable_without_label"] and files["scored"]:
        return f"{text}; metrics are over these. Left out without a label: {files['readable_without_label']:,}."
    return f"{text}."


def _interval_sentence(level: Mapping[str, Any]) -> str:
    facts = level["intervals"]
    over = f"{facts['units']:,} {facts['unit']}s"
    if facts["unit"] == "group":
        over += f" ({facts['source']}; the largest has {facts['largest']:,} images)"
    text = f"Intervals: 95 %, {facts['method']}, {facts['resamples']:,} resamples of {over}, seed {facts['seed']}."
    if facts["without_group"]:
        text += f" Images without a group there, each a group of its own: {facts['without_group']:,}."
    return text


def _calibration_sentence(level: Mapping[str, Any]) -> str:
    facts = level["calibration"]
    gap = facts["mean_confidence"] - facts["accuracy"]
    verdict = "over-confident" if gap > 0 else "under-confident"
    ece = next(row for row in level["metrics"] if row["metric"] == "ece")
    return (
        f"Calibration: mean confidence {number(facts['mean_confidence'])}, accuracy {number(facts['accuracy'])} "
        f"({verdict} by {number(abs(gap))}); ECE {number(ece['value'])} over 15 bins."
    )


def _confidence_sentence(predicted: Mapping[str, Any]) -> str:
    spread = predicted["confidence"]
    if spread is None:
        return "Confidence: no file was classified."
    return "Confidence: " + ", ".join(f"{name} {value:.4f}" for name, value in spread.items()) + "."


def _protocol_sentence(content: Mapping[str, Any]) -> str:
    if content["protocol"]:
        return f"Protocol, as given and not checked here: {_printable(content['protocol'])}."
    return (
        "Protocol: not given. Whether these images, copies or neighbouring slices of them were in the training "
        "data is not known; if they were, the figures are too good. State it with --protocol."
    )


def _patients_lines(facts: Mapping[str, Any]) -> list[str]:
    several = facts["several_labels"]
    lines = [
        f"{facts['scored']:,} of {facts['patients']:,} patients ({facts['source']}) have figures.",
        PATIENT_DEFINITION,
    ]
    if several["count"]:
        named = ", ".join(f"{_printable(item['patient'])} ({', '.join(item['labels'])})" for item in several["named"])
        more = (
            f" and {several['count'] - len(several['named']):,} more"
            if several["count"] > len(several["named"])
            else ""
        )
        lines.append(f"Left out, since their slices carry several labels: {named}{more}.")
    for key, text in (
        ("nothing_to_score", "Patients left out, without a readable slice that has a label"),
        ("with_unreadable_slices", "Patients with slices that could not be read, whose other slices count"),
        ("slices_without_patient", "Slices without a patient, left out here"),
    ):
        if facts[key]:
            lines.append(f"{text}: {facts[key]:,}.")
    return lines


def _headline_rows(level: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    rows = {(row["metric"], row["class"]): row for row in level["metrics"]}
    for metric, class_, title in HEADLINE:
        yield title, rows[(metric, class_)]


def _class_cells(classes: Sequence[str], level: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    rows = {(row["metric"], row["class"]): row for row in level["metrics"]}
    for name in (*classes, "macro", "weighted"):
        cells = [name]
        for metric in _BY_CLASS:
            row = rows.get((metric, name))
            if row is None:
                cells.append(f"{level['n']:,}")
            elif metric == "support":
                cells.append(f"{row['value']:,.0f}")
            else:
                bounded = metric in _WITH_INTERVAL and row["low"] is not None
                cells.append(f"{number(row['value'])} ({_interval(row)})" if bounded else number(row["value"]))
        yield tuple(cells)


def _interval(row: Mapping[str, Any]) -> str:
    return "none" if row["low"] is None else f"{number(row['low'])} to {number(row['high'])}"


def _notes(level: Mapping[str, Any]) -> list[str]:
    """Why values or intervals are missing; rows with the same reason share a line."""
    by_reason: dict[str, list[str]] = {}
    for row in level["metrics"]:
        if row["note"]:
            name = row["metric"] if row["class"] is None else f"{row['metric']}[{row['class']}]"
            by_reason.setdefault(row["note"], []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]


def _reason(item: Mapping[str, Any]) -> str:
    return f"{item['status']}, {_printable(item['error'])}" if item["error"] else str(item["status"])


def _more(total: int, shown: int) -> list[str]:
    return [f"- and {total - shown:,} more"] if total > shown else []


def _printable(text: object) -> str:
    """One line, whatever a stranger's file name holds."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def _escaped(text: object) -> str:
    """Text that Markdown shows as it is, in a paragraph or a table cell."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in _printable(text))


def _code(text: object) -> str:
    """A code span; a path with a backtick gets a longer fence, as CommonMark asks (section 6.1)."""
    shown = _printable(text).replace("|", "\\|")
    fence = "``" if "`" in shown else "`"
    return f"{fence} {shown} {fence}" if "`" in shown else f"{fence}{shown}{fence}"
