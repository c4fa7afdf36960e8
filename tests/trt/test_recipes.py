"""Every network that training knows, in FP16, parsed and built by TensorRT for RTX: half everywhere but the head, and smaller."""

import dataclasses

import pytest

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install '.[rtx]'")
pytest.importorskip("tensorflow", reason="needs the extra 'train'")

from mribatch.core.synthetic import golden_slices
from mribatch.training.export.onnx_conversion import to_onnx
from mribatch.training.networks.build import build
from mribatch.training.recipes.catalog import RECIPES
from mribatch.training.recipes.recipe import NO_WEIGHTS
from mribatch.trt.engine.build import build_engine
from mribatch.trt.graph.conversion import to_fp16
from mribatch.trt.graph.range_audit import audit
from mribatch.trt.graph.turing import without_fp32_dense
from mribatch.trt.library import Flavor
from mribatch.trt.request import BatchProfile

pytestmark = [
    pytest.mark.slow,
    # Keras 3.15 on TensorFlow 2.21 still hands NumPy arrays without the copy keyword; not ours to mend.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

BATCH = BatchProfile(64, 64)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipes_network_builds_in_half_and_is_smaller(name: str) -> None:
    recipe = dataclasses.replace(RECIPES[name], weights=NO_WEIGHTS)
    model = to_onnx(build(recipe, 4, seed=1), 1.0)
    half = to_fp16(model, keep_fp32=audit(model, golden_slices(2, recipe.size, recipe.size)).fp32_nodes)
    plan = build_engine(half.model, Flavor.RTX, "sm89", BATCH, fp32_nodes=half.fp32_nodes)
    single = build_engine(model, Flavor.RTX, "sm89", BATCH)
    ratio = len(plan.content) / len(single.content)
    print(
        f"{name}: {len(plan.content) / 1e6:.1f} MB, ratio to FP32 {ratio:.2f}, {plan.seconds:.1f} s, "
        f"{plan.half_layers} layers in half, {plan.float_layers} in float, kept: {len(half.fp32_nodes)} nodes"
    )
    assert single.half_layers == 0 and plan.half_layers > 0.5 * single.float_layers
    assert ratio < 0.85
    turing, added = without_fp32_dense(half.model)
    assert build_engine(turing, Flavor.RTX, "sm75", BATCH, fp32_nodes=half.fp32_nodes + added).half_layers > 0
