"""A bundle's graph in FP16: audited for its range, then converted."""

from mribatch.bundle import Bundle
from mribatch.trt.precision import Fp16Graph, to_fp16
from mribatch.trt.range_audit import audit


def fp16_graph_of(bundle: Bundle) -> Fp16Graph:
    """The bundle's graph in FP16, but for the nodes whose values on the golden slices come near FP16's limit.

    The same bundle gives the same bytes on every machine.

    Raises:
        MribatchError: Too many nodes would stay in FP32, or the graph cannot be converted.
    """
    kept = audit(bundle.model, bundle.golden.images).fp32_nodes
    return to_fp16(bundle.model, keep_fp32=kept)
