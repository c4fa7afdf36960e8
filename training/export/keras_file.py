"""A stranger's `.keras` file, opened without running anything that it brings along.

The file is a zip with config.json (which layers), metadata.json and model.weights.h5
(https://keras.io/api/models/model_saving_apis/model_saving_and_loading/). A layer may carry Python code (Lambda) or
name a module to import; Keras' safe mode refuses the first. Both are looked for here before Keras sees the file, and
sizes are checked before anything is unpacked. The weights are HDF5, where a dataset may lie in another file of this
machine, or claim any size without a byte behind it: both are refused before Keras reads one.
"""

import importlib
import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from mribatch.core.errors import MribatchError
from mribatch.training.frameworks import load_keras

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"

_MAX_CONFIG_BYTES = 1 << 26  # EfficientNetB7 has 0.4 MB
_MAX_WEIGHTS_BYTES = 1 << 31  # an ONNX file can hold no more
_MAX_RATIO = 20  # unpacked to packed; Keras stores without compression, and weights hardly compress
_FREE_BYTES = 1 << 20  # what may be unpacked at any ratio
_MAX_DEPTH = 200
_MAX_GROUPS_AND_DATASETS = 200_000  # EfficientNetB7 has 5,000
# Where Keras keeps what networks are made of; keras.utils or keras.config have nothing to do in one.
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
_FILE_LAYERS = {"StringLookup", "IntegerLookup", "TextVectorization"}  # read the file that their configuration names
# These run what the file brings along.
_CODE_LAYERS = {"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,40}")
_HDF5 = b"\x89HDF\r\n\x1a\n"  # HDF5 File Format Specification 3.0, III.A
_SAVE = "open it in Keras 3 where you trust it, and model.save('model.keras')"
_UNLOADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, EOFError, OSError, ValueError, KeyError)


def load_network(path: Path) -> Any:
    """The keras.Model in a `.keras` file, not compiled, loaded in safe mode.

    Raises:
        MribatchError: There is no such file, it is something else, it brings code or custom layers, it unpacks to more
            than it may, or Keras cannot rebuild it.
    """
    _check_kind(path)
    _check_config(path, _read_config(path))
    _, keras = load_keras()
    _check_weights(path)
    try:
        # Losses, metrics and optimizer are of no use here, and custom ones are no obstacle.
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a damaged or hostile file may make any layer's constructor raise anything
        problem = f"Keras {keras.__version__} cannot load {path}: {_first_line(error)}"
        raise MribatchError(problem, "load it with the version of Keras that saved it, and save it again") from error
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        kind = type(model).__name__
        raise MribatchError(f"{path} holds a {kind}, not a model with declared inputs", "save a keras.Model")
    return model


def file_facts(path: Path) -> dict[str, str]:
    """Name, sha256 and the version of Keras that saved it."""
    with path.open("rb") as file:
        digest = sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    with zipfile.ZipFile(path) as archive:
        content = archive.read(METADATA) if METADATA in archive.namelist() else b"{}"
    try:
        metadata = json.loads(content)
    except (ValueError, RecursionError):
        metadata = None  # says nothing that is needed
    saved_by = metadata.get("keras_version") if isinstance(metadata, dict) else None
    if not isinstance(saved_by, str) or not _VERSION.fullmatch(saved_by):
        saved_by = "unknown"
    return {"file": path.name, "sha256": digest.hexdigest(), "saved_by_keras": saved_by}


def _check_kind(path: Path) -> None:
    """A zip with the right name; what people have instead is named with the way out."""
    if path.is_dir():
        raise MribatchError(f"{path} is a folder, not a .keras file", f"if it is a SavedModel, {_SAVE}")
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise MribatchError(f"cannot read {path}: {error.strerror or error}", "name a file model.keras") from error
    if start == _HDF5 or path.suffix.lower() in (".h5", ".hdf5"):
        raise MribatchError(f"{path} is an HDF5 file, Keras' former format, which may carry code", _SAVE)
    if not start.startswith(b"PK\x03\x04"):
        raise MribatchError(f"{path} is no .keras file (a zip archive)", "name what model.save('model.keras') wrote")
    if path.suffix != ".keras":
        raise MribatchError(f"{path} does not end in .keras", "rename it if Keras wrote it; otherwise " + _SAVE)


def _read_config(path: Path) -> Any:
    """config.json, after the sizes of all parts have been checked."""
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
        problem = f"{path} is no .keras file that can be used: {_first_line(error)}"
        raise MribatchError(problem, "name what model.save('model.keras') wrote") from error


