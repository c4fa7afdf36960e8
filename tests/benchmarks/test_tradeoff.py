"""The plot of accuracy against speed says of every point whose accuracy it is."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from benchmarks.int8_folds import hash_weights
from benchmarks.race.entrants import ENTRANTS
from benchmarks.tradeoff import describe, plot, read_points
from mribatch.core.bundle import DEFAULT_MODEL, load_bundle, shipped_models


def race(*variants: tuple[str, str, float]) -> dict[str, Any]:
    entrants: dict[str, Any] = {
        f"{model}-{precision}": {
            "model": model,
            "precision": precision,
            "whole_images_per_second": {"median": rate},
        }
        for model, precision, rate in variants
    }
    return {"threads": 2, "entrants": entrants | {"reference": {"whole_images_per_second": {"median": 50.0}}}}


def own_accuracy(model: str) -> float:
    figures = load_bundle(model).spec.metrics
    return float(next(one["value"] for one in figures if one["metric"] == "accuracy" and one["class"] is None))


def test_int8_has_its_own_accuracy_where_it_was_measured_for_that_very_graph(tmp_path: Path) -> None:
    content = race((DEFAULT_MODEL, "fp32", 200), (DEFAULT_MODEL, "int8", 400), ("elsewhere", "fp32", 10))
    plain, quantized = read_points(content, tmp_path)
    assert plain.measured and plain.accuracy == own_accuracy(DEFAULT_MODEL)
    assert not quantized.measured and quantized.accuracy == plain.accuracy and quantized.rate == 400
    measured = {
        "weights_sha256": hash_weights(load_bundle(DEFAULT_MODEL).model),
        "int8": {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}},
    }
    result = tmp_path / f"int8_folds-{DEFAULT_MODEL}-real-2774images-cpu.json"
    result.write_text(json.dumps(measured))
    assert [(point.accuracy, point.measured) for point in read_points(content, tmp_path)][1] == (0.5, True)
    result.write_text(json.dumps(measured | {"weights_sha256": "of others"}))
    assert not read_points(content, tmp_path)[1].measured


def test_every_point_is_drawn_and_the_faster_ones_to_the_right(tmp_path: Path) -> None:
    content = race((DEFAULT_MODEL, "fp32", 200), (DEFAULT_MODEL, "int8", 400), ("cnn", "fp32", 450))
    points = read_points(content, tmp_path)
    drawing = ET.fromstring(plot(points, describe(content)))
    circles = [element for element in drawing.iter() if element.tag.endswith("circle")]
    places = [float(circle.attrib["cx"]) for circle in circles]
    assert len(circles) == 3 and places == sorted(places) and circles[1].attrib["fill"] == "#ffffff"
    texts = "".join(drawing.itertext())
    assert f"{DEFAULT_MODEL}, INT8 (accuracy of FP32)" in texts and "cnn, FP32" in texts


def test_every_bundle_races_in_every_precision() -> None:
    variants = {
        (entrant.variant.get("model", DEFAULT_MODEL), entrant.variant["precision"])
        for entrant in ENTRANTS
        if entrant.variant is not None
    }
    wanted = {(name, "fp32") for name in shipped_models()}
    wanted |= {(name, "int8") for name in shipped_models() if load_bundle(name).has_int8}
    assert variants == wanted
    assert len({entrant.name for entrant in ENTRANTS}) == len(ENTRANTS)


@pytest.mark.parametrize("name", ["mribatch-dali", "mribatch-b3", "reference", "tutorial"])
def test_other_entrants_are_no_variants(name: str) -> None:
    assert next(entrant for entrant in ENTRANTS if entrant.name == name).variant is None
