"""DALI's pixels against OpenCV's on every format; the same verdict for every file; a bad batch loses nothing.

DALI runs on its CPU backend here: the same graph as on a GPU.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy import uint8
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.pipeline.decode import dali as decode_dali
from mribatch.pipeline.decode.dali import DaliDecoder
from mribatch.pipeline.decode.dali_graph import CPU, FIRST_GPU, DaliDevice, GraphOptions
from mribatch.pipeline.decode.opencv import OpenCvDecoder
from mribatch.pipeline.decode.probe import probe
from mribatch.pipeline.records import DecodedBatch, Flag, ImageFile, Status, Verdict
from mribatch.trt.gpu import NoGpu, find_gpu
from tests.broken_files import broken_files, encode, exif_block, good_files, jpeg_segment, png, png_chunk, with_exif
from tests.damaged_files import damaged_jpegs
from tests.folders import draw_images

pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed: pip install '.[dali]'")

HEIGHT, WIDTH, BATCH = 40, 56, 16


def decoder_on(device: DaliDevice, *, checks_data: bool = True) -> DaliDecoder:
    options = GraphOptions(device=device, height=HEIGHT, width=WIDTH, threads=2)
    return DaliDecoder(options, batch_size=BATCH, max_pixels=10**8, timeout_s=60, checks_data=checks_data)


@pytest.fixture(scope="module")
def dali() -> Iterator[DaliDecoder]:
    with decoder_on(CPU) as decoder:
        yield decoder


@pytest.fixture(scope="module")
def opencv() -> Iterator[OpenCvDecoder]:
    with OpenCvDecoder(height=HEIGHT, width=WIDTH, batch_size=BATCH, threads=2, max_pixels=10**8, timeout_s=60) as one:
        yield one


def files(paths: Sequence[Path]) -> list[ImageFile]:
    return [ImageFile(index, 0, path.name, bytes(path)) for index, path in enumerate(paths)]


def in_groups(listed: Sequence[ImageFile]) -> list[Sequence[ImageFile]]:
    return [listed[start : start + BATCH] for start in range(0, len(listed), BATCH)]


def by_path(batches: Sequence[DecodedBatch]) -> dict[str, tuple[Verdict, NDArray[uint8]]]:
    return {
        decoded.file.path: (decoded.verdict, batch.pixels[place])
        for batch in batches
        for place, decoded in enumerate(batch.files)
    }


def written(folder: Path, contents: dict[str, bytes]) -> list[ImageFile]:
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return files([folder / name for name in sorted(contents)])


@pytest.mark.parametrize("name", sorted(good_files()))
def test_pixels_of_every_format_are_opencvs_within_one_level(
    name: str, dali: DaliDecoder, opencv: OpenCvDecoder, tmp_path: Path
) -> None:
    (file,) = written(tmp_path, {name: good_files()[name]})
    (batch,) = dali.batches([[file]])
    ((expected, image),) = by_path(list(opencv.batches([[file]]))).values()
    assert batch.files[0].verdict == expected and expected.status is Status.OK
    difference = np.abs(batch.pixels[0].astype(int) - image)
    # Grey is luma for both; of a colour PNG, each rounds its own sum of three products.
    assert difference.max() <= 2 and difference.mean() < 0.6
    assert not batch.pixels[1:].any()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_exif_orientations(
    orientation: int, suffix: str, dali: DaliDecoder, opencv: OpenCvDecoder, tmp_path: Path
) -> None:
    grey = (np.arange(48 * 64).reshape(48, 64) * 255 // (48 * 64)).astype(uint8)
    content = with_exif(encode(".jpg", grey), orientation)
    if suffix == ".png":
        content = png(grey, 64, 8, 0, before=png_chunk(b"eXIf", exif_block(orientation)))
    (file,) = written(tmp_path, {f"turned{suffix}": content})
    got, expected = dali.alone(file)[1], opencv.alone(file)[1]
    assert got is not None and expected is not None
    assert np.abs(got.astype(int) - expected).max() <= 1


def test_verdicts_are_opencvs_and_good_rows_are_a_clean_runs(
    dali: DaliDecoder, opencv: OpenCvDecoder, tmp_path: Path
) -> None:
    good = written(tmp_path, good_files())
    contents = {f"{number:03d}_{name}": content for number, (name, (content, _)) in enumerate(broken_files().items())}
    broken = written(tmp_path, contents)
    clean = by_path(list(dali.batches(in_groups(good))))
    mixed = (
        [one for pair in zip(broken, good, strict=False) for one in pair] + broken[len(good) :] + good[len(broken) :]
    )
    got, expected = by_path(list(dali.batches(in_groups(mixed)))), by_path(list(opencv.batches(in_groups(mixed))))
    assert {path: verdict for path, (verdict, _) in got.items()} == {
        path: verdict for path, (verdict, _) in expected.items()
    }
    for path, (_, image) in clean.items():
        assert np.array_equal(got[path][1], image), path
    assert not any(got[file.path][1].any() for file in broken), "rows of failed files are zero"


def test_damage_inside_jpegs_has_opencvs_verdict(dali: DaliDecoder, opencv: OpenCvDecoder, tmp_path: Path) -> None:
    """DALI hides it; padding and odd headers stay ok, with their flag and OpenCV's pixels."""
    grey = good_files()["grey.jpg"]
    contents = {f"{file.name}.jpg": file.damaged for file in damaged_jpegs(2)}
    contents |= {"padded.jpg": grey[:-2] + bytes(40) + grey[-2:], "new.jpg": grey.replace(b"JFIF\0\1", b"JFIF\0\7", 1)}
    listed = written(tmp_path, contents)
    got, expected = by_path(list(dali.batches(in_groups(listed)))), by_path(list(opencv.batches(in_groups(listed))))
    assert {path: verdict for path, (verdict, _) in got.items()} == {
        path: verdict for path, (verdict, _) in expected.items()
    }
    assert sum(verdict.status is Status.DECODE_FAILED for verdict, _ in got.values()) > 25
    assert got["padded.jpg"][0].flags == (Flag.EXTRA_BYTES,)
    for name in ("padded.jpg", "new.jpg"):
        assert np.array_equal(got[name][1], expected[name][1])


