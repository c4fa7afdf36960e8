"""What is asked of a backend and a decoder, wherever they run; a worker process gets it as JSON."""

import json
from dataclasses import dataclass
from typing import Self

from mribatch.core.typed_json import read_record, write_record
from mribatch.pipeline.decode.dali import READ_AHEAD
from mribatch.pipeline.decode.dali_graph import HW_DECODER_LOADS, PREFETCHED, GpuDecoding
from mribatch.pipeline.records import Choice
from mribatch.pipeline.studies.facts import Plane
from mribatch.pipeline.studies.options import HeaderOptions

_READERS_FROM_AFAR = 16


@dataclass(frozen=True, kw_only=True)
class WorkOrder:
    """All that is needed to turn files into probabilities; a worker's first argument, as JSON."""

    model: str  # folder of the bundle
    bundle_sha256: str  # as the parent has checked it
    backend: Choice  # as chosen by the parent; where an engine does not hold, another backend takes its place
    backend_required: bool = False  # the user asked for it: then nothing takes its place, and the run ends
    decoder: Choice  # as the backend
    decoder_required: bool = False
    precision: Choice  # of ONNX Runtime; where an engine takes its place, the engine's
    batch_size: int
    prefetch: int = PREFETCHED  # batches that DALI works on ahead
    read_ahead: int = READ_AHEAD  # batches whose files are read ahead of those
    any_batch: bool = False  # an engine for every batch size up to that of TUNED_BATCH, rather than for this one
    hw_decoder_load: float = HW_DECODER_LOADS[0]  # this and the next three are those of GpuDecoding
    huffman_threshold: int | None = None
    usual_width: int | None = None
    usual_height: int | None = None
    shares_cores: bool = False  # with other processes of the run
    threads: int
    from_afar: bool = False  # files come over a network: more of them are read at once than there are cores
    checks_data: bool = True  # of JPEGs, for damage that DALI hides
    max_pixels: int
    timeout_s: float
    window: str = "file"  # as decode.values.Window.parse reads it
    plane: str | None = None  # of NIfTI volumes
    volume: int | None = 0  # of NIfTI files; None: all
    dicom_anywhere: bool = False

    @property
    def header_options(self) -> HeaderOptions:
        """How the headers of DICOM and NIfTI files are read. The listing has judged the modality already."""
        return HeaderOptions(
            max_pixels=self.max_pixels,
            any_modality=True,
            dicom_anywhere=self.dicom_anywhere,
            plane=None if self.plane is None else Plane(self.plane),
            volume=self.volume,
        )

    @property
    def gpu_decoding(self) -> GpuDecoding:
        return GpuDecoding(
            hw_load=self.hw_decoder_load,
            huffman_threshold=self.huffman_threshold,
            width=self.usual_width,
            height=self.usual_height,
            pinned=not self.shares_cores,
        )

    @property
    def readers(self) -> int:
        """Files that are read and decoded at once."""
        return max(self.threads, _READERS_FROM_AFAR) if self.from_afar else self.threads

    def to_json(self) -> str:
        return json.dumps(write_record(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return read_record(cls, json.loads(text))
