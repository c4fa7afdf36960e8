"""A model bundle on disk: find it, check it, read it. Its content is never trusted, and never written here."""

import io
import json
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.errors import BundleError
from mribatch.core.model_spec import INPUT_NAME, INT8, OUTPUT_NAME, ModelSpec
from mribatch.core.onnx_graph import STANDARD_DOMAINS, TensorDeclaration, read_graph_facts
from mribatch.core.regular_file import read_file
from mribatch.core.training_images import TrainingImages, check_arrays
from mribatch.core.training_look import TrainingLook

DEFAULT_MODEL, FAST_MODEL = "efficientnet-lite2-framed", "efficientnet-lite0-framed"
ROLES = {"default": DEFAULT_MODEL, "fast": FAST_MODEL}
"""Names that a version of mribatch may give to other bundles than the last one did."""
SPEC_FILE, MODEL_FILE, GOLDEN_FILE, CARD_FILE = "bundle.json", "model.onnx", "golden.npz", "MODEL_CARD.md"
TRAINING_IMAGES_FILE, TRAINING_LOOK_FILE, INT8_FILE = "training_images.npz", "training_look.npz", "model.int8.onnx"

_FLOAT32, _UINT8 = 1, 2  # TensorProto.DataType
_MAX_JSON_BYTES = 1 << 20
_MAX_MODEL_BYTES = 1 << 31  # protobuf's own limit
_MAX_GOLDEN_BYTES = 1 << 28
_MAX_NODES = 50_000  # NASNetLarge has 2,000
# RuntimeError: an encrypted entry, or an unknown compression (NotImplementedError). MemoryError: a header that promises
# an array of any size.
_ARCHIVE_ERRORS = (
    ValueError,
    KeyError,
    OSError,
    EOFError,
    RuntimeError,
    MemoryError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
)
_FIX = "restore the bundle from where it came, or export the model again"


