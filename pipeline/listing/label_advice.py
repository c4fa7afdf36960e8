"""What to say where folders or labels look like classes and are none of the model's."""

import difflib
from collections.abc import Mapping, Sequence

from mribatch.core.errors import MribatchError
from mribatch.core.model_spec import known_spellings, normalise_label
from mribatch.pipeline.listing.table import ListingFacts

_MAX_FOLDERS = 20  # more different names are patients or studies, not classes
_NAMES_SHOWN = 8
_SIMILARITY = 0.6  # of difflib, 0 to 1


def warn_of_unknown_labels(unknown: Mapping[str, int], labelled: int, classes: Sequence[str]) -> str | None:
    """A warning of several lines, or None where most labels are known or nothing looks like a label.

    A name with a digit in it is taken for a patient or a series. Where no file has a label, names count only if one is
    close to a class, or if there are a few of them side by side.

    Args:
        unknown: Folder or label that is not a class of the model -> files.
        labelled: Files with a label.
        classes: Of the model.
    """
    names = {name: files for name, files in unknown.items() if not any(letter.isdigit() for letter in name)}
    closest = {name: find_closest_class(name, classes) for name in names}
    files = sum(names.values())
    if files <= labelled:
        return None
    if not labelled and not any(closest.values()) and not 2 <= len(names) <= _MAX_FOLDERS:
        return None
    total = labelled + sum(unknown.values())
    lines = [f"WARNING: {files:,} of {total:,} files have no label, since no class of the model is named like these:"]
    for name, count in sorted(names.items(), key=lambda item: (-item[1], item[0]))[:_NAMES_SHOWN]:
        near = closest[name]
        lines.append(f"  {name} ({count:,})" + (f": did you mean {near}? --alias '{name}={near}'" if near else ""))
    lines += [f"  and {len(names) - _NAMES_SHOWN:,} more"] if len(names) > _NAMES_SHOWN else []
    lines.append(f"  Classes of the model: {', '.join(classes)}. Give other names with --alias FOLDER=CLASS.")
    return "\n".join(lines)


def no_label_error(table: str, facts: ListingFacts, classes: Sequence[str]) -> MribatchError:
    """Return the error for a labels table that gives no listed file a class; says which lines are at fault."""
    reasons = []
    if facts.unmatched_lines:
        first = f", such as '{facts.unmatched_first[0]}'" if facts.unmatched_first else ""
        reasons.append(f"{facts.unmatched_lines:,} paths are not in the listing{first}")
    if facts.unknown_labels:
        named = [f"'{name}'" for name in list(facts.unknown_labels)[:_NAMES_SHOWN]]
        reasons.append(f"the labels {', '.join(named)} are not classes of the model ({', '.join(classes)})")
    return MribatchError(
        f"no line of {table} gives one of the {facts.files:,} files a class"
        + (f": {'; '.join(reasons)}" if reasons else ""),
        "write paths as in listing.parquet, relative to the input, and classes as the model names them",
    )


def find_closest_class(name: str, classes: Sequence[str]) -> str | None:
    """The class whose name, or a usual spelling of it, is most like `name`; None where none is close."""
    spellings = known_spellings(classes) | {normalise_label(one).replace("_", ""): one for one in classes}
    found = difflib.get_close_matches(normalise_label(name).replace("_", ""), spellings, n=1, cutoff=_SIMILARITY)
    return spellings[found[0]] if found else None
