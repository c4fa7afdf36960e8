"""A `.keras` file from anywhere, opened without running anything in it.

The file is a zip with config.json (which layers), metadata.json and model.weights.h5
(https://keras.io/api/models/model_saving_apis/model_saving_and_loading/). A layer may carry Python code (Lambda) or
name a module to import; Keras' safe mode refuses the first. Both are looked for here before Keras sees the file, and
sizes are checked before anything is unpacked. The weights are HDF5, where a dataset may be in another file of this
machine, or claim any size without holding a byte: both are refused before Keras reads one.
"""

import importlib
import io
import json
import lzma
import mmap
import re
import zipfile
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from mribatch.core.errors import MribatchError
from mribatch.core.text import one_line
from mribatch.training.export.model_facts import FileFacts
from mribatch.training.frameworks import load_keras

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"

_MAX_CONFIG_BYTES = 1 << 26  # EfficientNetB7 has 0.4 MB
_MAX_WEIGHTS_BYTES = 1 << 31  # an ONNX file can hold no more
_MAX_RATIO = 20  # unpacked to packed; Keras stores without compression, and weights hardly compress
_FREE_BYTES = 1 << 20  # may be unpacked at any ratio
_MAX_DEPTH = 200
_MAX_GROUPS_AND_DATASETS = 200_000  # EfficientNetB7 has 5,000
# Keras' modules with parts of networks; keras.utils or keras.config have no place in one.
_PARTS_OF_NETWORKS = {
    "activations",
    "constraints",
    "dtype_policies",
    "initializers",
    "layers",
    "models",
    "ops",
    "quantizers",
    "random",
    "regularizers",
}
# Layers that are private to a network of keras.applications: plain arithmetic, built by Keras' own code.
_LAYERS_OF_APPLICATIONS = {
    ("keras.src.applications.convnext", "LayerScale"),
    ("keras.src.applications.convnext", "StochasticDepth"),
    ("keras.src.applications.inception_resnet_v2", "CustomScaleLayer"),
}
_FILE_LAYERS = {"StringLookup", "IntegerLookup", "TextVectorization"}  # read the file that their configuration names
# These run code from the file.
_CODE_LAYERS = {"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,40}")
_HDF5 = b"\x89HDF\r\n\x1a\n"  # HDF5 File Format Specification 3.0, III.A
_SAVE = "load it in Keras 3 if you trust it, and save it with model.save('model.keras')"
_BUILD = "build the same model in Keras 3, then model.load_weights('{name}') and model.save('model.keras')"
# Each was tried: SavedModel and Keras 2 by TensorFlow 2.21 with tf_keras 2.21.
_FROM_SAVED_MODEL = (
    "if it is a SavedModel, write it as model.onnx with tf2onnx.convert and export that;"
    " docs/how-to/export-your-model.md has the command"
)
_FROM_KERAS_2 = (
    "where you trust it: pip install tf_keras, tf_keras.models.load_model('{name}').save('model.h5'), then in Keras 3"
    " keras.models.load_model('model.h5', compile=False).save('model.keras')"
)
_USE_SAVED = "give a file written by model.save('model.keras')"
_UNLOADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, EOFError, OSError, ValueError, KeyError)


def load_network(path: Path) -> Any:
    """Load the keras.Model in a `.keras` file, not compiled, in safe mode.

    Raises:
        MribatchError: The file is missing or not a `.keras` file, has code or custom layers, unpacks to more than is
            allowed, or Keras cannot rebuild it.
    """
    _check_kind(path)
    config = _read_config(path)
    _check_generation(path, config)
    _check_config(path, config)
    load_keras()
    _check_weights(path)
    return load_in_safe_mode(path)


def load_in_safe_mode(path: Path) -> Any:
    """Load the keras.Model with no other protection than Keras' safe mode.

    Raises:
        MribatchError: Keras refuses the file or cannot rebuild the model.
    """
    _, keras = load_keras()
    try:
        # Losses, metrics and optimizer are not needed here; custom ones do not matter.
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a damaged or hostile file may make any layer's constructor raise anything
        problem = f"Keras {keras.__version__} cannot load {path}: {_first_line(error)}"
        raise MribatchError(problem, "load it with the version of Keras that saved it, and save it again") from error
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        kind = type(model).__name__
        raise MribatchError(f"{path} holds a {kind}, not a model with declared inputs", "save a keras.Model")
    return model


