"""ONNX Runtime on the CPU as a reference for graphs: unoptimised, so that every node and every cast is computed."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.cores import usable_cores
from mribatch.core.model_spec import INPUT_NAME, OUTPUT_NAME
from mribatch.trt.graph.typed import make_conversion_error


class CpuSession:
    """One graph, loaded.

    Args:
        model: ONNX bytes.

    Raises:
        MribatchError: ONNX Runtime does not accept it.
    """

    def __init__(self, model: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = usable_cores()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # else slow where cores are shared
        options.log_severity_level = 3
        try:
            self._open_session: Any = onnxruntime.InferenceSession(
                model, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class
            raise make_conversion_error(f"ONNX Runtime does not load it: {str(error).splitlines()[0]}") from error

    def run(self, tensors: Sequence[str], images: NDArray[uint8]) -> list[NDArray[Any]]:
        """The values of graph outputs for uint8 (batch, height, width, 1).

        Raises:
            MribatchError: A node fails.
        """
        try:
            values: list[NDArray[Any]] = self._open_session.run(list(tensors), {INPUT_NAME: images})
        except Exception as error:  # as above
            raise make_conversion_error(f"ONNX Runtime cannot run it: {str(error).splitlines()[0]}") from error
        return values


class CpuClassifier:
    """A Classifier on a graph as it is, for comparisons; slow, because nothing is optimised.

    Args:
        make_model: Gives the ONNX bytes when it is entered.
        precision: "fp32" or "fp16", which limit of the tolerance holds.
    """

    name = "onnxruntime"
    calls_at_once = 1

    def __init__(self, make_model: Callable[[], bytes], precision: str) -> None:
        self._make_model = make_model
        self.precision = precision
        self._open_session: CpuSession | None = None

    @property
    def library_version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)

    def __enter__(self) -> Self:
        """Load the graph.

        Raises:
            MribatchError: ONNX Runtime does not accept it.
        """
        self._open_session = CpuSession(self._make_model())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open_session = None

    def __call__(self, images: NDArray[uint8]) -> NDArray[float32]:
        """Probabilities, float32 (batch, classes), for uint8 (batch, height, width, 1).

        Raises:
            MribatchError: The graph fails while it runs.
        """
        assert self._open_session is not None, "enter first"
        (probabilities,) = self._open_session.run([OUTPUT_NAME], images)
        return np.asarray(probabilities, dtype=float32)
