"""The first step of every decoder: a file's bytes and the probe's verdict on them."""

import time
from hashlib import sha256

from mribatch.pipeline.decode.probe import probe, read_file, unreadable
from mribatch.pipeline.records import DecodedFile, ImageFile, Status, Verdict


def read_and_probe(file: ImageFile, max_pixels: int) -> tuple[bytes | None, Verdict]:
    """The whole file, None where the operating system gives no bytes, and the verdict."""
    try:
        content = read_file(file.file)
    except OSError as error:
        return None, unreadable(error)
    return content, probe(content, max_pixels)


def decoded_file(file: ImageFile, verdict: Verdict, content: bytes | None, begin: float) -> DecodedFile:
    """What is known of a file once it is decoded; `begin` is time.thread_time() from before it was read."""
    if content is None:
        return DecodedFile(file, verdict)
    return DecodedFile(file, verdict, len(content), sha256(content).hexdigest(), time.thread_time() - begin)


def timed_out(timeout_s: float) -> Verdict:
    """The verdict on a file that took too long."""
    return Verdict(Status.TIMEOUT, f"reading and decoding took longer than {timeout_s:g} s")
