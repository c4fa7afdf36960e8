"""metrics.json: the records, the schema that ships and the page of the docs say the same, and damage is refused."""

import dataclasses
import json
import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from mribatch.core.errors import MribatchError
from mribatch.report.metrics_file import MetricsFile, metrics_schema, read_metrics
from tests.finished_run import write_run
from tests.report.reports import eight_rows, made

PAGE = (Path(__file__).parents[2] / "docs/reference/metrics.md").read_text(encoding="utf-8")
TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def json_name(field: "dataclasses.Field[Any]") -> str:
    return field.name.rstrip("_")


def list_fields(kind: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names as the docs write them, e.g. levels[].metrics[].class."""
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        name, hint = prefix + json_name(field), hints[field.name]
        inner = [one for one in (hint, *get_args(hint)) if dataclasses.is_dataclass(one)]
        yield name
        if inner:
            yield from list_fields(inner[0], name + ("[]." if get_origin(hint) is tuple else "."))


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = metrics_schema()["$defs"][schema["$ref"].split("/")[-1]] if "$ref" in schema else schema
    return found


def check_object(kind: Any, schema: dict[str, Any]) -> None:
    hints, names = get_type_hints(kind), [json_name(field) for field in dataclasses.fields(kind)]
    required = [json_name(field) for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
    assert list(schema["properties"]) == names and not schema["additionalProperties"], kind
    assert schema["required"] == required, kind
    for field in dataclasses.fields(kind):
        check_value(hints[field.name], resolve(schema["properties"][json_name(field)]), f"{kind.__name__}.{field.name}")


def check_value(hint: Any, schema: dict[str, Any], name: str) -> None:
    if isinstance(hint, types.UnionType):
        (inner,) = (one for one in get_args(hint) if one is not types.NoneType)
        if "oneOf" in schema:
            assert schema["oneOf"][0] == {"type": "null"}, name
            check_value(inner, schema["oneOf"][1], name)
        else:
            assert schema["type"] == [TYPES[inner], "null"], name
    elif dataclasses.is_dataclass(hint):
        check_object(hint, schema)
    elif get_origin(hint) is tuple:
        assert schema["type"] == "array", name
        check_value(get_args(hint)[0], resolve(schema["items"]), name)
    elif get_origin(hint) is Mapping:
        assert schema["type"] == "object" and schema["additionalProperties"]["type"] == TYPES[get_args(hint)[1]], name
    elif "type" in schema:
        assert schema["type"] == TYPES[hint], name
    else:
        assert all(isinstance(one, hint) for one in schema.get("enum", [schema.get("const")])), name


@pytest.fixture
def path(tmp_path: Path) -> Path:
    run = write_run(tmp_path / "run", eight_rows())
    made(run, group_by="patient=P(.)", require=("accuracy>=0.5",))
    return run / "metrics.json"


def test_the_schema_that_ships_is_that_of_the_records() -> None:
    check_object(MetricsFile, metrics_schema())


def test_the_documentation_lists_every_field_and_no_other() -> None:
    section = PAGE.split("## Fields of metrics.json")[1].split("\n## ")[0]
    assert re.findall(r"^\| `([^`]+)` \|", section, re.M) == list(list_fields(MetricsFile))


def test_the_documentation_names_every_metric_and_column(path: Path) -> None:
    import pyarrow.parquet as pq

    rows = {line.split("|")[1].strip() for line in PAGE.splitlines() if line.startswith("| `")}
    table = pq.read_table(path.with_name("metrics.parquet"))
    assert {f"`{name}`" for name in table["metric"].to_pylist()} <= rows
    assert {f"`{name}`" for name in table.column_names} - {"`low`", "`high`"} <= rows and "`low`, `high`" in rows


def test_what_is_written_is_read(path: Path) -> None:
    content = read_metrics(path, fix="")
    assert content.to_json() == json.loads(path.read_text())
    assert content.image_level is not None and content.image_level.find("accuracy").value == 7 / 8
    assert len(content.metrics) == sum(len(level.metrics) for level in content.levels)
    assert content.metrics[0].protocol == content.levels[0].protocol


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"n": 8', '"n": "8"', "n' has a value that does not fit"),
        ('"total": 11', '"total": 11.5', "'files.total' has a value that does not fit: 11.5"),
        ('"protocol": null,', "", "'protocol' is missing"),
        ('"schema_version": 1', '"schema_version": 2', "its schema_version is 2, not 1"),
        ('"class": null,', "", "'levels[0].metrics[0].class_' is missing"),
        ('"value": 0.875', '"value": NaN', "NaN is not a JSON number"),
        ('"levels": [', '"levels": 3, "x": [', "'levels' has a value that does not fit: 3"),
        ("{", "", ""),
        ("{", "[{", ""),
    ],
)
def test_a_damaged_file_is_refused(path: Path, old: str, new: str, problem: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(MribatchError) as caught:
        read_metrics(path, fix="name another")
    assert problem in caught.value.problem and "is not a metrics.json of this version" in caught.value.problem
    assert caught.value.fix == "name another"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MribatchError, match="cannot read .*metrics.json: No such file"):
        read_metrics(tmp_path / "metrics.json", fix="name another")
