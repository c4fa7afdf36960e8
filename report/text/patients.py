"""The table of patients for the console."""

import textwrap
from collections.abc import Iterator

from mribatch.core.tables import PLAIN, Cell, Column, Screen, count, format_table
from mribatch.core.text import one_line
from mribatch.report.patient_table import SEVERAL, UNKNOWN, PatientTable

_MOST_SHOWN = 20  # patients; the files have all
_NAME_WIDTH = 12  # characters that a name should have before each class gets a column of its own
_VALUE_WIDTH = len("0.9000 (100 %)")


def format_patients(patients: PatientTable, screen: Screen = PLAIN) -> list[str]:
    """Write the first patients: a table where the screen is wide enough, else a short paragraph for each."""
    if not len(patients):
        return []
    shown = range(min(_MOST_SHOWN, len(patients)))
    lines = [
        f"{count(len(patients), 'patient')}: classified/all images; per class the mean probability and, in "
        "parentheses, the share of images given it"
    ]
    labelled = bool((patients.labels != UNKNOWN).any())
    if _is_wide_enough(patients, labelled, screen):
        columns = [Column("patient", wraps=True), Column("images", "right"), Column("class")]
        columns += [Column("label")] if labelled else []
        columns += [Column(name, "right") for name in patients.classes]
        lines.append(format_table(columns, [[*_list_cells(patients, i, labelled)] for i in shown], screen))
    else:
        lines += [line for i in shown for line in _format_paragraph(patients, i, screen)]
    rest = len(patients) - len(shown)
    lines += [f"... and {rest:,} more"] if rest else []
    return [*lines, "Each patient is a row of patients.csv and patients.parquet."]


def _is_wide_enough(patients: PatientTable, labelled: bool, screen: Screen) -> bool:
    columns = [max(len(name), _VALUE_WIDTH) for name in patients.classes]
    classes = (max(map(len, patients.classes)) + 2) * (1 + labelled)
    return screen.width is None or _NAME_WIDTH + 12 + classes + sum(width + 2 for width in columns) <= screen.width


def _list_cells(patients: PatientTable, i: int, labelled: bool) -> Iterator[str | Cell]:
    yield patients.names[i]
    yield _count_images(patients, i)
    yield Cell(_name_prediction(patients, i), "yellow" if _is_wrong(patients, i) else "bold")
    if labelled:
        yield _name_label(patients, i)
    for k in range(len(patients.classes)):
        yield _format_value(patients, i, k) if patients.readable[i] else "-"


def _format_paragraph(patients: PatientTable, i: int, screen: Screen) -> list[str]:
    """The patient on a line of its own, then the classes by probability, and the label."""
    text = f"{_count_images(patients, i)} images"
    if patients.readable[i]:
        order = (-patients.mean[i]).argsort(kind="stable").tolist()
        text += f": {', '.join(f'{patients.classes[k]} {_format_value(patients, i, k)}' for k in order)}"
    if patients.labels[i] != UNKNOWN:
        wrong = ", wrong" if _is_wrong(patients, i) else ""
        text += f"; label {_name_label(patients, i)}{wrong}"
    lines = textwrap.wrap(text, max(20, (screen.width or 80) - 4))
    return [one_line(patients.names[i]), *(f"    {line}" for line in lines)]


def _count_images(patients: PatientTable, i: int) -> str:
    return f"{patients.readable[i]:,}/{patients.images[i]:,}"


def _name_prediction(patients: PatientTable, i: int) -> str:
    position = int(patients.predicted[i])
    return "-" if position < 0 else patients.classes[position]


def _name_label(patients: PatientTable, i: int) -> str:
    position = int(patients.labels[i])
    return "several" if position == SEVERAL else "-" if position == UNKNOWN else patients.classes[position]


def _is_wrong(patients: PatientTable, i: int) -> bool:
    return bool(patients.judged[i] and patients.predicted[i] != patients.labels[i])


def _format_value(patients: PatientTable, i: int, k: int) -> str:
    return f"{patients.mean[i, k]:.4f} ({patients.shares[i, k]:.0%})".replace("%", " %")
