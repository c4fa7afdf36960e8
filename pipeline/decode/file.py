"""One file on disk -> its verdict and its grey pixels. `classify`, training and `features` all see these pixels.

path --read_file--> bytes --probe--> verdict --decode_grey--> uint8 pixels of the model's size
"""

import time
from dataclasses import dataclass, replace
from hashlib import sha256

from numpy import uint8
from numpy.typing import NDArray

from mribatch.pipeline.decode.grey import decode_grey
from mribatch.pipeline.decode.probe import DEFAULT_MAX_PIXELS, probe, unreadable
from mribatch.pipeline.records import DecodedFile, Flag, ImageFile, Status, Verdict
from mribatch.pipeline.storage.content import differs, read_content


@dataclass(frozen=True, slots=True)
class GreyFile:
    """A file after decoding. A bad file has a verdict with the reason and no pixels.

    content: the whole file; None where the operating system gave no bytes.
    pixels: uint8, shape (height, width, 1), grey 0..255, C-contiguous; None where the verdict is not ok.
    """

    content: bytes | None
    verdict: Verdict
    pixels: NDArray[uint8] | None


def decode_file(
    path: bytes,
    height: int,
    width: int,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    listed: tuple[int, int] | None = None,
) -> GreyFile:
    """Read, probe and decode one file with OpenCV. Never raises for a bad file.

    Args:
        path: What to open: the file system's own bytes, or a location as pipeline/storage writes it.
        height: Of the result, in pixels.
        width: Of the result, in pixels.
        max_pixels: Larger images get the status too_large and are not decoded.
        listed: Bytes and mtime_ns when it was listed; an object that has others by now is flagged.
    """
    content, verdict = read_and_probe(path, max_pixels, listed)
    if content is None or verdict.status is not Status.OK:
        return GreyFile(content, verdict, None)
    verdict, pixels = decode_grey(content, verdict, height, width)
    return GreyFile(content, verdict, pixels)


def read_and_probe(path: bytes, max_pixels: int, listed: tuple[int, int] | None = None) -> tuple[bytes | None, Verdict]:
    """Return the whole file, None where the operating system gives no bytes, and the verdict."""
    try:
        content = read_content(path)
    except OSError as error:
        return None, unreadable(error)
    verdict = probe(content.data, max_pixels)
    if differs(content.facts, path, listed):
        verdict = replace(verdict, flags=(*verdict.flags, Flag.CHANGED_SINCE_LISTING))
    return content.data, verdict


def decoded_file(file: ImageFile, verdict: Verdict, content: bytes | None, begin: float) -> DecodedFile:
    """Return what is known of a file once it is decoded; `begin` is time.thread_time() from before it was read."""
    if content is None:
        return DecodedFile(file, verdict)
    return DecodedFile(file, verdict, len(content), sha256(content).hexdigest(), time.thread_time() - begin)


def timed_out(timeout_s: float) -> Verdict:
    """Return the verdict on a file that took longer than `timeout_s` seconds."""
    return Verdict(Status.TIMEOUT, f"reading and decoding took longer than {timeout_s:g} s")
