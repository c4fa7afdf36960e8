"""A bundle's graph in FP16: audited for its range, converted, and kept exact where rounding would show.

Some networks round well everywhere; in others what the first layers round is amplified by all that follow. How much is
measured on the golden slices, with every FP16 tensor really rounded, and as many of the first nodes stay in FP32 as it
takes. They hold few weights, so the engine is hardly larger.
"""

from collections.abc import Sequence

import numpy as np

from mribatch.core.agreement import compare
from mribatch.core.bundle import Bundle
from mribatch.trt.graph.conversion import Fp16Graph, find_half_candidates, to_fp16
from mribatch.trt.graph.emulation import RoundingClassifier
from mribatch.trt.graph.range_audit import audit
from mribatch.trt.graph.typed import TypedGraph, node_name, read_graph

_SHARES = (0.0, 1 / 16, 1 / 8, 1 / 4)
"""Of the nodes that could compute in FP16, in graph order: how many of the first stay in FP32, in turn."""

_HEADROOM = 0.5
"""Share of the bundle's tolerance that rounding may use: kernels on a GPU add up in other orders, too."""


def convert_bundle(bundle: Bundle) -> Fp16Graph:
    """The bundle's graph in FP16, within half of the bundle's tolerance on the golden slices.

    FP32 stay nodes whose values on these slices come near FP16's limit, and as many of the first nodes as it takes.

    Where none is within that, it is the nearest; the gate says whether it holds.

    Raises:
        MribatchError: Too many nodes would stay in FP32 for their range, or the graph cannot be converted.
    """
    kept = audit(bundle.model, bundle.golden.images).fp32_nodes
    graph = read_graph(bundle.model)
    half = find_half_candidates(graph)
    names = [name for name in map(node_name, graph.nodes) if name in half]
    best, least = None, np.inf
    for count in _list_counts(graph, names):
        converted = to_fp16(bundle.model, keep_fp32={*kept, *names[:count]})
        difference = _measure_difference(converted, bundle)
        if best is None or difference < least:
            best, least = converted, difference
        if difference <= _HEADROOM * bundle.spec.tolerance.fp16:
            break
    assert best is not None, "there is always a first attempt"
    return best


def _list_counts(graph: TypedGraph, names: Sequence[str]) -> list[int]:
    """How many of the first nodes to keep in FP32, in turn: shares of all, then of those behind a frame and the frame.

    A frame has many nodes, which hold positions and no weights; shares of all nodes may end before the network begins.
    """
    convolutions = [node_name(node) for node in graph.nodes if node.op_type == "Conv"]
    before = next((place for place, name in enumerate(names) if name in convolutions), 0)
    counts = [round(share * len(names)) for share in _SHARES]
    return counts + [
        more for share in _SHARES[1:] if (more := before + round(share * (len(names) - before))) > counts[-1]
    ]


def _measure_difference(graph: Fp16Graph, bundle: Bundle) -> float:
    """|Δp| on the golden slices, infinite where an answer is not finite."""
    with RoundingClassifier(graph.model) as classify:
        got = classify(bundle.golden.images)
    difference = compare(got, bundle.golden.probabilities, bundle.spec.tolerance, "fp16").max_difference
    return difference if np.isfinite(difference) else np.inf
