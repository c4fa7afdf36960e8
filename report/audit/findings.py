"""What an audit found, in sentences for people, the most serious first."""

from mribatch.core.tables import count
from mribatch.report.audit.audit_file import AuditFile
from mribatch.report.audit.leaks import PartLeak
from mribatch.report.audit.shortcuts import ShortcutFigures

SHORTCUT_TITLES = {"size": "size of the image", "header": "header of the file", "border": "border of the image"}
TARGET_TITLES = {"class": "the class", "tumor": "tumor or none"}
_NOTABLE_RANDOM_LEAK = 0.01
_UNEVEN = 3  # times as many images in the largest class as in the smallest


def list_findings(file: AuditFile) -> tuple[str, ...]:
    """The sentences; none where nothing was found."""
    files, duplicates, contradictions = file.files, file.duplicates, file.contradictions
    found = [describe_leak(leak) for leak in file.leaks if leak.duplicates or leak.patients]
    if contradictions.groups:
        groups = count(contradictions.groups, "picture")
        verb = "carries" if contradictions.groups == 1 else "carry"
        found.append(f"{groups} {verb} several labels ({count(contradictions.images, 'image')}).")
    found += [describe_shortcut(each) for each in file.shortcuts if each.tells]
    if duplicates.in_groups:
        shown = count(duplicates.in_groups, "image shows", "images show")
        found.append(f"{shown} a picture that is there more than once ({duplicates.same_pixels:,} exact copies).")
    leak = file.random_split.duplicates
    if leak is not None and leak >= _NOTABLE_RANDOM_LEAK:
        found.append(f"A random split would leak {leak:.1%} of its test images: split by groups.csv.")
    if files.failed:
        found.append(f"{count(files.failed, 'image')} of {files.images:,} cannot be read.")
    counts = [each.images for each in file.classes]
    if counts and sum(counts) and max(counts) > _UNEVEN * min(counts):
        found.append(f"The classes are uneven: {min(counts):,} to {max(counts):,} images.")
    return tuple(found)


def describe_leak(leak: PartLeak) -> str:
    """One sentence."""
    known = " and ".join(leak.known_from)
    share = f"{leak.duplicates:,} of {leak.images:,} {leak.part} images ({leak.duplicates / leak.images:.1%})"
    text = f"{share} have a duplicate in {known}, {leak.same_pixels:,} of them with the same pixels"
    return f"{text}; {leak.patients:,} are of a patient in {known}." if leak.patients else f"{text}."


def describe_shortcut(each: ShortcutFigures) -> str:
    """One sentence about a shortcut that was measured."""
    title = SHORTCUT_TITLES[each.check]
    return (
        f"The {title} alone tells {TARGET_TITLES[each.target]} in {each.accuracy:.1%} of the images "
        f"({each.low:.1%} to {each.high:.1%}; guessing {each.majority:.1%})."
    )
