"""ONNX Runtime's CUDA provider: refused where it is missing, and every call of one shape. Its kernels need a GPU."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy import uint8

from mribatch.core.bundle import Bundle, load_bundle
from mribatch.core.errors import MribatchError
from mribatch.core.gate import gate
from mribatch.pipeline.inference.cuda_provider import PROVIDER, CudaProviderClassifier
from mribatch.pipeline.inference.onnxruntime import OnnxRuntimeClassifier
from mribatch.trt.runtime.device import OutOfGpuMemory

without_provider = pytest.mark.skipif(PROVIDER in onnxruntime.get_available_providers(), reason="the provider is there")


class OnCpu(CudaProviderClassifier):
    """The same calls, answered by the CPU's kernels."""

    shapes: list[tuple[int, ...]]

    def _make_session(self, graph: bytes) -> Any:
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.shapes = []

        class Watched:
            def run(inner, names: list[str], feed: dict[str, Any]) -> Any:
                self.shapes += [rows.shape for rows in feed.values()]
                if feed[next(iter(feed))].max() == 255:
                    raise RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; cudaMalloc\nsecond line")
                return session.run(names, feed)

        return Watched()


@pytest.fixture(scope="module")
def bundle(tiny_model: Any) -> Bundle:
    return load_bundle(str(tiny_model))


@without_provider
def test_a_provider_that_is_missing_is_one_line_with_its_fix(bundle: Bundle) -> None:
    with pytest.raises(MribatchError, match=f"has no {PROVIDER}. Fix: pip uninstall onnxruntime, then pip install"):
        CudaProviderClassifier(bundle, 8).__enter__()


def test_every_call_has_the_full_size_and_rows_are_in_order(bundle: Bundle) -> None:
    spec = bundle.spec
    images = np.random.default_rng(1).integers(0, 255, (19, spec.height, spec.width, 1), uint8)
    with OnCpu(bundle, 8) as classify, OnnxRuntimeClassifier(bundle, 1) as expected:
        np.testing.assert_allclose(classify(images), expected(images), atol=1e-6)
        assert set(classify.shapes) == {(8, spec.height, spec.width, 1)} and len(classify.shapes) == 3
        assert gate(classify, bundle, batch_sizes=(8,)).holds


def test_too_little_memory_is_known_as_such(bundle: Bundle) -> None:
    white = np.full((1, bundle.spec.height, bundle.spec.width, 1), 255, uint8)
    with (
        OnCpu(bundle, 8) as classify,
        pytest.raises(OutOfGpuMemory, match="cannot run the model on the GPU: CUDA fail"),
    ):
        classify(white)
