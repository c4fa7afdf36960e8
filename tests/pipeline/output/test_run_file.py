"""run.json: the records, the schema that ships and the files of real runs agree; damage is named."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jsonschema
import pytest

from mribatch.core.errors import RunError
from mribatch.core.files import write_json
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.run_file import (
    RUN_FILE,
    ForeignRunFile,
    RunFile,
    RunState,
    parse_run_file,
    read_finished_run,
    read_run_file,
    run_file_schema,
)
from mribatch.pipeline.run import classify
from tests.folders import draw_images

EARLIER = Path(__file__).with_name("run-of-0.1.0.json")  # interrupted, then resumed, by the version before the records


def check(content: Any) -> None:
    schema = run_file_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(content, schema, jsonschema.Draft202012Validator)


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose listing has something to say. Not to be changed."""
    folder = tmp_path_factory.mktemp("run")
    draw_images(folder / "data", 6, classes=("glioma", "unsure"))
    (folder / "data" / "notes.txt").touch()
    (folder / "data" / "empty.jpg").touch()
    classify([folder / "data"], folder / "out", ClassifyOptions(model=str(tiny_model)))
    return folder / "out"


def test_the_file_of_a_run_fits_the_schema_and_is_written_back_as_it_was(run: Path, tmp_path: Path) -> None:
    facts = read_finished_run(run)
    check(json.loads((run / RUN_FILE).read_bytes()))
    write_json(tmp_path / RUN_FILE, facts.to_json())
    assert (tmp_path / RUN_FILE).read_bytes() == (run / RUN_FILE).read_bytes()
    assert (facts.state, facts.counts and facts.counts.rows, facts.listing.unknown_labels) == (
        RunState.COMPLETE,
        7,
        {"data": 1, "unsure": 3},
    )


def test_the_file_of_an_earlier_version_fits_and_is_written_back_as_it_was(tmp_path: Path) -> None:
    facts = parse_run_file(EARLIER.read_bytes())
    check(json.loads(EARLIER.read_bytes()))
    write_json(tmp_path / RUN_FILE, facts.to_json())
    assert (tmp_path / RUN_FILE).read_bytes() == EARLIER.read_bytes()
    assert facts.attempts[0].error is not None and facts.attempts[1].error is None


def test_a_run_that_has_just_begun_fits(run: Path) -> None:
    facts = dataclasses.replace(read_run_file(run), counts=None, attempts=(), proof=None, state=RunState.LISTING)
    content = facts.to_json()
    check(content)
    assert content["counts"] == {} and "proof" not in content
    assert parse_run_file(json.dumps(content).encode()) == facts


def records(kind: Any) -> Iterator[Any]:
    """A record and those inside it."""
    yield kind
    for hint in get_type_hints(kind).values():
        yield from records_in(hint)


def records_in(hint: Any) -> Iterator[Any]:
    if dataclasses.is_dataclass(hint):
        yield from records(hint)
    for inner in get_args(hint):
        yield from records_in(inner)


def test_the_schema_names_the_fields_of_the_records() -> None:
    schema = run_file_schema()
    parts = {frozenset(part["properties"]): set(part["required"]) for part in (schema, *schema["$defs"].values())}
    for record in records(RunFile):
        fields = dataclasses.fields(record)
        required = {field.name for field in fields if field.default is dataclasses.MISSING}
        assert parts.pop(frozenset(field.name for field in fields)) == required, record
    assert parts == {}


def test_every_key_is_described() -> None:
    schema = run_file_schema()
    for part in (schema, *schema["$defs"].values()):
        assert part["description"]
        assert all("$ref" in key or key["description"] for key in part["properties"].values())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"[]", "was not written by mribatch"),
        (b'{"tool": "another", "state": "complete"}', "was not written by mribatch"),
        (b'{"tool": "mribatch", "state": "done", "fingerprint": {}}', "has no state or fingerprint"),
        (b'{"tool": "mribatch", "state": "complete", "fingerprint": 3}', "has no state or fingerprint"),
    ],
)
def test_what_is_not_ours_is_told_apart_from_damage(content: bytes, problem: str) -> None:
    with pytest.raises(ForeignRunFile, match=problem):
        parse_run_file(content)


_OPTIONAL = ("proof", "counts", "increments", "shard", "tuning")


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(RunFile) if field.name not in _OPTIONAL])
@pytest.mark.parametrize("value", ["missing", [[]], {"x": [3]}])
def test_damage_names_its_key(key: str, value: object, run: Path, tmp_path: Path) -> None:
    content = json.loads((run / RUN_FILE).read_bytes())
    if value == "missing":
        del content[key]
    else:
        content[key] = value
    (tmp_path / RUN_FILE).write_text(json.dumps(content))
    with pytest.raises(RunError) as caught:
        read_run_file(tmp_path)
    assert "is damaged or of another version" in str(caught.value)
    assert key in ("tool", "state") or key in str(caught.value)


def test_a_damaged_file_is_not_overwritten(run: Path, tiny_model: Path, tmp_path: Path) -> None:
    content = json.loads((run / RUN_FILE).read_bytes())
    del content["bundle"]
    (tmp_path / RUN_FILE).write_text(json.dumps(content))
    for overwrite in (False, True):
        options = ClassifyOptions(model=str(tiny_model), overwrite=overwrite)
        with pytest.raises(RunError, match=r"its run\.json is damaged or of another version: 'bundle' is missing"):
            classify([run.parent / "data"], tmp_path, options)
    assert [path.name for path in tmp_path.iterdir()] == [RUN_FILE]
