"""What is asked of a backend and a decoder, wherever they run; a worker process gets it as JSON."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

from mribatch.pipeline.records import Choice


@dataclass(frozen=True, kw_only=True)
class WorkOrder:
    """All that is needed to turn files into probabilities; a worker's first argument, as JSON."""

    model: str  # folder of the bundle
    bundle_sha256: str  # as the parent has checked it
    backend: Choice  # as chosen by the parent; where an engine does not hold, another backend takes its place
    decoder: Choice
    batch_size: int
    threads: int
    max_pixels: int
    timeout_s: float

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**read_choices(json.loads(text)))


def read_choices(facts: dict[str, Any]) -> dict[str, Any]:
    """The same facts with `backend` and `decoder` as Choices."""
    return facts | {key: Choice(**facts[key]) for key in ("backend", "decoder")}
