"""Prints the table of rooms and arrows, a measure of how the code is organised: python docs/rooms.py [ROOT]

A room is what a reader meets on opening a top-level folder: each sub-package is one room, each module beside them is
one room; the folder's own `__init__` is none. An arrow says that one room imports another of the same folder, however
often it does. Imports inside a function and those for type checking only count too; modules named in strings do not.
A circle is a set of rooms (or folders) from each of which arrows lead to every other. An arrow back goes against the
order declared below.
"""

import argparse
import ast
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import resolve_name
from pathlib import Path

PACKAGE = "mribatch"
# From top to bottom; PACKAGE is the public face where it is a folder of its own, and before that core was it.
FOLDERS = (PACKAGE, "cli", "training", "report", "pipeline", "trt", "core", "models")
MAY_IMPORT = {
    PACKAGE: {"cli", "training", "report", "pipeline", "trt", "core", "models"},
    "cli": {"training", "report", "pipeline", "trt", "core"},
    "training": {"report", "pipeline", "core"},
    "report": {"pipeline", "trt", "core"},
    "pipeline": {"trt", "core"},
    "trt": {"core"},
    "core": set[str](),
    "models": set[str](),
}
# A sub-package may import those named before it, and none named after it. Modules beside them are not judged.
ROOM_ORDER = {
    "pipeline": ("storage", "studies", "listing", "decode", "inference", "worker", "output", "executor"),
    "trt": ("graph", "runtime", "engine"),
    "report": ("text", "html", "audit"),
    "training": (
        *("data", "recipes", "networks", "fit", "evaluation", "work_folder"),
        *("export", "figures", "card", "workflow"),
    ),
}


@dataclass(frozen=True)
class Function:
    lines: int
    name: str


@dataclass(frozen=True)
class Module:
    """One file; `room` is empty for a folder's own `__init__`, `imports` are dotted names as written."""

    name: str
    folder: str
    room: str
    is_init: bool
    in_package: bool
    imports: frozenset[str]
    functions: tuple[Function, ...]


@dataclass(frozen=True)
class Import:
    source: Module
    target: Module


@dataclass(frozen=True, order=True)
class Arrow:
    source: str
    target: str

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


@dataclass(frozen=True)
class Room:
    """`modules` does not count `__init__`."""

    name: str
    modules: int
    is_package: bool

    def __str__(self) -> str:
        return f"{self.name}/" if self.is_package else self.name


@dataclass(frozen=True)
class Folder:
    """What the table says about one top-level folder; `back` is None where no two rooms have a declared order."""

    name: str
    rooms: tuple[Room, ...]
    arrows: tuple[Arrow, ...]
    circles: tuple[tuple[str, ...], ...]
    back: tuple[Arrow, ...] | None
    longest: Function

    @property
    def modules(self) -> int:
        return sum(room.modules for room in self.rooms)


def find_folders(root: Path) -> dict[str, tuple[str, Path]]:
    """The top-level folders of a checkout, from top to bottom, each with its package's name and its path.

    With a folder `mribatch/` the packages are what lies or is linked in it; without one, `core` is `mribatch` itself.
    """
    face = root / PACKAGE
    if (face / "__init__.py").exists():
        inside = [path.parent for path in face.glob("*/__init__.py")]
        found = {path.name: (f"{PACKAGE}.{path.name}", path.resolve()) for path in inside} | {PACKAGE: (PACKAGE, face)}
    else:
        beside = [root / name for name in FOLDERS if (root / name / "__init__.py").exists()]
        found = {path.name: (PACKAGE if path.name == "core" else f"{PACKAGE}.{path.name}", path) for path in beside}
    known = [name for name in FOLDERS if name in found]
    return {name: found[name] for name in [*known, *sorted(found.keys() - set(known))]}


def read_modules(root: Path) -> tuple[Module, ...]:
    """Every module of the checkout, read once."""
    modules: list[Module] = []
    for folder, (package, path) in find_folders(root).items():
        files = path.glob("*.py") if folder == PACKAGE else path.rglob("*.py")
        modules += [_read(file, folder, package, file.relative_to(path)) for file in sorted(files)]
    return tuple(modules)


def _read(file: Path, folder: str, package: str, inside: Path) -> Module:
    is_init = inside.name == "__init__.py"
    parts = inside.parent.parts if is_init else inside.with_suffix("").parts
    name = ".".join([package, *parts])
    tree = ast.parse(file.read_bytes(), str(file))
    return Module(
        name=name,
        folder=folder,
        room=parts[0] if parts else "",
        is_init=is_init,
        in_package=len(inside.parts) > 1,
        imports=_imported_names(tree, name if is_init else name.rpartition(".")[0]),
        functions=tuple(_functions(tree, ".".join([folder, *parts]))),
    )