def test_data_that_are_not_checked_are_flagged_and_whole_ones_have_the_same_pixels(
    dali: DaliDecoder, tmp_path: Path
) -> None:
    """The headers still decide: what DALI reads otherwise, and what is cut, never reaches it."""
    contents = {f"{file.name}.jpg": file.damaged for file in damaged_jpegs(1)}
    contents |= good_files() | {f"broken-{name}": content for name, (content, _) in broken_files().items()}
    listed = written(tmp_path / "data", contents)
    checked = by_path(list(dali.batches(in_groups(listed))))
    with decoder_on(CPU, checks_data=False) as trusting:
        found = by_path(list(trusting.batches(in_groups(listed))))
    unchecked = {path for path, (verdict, _) in found.items() if Flag.UNCHECKED_DATA in verdict.flags}
    assert {"grey.jpg", "colour.jpg", "progressive.jpg"} <= unchecked
    hidden = {path for path in unchecked if checked[path][0].status is not Status.OK}
    assert hidden and all(checked[path][0].status is Status.DECODE_FAILED for path in hidden)
    for path, (verdict, pixels) in found.items():
        if path in unchecked - hidden:
            flags = tuple(flag for flag in verdict.flags if flag is not Flag.UNCHECKED_DATA)
            assert replace(verdict, flags=flags) == checked[path][0] and (pixels == checked[path][1]).all(), path
        elif path not in hidden:
            assert verdict == checked[path][0], path


def test_a_row_does_not_depend_on_batch_or_neighbours(dali: DaliDecoder, tmp_path: Path) -> None:
    listed = files(draw_images(tmp_path, 3 * BATCH + 5, size=70))
    together = by_path(list(dali.batches(in_groups(listed))))
    for file in listed[::7]:
        alone, (batch,) = dali.alone(file)[1], list(dali.batches([[file]]))
        assert alone is not None and np.array_equal(alone, together[file.path][1])
        assert np.array_equal(batch.pixels[0], together[file.path][1])


