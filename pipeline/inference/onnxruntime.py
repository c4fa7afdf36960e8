"""The bundle's graph in ONNX Runtime on the CPU: a Classifier."""

from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.bundle import Bundle
from mribatch.core.errors import MribatchError
from mribatch.core.model_spec import FP32, INPUT_NAME, INT8, OUTPUT_NAME
from mribatch.core.processor import find_processor

ROWS_PER_CALL = 8
"""Rows that one thread gives to ONNX Runtime at once, always: the shape decides the kernels, and so the last bits.

Eight are as fast as more (the activations stay in the cache), and a batch splits evenly over the cores.
"""


class OnnxRuntimeClassifier:
    """FP32 or INT8 on the CPU. A row's result depends on its pixels alone, not on neighbours, batch size or threads.

    A batch is cut into slices of ROWS_PER_CALL rows, the last one padded with zeros, which run side by side with one
    thread each. That is 6 % faster on two cores than one call that spreads each operator over them.

    Args:
        bundle: Checked; its bytes are loaded, not the file again.
        threads: Cores that one batch is spread over.
        precision: "fp32", or "int8" for a bundle that has such a graph.
    """

    name = "onnxruntime"
    calls_at_once = 2  # while one batch's last slice ends and its rows are made, the next keeps the other cores busy

    def __init__(self, bundle: Bundle, threads: int, precision: str = FP32) -> None:
        self.precision = precision
        self._bundle = bundle
        self._threads = threads
        self._session: Any = None
        self._pool: ThreadPoolExecutor | None = None

    @property
    def library_version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)

    def __enter__(self) -> Self:
        """Load the graph.

        Raises:
            MribatchError: ONNX Runtime does not accept it, or there is no such graph.
        """
        import onnxruntime

        graph = self._bundle.graph(self.precision)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if self.precision == INT8 and find_processor().saturates:
            # ONNX Runtime then makes the weights unsigned, whose products are added up without loss, at a third of the
            # speed. Source: kOrtSessionOptionsAvx2PrecisionMode, onnxruntime_session_options_config_keys.h
            options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                graph, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class
            raise self._refused("load", error) from error
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="mribatch-infer")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        self._session = self._pool = None

    def __call__(self, images: NDArray[uint8]) -> NDArray[float32]:
        """Probabilities, float32 (batch, classes), for uint8 (batch, height, width, 1).

        Raises:
            MribatchError: The graph fails while it runs, or gives another shape than it declares.
        """
        assert self._pool is not None, "enter first"
        slices = [images[start : start + ROWS_PER_CALL] for start in range(0, len(images), ROWS_PER_CALL)]
        return np.concatenate(list(self._pool.map(self._run, slices)))

    def _run(self, images: NDArray[uint8]) -> NDArray[float32]:
        rows = np.zeros((ROWS_PER_CALL, *images.shape[1:]), uint8)
        rows[: len(images)] = images
        try:
            (probabilities,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: rows})
        except Exception as error:  # as above
            raise self._refused("run", error) from error
        expected = (ROWS_PER_CALL, len(self._bundle.spec.classes))
        if probabilities.shape != expected:
            raise self._refused("use", f"it gives {probabilities.shape} for {expected}")
        result: NDArray[float32] = probabilities[: len(images)]
        return result

    def _refused(self, what: str, reason: object) -> MribatchError:
        return MribatchError(
            f"ONNX Runtime {self.library_version} cannot {what} {self._bundle.folder}: {str(reason).splitlines()[0]}",
            "export the model again, or name another with --model",
        )