def _imported_names(tree: ast.Module, package: str) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return frozenset(names)


def _functions(tree: ast.Module, module: str) -> Iterable[Function]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Function((node.end_lineno or node.lineno) - node.lineno + 1, f"{module}.{node.name}")


def read_imports(modules: Iterable[Module]) -> frozenset[Import]:
    """Which module imports which: a name leads to the longest part of it that is a module."""
    by_name = {module.name: module for module in modules}
    found: set[Import] = set()
    for source in by_name.values():
        targets = [_module_of(name, by_name) for name in source.imports]
        found.update(Import(source, target) for target in targets if target is not None and target != source)
    return frozenset(found)


def _module_of(name: str, by_name: dict[str, Module]) -> Module | None:
    while name and name not in by_name:
        name = name.rpartition(".")[0]
    return by_name.get(name)


def arrows_between(imports: Iterable[Import], folder: str | None = None) -> tuple[Arrow, ...]:
    """The arrows between the rooms of a top-level folder, or without one those between the top-level folders."""
    if folder is None:
        pairs = {(one.source.folder, one.target.folder) for one in imports}
    else:
        inside = [one for one in imports if one.source.folder == one.target.folder == folder]
        pairs = {(one.source.room, one.target.room) for one in inside if one.source.room and one.target.room}
    return tuple(sorted(Arrow(source, target) for source, target in pairs if source != target))


def find_circles(arrows: Iterable[Arrow]) -> tuple[tuple[str, ...], ...]:
    """The strongly connected components of more than one member, each sorted."""
    next_to: dict[str, set[str]] = {}
    for arrow in arrows:
        next_to.setdefault(arrow.source, set()).add(arrow.target)
    reach = {start: _reachable(start, next_to) for start in next_to}
    circles = {tuple(sorted(end for end in ends if start in reach.get(end, ()))) for start, ends in reach.items()}
    return tuple(sorted(circle for circle in circles if len(circle) > 1))


