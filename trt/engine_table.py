"""Engines as rows of a table: what `mribatch engine build` and `engine list` print."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mribatch.trt.sidecar import value_at

HEADER = ("bundle", "flavour", "target", "precision", "MB", "ratio to FP32", "seconds", "verified how")


@dataclass(frozen=True)
class EngineRow:
    """One engine. from_cache: it was there already."""

    path: Path
    sidecar: Mapping[str, Any]
    from_cache: bool

    def to_json(self) -> dict[str, Any]:
        return {"path": str(self.path), "from_cache": self.from_cache} | dict(self.sidecar)

    def cells(self) -> tuple[str, ...]:
        """In the order of HEADER. Seconds are of the build, also where the engine came from the cache."""
        at = self.sidecar
        return (
            str(at.get("model_name")),
            f"{at.get('trt_flavor')} {at.get('trt_version')}",
            str(at.get("target")),
            str(value_at(at, "precision.mode")),
            f"{at.get('engine_bytes', 0) / 1e6:.2f}",
            f"{at.get('ratio_to_fp32', float('nan')):.2f}",
            f"{at.get('seconds', float('nan')):.1f}" + (" (cached)" if self.from_cache else ""),
            str(at.get("verified")),
        )


def as_table(rows: Sequence[EngineRow]) -> str:
    """Columns padded with spaces, a header first."""
    lines = [HEADER, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                     for line in lines)  # fmt: skip
