"""A folder's images, decoded as `classify` decodes them, for `mribatch engine verify --data`."""

import os
import tempfile
from collections.abc import Generator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.core.bundle import Bundle
from mribatch.core.cores import usable_cores
from mribatch.core.text import decode_name
from mribatch.pipeline.decode.probe import DEFAULT_MAX_PIXELS
from mribatch.pipeline.listing.discover import Discovery, resolve_inputs
from mribatch.pipeline.options import DEFAULT_TIMEOUT_S
from mribatch.pipeline.records import ImageFile, Status
from mribatch.trt.verify import UserImages

_BATCH_SIZE = 16


def open_user_images(folder: str, bundle: Bundle, limit: int | None) -> UserImages:
    """The images of a folder that can be decoded (at most `limit`), and ONNX Runtime in FP32 to compare with.

    Raises:
        MribatchError: There is no such folder.
    """
    from mribatch.pipeline.inference.onnxruntime import OnnxRuntimeClassifier

    files = _list_files(folder, limit)
    return UserImages(OnnxRuntimeClassifier(bundle, usable_cores()), len(files), _decode_batches(files, bundle))


def _list_files(folder: str, limit: int | None) -> list[ImageFile]:
    inputs = resolve_inputs([folder])
    with (
        tempfile.TemporaryDirectory(prefix="mribatch-") as place,
        Discovery(inputs, Path(place) / "discovery.sqlite") as discovery,
    ):
        found = (item for item in discovery.files() if item.skipped is None)
        return [
            ImageFile(index, item.input, decode_name(item.path)[0], os.path.join(inputs[item.input].root, item.path))
            for index, item in enumerate(islice(found, limit))
        ]


def _decode_batches(files: list[ImageFile], bundle: Bundle) -> Generator[NDArray[uint8], None, None]:
    from mribatch.pipeline.decode.opencv import OpenCvDecoder

    decode = OpenCvDecoder(
        height=bundle.spec.height,
        width=bundle.spec.width,
        batch_size=_BATCH_SIZE,
        threads=usable_cores(),
        max_pixels=DEFAULT_MAX_PIXELS,
        timeout_s=DEFAULT_TIMEOUT_S,
    )
    groups = (files[start : start + _BATCH_SIZE] for start in range(0, len(files), _BATCH_SIZE))
    with decode:
        for batch in decode.batches(groups):
            good = [place for place, file in enumerate(batch.files) if file.verdict.status is Status.OK]
            if good:
                yield np.ascontiguousarray(batch.pixels[good])
