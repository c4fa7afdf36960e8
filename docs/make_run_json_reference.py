"""Writes docs/reference/run-json.md from the schema of run.json: python docs/make_run_json_reference.py (make docs)"""

from pathlib import Path
from typing import Any

from mribatch.pipeline.output.run_file import run_file_schema

PAGE = Path(__file__).parent / "reference/run-json.md"
_INTRO = """# run.json

Generated from [run.schema.json](../../pipeline/output/run.schema.json) by `make docs`; a test fails where it is stale,
and another checks the run.json of a real run against the schema.

Every run folder holds a run.json. It is replaced as a whole, so a reader never sees half of it, and its keys keep this
order. Read it in Python with `mribatch.open_run("results/").facts`; the schema itself is
`mribatch.pipeline.output.run_file.run_file_schema()`."""


def reference() -> str:
    """Return the text of the page."""
    schema = run_file_schema()
    inner = schema["$defs"]
    parts = [_INTRO, _table(schema, inner)]
    parts += [f"## {name}\n\n{part['description']}\n\n{_table(part, inner)}" for name, part in inner.items()]
    return "\n\n".join([*parts, "Research use only, not a medical device.\n"])


def _table(schema: dict[str, Any], inner: dict[str, Any]) -> str:
    lines = ["| key | type | meaning |", "| --- | --- | --- |"]
    for key, part in schema["properties"].items():
        optional = "" if key in schema["required"] else " May be absent."
        text = part.get("description") or inner[part["$ref"].rsplit("/", 1)[-1]]["description"]
        lines.append(f"| `{key}` | {_type(part)} | {text}{optional} |")
    return "\n".join(lines)


def _type(part: dict[str, Any]) -> str:
    if "$ref" in part:
        name = part["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name})"
    if "anyOf" in part:
        return " or ".join(_type(option) for option in part["anyOf"])
    if "enum" in part:
        return " or ".join(f"`{value}`" for value in part["enum"])
    if "const" in part:
        return f"`{part['const']}`"
    if part["type"] == "array":
        return f"list of {_type(part['items'])}"
    if isinstance(part.get("additionalProperties"), dict):
        return f"object of {_type(part['additionalProperties'])}"
    names = part["type"] if isinstance(part["type"], list) else [part["type"]]
    return "empty object" if part.get("maxProperties") == 0 else " or ".join(names)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    print(f"written: {PAGE}")