def read_file_facts(path: Path) -> FileFacts:
    """Return name, sha256 and the version of Keras that saved the file."""
    with path.open("rb") as file:
        digest = sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    with zipfile.ZipFile(path) as archive:
        content = archive.read(METADATA) if METADATA in archive.namelist() else b"{}"
    try:
        metadata = json.loads(content)
    except (ValueError, RecursionError):
        metadata = None
    saved_by = metadata.get("keras_version") if isinstance(metadata, dict) else None
    if not isinstance(saved_by, str) or not _VERSION.fullmatch(saved_by):
        saved_by = "unknown"
    return FileFacts(file=path.name, sha256=digest.hexdigest(), saved_by_keras=saved_by)


def _check_kind(path: Path) -> None:
    """Refuse everything but a zip with the right name; say how to convert the other formats of Keras."""
    if path.is_dir():
        raise MribatchError(f"{path} is a folder, not a .keras file", _FROM_SAVED_MODEL)
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise MribatchError(
            f"cannot read {path}: {error.strerror or error}", "give the path of a .keras file"
        ) from error
    if start == _HDF5 and not _holds_model(path):
        problem = f"{path} holds weights alone, without the layers that they belong to"
        raise MribatchError(problem, _BUILD.format(name=one_line(path.name)))
    if start == _HDF5 or path.suffix.lower() in (".h5", ".hdf5"):
        raise MribatchError(f"{path} is an HDF5 file, Keras' former format, which may carry code", _SAVE)
    if not start.startswith(b"PK\x03\x04"):
        raise MribatchError(f"{path} is not a .keras file (a zip archive)", _USE_SAVED)
    if path.suffix != ".keras":
        raise MribatchError(f"{path} does not end in .keras", "rename it if model.save() wrote it; otherwise, " + _SAVE)


def _holds_model(path: Path) -> bool:
    """Tell whether an HDF5 file holds a whole model: it then has an attribute of this name, stored as plain text."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"model_config") >= 0


def _read_config(path: Path) -> Any:
    """Return config.json, after the sizes of all parts have been checked."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            if len(entries) != len(archive.infolist()):
                raise ValueError("two parts of it have the same name")
            for name, limit in ((CONFIG, _MAX_CONFIG_BYTES), (METADATA, _FREE_BYTES), (WEIGHTS, _MAX_WEIGHTS_BYTES)):
                if name in entries:
                    _check_size(entries.pop(name), limit)
                elif name != METADATA:
                    raise ValueError(f"it has no {name}")
            if entries:
                raise ValueError(f"it holds {next(iter(entries))[:80]!r}, which an image classifier has no use for")
            return json.loads(archive.read(CONFIG))
    except RecursionError as error:
        raise MribatchError(f"{path}: {CONFIG} is nested too deeply", _SAVE) from error
    except _UNLOADABLE as error:
        problem = f"{path} is not a usable .keras file: {_first_line(error)}"
        raise MribatchError(problem, _USE_SAVED) from error


def _check_size(entry: zipfile.ZipInfo, limit: int) -> None:
    if entry.file_size > limit:
        raise ValueError(f"its {entry.filename} unpacks to {entry.file_size:,} bytes, more than the {limit:,} allowed")
    if entry.file_size > max(_FREE_BYTES, _MAX_RATIO * entry.compress_size):
        raise ValueError(
            f"its {entry.filename} unpacks from {entry.compress_size:,} to {entry.file_size:,} bytes, as no model does"
        )


def _check_generation(path: Path, config: Any) -> None:
    """Refuse a file of Keras 2, which has the same suffix and another content."""
    version = read_file_facts(path).saved_by_keras or ""
    module = config.get("module") if isinstance(config, dict) else None
    former = isinstance(module, str) and module.startswith(("keras.engine.", "keras.src.engine."))
    if version.startswith("2.") or former:
        written = f"Keras {version}" if version.startswith("2.") else "Keras 2"
        problem = f"{path} was saved by {written}; mribatch reads files of Keras 3"
        raise MribatchError(problem, _FROM_KERAS_2.format(name=one_line(path.name)))