@dataclass(frozen=True)
class Golden:
    """The slices every backend must reproduce before it writes a row.

    images: uint8 (n, height, width, 1), grey 0..255. probabilities: float32 (n, classes), from Keras, calibrated.
    """

    images: NDArray[uint8]
    probabilities: NDArray[float32]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose hashes, graph and golden slices have been checked."""

    folder: Path
    spec: ModelSpec
    sha256: str  # of bundle.json, which holds the hashes of the other files: one hash for the whole contract
    model: bytes  # the content of model.onnx whose hash was checked; load this, not the file again
    golden: Golden
    training_images: TrainingImages | None = None  # to recognise them; None where the bundle has no hashes of them
    training_look: TrainingLook | None = None  # to flag images that look otherwise; None where the bundle has none
    int8: bytes | None = None  # an INT8 graph in memory, in place of the file

    @property
    def has_int8(self) -> bool:
        """Whether there is an INT8 graph."""
        return self.int8 is not None or self.spec.int8_sha256 is not None

    def graph(self, precision: str) -> bytes:
        """The ONNX graph to load for a precision: model.int8.onnx for "int8", else model.onnx.

        model.int8.onnx is read and checked here, as model.onnx was, so that a run in FP32 does not wait for that.

        Raises:
            BundleError: It is "int8", and there is no such graph, or it does not fit.
        """
        if precision != INT8:
            return self.model
        return self.int8 if self.int8 is not None else _read_int8(self.folder, self.spec)


def shipped_models() -> dict[str, Path]:
    """Name -> folder of the bundles that ship with the package."""
    root = resources.files("mribatch.models")
    folders = (Path(str(entry)) for entry in root.iterdir() if entry.is_dir())
    return {folder.name: folder for folder in sorted(folders) if (folder / SPEC_FILE).is_file()}


def load_bundle(name_or_folder: str) -> Bundle:
    """Find a bundle by the name of a shipped one or by its folder, and check all of it.

    Raises:
        BundleError: Not found, or anything in it does not fit; gives the numbers.
    """
    folder = _find(name_or_folder)
    specification = _read_file(folder / SPEC_FILE, _MAX_JSON_BYTES)
    try:
        spec = ModelSpec.from_json(json.loads(specification))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{folder / SPEC_FILE} is not JSON: {error}", _FIX) from error
    model = _read_file(folder / MODEL_FILE, _MAX_MODEL_BYTES)
    _check_hash(folder / MODEL_FILE, model, spec.model_sha256)
    _check_graph(folder / MODEL_FILE, model, spec)
    golden_bytes = _read_file(folder / GOLDEN_FILE, _MAX_GOLDEN_BYTES)
    _check_hash(folder / GOLDEN_FILE, golden_bytes, spec.golden_sha256)
    golden = _read_golden(folder / GOLDEN_FILE, golden_bytes, spec)
    return Bundle(
        folder,
        spec,
        sha256(specification).hexdigest(),
        model,
        golden,
        _read_training_images(folder, spec),
        _read_training_look(folder, spec),
    )


def _find(name_or_folder: str) -> Path:
    shipped = shipped_models()
    if name_or_folder in ROLES:
        return shipped[ROLES[name_or_folder]]
    if name_or_folder in shipped:
        return shipped[name_or_folder]
    folder = Path(name_or_folder)
    if (folder / SPEC_FILE).is_file():
        return folder
    alike = {_normalise_name(name): path for name, path in shipped.items()}
    if _normalise_name(name_or_folder) in alike:  # `efficientnet_lite2`, as its recipe is spelt
        return alike[_normalise_name(name_or_folder)]
    raise BundleError(
        f"no model bundle at '{name_or_folder}' (a folder with {SPEC_FILE})",
        f"name a bundle's folder, or one that ships with mribatch: {', '.join(shipped) or 'none does'}",
    )


def _normalise_name(name: str) -> str:
    return name.lower().replace("_", "-")


def _read_file(path: Path, limit: int) -> bytes:
    try:
        return read_file(os.fsencode(path), limit)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}", _FIX) from error


def _check_hash(path: Path, content: bytes, expected: str) -> None:
    actual = sha256(content).hexdigest()
    if actual != expected:
        raise BundleError(f"{path} has sha256 {actual[:16]}…, its bundle.json says {expected[:16]}…", _FIX)


def _check_graph(path: Path, model: bytes, spec: ModelSpec) -> None:
    try:
        facts = read_graph_facts(model)
    except ValueError as error:
        raise BundleError(f"{path} is not an ONNX model: {error}", _FIX) from error
    foreign = sorted(facts.domains - STANDARD_DOMAINS)
    wanted_input = TensorDeclaration(INPUT_NAME, _UINT8, (None, spec.height, spec.width, 1))
    wanted_output = TensorDeclaration(OUTPUT_NAME, _FLOAT32, (None, len(spec.classes)))
    problem = None
    if facts.external_tensors:
        problem = f"keeps {facts.external_tensors} tensors in external files; a bundle's graph holds its own weights"
    elif foreign or facts.functions:
        named = f" of {', '.join(foreign)}" if foreign else ""
        problem = f"uses custom operators{named} and defines {facts.functions} functions; only ONNX's own are allowed"
    elif facts.nodes > _MAX_NODES:
        problem = f"has {facts.nodes:,} nodes, more than the {_MAX_NODES:,} allowed"
    elif len(facts.inputs) != 1 or len(facts.outputs) != 1:
        problem = f"has {len(facts.inputs)} inputs and {len(facts.outputs)} outputs, a bundle's graph has 1 and 1"
    elif facts.inputs[0] != wanted_input:
        problem = f"takes {_describe(facts.inputs[0])}, its bundle.json wants {_describe(wanted_input)}"
    elif facts.outputs[0] != wanted_output:
        problem = f"gives {_describe(facts.outputs[0])}, its bundle.json wants {_describe(wanted_output)}"
    if problem:
        raise BundleError(f"{path} {problem}", _FIX)


def _describe(tensor: TensorDeclaration) -> str:
    types = {_FLOAT32: "float32", _UINT8: "uint8"}
    shape = ", ".join("N" if size is None else str(size) for size in tensor.shape)
    return f"'{tensor.name}' {types.get(tensor.element_type, f'type {tensor.element_type}')} ({shape})"


def _read_golden(path: Path, content: bytes, spec: ModelSpec) -> Golden:
    arrays = _read_arrays(path, content, ("images", "probabilities"), "golden slices")
    images, probabilities = arrays["images"], arrays["probabilities"]
    count = images.shape[0] if images.ndim else 0
    fits = (
        count >= 1
        and images.dtype == uint8
        and images.shape == (count, spec.height, spec.width, 1)
        and probabilities.dtype == float32
        and probabilities.shape == (count, len(spec.classes))
    )
    if not fits:
        raise BundleError(
            f"{path} holds images {images.dtype} {images.shape} and probabilities {probabilities.dtype} "
            f"{probabilities.shape}, which do not fit {spec.height}x{spec.width} and {len(spec.classes)} classes",
            _FIX,
        )
    bad_rows = int((~np.isfinite(probabilities).all(axis=1)).sum())
    if bad_rows:
        raise BundleError(f"{path} holds NaN or infinity in {bad_rows} of {count} rows of probabilities", _FIX)
    return Golden(images, probabilities)


def _read_training_images(folder: Path, spec: ModelSpec) -> TrainingImages | None:
    if spec.training_images_sha256 is None:
        return None
    path = folder / TRAINING_IMAGES_FILE
    content = _read_file(path, _MAX_GOLDEN_BYTES)
    _check_hash(path, content, spec.training_images_sha256)
    try:
        return check_arrays(_read_arrays(path, content, ("exact", "perceptual"), "hashes of training images"))
    except ValueError as error:
        raise BundleError(f"{path} does not hold hashes of training images: {error}", _FIX) from error


def _read_training_look(folder: Path, spec: ModelSpec) -> TrainingLook | None:
    if spec.training_look_sha256 is None:
        return None
    path = folder / TRAINING_LOOK_FILE
    content = _read_file(path, _MAX_GOLDEN_BYTES)
    _check_hash(path, content, spec.training_look_sha256)
    try:
        return TrainingLook.of_arrays(
            _read_arrays(path, content, TrainingLook.names(), "statistics of training images")
        )
    except ValueError as error:
        raise BundleError(f"{path} does not hold statistics of training images: {error}", _FIX) from error


def _read_int8(folder: Path, spec: ModelSpec) -> bytes:
    if spec.int8_sha256 is None:
        raise BundleError(f"{folder} has no INT8 graph", "make one with mribatch quantize")
    model = _read_file(folder / INT8_FILE, _MAX_MODEL_BYTES)
    _check_hash(folder / INT8_FILE, model, spec.int8_sha256)
    _check_graph(folder / INT8_FILE, model, spec)
    return model


def _read_arrays(path: Path, content: bytes, names: Sequence[str], what: str) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:  # sizes first: a few bytes may unpack to gigabytes
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > _MAX_GOLDEN_BYTES:
            raise ValueError(f"it unpacks to {unpacked} bytes, more than the {_MAX_GOLDEN_BYTES} allowed")
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except _ARCHIVE_ERRORS as error:
        raise BundleError(f"{path} does not hold {what}: {error or type(error).__name__}", _FIX) from error
