"""A bundle's graph in FP16: audited for its range, converted, and kept exact where rounding would show.

Some networks round well everywhere; in others what the first layers round is amplified by all that follow. How much is
measured on the golden slices, with every FP16 tensor really rounded, and as many of the first nodes stay in FP32 as it
takes. They hold few weights, so the engine is hardly larger.
"""

import numpy as np

from mribatch.core.agreement import compare
from mribatch.core.bundle import Bundle
from mribatch.trt.graph.conversion import Fp16Graph, find_half_candidates, to_fp16
from mribatch.trt.graph.emulation import RoundingClassifier
from mribatch.trt.graph.range_audit import audit
from mribatch.trt.graph.typed import node_name, read_graph

_SHARES = (0.0, 1 / 16, 1 / 8, 1 / 4)
"""Of the nodes that could compute in FP16, in graph order: how many of the first stay in FP32, in turn."""

_HEADROOM = 0.5
"""Share of the bundle's tolerance that rounding may use: kernels on a GPU add up in other orders, too."""


def convert_bundle(bundle: Bundle) -> Fp16Graph:
    """The bundle's graph in FP16, within half of the bundle's tolerance on the golden slices.

    FP32 stay nodes whose values on these slices come near FP16's limit, and as many of the first nodes as it takes.

    Where a quarter of the nodes is not enough, the graph is what it then is; the gate will say that it does not hold.

    Raises:
        MribatchError: Too many nodes would stay in FP32 for their range, or the graph cannot be converted.
    """
    kept = audit(bundle.model, bundle.golden.images).fp32_nodes
    graph = read_graph(bundle.model)
    half = find_half_candidates(graph)
    names = [name for name in map(node_name, graph.nodes) if name in half]
    for share in _SHARES:
        converted = to_fp16(bundle.model, keep_fp32={*kept, *names[: round(share * len(names))]})
        if _measure_difference(converted, bundle) <= _HEADROOM * bundle.spec.tolerance.fp16:
            break
    return converted


def _measure_difference(graph: Fp16Graph, bundle: Bundle) -> float:
    """|Δp| on the golden slices, infinite where an answer is not finite."""
    with RoundingClassifier(graph.model) as classify:
        got = classify(bundle.golden.images)
    difference = compare(got, bundle.golden.probabilities, bundle.spec.tolerance, "fp16").max_difference
    return difference if np.isfinite(difference) else np.inf