def _check_config(path: Path, config: Any) -> None:
    """Refuse code and classes from outside Keras. The compile configuration is never built, so it is not looked at."""
    content = config.get("config") if isinstance(config, dict) else None
    if not isinstance(content, dict):
        raise MribatchError(f"{path}: {CONFIG} does not describe a model", _USE_SAVED)
    for item in _iterate_objects(path, config):
        kind, inner = _quote(item.get("class_name")), item.get("config")
        name = _quote(inner.get("name", kind) if isinstance(inner, dict) else kind)
        if kind in _CODE_LAYERS:
            raise MribatchError(
                f"{path}: its layer '{name}' ({kind}) carries code, which mribatch never runs",
                "replace it with a standard layer (Rescaling, Normalization, Activation …) and save the model again",
            )
        if (item.get("module"), item.get("class_name")) in _LAYERS_OF_APPLICATIONS:
            continue
        if kind in _FILE_LAYERS or not _is_network_part(item.get("module")):
            raise MribatchError(
                f"{path}: '{name}' is {_quote(item.get('module'))}.{kind}, which an image classifier has no use for",
                "build the model from Keras' own layers for images, copy the weights over and save it again",
            )
        if custom := _find_custom_class(item):
            raise MribatchError(
                f"{path}: '{name}' is of the custom class {custom}, whose code mribatch does not have",
                "build the model from Keras' own layers, copy the weights over and save it again",
            )


def _find_custom_class(item: dict[str, Any]) -> str | None:
    """Return the class name of a serialized object if it is not one of Keras' own."""
    module, registered = item.get("module"), item.get("registered_name")
    if isinstance(registered, str) and ">" in registered:  # package>name, by register_keras_serializable
        return _quote(registered)
    if isinstance(module, str) and module.split(".")[0] not in ("keras", "builtins"):
        return _quote(f"{module}.{item.get('class_name')}")
    return None


def _is_network_part(module: object) -> bool:
    """Tell whether a module of Keras holds parts of networks; other modules are `_find_custom_class`'s to judge."""
    parts = module.split(".") if isinstance(module, str) else []
    inside = [part for part in parts[1:] if part != "src"]
    return parts[:1] != ["keras"] or not inside or inside[0] in _PARTS_OF_NETWORKS


def _check_weights(path: Path) -> None:
    """Refuse weights that are in other files, or larger than the file can hold; no weight is read.

    Source: HDF5 File Format Specification 3.0, IV.A.2.f (fill values of what was never written), g (links to other
    files) and h (external data files).
    """
    h5py = importlib.import_module("h5py")  # comes with Keras
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(WEIGHTS)
        with h5py.File(io.BytesIO(content), "r") as weights:
            total = sum(_count_bytes(item, h5py) for item in _iterate_hard_links(weights, h5py))
        if total > max(_FREE_BYTES, _MAX_RATIO * len(content)):
            raise ValueError(f"its {WEIGHTS} claims {total:,} bytes of weights and has {len(content):,}")
    except Exception as error:  # a damaged file may make h5py raise anything
        problem = f"{path} is not a usable .keras file: {_first_line(error)}"
        raise MribatchError(problem, _USE_SAVED) from error


def _iterate_hard_links(weights: Any, h5py: Any) -> Iterator[Any]:
    """Yield every group and dataset, once per link; one that is linked into itself ends at the limit."""
    waiting, seen = [weights], 0
    while waiting:
        group = waiting.pop()
        for name in group:
            seen += 1
            if seen > _MAX_GROUPS_AND_DATASETS:
                raise ValueError(f"its {WEIGHTS} has more groups than any model")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"its {WEIGHTS} points to another file or place at '{_quote(name)}'")
            item = group[name]
            if isinstance(item, h5py.Group):
                waiting.append(item)
            yield item


def _count_bytes(item: Any, h5py: Any) -> int:
    if not isinstance(item, h5py.Dataset):
        return 0
    if item.external or item.is_virtual:
        raise ValueError(f"its {WEIGHTS} keeps '{_quote(item.name)}' in another file")
    return int(item.nbytes)


def _iterate_objects(path: Path, config: Any) -> Iterator[dict[str, Any]]:
    """Yield every serialized object of the model, at any depth."""
    waiting = [({key: value for key, value in config.items() if key != "compile_config"}, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise MribatchError(f"{path}: {CONFIG} is nested too deeply", _SAVE)
        if isinstance(item, dict):
            if "class_name" in item:
                yield item
            waiting += [(value, depth + 1) for value in item.values()]
        elif isinstance(item, list):
            waiting += [(value, depth + 1) for value in item]


def _first_line(error: BaseException) -> str:
    """Return the error's first line, shortened: Keras appends the whole configuration."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return _quote(text, 200)


def _quote(text: object, letters: int = 60) -> str:
    """Return text from the file for a message of one line: cut and escaped."""
    line = one_line(str(text)[: letters + 1])
    return line if len(line) <= letters else line[: letters - 1] + "…"
