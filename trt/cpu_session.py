"""ONNX Runtime on the CPU as a reference for graphs: unoptimised, so that every node and every cast is computed."""

from collections.abc import Sequence
from typing import Any

from numpy import uint8
from numpy.typing import NDArray

from mribatch.cores import usable_cores
from mribatch.model_spec import INPUT_NAME
from mribatch.trt.typed_graph import refused


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
            self._session: Any = onnxruntime.InferenceSession(
                model, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class
            raise refused(f"ONNX Runtime does not load it: {str(error).splitlines()[0]}") from error

    def run(self, tensors: Sequence[str], images: NDArray[uint8]) -> list[NDArray[Any]]:
        """The values of graph outputs for uint8 (batch, height, width, 1).

        Raises:
            MribatchError: A node fails.
        """
        try:
            values: list[NDArray[Any]] = self._session.run(list(tensors), {INPUT_NAME: images})
        except Exception as error:  # as above
            raise refused(f"ONNX Runtime cannot run it: {str(error).splitlines()[0]}") from error
        return values
