"""The DALI graph: bytes -> grey pixels of the model's size. The same on the GPU and on the CPU, but for the device.

Linear interpolation without antialiasing, as OpenCV's INTER_LINEAR (DALI's own default filters before it shrinks, which
moves pixels by up to 66 levels). No fast approximate DCT, which moves them by up to 8.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy import uint8
from numpy.typing import NDArray

HW_DECODER_LOADS = (1.0, 0.0)
"""Shares of the JPEGs for the GPU's own JPEG engine, where it has one; the first unless measured otherwise. Nothing
between 0 and 1: DALI would split every batch by place, and the two decoders need not give the same bits: pixels would
depend on the image's neighbours."""

PREFETCHED = 2
"""Batches that DALI works on ahead of the one that is asked for, unless told otherwise."""
_INPUT = "encoded"

Samples = Sequence[NDArray[uint8]]  # of one batch: each the bytes of an image file, uint8 (n,)


@dataclass(frozen=True)
class DaliDevice:
    """Where DALI decodes. number: of the GPU, None for the CPU."""

    number: int | None

    @property
    def name(self) -> str:
        return "CPU" if self.number is None else f"GPU {self.number}"


CPU, FIRST_GPU = DaliDevice(None), DaliDevice(0)


@dataclass(frozen=True, kw_only=True)
class GpuDecoding:
    """How the GPU decodes JPEGs.

    Attributes:
        hw_load: One of HW_DECODER_LOADS.
        huffman_threshold: Pixels from which Huffman codes are read on the GPU as well; None: DALI's own.
        width, height: Of nearly all images; memory for them is allocated beforehand. None: as they come.
        pinned: Each of DALI's threads keeps to a core. Not where several processes share the cores: the first threads
            of each would keep to the same.
    """

    hw_load: float = HW_DECODER_LOADS[0]
    huffman_threshold: int | None = None
    width: int | None = None
    height: int | None = None
    pinned: bool = True

    @property
    def arguments(self) -> dict[str, Any]:
        """Of `fn.decoders.image`."""
        optional = {
            "hybrid_huffman_threshold": self.huffman_threshold,
            "preallocate_width_hint": self.width,
            "preallocate_height_hint": self.height,
        }
        given = {name: value for name, value in optional.items() if value is not None}
        return {"device": "mixed", "hw_decoder_load": self.hw_load, "affine": self.pinned} | given


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """What the graph is built for. height, width: of the pixels it gives. prefetched: batches, at least 1."""

    device: DaliDevice
    height: int
    width: int
    threads: int
    prefetched: int = PREFETCHED
    on_gpu: GpuDecoding = field(default_factory=GpuDecoding)


def prefetching(options: GraphOptions, batch_size: int, next_samples: Callable[[], Samples]) -> Any:
    """A pipeline that asks `next_samples` for a batch, `prefetched` of them ahead, until it raises StopIteration."""
    from nvidia.dali import Pipeline, fn, types

    pipeline = Pipeline(
        batch_size=batch_size,
        num_threads=options.threads,
        device_id=options.device.number,
        prefetch_queue_depth=options.prefetched,
    )
    with pipeline:
        # Without a copy: whoever gives the samples keeps them as they are until their batch has come out.
        encoded = fn.external_source(source=next_samples, batch=True, dtype=types.UINT8, ndim=1, no_copy=True)
        pipeline.set_outputs(_pixels(encoded, options))
    pipeline.build()
    return pipeline


def single(options: GraphOptions) -> Callable[[NDArray[uint8]], Any]:
    """One image file's bytes -> DALI's tensor list of one; no other image is near. Raises RuntimeError: refused."""
    from nvidia.dali import Pipeline, fn, types

    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=options.device.number, prefetch_queue_depth=1)
    with pipeline:
        encoded = fn.external_source(name=_INPUT, dtype=types.UINT8, ndim=1)
        pipeline.set_outputs(_pixels(encoded, options))
    pipeline.build()

    def decode(sample: NDArray[uint8]) -> Any:
        (images,) = pipeline.run(**{_INPUT: [sample]})
        return images

    return decode


def _pixels(encoded: Any, options: GraphOptions) -> Any:
    """Grey uint8, HWC."""
    from nvidia.dali import fn, types

    where = {"device": "cpu"} if options.device.number is None else options.on_gpu.arguments
    # What the orientation turns is not given to DALI (`dali.for_dali`), which sees some where the probe sees none.
    grey = fn.decoders.image(encoded, output_type=types.GRAY, adjust_orientation=False, **where)
    return fn.resize(grey, size=(options.height, options.width), interp_type=types.INTERP_LINEAR, antialias=False)