def _reachable(start: str, next_to: dict[str, set[str]]) -> set[str]:
    """What arrows lead to; the start itself only where they lead back to it."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = next_to.get(waiting.pop(), set()) - seen
        seen |= new
        waiting += new
    return seen


def folder_arrows_back(arrows: Iterable[Arrow]) -> tuple[Arrow, ...]:
    """The arrows between top-level folders that MAY_IMPORT does not allow."""
    return tuple(arrow for arrow in arrows if arrow.target not in MAY_IMPORT.get(arrow.source, set()))


def room_arrows_back(arrows: Iterable[Arrow], order: Sequence[str]) -> tuple[Arrow, ...]:
    """The arrows from a room to one that the order names after it."""
    place = {name: number for number, name in enumerate(order)}
    judged = [arrow for arrow in arrows if arrow.source in place and arrow.target in place]
    return tuple(arrow for arrow in judged if place[arrow.source] < place[arrow.target])


def rooms_of(modules: Iterable[Module], folder: str) -> tuple[Room, ...]:
    """The rooms of a top-level folder, sub-packages first."""
    inside = [module for module in modules if module.folder == folder and module.room]
    counts: dict[tuple[str, bool], int] = {}
    for module in inside:
        key = (module.room, module.in_package)
        counts[key] = counts.get(key, 0) + (not module.is_init)
    rooms = [Room(name, count, is_package) for (name, is_package), count in counts.items()]
    return tuple(sorted(rooms, key=lambda room: (not room.is_package, room.name)))


def measure(modules: Sequence[Module], imports: Iterable[Import], folder: str) -> Folder:
    rooms = rooms_of(modules, folder)
    arrows = arrows_between(imports, folder)
    packages = {room.name for room in rooms if room.is_package}
    order = [name for name in ROOM_ORDER.get(folder, ()) if name in packages]
    functions = [function for module in modules if module.folder == folder for function in module.functions]
    return Folder(
        name=folder,
        rooms=rooms,
        arrows=arrows,
        circles=find_circles(arrows),
        back=room_arrows_back(arrows, order) if len(order) > 1 else None,
        longest=max(functions, key=lambda function: function.lines, default=Function(0, "")),
    )


def measure_all(modules: Sequence[Module], imports: Iterable[Import]) -> tuple[Folder, ...]:
    """Every top-level folder that has rooms, from top to bottom."""
    imports = tuple(imports)
    names = dict.fromkeys(module.folder for module in modules if module.room)
    return tuple(measure(modules, imports, name) for name in names)


def table(folders: Sequence[Folder]) -> list[str]:
    """The Markdown table, one row per top-level folder and one for all of them."""
    lines = [
        "| folder | modules | rooms | arrows | circles | arrows back | largest room | longest function |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    lines += [_row(folder) for folder in folders]
    modules = sum(folder.modules for folder in folders)
    rooms = sum(len(folder.rooms) for folder in folders)
    arrows = sum(len(folder.arrows) for folder in folders)
    circles = sum(len(folder.circles) for folder in folders)
    judged = [len(folder.back) for folder in folders if folder.back is not None]
    back = sum(judged) if judged else "-"
    return [*lines, f"| all | {modules} | {rooms} | {arrows} | {circles} | {back} | | |"]


def _row(folder: Folder) -> str:
    largest = max(folder.rooms, key=lambda room: room.modules)
    back = "-" if folder.back is None else len(folder.back)
    numbers = f"{folder.modules} | {len(folder.rooms)} | {len(folder.arrows)} | {len(folder.circles)} | {back}"
    size = f"`{largest}` ({largest.modules})" if largest.is_package else "1 module each"
    longest = f"`{folder.longest.name}` ({folder.longest.lines} lines)" if folder.longest.lines else "-"
    return f"| {folder.name} | {numbers} | {size} | {longest} |"


def between_folders(imports: Iterable[Import]) -> list[str]:
    """The arrows between the top-level folders, in one line and, where there are any, the circles and arrows back."""
    crossing = [one for one in imports if one.source.folder != one.target.folder]
    arrows = arrows_between(crossing)
    circles, back = find_circles(arrows), folder_arrows_back(arrows)
    line = f"Between the folders: arrows {len(arrows)} (of {len(crossing)} imports of one module by another), "
    lines = [f"{line}circles {len(circles)}, arrows back {len(back)}."]
    return [*lines, *_listed("Circle", map(", ".join, circles)), *_listed("Arrow back", map(str, back))]


def faults(folders: Iterable[Folder]) -> list[str]:
    """The circles and arrows back inside the folders, by name."""
    lines: list[str] = []
    for folder in folders:
        lines += _listed(f"Circle in {folder.name}", map(", ".join, folder.circles))
        lines += _listed(f"Arrow back in {folder.name}", map(str, folder.back or ()))
    return lines


def _listed(title: str, texts: Iterable[str]) -> list[str]:
    return [f"- {title}: {text}" for text in texts]


def arrow_lists(folders: Iterable[Folder], imports: Iterable[Import]) -> list[str]:
    """Every arrow, a section per top-level folder."""
    sections = [("Between the folders", arrows_between(imports)), *((one.name, one.arrows) for one in folders)]
    lines: list[str] = []
    for title, arrows in sections:
        lines += ["", f"## {title}", "", *(f"- {arrow}" for arrow in arrows)]
    return lines


def mermaid(folder: Folder) -> list[str]:
    """A Mermaid flowchart of the folder's rooms; an arrow inside a circle is dotted, a sub-package has double sides."""
    lines = ["```mermaid", "flowchart LR"]
    for room in folder.rooms:
        label = f'[["{room}"]]' if room.is_package else f'["{room}"]'
        lines.append(f"    {folder.name}_{room.name}{label}")
    for arrow in folder.arrows:
        in_circle = any(arrow.source in circle and arrow.target in circle for circle in folder.circles)
        line = "-.->" if in_circle else "-->"
        lines.append(f"    {folder.name}_{arrow.source} {line} {folder.name}_{arrow.target}")
    return [*lines, "```"]


def page(root: Path, folder: str | None = None, *, arrows: bool = False, chart: bool = False) -> str:
    """The text that the command prints: of every top-level folder, or of the one named."""
    modules = read_modules(root)
    imports = read_imports(modules)
    folders = [one for one in measure_all(modules, imports) if folder in (None, one.name)]
    if not folders:
        raise ValueError(f"no top-level folder {folder or PACKAGE} with modules in {root.resolve()}")
    if chart:
        return "\n".join(line for one in folders for line in mermaid(one))
    parts = between_folders(imports) if folder is None else []
    lists = arrow_lists(folders, imports if folder is None else ()) if arrows else []
    return "\n".join([*table(folders), "", *parts, *faults(folders), *lists]).rstrip()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Prints the table of rooms and arrows of a checkout of mribatch.")
    parser.add_argument("root", nargs="?", type=Path, default=Path(), help="the checkout (default: this folder)")
    parser.add_argument("--folder", help="one top-level folder only, as in --folder pipeline")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--arrows", action="store_true", help="list every arrow, too")
    what.add_argument("--mermaid", action="store_true", help="print a Mermaid flowchart of the rooms instead")
    given = parser.parse_args(arguments)
    try:
        print(page(given.root, given.folder, arrows=given.arrows, chart=given.mermaid))
    except ValueError as error:
        print(f"Error: {error}. Fix: give the checkout's folder, and --folder a folder in it.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