def _check_size(entry: zipfile.ZipInfo, limit: int) -> None:
    if entry.file_size > limit:
        raise ValueError(f"its {entry.filename} unpacks to {entry.file_size:,} bytes, more than the {limit:,} allowed")
    if entry.file_size > max(_FREE_BYTES, _MAX_RATIO * entry.compress_size):
        raise ValueError(
            f"its {entry.filename} unpacks from {entry.compress_size:,} to {entry.file_size:,} bytes, as no model does"
        )


def _check_config(path: Path, config: Any) -> None:
    """Refuse code and classes from outside Keras. The compile configuration is never built, so it is not looked at."""
    content = config.get("config") if isinstance(config, dict) else None
    if not isinstance(content, dict):
        raise MribatchError(f"{path}: {CONFIG} describes no model", "name what model.save('model.keras') wrote")
    for item in _objects(path, config):
        kind, inner = _shown(item.get("class_name")), item.get("config")
        name = _shown(inner.get("name", kind) if isinstance(inner, dict) else kind)
        if kind in _CODE_LAYERS:
            raise MribatchError(
                f"{path}: its layer '{name}' ({kind}) carries code, which mribatch never runs",
                "replace it with a standard layer (Rescaling, Normalization, Activation …) and save the model again",
            )
        if kind in _FILE_LAYERS or not _is_of_networks(item.get("module")):
            raise MribatchError(
                f"{path}: '{name}' is {_shown(item.get('module'))}.{kind}, which an image classifier has no use for",
                "build the model from Keras' own layers for images, copy the weights over and save it again",
            )
        if custom := _custom_class(item):
            raise MribatchError(
                f"{path}: '{name}' is of the custom class {custom}, whose code mribatch does not have",
                "build the model from Keras' own layers, copy the weights over and save it again",
            )


def _custom_class(item: dict[str, Any]) -> str | None:
    """Name of the class of a serialized object where it is not one of Keras' own."""
    module, registered = item.get("module"), item.get("registered_name")
    if isinstance(registered, str) and ">" in registered:  # package>name, by register_keras_serializable
        return _shown(registered)
    if isinstance(module, str) and module.split(".")[0] not in ("keras", "builtins"):
        return _shown(f"{module}.{item.get('class_name')}")
    return None


def _is_of_networks(module: object) -> bool:
    """Whether a module of Keras holds parts of networks; other modules are `_custom_class`'s to judge."""
    parts = module.split(".") if isinstance(module, str) else []
    inside = [part for part in parts[1:] if part != "src"]
    return parts[:1] != ["keras"] or not inside or inside[0] in _PARTS_OF_NETWORKS


def _check_weights(path: Path) -> None:
    """Refuse weights that lie elsewhere, or that are more than the file can hold; nothing of them is read.

    Source: HDF5 File Format Specification 3.0, IV.A.2.f (fill values of what was never written), g (links to other
    files) and h (external data files).
    """
    h5py = importlib.import_module("h5py")  # comes with Keras
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(WEIGHTS)
        with h5py.File(io.BytesIO(content), "r") as weights:
            total = sum(_bytes_of(item, h5py) for item in _hard_links(weights, h5py))
        if total > max(_FREE_BYTES, _MAX_RATIO * len(content)):
            raise ValueError(f"its {WEIGHTS} claims {total:,} bytes of weights and has {len(content):,}")
    except Exception as error:  # a damaged file may make h5py raise anything
        problem = f"{path} is no .keras file that can be used: {_first_line(error)}"
        raise MribatchError(problem, "name what model.save('model.keras') wrote") from error


def _hard_links(weights: Any, h5py: Any) -> Iterator[Any]:
    """Every group and dataset, each as often as it is linked to; one that is linked into itself ends at the limit."""
    waiting, seen = [weights], 0
    while waiting:
        group = waiting.pop()
        for name in group:
            seen += 1
            if seen > _MAX_GROUPS_AND_DATASETS:
                raise ValueError(f"its {WEIGHTS} has more groups than any model")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"its {WEIGHTS} points to another file or place at '{_shown(name)}'")
            item = group[name]
            if isinstance(item, h5py.Group):
                waiting.append(item)
            yield item


def _bytes_of(item: Any, h5py: Any) -> int:
    if not isinstance(item, h5py.Dataset):
        return 0
    if item.external or item.is_virtual:
        raise ValueError(f"its {WEIGHTS} keeps '{_shown(item.name)}' in another file")
    return int(item.nbytes)


def _objects(path: Path, config: Any) -> Iterator[dict[str, Any]]:
    """Every serialized object of the model, at any depth."""
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
    """The error's first line, shortened: Keras appends the whole configuration."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return _shown(text, 200)


def _shown(text: object, letters: int = 60) -> str:
    """What the file says, for a message of one line: cut, and without what would move a terminal's cursor."""
    plain = "".join(letter if letter.isprintable() else "·" for letter in str(text)[: letters + 1])
    return plain if len(plain) <= letters else plain[: letters - 1] + "…"
