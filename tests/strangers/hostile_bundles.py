"""Bundles as a stranger could send them, beside those of `tests.make_models`: with the hashes that they should have.

HOSTILE_BUNDLES    name -> what changes a good tiny bundle
"""

import itertools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mribatch.core.bundle import GOLDEN_FILE, MODEL_FILE, SPEC_FILE
from mribatch.core.model_spec import OUTPUT_NAME
from tests.make_models import BAD_BUNDLES, edit_spec, set_model

Change = Callable[[Path], object]


def _graph(change: Callable[[onnx.ModelProto], object]) -> Change:
    def edit(folder: Path) -> None:
        model = onnx.load_model_from_string((folder / MODEL_FILE).read_bytes())
        change(model)
        set_model(folder, model.SerializeToString())

    return edit


def _replace(name: str, make: Callable[[Path], object]) -> Change:
    def replace(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return replace


def _behind(*nodes: onnx.NodeProto) -> Callable[[onnx.ModelProto], None]:
    """Put nodes behind the last one: the first takes "before", the last gives the output."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = "before"
        model.graph.node.extend(nodes)

    return change


def _constant(name: str, value: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(value), f"{name}_value"))


def _vast(model: onnx.ModelProto) -> None:
    """A tensor of a thousand billion zeros, of which one is added to the answers."""
    filled = helper.make_node("ConstantOfShape", ["shape"], ["vast"])
    total = helper.make_node("ReduceMax", ["vast"], ["zero"], keepdims=0)
    _behind(
        _constant("shape", [10**6, 10**6]), filled, total, helper.make_node("Add", ["before", "zero"], [OUTPUT_NAME])
    )(model)


def _nested(model: onnx.ModelProto) -> None:
    """Branches in branches, deeper than any reader goes."""
    result = helper.make_tensor_value_info("same", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Identity", ["before"], ["same"])], "leaf", [], [result])
    for _ in range(40):
        choice = helper.make_node("If", ["always"], ["same"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([choice], "inner", [], [result]) if graph.ByteSize() < 1 << 20 else graph
    _behind(
        _constant("always", True),
        helper.make_node("If", ["always"], [OUTPUT_NAME], then_branch=graph, else_branch=graph),
    )(model)


def _long(model: onnx.ModelProto) -> None:
    names = ["before", *(f"n{i}" for i in range(400_000)), OUTPUT_NAME]
    _behind(*(helper.make_node("Identity", [a], [b]) for a, b in itertools.pairwise(names)))(model)


def _aliases(folder: Path) -> None:
    edit_spec(folder, aliases={f"name {i}": "no_tumor" for i in range(40_000)})


_ENDLESS = Path("/dev/zero")

HOSTILE_BUNDLES: Mapping[str, Change] = {
    **BAD_BUNDLES,
    "bundle.json blocks": _replace(SPEC_FILE, os.mkfifo),
    "bundle.json of 2 MB": lambda folder: (folder / SPEC_FILE).write_text(json.dumps("x" * 2_000_000)),
    "40,000 aliases": _aliases,
    "a description that steers a terminal": lambda folder: edit_spec(folder, description="\x1b[2J\n<script>"),
    "licences that are numbers": lambda folder: edit_spec(folder, licences={"weights": 1, "\x1b[2J": [[]]}),
    "records that are nested": lambda folder: edit_spec(
        folder, training={"a": [[[[[[[[[[1]]]]]]]]]]}, metrics=[1, None]
    ),
    "the model has no end": _replace(MODEL_FILE, lambda path: path.symlink_to(_ENDLESS)),
    "the model blocks": _replace(MODEL_FILE, os.mkfifo),
    "the golden slices have no end": _replace(GOLDEN_FILE, lambda path: path.symlink_to(_ENDLESS)),
    "the golden slices block": _replace(GOLDEN_FILE, os.mkfifo),
    "a tensor of a thousand billion numbers": _graph(_vast),
    "branches in branches": _graph(_nested),
    "400,000 nodes": _graph(_long),
    "an operator that does not exist": _graph(_behind(helper.make_node("Exec", ["before"], [OUTPUT_NAME]))),
    "an operator that reads files": _graph(
        _behind(helper.make_node("ReadFile", ["before"], [OUTPUT_NAME], domain="ai.onnx.contrib"))
    ),
    "a graph in a circle": _graph(_behind(helper.make_node("Add", ["before", OUTPUT_NAME], [OUTPUT_NAME]))),
}
