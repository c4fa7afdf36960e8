"""A folder of class folders -> all its slices in memory, as the same pixels that inference sees."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy import int64, uint8
from numpy.typing import NDArray

from mribatch.core.cores import usable_cores
from mribatch.core.data_sets import CONTENT_SIZE
from mribatch.core.errors import MribatchError
from mribatch.core.text import decode_name
from mribatch.pipeline.decode.file import decode_file
from mribatch.pipeline.listing.discover import Discovery, resolve_inputs
from mribatch.pipeline.records import Status, Verdict
from mribatch.training.data.classes import ClassList

_PROGRESS_DELAY_S = 2.0


@dataclass(frozen=True)
class Images:
    """One part of the data: uint8 (n, size, size, 1) and its classes, int64 (n,)."""

    pixels: NDArray[uint8]
    labels: NDArray[int64]
    name: str = "validation"  # of the part, for people


@dataclass(frozen=True)
class LeftOut:
    """A file in a class folder that could not be used."""

    path: str
    status: Status
    error: str


@dataclass(frozen=True)
class DataSet:
    """Labelled slices, in the order of their paths. Arrays have one row per slice."""

    root: Path
    classes: ClassList
    paths: tuple[str, ...]  # relative to root, with "/", escaped if not UTF-8
    files: tuple[bytes, ...]  # absolute paths as the file system's bytes
    labels: NDArray[int64]  # (n,), positions in classes.names
    pixels: NDArray[uint8]  # (n, size, size, 1), grey 0..255
    pixel_sha256: tuple[str, ...]  # hex, of each slice's pixels
    content_sha256: tuple[str, ...]  # hex, of each slice's pixels at CONTENT_SIZE, the same for every size
    stored_sizes: tuple[tuple[int, int], ...]  # (width, height) in the file, before resizing
    left_out: tuple[LeftOut, ...]
    other_folders: Mapping[str, int]  # folder not named like a class -> number of its image files

    @property
    def fingerprint(self) -> str:
        """sha256, hex, of every path, label and pixel."""
        content = sha256()
        for path, label, digest in zip(self.paths, self.labels, self.pixel_sha256, strict=True):
            content.update(f"{path}\0{self.classes.names[label]}\0{digest}\n".encode())
        return content.hexdigest()


def load(root: Path, classes: ClassList, size: int, quiet: bool = True) -> DataSet:
    """Read every image file whose folder is named like a class.

    Args:
        root: Folder that holds class folders at any depth, e.g. Training/glioma_tumor and Testing/glioma_tumor.
        classes: Names and aliases.
        size: Side of the square that slices are stretched to, in pixels.
        quiet: Show no progress bar on stderr.

    Raises:
        MribatchError: The folder does not exist, or a class has no image; names it.
    """
    if not root.is_dir():
        raise MribatchError(f"there is no folder '{root}'", "name a folder that holds one folder per class")
    found, other = _list_labelled(root, classes)
    _check_classes(root, found, classes, other)
    rows = list(_decode_all([file for file, _, _ in found], size, quiet))
    usable = [(item, row) for item, row in zip(found, rows, strict=True) if row.pixels is not None]
    left_out = tuple(
        LeftOut(path, row.verdict.status, row.verdict.error or "")
        for (_, path, _), row in zip(found, rows, strict=True)
        if row.pixels is None
    )
    labels = np.array([label for (_, _, label), _ in usable], dtype=int64)
    pixels = np.stack([row.pixels for _, row in usable if row.pixels is not None]) if usable else _empty_pixels(size)
    _check_readable(root, labels, classes, left_out)
    return DataSet(
        root=root,
        classes=classes,
        paths=tuple(path for (_, path, _), _ in usable),
        files=tuple(file for (file, _, _), _ in usable),
        labels=labels,
        pixels=pixels,
        pixel_sha256=tuple(_hash(row) for row in pixels),
        content_sha256=tuple(row.content_sha256 for _, row in usable),
        stored_sizes=tuple((row.verdict.width or 0, row.verdict.height or 0) for _, row in usable),
        left_out=left_out,
        other_folders=other,
    )


_Found = tuple[bytes, str, int]  # absolute path, path for people, label


@dataclass(frozen=True, slots=True)
class _Row:
    """One file after decoding; without pixels if it cannot be used."""

    verdict: Verdict
    pixels: NDArray[uint8] | None = None  # (size, size, 1)
    content_sha256: str = ""


def _list_labelled(root: Path, classes: ClassList) -> tuple[list[_Found], dict[str, int]]:
    """List the files in class folders, in the order of `classify`, and count those in other folders."""
    found: list[_Found] = []
    other: Counter[str] = Counter()
    absolute = os.path.abspath(os.fsencode(root))
    with tempfile.TemporaryDirectory(prefix="mribatch-") as scratch:
        inputs = resolve_inputs([root])
        with Discovery(inputs, Path(scratch) / "names.sqlite") as discovery:
            for entry in discovery.files():
                if entry.skipped is not None:
                    continue
                path = decode_name(entry.path)[0]
                folder = path.split("/")[-2] if "/" in path else root.resolve().name
                label = classes.index_of(folder)
                if label is None:
                    other[folder] += 1
                else:
                    found.append((os.path.join(absolute, entry.path), path, label))
    return found, dict(other)


def _decode_all(files: Sequence[bytes], size: int, quiet: bool) -> Iterator[_Row]:
    from tqdm import tqdm

    with ThreadPoolExecutor(usable_cores()) as pool:
        rows = pool.map(lambda file: _read_one(file, size), files)
        look: dict[str, Any] = {"unit": "img", "delay": _PROGRESS_DELAY_S, "leave": False}
        # disable=None: unless stderr is a terminal
        yield from tqdm(rows, "reading slices", len(files), disable=True if quiet else None, **look)


def _read_one(file: bytes, size: int) -> _Row:
    grey = decode_file(file, size, size)
    if grey.pixels is None:
        return _Row(grey.verdict)
    content = grey if size == CONTENT_SIZE else decode_file(file, CONTENT_SIZE, CONTENT_SIZE)
    if content.pixels is None:  # it changed in between
        return _Row(content.verdict)
    return _Row(grey.verdict, grey.pixels, _hash(content.pixels))


def _hash(pixels: NDArray[uint8]) -> str:
    return sha256(pixels.tobytes()).hexdigest()


def _empty_pixels(size: int) -> NDArray[uint8]:
    return np.empty((0, size, size, 1), dtype=uint8)


def _check_classes(root: Path, found: Sequence[_Found], classes: ClassList, other: Mapping[str, int]) -> None:
    present = {label for _, _, label in found}
    missing = [name for index, name in enumerate(classes.names) if index not in present]
    if missing:
        names = ", ".join(f"{name} ({count})" for name, count in sorted(other.items())[:10]) or "none"
        raise MribatchError(
            f"{root} has no images of {', '.join(missing)}; folders not named like a class: {names}",
            "name the folders like the classes, or list the classes with --classes NAME,NAME,…",
        )


def _check_readable(root: Path, labels: NDArray[int64], classes: ClassList, left_out: Sequence[LeftOut]) -> None:
    for index, name in enumerate(classes.names):
        if not (labels == index).any():
            first = left_out[0]
            raise MribatchError(
                f"no image of '{name}' in {root} can be read (e.g. {first.path}: {first.error})",
                "check that the files are complete images",
            )
