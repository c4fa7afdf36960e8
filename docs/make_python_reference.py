"""Writes docs/reference/python.md from the docstrings of the face: python docs/make_python_reference.py (make docs)"""

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mribatch
from mribatch import api
from mribatch.core import errors
from mribatch.pipeline.output.run_file import RunCounts
from mribatch.report.metrics import Metric

PAGE = Path(__file__).parent / "reference/python.md"
FUNCTIONS: tuple[Callable[..., Any], ...] = (api.classify, api.classify_images, api.open_run, api.report, api.audit)
RESULTS = (mribatch.Run, mribatch.ImageResults, mribatch.RunReport, mribatch.AuditResult)
RECORDS = (mribatch.ClassifyOptions, mribatch.ReportOptions, mribatch.AuditOptions, RunCounts, Metric)
ERRORS = (
    errors.MribatchError,
    errors.WriteError,
    errors.DiskFullError,
    errors.FolderLockedError,
    errors.BundleError,
    errors.RunError,
    errors.Interrupted,
)
_SECTION = re.compile(r"^(Args|Returns|Yields|Raises|Attributes|Example):$")
_ITEM = re.compile(r"^(\*{0,2}\w+): (.*)$")
_FIELD = re.compile(r"^    (\w+): ([^=#]+?)(?: = (?:[^#]+?))?(?:  # (.*))?$")
_INTRO = """# Python reference

Generated from the docstrings by `make docs`; a test fails where it is stale, and every example here is run by a test,
in this order.

```python
import mribatch
```

`import mribatch` loads no heavy library; each name below is loaded when it is first used. These names, their parameters
and the fields listed here are what [semantic versioning](https://semver.org/) covers in Python. Everything else in the
package may change in any release.

In a notebook, a run and a report are shown as tables."""


def reference() -> str:
    """Return the text of the page."""
    parts = [_INTRO, "## Functions", *(_function(one, f"mribatch.{one.__name__}") for one in FUNCTIONS), "## Results"]
    for kind in RESULTS:
        parts += [f"### mribatch.{kind.__name__}", _text_of(kind)]
        parts += [_function(method, f"{kind.__name__}.{name}", "####") for name, method in _methods(kind)]
    parts += ["## Options and records", *(_record(kind) for kind in RECORDS), "## Errors", _errors()]
    return "\n\n".join([*parts, f"{mribatch.RESEARCH_NOTICE}\n"])


def _methods(kind: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    yield from ((name, one) for name, one in vars(kind).items() if inspect.isfunction(one) and not name.startswith("_"))


def _function(function: Callable[..., Any], title: str, level: str = "###") -> str:
    signature = inspect.signature(function)
    parameters = [str(one) for name, one in signature.parameters.items() if name != "self"]
    start, text = title.rsplit(".", 1)[-1], ", ".join(_short(one) for one in _with_star(signature, parameters))
    result = _short(str(inspect.formatannotation(signature.return_annotation)))
    line = f"{start}({text}) -> {result}"
    if len(line) > 100:
        rows = "".join(f"    {_short(one)},\n" for one in _with_star(signature, parameters))
        line = f"{start}(\n{rows}) -> {result}"
    return f"{level} {title}\n\n```text\n{line}\n```\n\n{_text_of(function)}"


def _with_star(signature: inspect.Signature, parameters: list[str]) -> list[str]:
    """The parameters with the bare star that begins those by keyword only."""
    kinds = [one.kind for name, one in signature.parameters.items() if name != "self"]
    first = next((i for i, kind in enumerate(kinds) if kind is inspect.Parameter.KEYWORD_ONLY), None)
    return parameters if first is None else [*parameters[:first], "*", *parameters[first:]]


def _short(text: str) -> str:
    """A type without the modules that it comes from and without quotes."""
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", text).replace("'", "").replace("typing.", "")


def _text_of(thing: Any) -> str:
    """A docstring as Markdown: sections as lists, examples as code."""
    parts: list[str] = []
    for name, lines in _sections(inspect.getdoc(thing) or ""):
        if name == "Example":
            parts.append("```python\n" + "\n".join(lines) + "\n```")
        elif name:
            parts.append(f"{name}:\n\n" + "\n".join(_items(lines)))
        else:
            parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _sections(docstring: str) -> Iterator[tuple[str, list[str]]]:
    name, lines = "", list[str]()
    for line in docstring.splitlines():
        if found := _SECTION.match(line):
            yield name, _stripped(lines)
            name, lines = found.group(1), []
        else:
            lines.append(line[4:] if name else line)
    yield name, _stripped(lines)


def _stripped(lines: list[str]) -> list[str]:
    return "\n".join(lines).strip("\n").splitlines()


def _items(lines: list[str]) -> Iterator[str]:
    """`name: text` as list items, with the lines that continue them."""
    for line in lines:
        found = _ITEM.match(line)
        if found:
            yield f"- `{found.group(1)}`: {found.group(2)}"
        else:
            yield f"  {line.strip()}" if line.startswith(" ") else line


def _record(kind: type) -> str:
    home = "mribatch." if kind.__name__ in mribatch.__all__ else ""
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    lines = ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
    for line in inspect.getsource(kind).splitlines():
        found = _FIELD.match(line)
        if found and found.group(1) in defaults:
            name, annotation, meaning = found.groups()
            default = "" if defaults[name] is dataclasses.MISSING else f"`{defaults[name]!r}`"
            lines.append(f"| `{name}` | `{annotation}` | {default} | {meaning or ''} |".replace("|  |", "| |"))
    table = "\n".join(line.replace(" | None", " \\| None") for line in lines).replace("  |", " |")
    return f"### {home}{kind.__name__}\n\n{_text_of(kind)}\n\n{table}"


def _errors() -> str:
    lines = ["| class | base | meaning |", "| --- | --- | --- |"]
    for kind in ERRORS:
        meaning = (inspect.getdoc(kind) or "").splitlines()[0]
        lines.append(f"| `{kind.__name__}` | `{kind.__base__.__name__ if kind.__base__ else ''}` | {meaning} |")
    first = "All are in `mribatch.core.errors`; `mribatch.MribatchError` is the base of all that a user can fix."
    return f"{first} Each has `problem` and `fix`, and `str(error)` is one line with both.\n\n" + "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    print(f"written: {PAGE}")
