"""The DALI Decoder: files are read and probed on threads; DALI decodes and resizes them, on the GPU or on the CPU.

DALI knows no bad file: one that it refuses fails its whole batch, and one that it cannot parse may kill the process
(2.2 to 2.4). So the probe looks first; a batch that fails all the same is done again image by image; and whoever runs
this does it in a process that may die (`mribatch.pipeline.worker.supervisor`).

Every batch that DALI sees has the same size: a place without a good file holds a black image. What DALI is not asked to
decode (anything but 8-bit PNG and usual, sound JPEG that need not be turned, and so every slice of a DICOM or NIfTI
file) is decoded on the CPU and passed through as a PGM file of the right size, which DALI copies as it is. So the batch
is whole where DALI leaves it, also on the GPU, and nothing is moved afterwards.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import thread_time
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.pipeline.decode.dali_graph import GraphOptions, Samples, prefetching, single
from mribatch.pipeline.decode.dali_package import format_dali_install
from mribatch.pipeline.decode.file import decoded_file, read_and_probe, timed_out
from mribatch.pipeline.decode.formats import png
from mribatch.pipeline.decode.grey import decode_grey
from mribatch.pipeline.decode.jpeg_data import has_usual_headers, is_read_alike
from mribatch.pipeline.decode.study import StudyDecoder
from mribatch.pipeline.records import DecodedBatch, DecodedFile, Flag, ImageFile, Status, Verdict
from mribatch.pipeline.threads import WorkerThreads
from mribatch.trt.runtime.device import OutOfGpuMemory, is_out_of_memory

_MAX_PIXELS = 25_000_000  # of one image; a batch of larger ones does not fit beside an engine into a small GPU
READ_AHEAD = 2
"""Batches whose files are read while DALI works on those before, unless told otherwise."""

_REASON = 300  # characters of an error of DALI's
_FAILED = "Critical error in pipeline"  # how DALI's own RuntimeErrors begin

Place = Callable[[Any], NDArray[uint8]]  # DALI's tensor list -> a batch's pixels


def to_host(images: Any) -> NDArray[uint8]:
    """A copy on the host, uint8 (batch, height, width, 1), C-contiguous."""
    on_host = images.as_cpu() if hasattr(images, "as_cpu") else images
    return np.array(on_host.as_array(), dtype=uint8)


def on_gpu(images: Any) -> NDArray[uint8]:
    """The batch where it lies, for a model on the same GPU, which asks for `__cuda_array_interface__` first."""
    return cast("NDArray[uint8]", OnGpu(images))


class OnGpu:
    """DALI's batch as the CUDA Array Interface, version 3, describes it; holds its memory.

    `Pipeline.run` without a stream returns once the pixels are written, so there is no stream to wait for.
    """

    def __init__(self, images: Any) -> None:
        self._images = images
        self._tensor = images.as_tensor()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        shape = tuple(self._tensor.shape())
        return {
            "shape": shape,
            "typestr": "|u1",
            "data": (self._tensor.data_ptr(), True),
            "strides": None,
            "version": 3,
            "stream": None,
        }

    def to_host(self) -> NDArray[uint8]:
        """Copy the batch to the host, for what is compared there."""
        return to_host(self._images)


@dataclass(frozen=True, slots=True)
class _Sample:
    """A file on its way through DALI. encoded: what DALI is given; content: the file itself, where that is the same."""

    decoded: DecodedFile
    encoded: NDArray[uint8]
    content: bytes | None = None


class DaliDecoder:
    """Decoder with NVIDIA DALI.

    Args:
        options: Where, how large, and how many threads.
        batch_size: Rows of every batch; missing ones are zero.
        max_pixels: Larger images are too_large.
        timeout_s: Seconds for reading one file, and for decoding it where OpenCV does that.
        studies: Decodes slices of DICOM and NIfTI files; None where there are none.
        place: Where the pixels go: `to_host`, or `on_gpu` for a model on the same GPU.
        read_ahead: Batches whose files are read while DALI works on those before, at least 0.
        readers: Files that are read at once; None: as many as DALI has threads.
        checks_data: Whether the data of a JPEG are looked at for damage, which DALI hides; else its row is flagged.
    """

    name = "dali"

    def __init__(
        self,
        options: GraphOptions,
        *,
        batch_size: int,
        max_pixels: int,
        timeout_s: float,
        studies: StudyDecoder | None = None,
        place: Place = to_host,
        read_ahead: int = READ_AHEAD,
        readers: int | None = None,
        checks_data: bool = True,
    ) -> None:
        self._read_ahead = read_ahead
        self._studies = studies
        self._options = options
        self._batch_size = batch_size
        self._max_pixels = max_pixels
        self._timeout_s = timeout_s
        self._place = place
        self._checks_data = checks_data
        self._pool = WorkerThreads(self._prepare, readers or options.threads, timeout_s, self._late)
        self._single: Callable[[NDArray[uint8]], Any] | None = None
        self._black = _pgm(np.zeros((options.height, options.width), uint8))

    @property
    def library_version(self) -> str:
        import nvidia.dali

        return str(nvidia.dali.__version__)

    @property
    def groups_ahead(self) -> int:
        return self._read_ahead + self._options.prefetched

    def __enter__(self) -> Self:
        """Load DALI and let it decode an image.

        Raises:
            MribatchError: It cannot be loaded, or does not work on the device.
        """
        import cv2

        cv2.setNumThreads(1)
        self._single = self._proven_single()
        self._pool.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, trace)
        if self._studies is not None:
            self._studies.close()
        self._single = None

    def batches(self, groups: Iterable[Sequence[ImageFile]]) -> Iterator[DecodedBatch]:
        """One batch per group, in order; some groups are read and two are in DALI while the caller works on one."""
        inside: deque[list[_Sample]] = deque()  # in DALI, oldest first
        ready = self._pool.in_groups(groups, self._read_ahead)
        pipeline = self._pipeline(ready, inside)
        while True:
            try:
                (images,) = pipeline.run()
            except StopIteration:
                assert not inside, "DALI gave fewer batches than it was given"
                return
            except RuntimeError as error:
                self._raise_if_out_of_memory(error)
                if not inside or not str(error).startswith(_FAILED):
                    raise
                self._single = self._proven_single()  # where this fails, no file is to blame
                # It is the oldest batch's failure. DALI calls the pipeline invalid: a new one gets the others again.
                yield self._image_by_image(inside.popleft())
                again = list(inside)
                inside.clear()
                pipeline = self._pipeline(itertools.chain(again, ready), inside)
                continue
            yield DecodedBatch(tuple(sample.decoded for sample in inside.popleft()), self._place(images))

    def alone(self, file: ImageFile) -> tuple[DecodedFile, NDArray[uint8] | None]:
        """One file, in a pipeline of batch size one."""
        sample = self._pool.result(self._pool.submit(file))
        return self._alone(sample)

    def _pipeline(self, batches: Iterator[list[_Sample]], inside: deque[list[_Sample]]) -> Any:
        def next_samples() -> Samples:
            samples = next(batches)
            inside.append(samples)
            padding = self._batch_size - len(samples)
            return [sample.encoded for sample in samples] + [self._black] * padding

        return prefetching(self._options, self._batch_size, next_samples)

    def _prepare(self, file: ImageFile) -> _Sample:
        """On a thread of the pool: all that happens to a file before DALI."""
        if file.study is not None and self._studies is not None:
            decoded, image = self._studies.decode(file, file.study)
            return _Sample(decoded, self._black if image is None else _pgm(image[:, :, 0]))
        begin = thread_time()
        content, verdict = read_and_probe(file.file, self._max_pixels, file.listed)
        if content is None or verdict.status is not Status.OK:
            return _Sample(decoded_file(file, verdict, content, begin), self._black)
        given = for_dali(content, verdict, is_read_alike if self._checks_data else has_usual_headers)
        if given is not None:
            if verdict.format == "jpeg" and not self._checks_data:
                verdict = replace(verdict, flags=(*verdict.flags, Flag.UNCHECKED_DATA))
            return _Sample(decoded_file(file, verdict, content, begin), np.frombuffer(given, uint8), content)
        verdict, image = decode_grey(content, verdict, self._options.height, self._options.width)
        encoded = self._black if image is None else _pgm(image[:, :, 0])
        return _Sample(decoded_file(file, verdict, content, begin), encoded)

    def _late(self, file: ImageFile) -> _Sample:
        return _Sample(DecodedFile(file, timed_out(self._timeout_s)), self._black)

    def _image_by_image(self, samples: list[_Sample]) -> DecodedBatch:
        pixels = np.zeros((self._batch_size, self._options.height, self._options.width, 1), uint8)
        files = []
        for position, sample in enumerate(samples):
            decoded, image = self._alone(sample)
            files.append(decoded)
            if image is not None:
                pixels[position] = image
        return DecodedBatch(tuple(files), pixels)

    def _alone(self, sample: _Sample) -> tuple[DecodedFile, NDArray[uint8] | None]:
        """One sample. What DALI refuses even alone is OpenCV's, so that its status is the OpenCV decoder's."""
        decoded = sample.decoded
        if decoded.verdict.status is not Status.OK:
            return decoded, None
        assert self._single is not None, "enter first"
        try:
            return decoded, to_host(self._single(sample.encoded))[0]
        except RuntimeError:
            self._single = self._proven_single()  # the failed one is not used again, as above
            if sample.content is None:
                raise  # a PGM of ours: whatever is broken, it is not the file
        checked = _without_flag(decoded.verdict, Flag.UNCHECKED_DATA)
        verdict, image = decode_grey(sample.content, checked, self._options.height, self._options.width)
        return DecodedFile(decoded.file, verdict, decoded.bytes, decoded.sha256, decoded.seconds), image

    def _raise_if_out_of_memory(self, error: Exception) -> None:
        """Raises OutOfGpuMemory where that is the reason: no file is to blame, and the next batch would fail, too."""
        if self._options.device.number is not None and is_out_of_memory(error):
            reason = " ".join(str(error).split())[:_REASON]
            raise OutOfGpuMemory(f"NVIDIA DALI cannot decode on the {self._options.device.name}: {reason}") from error

    def _proven_single(self) -> Callable[[NDArray[uint8]], Any]:
        """A pipeline of batch size one that has decoded an image of ours: where one fails, so would every file.

        Raises:
            MribatchError: DALI cannot be loaded, or fails: there is no such GPU, or it no longer answers.
        """
        try:
            decode = single(self._options)
            decode(self._black)
        except (ImportError, OSError, RuntimeError) as error:
            self._raise_if_out_of_memory(error)
            reason = " ".join(str(error).split())[:_REASON]
            raise MribatchError(
                f"NVIDIA DALI does not work on the {self._options.device.name}: {reason}",
                f"{format_dali_install(reinstall=True)}, or use --decoder opencv",
            ) from error
        return decode


def for_dali(content: bytes, verdict: Verdict, reads_right: Callable[[bytes], bool] = is_read_alike) -> bytes | None:
    """What DALI is given of a file that is ok, so that its pixels are `decode_grey`'s; None: it is not asked.

    Args:
        content: The whole file.
        verdict: Of `probe(content)`.
        reads_right: Whether DALI may have a JPEG.

    8 bits a sample only: DALI scales 16 bits by 1/257, which leaves 12-bit slices nearly black. Nothing that is to be
    turned: DALI finds other orientations than the probe. Of JPEGs those that all decoders read alike: DALI takes inks
    without Adobe's marker for black, and hides damage inside the data.
    """
    pixels = (verdict.width or 0) * (verdict.height or 0)
    if verdict.bits != 8 or pixels > _MAX_PIXELS or Flag.EXIF_ROTATED in verdict.flags:
        return None
    if verdict.format == "png":
        return png.only_pixels(content)
    return content if verdict.format == "jpeg" and reads_right(content) else None


def _without_flag(verdict: Verdict, flag: Flag) -> Verdict:
    return replace(verdict, flags=tuple(one for one in verdict.flags if one is not flag))


def _pgm(grey: NDArray[uint8]) -> NDArray[uint8]:
    """A PGM file (netpbm, magic number P5) of uint8 (height, width), as uint8 (n,)."""
    height, width = grey.shape
    return np.frombuffer(b"P5\n%d %d\n255\n" % (width, height) + grey.tobytes(), uint8)
