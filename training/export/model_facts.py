"""What `mribatch export` found in a user's model: in bundle.json as `training`, in the model card and in --json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mribatch.core.about import JSON_SCHEMA_VERSION, __version__
from mribatch.core.typed_json import write_record


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """The file of a model."""

    file: str  # its name
    sha256: str  # hex
    saved_by_keras: str | None = None  # version, "unknown" where the file does not say; None of an ONNX file
    saved_by: str | None = None  # name and version of what wrote it, or "unknown"; None of a Keras file
    opset: str | None = None  # of ONNX's own operators; None of a Keras file

    @property
    def writer(self) -> str:
        """For people, e.g. "Keras 3.12.0"."""
        return f"Keras {self.saved_by_keras}" if self.saved_by_keras is not None else str(self.saved_by)


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model that was loaded and inspected."""

    source: str  # for people
    origin: FileFacts
    weights: int
    channels: int  # 1 or 3
    scale: str  # what the graph does to the pixels, as --scale or --mean and --std say it
    scaled_by_layers: tuple[str, ...]  # the model's own
    ends_in: str
    probabilities: str  # how they come from the outputs, for people
    golden_spread: float  # by how much the answers to the golden slices vary
    mribatch: str = __version__

    def to_json(self) -> dict[str, Any]:
        """The keys of `origin` stand among the others, after `source`."""
        content = write_record(self)
        return {"source": content.pop("source"), **content.pop("origin"), **content}


@dataclass(frozen=True, kw_only=True)
class ExportFacts:
    """What `mribatch export --json` prints."""

    name: str  # of the bundle
    out: str  # its folder
    model: ModelFacts
    trained: bool
    golden_max_difference: float  # ONNX Runtime against the model

    def to_json(self) -> Mapping[str, Any]:
        """The keys of `model` stand among the others, after `out`."""
        return {
            "schema_version": JSON_SCHEMA_VERSION,
            "name": self.name,
            "out": self.out,
            **self.model.to_json(),
            "trained": self.trained,
            "golden_max_difference": self.golden_max_difference,
        }
