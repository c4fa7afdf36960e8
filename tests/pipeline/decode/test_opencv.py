"""Groups of files become full batches in order; what cannot be read is a verdict at its place."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np

from mribatch.pipeline.decode.opencv import OpenCvDecoder
from mribatch.pipeline.records import ImageFile, Status
from tests.folders import draw_images


def decoder(threads: int = 2, max_pixels: int = 10**8) -> OpenCvDecoder:
    return OpenCvDecoder(height=16, width=12, batch_size=4, threads=threads, max_pixels=max_pixels, timeout_s=60)


def files(paths: list[Path]) -> list[ImageFile]:
    return [ImageFile(index, 0, path.name, bytes(path)) for index, path in enumerate(paths)]


def test_batches_are_full_and_rows_stand_at_their_places(tmp_path: Path) -> None:
    paths = draw_images(tmp_path, 6)
    (tmp_path / "text.jpg").write_text("no image")
    listing = files([*paths[:2], tmp_path / "text.jpg", paths[2], *paths[3:], tmp_path / "gone.jpg"])
    with decoder() as decode:
        first, second = decode.batches([listing[:4], listing[4:]])
    assert first.pixels.shape == second.pixels.shape == (4, 16, 12, 1)
    assert [file.verdict.status for file in first.files] == [Status.OK, Status.OK, Status.UNSUPPORTED, Status.OK]
    assert [file.verdict.status for file in second.files] == [Status.OK] * 3 + [Status.UNREADABLE]
    assert not first.pixels[2].any() and not second.pixels[3].any()
    expected = cv2.resize(cv2.imread(str(paths[2]), cv2.IMREAD_GRAYSCALE), (12, 16), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(first.pixels[3, :, :, 0], expected)
    content = paths[0].read_bytes()
    assert (first.files[0].bytes, first.files[0].sha256) == (len(content), sha256(content).hexdigest())
    assert (second.files[3].bytes, second.files[3].sha256) == (None, None)


def test_the_pixel_limit_is_kept_before_decoding(tmp_path: Path) -> None:
    with decoder(max_pixels=24 * 24 - 1) as decode:
        (batch,) = decode.batches([files(draw_images(tmp_path, 1))])
    assert batch.files[0].verdict.status is Status.TOO_LARGE
    assert (batch.files[0].verdict.width, batch.files[0].verdict.height) == (24, 24)


def test_it_reads_only_a_few_batches_ahead(tmp_path: Path) -> None:
    taken = 0
    listing = files(draw_images(tmp_path, 4))

    def groups() -> Iterator[list[ImageFile]]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield listing

    with decoder() as decode:
        batches = decode.batches(groups())
        next(batches)
        assert taken <= 5


def test_the_groups_that_are_held_back_are_as_many_as_is_said(tmp_path: Path) -> None:
    asked: list[int] = []
    listed = files(draw_images(tmp_path, 24))

    def groups() -> Iterator[list[ImageFile]]:
        for number in range(0, 24, 2):
            asked.append(number)
            yield listed[number : number + 2]

    with decoder() as decode:
        held = [len(asked) - answered for answered, _ in enumerate(decode.batches(groups()))]
        assert max(held) == decode.groups_ahead
