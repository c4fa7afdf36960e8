"""No DICOM file or NIfTI volume may crash or hang its reader, or make it allocate what the file does not hold.

As `test_fuzz`: mutated files in a child process, through the header that the listing reads and through the decoder. Each
child prints the statuses that it met, the slowest case and its peak of memory. A crash is reproduced with

    python -m tests.pipeline.decode.test_fuzz_studies --case SEED NUMBER
"""

import gzip
import random
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from mribatch.pipeline.decode.dicom import DicomPixels
from mribatch.pipeline.decode.nifti import open_nifti
from mribatch.pipeline.decode.values import StoredSlice, Window, to_grey
from mribatch.pipeline.records import Status, Verdict
from mribatch.pipeline.storage.address import of_member
from mribatch.pipeline.storage.archive import list_archive
from mribatch.pipeline.storage.source import ByteSource, LocalSource, as_a_whole, in_pieces
from mribatch.pipeline.studies.dicom_header import read_dicom_header
from mribatch.pipeline.studies.facts import NotAnImage, StudyFile, StudyFormat
from mribatch.pipeline.studies.kind import HEAD_BYTES, tell_kind
from mribatch.pipeline.studies.nifti_header import read_nifti_header
from mribatch.pipeline.studies.options import HeaderOptions
from tests.dicom_builder import EXPLICIT, PREAMBLE, meta, repacked
from tests.pipeline.decode.test_dicom import SEEDS
from tests.pipeline.decode.test_fuzz import fuzz, mutated, run_child
from tests.pipeline.storage.archives import write_tar, write_zip
from tests.pipeline.studies.nifti_bytes import broken, nifti

OPTIONS = HeaderOptions(max_pixels=1_000_000, any_modality=True, dicom_anywhere=True, volume=None)
_LARGEST_SEED = 20_000  # bytes: small files are read fast, and each of their bytes is hit more often


def corpus() -> list[bytes]:
    """Small files of both formats, about as many of each: our own, broken ones, and those of pydicom's test set."""
    from benchmarks.dicom_files import find_files

    found = (path.read_bytes() for path in find_files() if path.stat().st_size < _LARGEST_SEED)
    # Without preambles, which would take a third of the changes; `run_case` puts them back.
    dicom = [content[len(PREAMBLE) :] for content in [*SEEDS * 30, *found] if content.startswith(PREAMBLE[-4:], 128)]
    volumes = [nifti(), nifti(version=2), gzip.compress(nifti()), *(content for content, _ in broken().values())]
    volumes *= max(1, len(dicom) // len(volumes))
    return [content for content in dicom + volumes if 0 < len(content) < _LARGEST_SEED]


def run_case(path: Path, data: bytes) -> tuple[str, str, bool]:
    """(format, final status, did the decoder refuse what the header let through); raises where a promise is broken."""
    kind = tell_kind(data[:HEAD_BYTES], b"case", dicom_anywhere=True)
    if data.startswith(b"\2\0"):
        data = PREAMBLE + data
    if random.Random(len(data)).random() < 0.2:  # the damage reaches what lies behind the compression
        data = gzip.compress(data) if kind is StudyFormat.NIFTI else repacked(data)
    path.write_bytes(data)
    if kind is StudyFormat.NIFTI:
        return _run_nifti(path)
    header = read_dicom_header(LocalSource(bytes(path)), OPTIONS)
    pixels = DicomPixels(data, OPTIONS.max_pixels)
    frames = [pixels.read(frame) for frame in {0, max(len(pixels) - 1, 0)}]
    if isinstance(header, NotAnImage):
        return "dicom", header.reason, False
    _check(header)
    return _judge("dicom", header.verdict, frames)


def _run_nifti(path: Path) -> tuple[str, str, bool]:
    header = read_nifti_header(LocalSource(bytes(path)), OPTIONS)
    _check(header)
    verdict, volume = open_nifti(LocalSource(bytes(path)), OPTIONS)
    if volume is None:
        return _judge("nifti", header.verdict, [verdict])
    with volume:
        answers = [volume.slice(one.slice) for one in {header.slices[0], header.slices[-1]} if one.slice is not None]
    return _judge("nifti", header.verdict, [verdict if stored is None else stored for verdict, stored in answers])


def _check(header: StudyFile) -> None:
    verdict = header.verdict
    if (verdict.status is Status.OK) != (verdict.error is None) or not header.slices:
        raise AssertionError(f"inconsistent header: {verdict}")
    if verdict.status is not Status.OK and len(header.slices) != 1:
        raise AssertionError(f"{len(header.slices)} images of a file that is refused")


def _judge(kind: str, header: Verdict, frames: list[StoredSlice | Verdict]) -> tuple[str, str, bool]:
    for frame in frames:
        if isinstance(frame, Verdict):
            if frame.status is Status.OK or not frame.error:
                raise AssertionError(f"inconsistent answer: {frame}")
            return kind, frame.status, header.status is Status.OK
        if to_grey(frame, Window(), None).shape != (header.height, header.width) and header.status is Status.OK:
            raise AssertionError(f"wrong pixels: {frame.samples.shape}")
    return kind, header.status, False


@pytest.mark.slow
def test_no_mutated_study_file_crashes_or_hangs() -> None:
    fuzz(__name__)


def test_a_few_hundred_mutated_files_get_a_verdict(tmp_path: Path) -> None:
    files, counts = corpus(), Counter[str]()
    for number in range(400):
        kind, status, _ = run_case(tmp_path / "case", mutated(files, 13, number))
        counts[kind] += 1
        counts[status] += 1
    assert min(counts["dicom"], counts["nifti"]) > 50
    assert {Status.OK, Status.TRUNCATED, Status.DECODE_FAILED, Status.UNSUPPORTED} <= set(counts)


def test_repacked_files_hold_the_same_data_set(tmp_path: Path) -> None:
    whole = SEEDS[0]
    assert whole.startswith(meta(EXPLICIT))
    assert run_case(tmp_path / "case", repacked(whole)) == run_case(tmp_path / "case", whole) == ("dicom", "ok", False)


def test_mutated_files_are_read_alike_in_archives(tmp_path: Path) -> None:
    files = corpus()
    contents = {str(number): mutated(files, 17, number) for number in range(150)}
    for number, content in contents.items():
        (tmp_path / number).write_bytes(content)
    for archive in (write_zip(tmp_path / "x.zip", contents), write_tar(tmp_path / "x.tar", contents)):
        for entry in list_archive(bytes(archive)):
            assert entry.member is not None
            local, member = bytes(tmp_path / entry.name.decode()), of_member(bytes(archive), entry.member)
            for read in (read_dicom_header, read_nifti_header):
                assert repr(read(in_pieces(member), OPTIONS)) == repr(read(LocalSource(local), OPTIONS))
            assert _first_slice(as_a_whole(member)) == _first_slice(LocalSource(local))


def _first_slice(source: ByteSource) -> str:
    verdict, volume = open_nifti(source, OPTIONS)
    if volume is None:
        return repr(verdict)
    with volume:
        return repr((volume.slice(0), volume.size_and_sha256()))


if __name__ == "__main__":
    if sys.argv[1] == "--case":
        with tempfile.TemporaryDirectory() as folder:
            print(run_case(Path(folder) / "case", mutated(corpus(), int(sys.argv[2]), int(sys.argv[3]))))
    else:
        run_child(corpus(), partial(run_case, Path(sys.argv[4]).with_name("case")), sys.argv[1:])
