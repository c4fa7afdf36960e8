"""The bundle's graph in ONNX Runtime on the CPU: a Classifier."""

from types import TracebackType
from typing import Any, Self

from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.bundle import Bundle
from mribatch.errors import MribatchError
from mribatch.model_spec import INPUT_NAME, OUTPUT_NAME


class OnnxRuntimeClassifier:
    """FP32 on the CPU. A row's result does not depend on its neighbours, its position or the number of threads.

    Args:
        bundle: Checked; its bytes are loaded, not the file again.
        threads: Cores that one batch is spread over.
    """

    name = "onnxruntime"
    precision = "fp32"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._bundle = bundle
        self._threads = threads
        self._session: Any = None

    @property
    def library_version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)

    def __enter__(self) -> Self:
        """Load the graph.

        Raises:
            MribatchError: ONNX Runtime does not accept it.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin while they wait would take the cores that the decoder needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                self._bundle.model, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class
            raise self._refused("load", error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None

    def __call__(self, images: NDArray[uint8]) -> NDArray[float32]:
        """Probabilities, float32 (batch, classes), for uint8 (batch, height, width, 1).

        Raises:
            MribatchError: The graph fails while it runs, or gives another shape than it declares.
        """
        try:
            (probabilities,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: images})
        except Exception as error:  # as above
            raise self._refused("run", error) from error
        expected = (len(images), len(self._bundle.spec.classes))
        if probabilities.shape != expected:
            raise self._refused("use", f"it gives {probabilities.shape} for {expected}")
        result: NDArray[float32] = probabilities
        return result

    def _refused(self, what: str, reason: object) -> MribatchError:
        return MribatchError(
            f"ONNX Runtime {self.library_version} cannot {what} {self._bundle.folder}: {str(reason).splitlines()[0]}",
            "export the model again, or name another with --model",
        )
