"""Values that FP16 could not hold are found on the FP32 graph, before an engine computes with them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import uint8
from numpy.typing import NDArray

from mribatch.core.bundle import load_bundle, shipped_models
from mribatch.core.errors import MribatchError
from mribatch.core.synthetic import golden_slices
from mribatch.trt.graph import range_audit
from mribatch.trt.graph.conversion import to_fp16
from mribatch.trt.graph.cpu_session import CpuSession
from mribatch.trt.graph.emulation import gate_emulated
from mribatch.trt.graph.fp16 import convert_bundle
from mribatch.trt.graph.range_audit import LIMIT, audit
from tests.trt.graph.graphs import SIDE, Graph, bundle_of, efficientnet_like, run_fp32, scaled_up_and_down

IMAGES = golden_slices(6, SIDE, SIDE)
WHITE = np.full((1, SIDE, SIDE, 1), 255, dtype=uint8)


@pytest.mark.parametrize("name", sorted(shipped_models()))
def test_a_shipped_model_stays_far_from_the_limit(name: str) -> None:
    bundle = load_bundle(name)
    found = audit(bundle.model, bundle.golden.images[:8])
    assert (found.fp32_nodes, found.images, found.limit) == ((), 8, LIMIT == 16376 and LIMIT)
    assert bundle.golden.images[:8].max() <= found.largest[1] < LIMIT / 16  # pixels, or a frame's sums of positions


def test_peaks_are_those_of_the_values() -> None:
    found = audit(scaled_up_and_down(10).model(), IMAGES)
    assert found.peaks["up"] == 10 * int(IMAGES.max())
    assert found.peaks["down"] == pytest.approx(IMAGES.max() / 255)
    assert found.peaks["weight_0"] == 10  # weights too
    assert found.largest == ("up", found.peaks["up"])
    assert str(found).startswith("max |x| ") and "'up'" in str(found) and "kept FP32: none" in str(found)


def test_an_overflow_that_onnx_runtime_does_not_show_is_found() -> None:
    """255 x 400 is 102,000: infinity in FP16."""
    bundle = bundle_of(scaled_up_and_down(400).model())
    careless = to_fp16(bundle.model)
    hidden = np.abs(run_fp32(careless.model, bundle.golden.images) - bundle.golden.probabilities).max()
    assert hidden < bundle.spec.tolerance.fp16  # its answers are right: the comparison alone proves nothing
    assert not gate_emulated(bundle, careless.model).holds
    assert audit(bundle.model, bundle.golden.images).fp32_nodes == ("up", "down")
    careful = convert_bundle(bundle)
    assert {"up", "down"} < set(careful.fp32_nodes)
    assert gate_emulated(bundle, careful.model).holds


def test_only_what_exceeds_the_limit_is_named() -> None:
    model = scaled_up_and_down(LIMIT / 255).model()
    assert audit(model, WHITE).fp32_nodes == ()
    model = scaled_up_and_down(LIMIT / 254).model()
    assert audit(model, WHITE).fp32_nodes == ("up", "down")
    assert audit(model, WHITE, limit=2 * LIMIT).fp32_nodes == ()


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=6), st.integers(1, 5))
def test_peaks_of_all_images_are_the_largest_of_any(order: list[int], cut: int) -> None:
    model, images = efficientnet_like().model(), IMAGES[order]
    whole = audit(model, images).peaks
    parts = [audit(model, part).peaks for part in (images[:cut], images[cut:]) if len(part)]
    assert whole == {tensor: max(part[tensor] for part in parts) for tensor in whole}


def test_one_image_at_a_time_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    class Watched(CpuSession):
        def run(self, tensors: Sequence[str], images: NDArray[uint8]) -> list[NDArray[Any]]:
            sizes.append(len(images))
            return super().run(tensors, images)

    monkeypatch.setattr(range_audit, "CpuSession", Watched)
    audit(efficientnet_like().model(), IMAGES)
    assert sizes == [1] * len(IMAGES)


def head(graph: Graph, x: str, channels: int) -> bytes:
    graph.softmax(graph.dense(graph.add("Flatten", graph.add("GlobalAveragePool", x)), channels))
    return graph.model()


def test_the_sum_behind_an_average_counts() -> None:
    """A mean of 255 x 0.1 over 32 x 32 pixels is small; the sum of 26,112 is not."""
    graph = Graph()
    x = graph.add("Transpose", graph.add("Cast", "images", to=1), perm=[0, 3, 1, 2])
    x = graph.add("Mul", x, graph.weight(0.1))
    squeezed = graph.add("GlobalAveragePool", x, name="squeeze")
    smoothed = graph.add("AveragePool", x, name="smooth", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    x = graph.add("Mul", graph.add("Add", x, smoothed), graph.add("Sigmoid", squeezed))
    assert audit(head(graph, x, 1), WHITE).fp32_nodes == ("squeeze",)
    assert audit(head_of_reduced_mean(), WHITE).fp32_nodes == ("squeeze",)


def head_of_reduced_mean() -> bytes:
    graph = Graph()
    x = graph.add("Transpose", graph.add("Cast", "images", to=1), perm=[0, 3, 1, 2])
    squeezed = graph.add("ReduceMean", x, name="squeeze", axes=[2, 3], keepdims=1)
    return head(graph, graph.add("Mul", x, graph.add("Sigmoid", squeezed)), 1)


@pytest.mark.parametrize("bound", [3.4e38, 1e-9, 20_000])
def test_constants_that_fp16_does_not_hold_keep_their_node(bound: float) -> None:
    graph = Graph()
    x = graph.add("Clip", graph.conv(graph.pixels(), 3, 4), graph.weight(0.0), graph.weight(bound), name="clip")
    model = head(graph, x, 4)
    kept = audit(model, IMAGES).fp32_nodes
    assert kept == ("clip",)
    assert "clip" in to_fp16(model, keep_fp32=kept).fp32_nodes


@pytest.mark.parametrize("numerator", [0.0, 1.0], ids=["nan", "infinity"])
def test_what_is_not_finite_is_kept_and_named(numerator: float) -> None:
    graph = Graph()
    x = graph.conv(graph.pixels(), 3, 4)
    zero = graph.add("Sub", x, x)
    odd = graph.add("Div", graph.add("Add", zero, graph.weight(numerator)), zero, name="odd")
    x = graph.add("Where", graph.weight(True, dtype=bool), x, odd, name="chosen")
    found = audit(head(graph, x, 4), IMAGES)
    assert found.fp32_nodes == ("odd", "chosen")
    assert found.largest[0] == "odd" and not np.isfinite(found.largest[1])


def test_too_many_large_values_refuse_fp16_with_the_list() -> None:
    graph = Graph()
    x = graph.add("Transpose", graph.add("Cast", "images", to=1), perm=[0, 3, 1, 2])
    for number in range(5):
        x = graph.add("Mul", x, graph.weight(400.0 if number == 0 else 1.01), name=f"large_{number}")
    x = graph.add("Mul", x, graph.weight(1e-5), name="small")
    model = head(graph, x, 1)
    with pytest.raises(MribatchError) as caught:
        audit(model, WHITE)
    assert "6 of 7 nodes" in caught.value.problem
    assert "large_0, large_1, large_2, large_3, large_4, small" in caught.value.problem
    assert "1.061e+05 in 'large_4'" in caught.value.problem
    assert "FP32" in caught.value.fix
    with pytest.raises(MribatchError, match="6 of 7 nodes"):
        convert_bundle(bundle_of(model))


def test_no_images_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="no images"):
        audit(efficientnet_like().model(), IMAGES[:0])


def test_images_of_another_size_are_refused_in_one_line() -> None:
    with pytest.raises(MribatchError, match="ONNX Runtime cannot run it"):
        audit(efficientnet_like().model(), golden_slices(1, 16, 16))


def test_the_same_bundle_gives_the_same_graph() -> None:
    bundle = bundle_of(scaled_up_and_down(400).model())
    assert convert_bundle(bundle) == convert_bundle(bundle)