def test_what_dali_refuses_even_alone_goes_to_opencv(
    dali: DaliDecoder, opencv: OpenCvDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that DALI is given here although it cannot read them: each fails its batch, and none its neighbours."""
    paths = draw_images(tmp_path / "good", 5 * BATCH - 3, size=70)
    for place, name in ((BATCH - 1, "packbits.tif"), (3 * BATCH - 1, "exif.webp"), (5 * BATCH - 1, "double.tif")):
        paths.insert(place, tmp_path / name)
        paths[place].write_bytes(good_files()[name])
    listed = files(paths)
    clean = by_path(list(dali.batches(in_groups(listed))))
    again: list[int] = []
    really = DaliDecoder._image_by_image

    def image_by_image(self: DaliDecoder, samples: list[Any]) -> DecodedBatch:
        again.append(len(samples))
        return really(self, samples)

    monkeypatch.setattr(decode_dali, "for_dali", lambda content, verdict, reads_right: content)
    monkeypatch.setattr(DaliDecoder, "_image_by_image", image_by_image)
    got, expected = by_path(list(dali.batches(in_groups(listed)))), by_path(list(opencv.batches(in_groups(listed))))
    assert again == [BATCH] * 3, "three batches of five failed"
    for file in listed:
        assert got[file.path][0] == expected[file.path][0] and got[file.path][0].status is Status.OK
        assert np.array_equal(got[file.path][1], clean[file.path][1]), file.path


def test_where_dali_no_longer_works_it_says_so_and_leaves_nothing_to_opencv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that fails once and for all refuses every file, and none of them is to blame."""

    def fails(options: GraphOptions) -> Callable[[NDArray[uint8]], object]:
        def decode(sample: NDArray[uint8]) -> object:
            raise RuntimeError("Critical error in pipeline:\nCUDA runtime API error cudaErrorIllegalAddress (700)")

        return decode

    (file,) = files(draw_images(tmp_path, 1))
    with decoder_on(CPU) as decoder:
        monkeypatch.setattr(decode_dali, "single", fails)
        decoder._single = fails(decoder._options)
        with pytest.raises(
            MribatchError, match=r"does not work on the CPU: Critical .*: CUDA .*IllegalAddress \(700\)"
        ):
            decoder.alone(file)


@pytest.mark.skipif(not isinstance(find_gpu(), NoGpu), reason="there is a GPU")
def test_where_dali_cannot_begin_it_is_one_line_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    fix = r".* Fix: pip install --force-reinstall .*\[dali\]'?, or use --decoder opencv$"
    with pytest.raises(MribatchError, match="^NVIDIA DALI does not work on the GPU 0: " + fix):
        decoder_on(FIRST_GPU).__enter__()
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(MribatchError, match="^NVIDIA DALI does not work on the CPU: import of nvidia.dali " + fix):
        decoder_on(CPU).__enter__()


@pytest.mark.parametrize("read_ahead, prefetched", [(2, 2), (0, 1), (1, 3), (6, 2), (7, 5)])
def test_the_groups_that_are_held_back_are_as_many_as_is_said(read_ahead: int, prefetched: int, tmp_path: Path) -> None:
    """Whoever sends fewer waits for ever for an answer that needs the next one."""
    options = GraphOptions(device=CPU, height=HEIGHT, width=WIDTH, threads=2, prefetched=prefetched)
    asked: list[int] = []
    drawn = files(draw_images(tmp_path, 40))

    def groups() -> Iterator[Sequence[ImageFile]]:
        for number in range(0, 40, 2):
            asked.append(number)
            yield drawn[number : number + 2]

    with DaliDecoder(options, batch_size=2, max_pixels=10**8, timeout_s=60, read_ahead=read_ahead) as decoder:
        held = [len(asked) - answered for answered, _ in enumerate(decoder.batches(groups()))]
    assert max(held) == decoder.groups_ahead and len(held) == 20


def test_an_error_of_ours_is_not_takenfor_dalis(dali: DaliDecoder, tmp_path: Path) -> None:
    def groups() -> Iterator[list[ImageFile]]:
        yield files(draw_images(tmp_path, 2))
        raise RuntimeError("the listing is gone")

    with pytest.raises(RuntimeError, match="the listing is gone"):
        list(dali.batches(groups()))


def given(content: bytes, **facts: object) -> bytes | None:
    """What DALI is given of a file, with other facts in its verdict."""
    return decode_dali.for_dali(content, replace(probe(content), **facts))  # type: ignore[arg-type]


def test_only_what_dali_reads_right_is_given_to_it() -> None:
    """Usual 8-bit JPEGs as they are, and PNGs without the chunks that would change their pixels."""
    files = good_files()
    for name in ("grey.jpg", "colour.jpg", "progressive.jpg", "restart.jpg", "full_chroma.jpg", "thumbnail.jpg"):
        assert given(files[name]) == files[name], name
    for name in ("cmyk.jpg", "exif_3.jpg", "scan_per_component.jpg", "exif.png", "sixteen_bit.png", "grey.tif"):
        assert given(files[name]) is None, name
    assert given(files["grey.jpg"], width=9000, height=9000) is None
    adobe = jpeg_segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")
    assert given(files["colour.jpg"][:2] + adobe + files["colour.jpg"][2:]) is None, "RGB, for some"
    plain = files["palette.png"]
    palette = plain.index(b"PLTE") - 4
    tagged = plain[:palette] + png_chunk(b"gAMA", bytes([0, 0, 177, 143])) + plain[palette:]
    assert given(plain) == given(tagged) == plain
