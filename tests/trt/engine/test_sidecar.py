"""The sidecar's record, its JSON Schema and its page in the docs say the same. No TensorRT."""

import dataclasses
import json
import re
from dataclasses import fields, is_dataclass
from importlib import resources
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import jsonschema
import pytest

from mribatch.core.bundle import Bundle, load_bundle
from mribatch.core.errors import MribatchError
from mribatch.core.model_spec import NORMALISED_SIGMOID
from mribatch.trt.engine.build import SerializedEngine
from mribatch.trt.engine.sidecar import (
    SCHEMA_FILE,
    EngineIdentity,
    EngineSidecar,
    GateRecord,
    Parity,
    new_sidecar,
    parse_sidecar,
)
from mribatch.trt.gpu import Gpu
from mribatch.trt.library import Flavor
from mribatch.trt.request import BatchProfile

PAGE = Path(__file__).parents[3] / "docs/reference/engine-sidecar.md"
SCHEMA: dict[str, Any] = json.loads((resources.files("mribatch.trt.engine") / SCHEMA_FILE).read_text())
GATED = GateRecord(
    verified="gpu",
    parity=Parity(n=8, max_abs=0.001, argmax_agree=1.0, report="holds"),
    gpu=Gpu("ada", "8.9", 1, "13.0", "12.9"),
)
# As it was written before the record was typed; the file on disk is the same but for git_rev, which is gone.
EARLIER = {
    "schema": 1,
    "key": "7" * 64,
    "engine_sha256": "1" * 64,
    "engine_bytes": 10,
    "onnx_sha256": "2" * 64,
    "source_sha256": "3" * 64,
    "model_sha256": "4" * 64,
    "bundle_sha256": "5" * 64,
    "keras_sha256": None,
    "model_name": "cnn",
    "class_names": ["a", "b"],
    "input": {
        "name": "images",
        "dtype": "uint8",
        "layout": "NHWC",
        "height": 160,
        "width": 160,
        "colour": "grey",
        "resize": "linear",
        "antialias": False,
        "value_range": [0, 255],
    },
    "output": {"name": "probabilities", "dtype": "float32", "activation": "softmax"},
    "precision": {"mode": "fp32", "fp32_nodes": None},
    "profile": {"min": 1, "opt": 64, "max": 64},
    "trt_flavor": "tensorrt-rtx",
    "trt_version": "1.7.1.116",
    "target": "sm89",
    "compute_capability": "8.9",
    "gpu_name": None,
    "driver": None,
    "cuda_runtime": None,
    "builder": {"opt_level": 3, "workspace": 2147483648, "tf32": False},
    "layers": {"half": 0, "float32": 30},
    "fp32_bytes": 10,
    "ratio_to_fp32": 1.0,
    "seconds": 2.5,
    "verified": "not verified: no GPU",
    "parity": {},
    "created_utc": "2026-01-01T00:00:00+00:00",
    "tool_version": "0.1.0",
    "git_rev": "0" * 40,
    "research_notice": "Research use only, not a medical device.",
}


@pytest.fixture(scope="module")
def bundle(tiny_model: Path) -> Bundle:
    return load_bundle(str(tiny_model))


def make(bundle: Bundle, gate: GateRecord = GATED, fp32_nodes: tuple[str, ...] | None = ("head",)) -> EngineSidecar:
    identity = EngineIdentity(
        onnx_sha256="a" * 64,
        precision="fp32" if fp32_nodes is None else "fp16",
        batch=BatchProfile(32, 64),
        flavor=Flavor.RTX,
        version="1.7.1.116",
        target="sm120",
    )
    return new_sidecar(
        bundle,
        identity,
        SerializedEngine(b"engine", half_layers=9, float_layers=3, seconds=1.5, timing_cache=None),
        source_sha256="c" * 64,
        fp32_nodes=fp32_nodes,
        fp32_bytes=12,
        gate=gate,
    )


def parse(content: Any) -> EngineSidecar:
    return parse_sidecar(json.dumps(content).encode(), Path("x.engine.json"))


@pytest.mark.parametrize("gate", [GATED, GateRecord()])
@pytest.mark.parametrize("fp32_nodes", [None, ("head", "tail")])
def test_a_sidecar_survives_the_round_trip_and_fits_its_schema(
    bundle: Bundle, gate: GateRecord, fp32_nodes: tuple[str, ...] | None
) -> None:
    sidecar = make(bundle, gate, fp32_nodes)
    content = json.loads(json.dumps(sidecar.to_json()))
    assert parse(content) == sidecar and list(content) == [field.name for field in fields(EngineSidecar)]
    jsonschema.validate(content, SCHEMA)


def test_the_activation_is_the_bundles(bundle: Bundle) -> None:
    sigmoid = dataclasses.replace(bundle, spec=dataclasses.replace(bundle.spec, activation=NORMALISED_SIGMOID))
    assert make(sigmoid).output.activation == NORMALISED_SIGMOID
    assert make(bundle).output.activation == "softmax"


def test_a_sidecar_of_an_earlier_version_is_read_and_written_the_same_but_for_the_commit() -> None:
    sidecar = parse(EARLIER)
    written = sidecar.to_json()
    assert json.loads(json.dumps(written)) == {name: value for name, value in EARLIER.items() if name != "git_rev"}
    assert list(written) == [name for name in EARLIER if name != "git_rev"]
    jsonschema.validate(EARLIER, SCHEMA)


@pytest.mark.parametrize("name", [name for name in EARLIER if name not in ("schema", "git_rev")])
def test_a_field_that_is_missing_is_named(name: str) -> None:
    with pytest.raises(MribatchError, match=f"cannot be used: '{name}' is missing. Fix: build the engine again"):
        parse({key: value for key, value in EARLIER.items() if key != name})


def test_the_first_difference_is_named_with_both_values(bundle: Bundle) -> None:
    wanted = make(bundle).identity
    assert wanted.find_difference(wanted) is None
    other = dataclasses.replace(wanted, batch=BatchProfile(1, 1))
    assert wanted.find_difference(other) == (
        "profile",
        'profile is {"min": 1, "opt": 1, "max": 1}, wanted is {"min": 1, "opt": 32, "max": 64}',
    )


def check_same_fields(kind: Any, schema: dict[str, Any]) -> None:
    hints = get_type_hints(kind)
    assert list(schema["properties"]) == schema["required"] == [field.name for field in fields(kind)], kind
    for name, part in schema["properties"].items():
        (inner, *_) = [one for one in (get_args(hints[name]) or (hints[name],)) if one is not NoneType]
        if is_dataclass(inner):
            check_same_fields(inner, part["anyOf"][0] if "anyOf" in part else part)


def test_the_schema_has_the_fields_of_the_record() -> None:
    check_same_fields(EngineSidecar, SCHEMA)


def test_the_page_has_the_fields_of_the_schema_with_their_descriptions() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.read_text(), re.M)
    assert rows == [(name, part["description"]) for name, part in SCHEMA["properties"].items()]
