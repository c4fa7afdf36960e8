"""The one interface between pixels and probabilities; every backend and every test double has it."""

from types import TracebackType
from typing import Protocol, Self

from numpy import float32, uint8
from numpy.typing import NDArray


class Classifier(Protocol):
    """Images in, class probabilities out.

    Nothing heavy happens before `__enter__`: no library is loaded, no device is touched.
    """

    @property
    def name(self) -> str:
        """The backend's name as the user types it, e.g. "onnxruntime"."""
        ...

    @property
    def library_version(self) -> str:
        """Version of the library that computes; part of a run's fingerprint."""
        ...

    @property
    def precision(self) -> str:
        """ "fp32" or "fp16"."""
        ...

    @property
    def calls_at_once(self) -> int:
        """How many threads may call it at the same time; 1 where calls must follow one another."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __call__(self, images: NDArray[uint8]) -> NDArray[float32]:
        """Classify one full batch.

        Args:
            images: uint8, shape (batch, height, width, 1), grey 0..255, C-contiguous, on the host. A backend may take
                other arrays besides, and then says so itself: TensorRT also one on the GPU.

        Returns:
            float32, shape (batch, classes), rows in the order of `images`, columns in the order of the bundle's
            classes. The array belongs to the caller.
        """
        ...
