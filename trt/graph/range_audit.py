"""How large do a network's intermediate values get, and which nodes must stay in FP32 for it?

FP16 ends at 65504. A comparison of results in ONNX Runtime does not show an overflow: on x86 it computes an FP16 graph
in FP32 between casts that it removes again. So the FP32 graph runs with every intermediate tensor as an output, and
what comes near the limit is named. The idea is that of `data_max` in NVIDIA's AutoCast
(https://nvidia.github.io/Model-Optimizer/guides/8_autocast.html).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.trt.graph.conversion import HALF_MAX, convert_values, find_half_candidates
from mribatch.trt.graph.cpu_session import CpuSession
from mribatch.trt.graph.typed import FLOAT, TypedGraph, make_conversion_error, node_name, read_graph

if TYPE_CHECKING:
    from onnx import NodeProto

LIMIT = 0.25 * HALF_MAX
"""What may come within a factor of four of FP16's end on a few images may pass it on another."""

_AVERAGING = ("GlobalAveragePool", "ReduceMean", "AveragePool")
_FEW = 4  # nodes that any graph may keep in FP32
_FEW_SHARE = 0.1  # of all nodes that could compute in FP16


@dataclass(frozen=True)
class RangeAudit:
    """What the audit saw.

    images: how many. limit: largest |x| that FP16 is used for. peaks: tensor -> max |x| over all images, of every float
    tensor, weights included; NaN or infinity where that came up. fp32_nodes: names of the nodes, in graph order, that
    must stay in FP32 beyond those that always do. candidates: how many nodes could compute in FP16.
    """

    images: int
    limit: float
    peaks: Mapping[str, float]
    fp32_nodes: tuple[str, ...]
    candidates: int

    @property
    def largest(self) -> tuple[str, float]:
        """The tensor with the largest value, and that value."""
        return max(self.peaks.items(), key=lambda entry: (not np.isfinite(entry[1]), entry[1]))

    def __str__(self) -> str:
        tensor, peak = self.largest
        kept = ", ".join(self.fp32_nodes) or "none"
        return f"max |x| {peak:.4g} ('{tensor}') over {self.images} images, limit {self.limit:.4g}, kept FP32: {kept}"


def audit(model: bytes, images: NDArray[uint8], *, limit: float = LIMIT) -> RangeAudit:
    """Run the FP32 graph on images, one at a time, with every intermediate value kept; memory is that of one image.

    A node stays in FP32 where one of its float inputs or outputs exceeds `limit`, where the sum that it averages does
    (what TensorRT adds up in is not documented), or where a weight would overflow or vanish in FP16.

    Args:
        model: FP32 ONNX bytes with the bundle's input and output.
        images: uint8 (n, height, width, 1), n at least 1; real slices, or a bundle's golden ones.
        limit: Largest |x| for FP16.

    Raises:
        MribatchError: So many nodes would stay in FP32 (more than 4 and than a tenth) that FP16 is not worth it; lists
            them. Or the graph cannot be converted or run.
        ValueError: There are no images.
    """
    if not len(images):
        raise ValueError("no images to audit")
    graph = read_graph(model)
    peaks, sums = _measure(graph, images)
    half = find_half_candidates(graph)
    candidates = [node for node in graph.nodes if node_name(node) in half and node.op_type != "Cast"]
    unfit = _find_unfit_constants(graph)
    kept = []
    for node in candidates:
        values = [peaks[tensor] for tensor in (*node.input, *node.output) if tensor in peaks]
        values.append(sums.get(node.output[0], 0.0))
        if not max(values) <= limit or any(np.isnan(values)) or not unfit.isdisjoint(node.input):
            kept.append(node_name(node))
    result = RangeAudit(len(images), limit, peaks, tuple(kept), len(candidates))
    if len(kept) > max(_FEW, _FEW_SHARE * len(candidates)):
        tensor, peak = result.largest
        raise make_conversion_error(
            f"{len(kept)} of {len(candidates)} nodes see values above {limit:.0f} or constants that do not fit "
            f"(largest: {peak:.4g} in '{tensor}'): {', '.join(kept)}"
        )
    return result


def _measure(graph: TypedGraph, images: NDArray[uint8]) -> tuple[dict[str, float], dict[str, float]]:
    """max |x| of every float tensor, and of every averaging node's output the largest |sum| before the division."""
    from onnx import numpy_helper

    peaks = {
        name: _measure_peak(numpy_helper.to_array(tensor))
        for name, tensor in graph.constants.items()
        if graph.types[name] == FLOAT
    }
    tensors = [tensor for node in graph.nodes for tensor in node.output if graph.types.get(tensor) == FLOAT]
    averaging = {node.output[0]: node for node in graph.nodes if node.op_type in _AVERAGING}
    session = _open_session(graph, tensors)
    sums: dict[str, float] = {}
    for number in range(len(images)):
        values = dict(zip(tensors, session.run(tensors, images[number : number + 1]), strict=True))
        for tensor, array in values.items():
            peak = _measure_peak(array)
            peaks[tensor] = float(np.maximum(peaks.get(tensor, 0.0), peak))  # NaN stays
            if tensor in averaging:
                sums[tensor] = max(sums.get(tensor, 0.0), peak * _count_averaged(averaging[tensor], values))
    return peaks, sums


def _measure_peak(values: NDArray[Any]) -> float:
    return float(np.abs(values).max(initial=0.0))


def _count_averaged(node: "NodeProto", values: Mapping[str, NDArray[Any]]) -> float:
    """How many values one result of an averaging node is the mean of."""
    if node.op_type == "AveragePool":
        (shape,) = (attribute.ints for attribute in node.attribute if attribute.name == "kernel_shape")
        return float(prod(shape))
    source = values.get(node.input[0])
    return 1.0 if source is None else source.size / values[node.output[0]].size


def _find_unfit_constants(graph: TypedGraph) -> frozenset[str]:
    from onnx import numpy_helper

    return frozenset(
        name
        for name, tensor in graph.constants.items()
        if graph.types[name] == FLOAT and convert_values(numpy_helper.to_array(tensor)) is None
    )


def _open_session(graph: TypedGraph, tensors: list[str]) -> CpuSession:
    """The graph with these tensors as its outputs."""
    from onnx import helper

    model = type(graph.model)()
    model.CopyFrom(graph.model)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(tensor, FLOAT, None) for tensor in tensors)
    return CpuSession(model.SerializeToString())
