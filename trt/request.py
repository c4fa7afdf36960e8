"""Which engine is wanted: the library that builds it, the GPU, the precision and the batch sizes."""

from dataclasses import dataclass

from mribatch.core.errors import OptionError
from mribatch.trt.library import Flavor

FP16, FP32 = "fp16", "fp32"
MAX_BATCH = 4096


@dataclass(frozen=True)
class BatchProfile:
    """Batch sizes that an engine takes: from 1 to `maximum`, fastest at `optimal`."""

    optimal: int
    maximum: int

    def __post_init__(self) -> None:
        if not 1 <= self.optimal <= self.maximum <= MAX_BATCH:
            raise OptionError(
                f"the batch sizes 1, {self.optimal}, {self.maximum} do not rise, or the last exceeds {MAX_BATCH}",
                "give --batch-size MAX or --batch-size OPT,MAX, for example 64",
            )

    @property
    def gate_sizes(self) -> tuple[int, ...]:
        """Batch sizes at which the gate compares an engine: one image, an odd number, the largest."""
        odd = max(1, (self.maximum // 2) | 1)
        return tuple(sorted({1, min(odd, self.maximum), self.maximum}))

    def __str__(self) -> str:
        return f"1/{self.optimal}/{self.maximum}"


DEFAULT_BATCH = BatchProfile(64, 64)
TUNED_BATCH = BatchProfile(128, 512)
"""Of the one engine that a tuned run uses, whatever its batch size: building one takes minutes."""


@dataclass(frozen=True, kw_only=True)
class EngineRequest:
    """An engine of some bundle, as it is wanted."""

    flavor: Flavor
    target: str  # "sm89": the compute capability of the GPU
    precision: str = FP16
    batch: BatchProfile = DEFAULT_BATCH
    rows: int | None = None  # of every batch that it will be given; None: the largest. The engine is the same

    @property
    def rows_per_batch(self) -> int:
        return self.rows or self.batch.maximum

    @property
    def gate_sizes(self) -> tuple[int, ...]:
        """Batch sizes at which the gate compares the engine."""
        return BatchProfile(self.rows_per_batch, self.rows_per_batch).gate_sizes

    def __str__(self) -> str:
        return f"{self.precision} engine for {self.target} ({self.flavor})"
