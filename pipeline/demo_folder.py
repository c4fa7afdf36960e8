"""A small folder of drawn slices, with some broken files among them, to try mribatch on without a patient's image."""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError, OptionError
from mribatch.core.files import remove_folder
from mribatch.core.synthetic import draw_slice
from mribatch.pipeline.demo_study import STUDY_FOLDER, DemoStudy, draw_demo_study

DEFAULT_COUNT = 24
MAX_COUNT = 100_000
CLASS_FOLDERS = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
README_FILE, NOTES_FILE = "README.txt", "notes.txt"
MARKER = "Drawn by mribatch demo: synthetic slices, no patient and no scanner was involved."

_README = f"""{MARKER}

Each slice-* file is a drawing made from random numbers: a skull ring, tissue, two ventricles and, outside no_tumor, a
bright spot. The folders carry the names of the model's classes so that labels and metrics have something to show; the
drawings mean nothing medically, and what a model answers for them says nothing about the model.

The folder {STUDY_FOLDER} holds one drawn head as two DICOM series, with a localizer and a structured report beside
them, and as a NIfTI volume. Its end slices are blank; the report holds no image and is skipped.

Each broken-* file is damaged or is not an image, on purpose: a run gives it a row of its own with the reason.
{NOTES_FILE} has no image suffix and is skipped. You may delete this folder at any time.
"""
_NOTES = "mribatch lists this file in skipped.parquet: its name does not end like an image's.\n"
_SHAPES = (
    (512, 512),
    (256, 256),
    (224, 224),
    (512, 432),
    (320, 256),
    (160, 160),
    (256, 288),
    (384, 384),
)  # height, width
_FIX = "name a folder that is empty or does not exist yet"


@dataclass(frozen=True)
class DemoFolder:
    """What was drawn where."""

    folder: Path
    slices: int  # whole images
    broken: int  # files that earn a row with a status other than ok


def draw_demo_folder(folder: Path, count: int = DEFAULT_COUNT, seed: int = 0) -> DemoFolder:
    """Draw `count` slices of varied size into one sub-folder per class, add the broken files and two texts.

    Every other file is a JPEG, the rest are PNGs. The same arguments give the same pictures. A folder that this
    function made before is drawn anew; its own earlier files are removed, others are left alone.

    Args:
        folder: Made where it is missing, with its parents.
        count: 1 to 100,000; the classes take turns.
        seed: 0 or more; of the drawings.

    Raises:
        MribatchError: The folder holds something that is not ours, or cannot be written; `count` is out of range.
    """
    if not 1 <= count <= MAX_COUNT:
        raise OptionError(f"--count {count} is out of range", f"choose a value from 1 to {MAX_COUNT}")
    if seed < 0:
        raise OptionError(f"--seed {seed} is negative", "choose 0 or more")
    try:
        _claim(folder)
        for position in range(count):
            _draw(folder, position, seed)
        for name, content in broken_files().items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise _write_error(folder, error) from error
    return DemoFolder(folder, count, len(broken_files()))


def add_demo_study(folder: Path, seed: int = 0) -> DemoStudy:
    """Add a study in DICOM and NIfTI to a folder of `draw_demo_folder`; one that was added before is replaced.

    Args:
        folder: Drawn by `draw_demo_folder`.
        seed: 0 or more; of the drawing.

    Raises:
        MribatchError: The folder cannot be written to.
    """
    try:
        remove_folder(folder / STUDY_FOLDER)
        return draw_demo_study(folder / STUDY_FOLDER, seed)
    except OSError as error:
        raise _write_error(folder, error) from error


def broken_files() -> dict[str, bytes]:
    """Path in the demo folder -> content of every broken file, one for each kind of damage that a probe tells apart."""
    jpeg, png = (_encode(suffix, draw_slice(1, 256, 256)) for suffix in (".jpg", ".png"))
    return {
        "glioma_tumor/broken-empty.jpg": b"",
        "glioma_tumor/broken-half.jpg": jpeg[: len(jpeg) // 2],
        "meningioma_tumor/broken-text.jpg": b"The scan is on the other disk.\n",
        "meningioma_tumor/broken-half.png": png[: len(png) // 2],
        "no_tumor/broken-gif.png": _GIF,
        "no_tumor/broken-header.png": _png_header(0, 256),
        "pituitary_tumor/broken-huge.png": _png_header(60_000, 60_000) + png[33:],
    }


def _write_error(folder: Path, error: OSError) -> MribatchError:
    reason = error.strerror or str(error)
    return MribatchError(f"cannot draw into {folder}: {reason}", "name a folder that you may write to")


def _claim(folder: Path) -> None:
    """Make the folder or take over an earlier drawing; the marker is written first, so that a stopped one is ours."""
    readme = folder / README_FILE
    if folder.exists() and not folder.is_dir():
        raise MribatchError(f"{folder} is not a folder", _FIX)
    if folder.is_dir() and any(folder.iterdir()):
        _refuse_foreign(folder, readme)
        for name in CLASS_FOLDERS:
            for pattern in ("slice-*.jpg", "slice-*.png", "broken-*"):
                for path in (folder / name).glob(pattern):
                    path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    readme.write_text(_README, encoding="utf-8")
    (folder / NOTES_FILE).write_text(_NOTES, encoding="utf-8")
    for name in CLASS_FOLDERS:
        (folder / name).mkdir(exist_ok=True)


def _refuse_foreign(folder: Path, readme: Path) -> None:
    ours = False
    if readme.is_file():
        with readme.open("rb") as stream:
            ours = stream.readline(1024).rstrip() == MARKER.encode()
    if not ours:
        raise MribatchError(f"{folder} is not empty and was not drawn by mribatch demo", _FIX)


def _draw(folder: Path, position: int, seed: int) -> None:
    name = CLASS_FOLDERS[position % len(CLASS_FOLDERS)]
    random = np.random.Generator(np.random.PCG64((seed, position)))
    height, width = _SHAPES[random.integers(len(_SHAPES))]
    pixels = draw_slice(int(random.integers(1 << 32)), height, width, lesion=name != "no_tumor")
    suffix = ".jpg" if position // len(CLASS_FOLDERS) % 2 == 0 else ".png"
    (folder / name / f"slice-{position:05d}{suffix}").write_bytes(_encode(suffix, pixels))


def _encode(suffix: str, pixels: NDArray[uint8]) -> bytes:
    import cv2

    worked, content = cv2.imencode(suffix, pixels)
    if not worked:
        raise RuntimeError(f"OpenCV did not encode {pixels.shape} as {suffix}")
    return bytes(content)


def _png_header(width: int, height: int) -> bytes:
    """Signature and IHDR of an 8-bit grey PNG, with a right checksum (PNG specification, sections 5.2 and 11.2.1)."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


# one white pixel, GIF89a
_GIF = bytes.fromhex("47494638396101000100800000ffffff000000") + bytes.fromhex("2c00000000010001000002024401003b")
