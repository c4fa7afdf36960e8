"""The bundle's graph in ONNX Runtime on the GPU, through its CUDA provider: a Classifier for where TensorRT is missing.

It needs the package onnxruntime-gpu in place of onnxruntime, and nothing from NVIDIA's own index.
"""

from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.bundle import Bundle
from mribatch.core.errors import MribatchError
from mribatch.core.model_spec import FP32, INPUT_NAME, OUTPUT_NAME
from mribatch.pipeline.choices import INSTALL_CUDA_PROVIDER, ONNXRUNTIME_CUDA
from mribatch.trt.runtime.device import OutOfGpuMemory, is_out_of_memory

PROVIDER = "CUDAExecutionProvider"


class CudaProviderClassifier:
    """FP32 on the first GPU that CUDA_VISIBLE_DEVICES leaves. Every call has the same shape, padded with zeros.

    Args:
        bundle: Checked; its bytes are loaded, not the file again.
        batch_size: Rows of every call.
    """

    name = ONNXRUNTIME_CUDA
    calls_at_once = 1  # calls to one session would wait for each other on the GPU
    precision = FP32

    def __init__(self, bundle: Bundle, batch_size: int) -> None:
        self._bundle = bundle
        self._batch_size = batch_size
        self._session: Any = None

    @property
    def library_version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)

    def __enter__(self) -> Self:
        """Load the graph into the GPU.

        Raises:
            MribatchError: This ONNX Runtime has no CUDA provider, or the provider cannot run the whole graph there.
            OutOfGpuMemory: The graph does not fit.
        """
        try:
            self._session = self._make_session(self._bundle.graph(FP32))
        except MribatchError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise self._refused("load the model", error) from error
        return self

    def _make_session(self, graph: bytes) -> Any:
        import onnxruntime

        if PROVIDER not in onnxruntime.get_available_providers():
            raise MribatchError(f"ONNX Runtime {self.library_version} has no {PROVIDER}", INSTALL_CUDA_PROVIDER)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Else it would run on the CPU, in silence, what the provider does not know, or all where it does not load.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        on_gpu = (PROVIDER, {"device_id": "0", "use_tf32": "0"})  # FP32 means FP32: TF32 keeps 10 bits of precision
        session = onnxruntime.InferenceSession(graph, sess_options=options, providers=[on_gpu])
        if session.get_providers()[:1] != [PROVIDER]:
            raise self._refused("load the model", f"{PROVIDER} does not load; CUDA or cuDNN is missing")
        return session

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None

    def __call__(self, images: NDArray[uint8]) -> NDArray[float32]:
        """Probabilities, float32 (batch, classes), for uint8 (batch, height, width, 1).

        Raises:
            MribatchError: The graph fails while it runs. OutOfGpuMemory: For lack of memory.
        """
        assert self._session is not None, "enter first"
        size = self._batch_size
        slices = [images[start : start + size] for start in range(0, len(images), size)]
        return np.concatenate([self._run(rows) for rows in slices])

    def _run(self, images: NDArray[uint8]) -> NDArray[float32]:
        rows = np.zeros((self._batch_size, *images.shape[1:]), uint8)
        rows[: len(images)] = images
        try:
            (probabilities,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: rows})
        except Exception as error:  # as above
            raise self._refused("run the model", error) from error
        result: NDArray[float32] = probabilities[: len(images)]
        return result

    def _refused(self, what: str, reason: object) -> MribatchError:
        line = (str(reason).splitlines() or [type(reason).__name__])[0]
        problem = f"ONNX Runtime {self.library_version} cannot {what} on the GPU: {line}"
        return (
            OutOfGpuMemory(problem) if is_out_of_memory(str(reason)) else MribatchError(problem, INSTALL_CUDA_PROVIDER)
        )
