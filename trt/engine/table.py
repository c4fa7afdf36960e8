"""Engines as rows of a table: what `mribatch engine build` and `engine list` print."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mribatch.core import tables
from mribatch.trt.engine.sidecar import EngineSidecar

HEADER = ("bundle", "flavor", "target", "precision", "MB", "ratio to FP32", "seconds", "verified how")


@dataclass(frozen=True)
class EngineRow:
    """One engine. from_cache: it was there already."""

    path: Path
    sidecar: EngineSidecar
    from_cache: bool

    def to_json(self) -> dict[str, Any]:
        return {"path": str(self.path), "from_cache": self.from_cache} | self.sidecar.to_json()

    def cells(self) -> tuple[str, ...]:
        """In the order of HEADER. Seconds are of the build, also where the engine came from the cache."""
        at = self.sidecar
        return (
            at.model_name,
            f"{at.trt_flavor} {at.trt_version}",
            at.target,
            at.precision.mode,
            f"{at.engine_bytes / 1e6:.2f}",
            "–" if at.ratio_to_fp32 is None else f"{at.ratio_to_fp32:.2f}",
            f"{at.seconds:.1f}" + (" (cached)" if self.from_cache else ""),
            at.verified,
        )


def format_table(rows: Sequence[EngineRow]) -> str:
    """A header and one line per engine."""
    return tables.format_table([tables.Column(title) for title in HEADER], [row.cells() for row in rows])
