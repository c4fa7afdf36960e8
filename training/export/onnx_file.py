"""An ONNX file from anywhere, read without letting it reach another file or run anything but ONNX's own operators.

The bytes are walked before any library parses them (`core.onnx_graph`). Weights in external files are read here, and
only from files beside the model or under its folder: the format lets a tensor name any path of this machine, whose
content would then travel in the bundle.
"""

import math
import os
import stat
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from mribatch.core.errors import MribatchError
from mribatch.core.install import install_command
from mribatch.core.onnx_graph import STANDARD_DOMAINS, read_graph_facts
from mribatch.core.text import one_line
from mribatch.training.export.model_facts import FileFacts

SUFFIX = ".onnx"
OPSETS = range(11, 27)
_MAX_BYTES = (1 << 31) - (1 << 20)  # of the model with its weights; protobuf's limit, less room for the wrapper
_MAX_VALUES = 1 << 28  # in one tensor; 1 GiB in float32
_MAX_NODES = 50_000  # NASNetLarge has 2,000
# Branches and loops, for which no bound on time and memory can be given, and operators whose answer is drawn by lot.
_REFUSED = frozenset(
    {"If", "Loop", "Scan", "SequenceMap", "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"}
    | {"RandomUniform", "RandomUniformLike", "StringConcat", "StringSplit", "RegexFullMatch", "StringNormalizer"}
)
_TYPED_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
_FIX = "export the classifier alone with ONNX's own operators, as torch.onnx.export(model.eval(), …) does"


def load_graph(path: Path) -> Any:
    """Return the onnx.ModelProto, with external weights inside.

    Raises:
        MribatchError: The file is missing, too large, not an ONNX model, uses operators outside ONNX, functions,
            branches or chance, or names external files that are missing or elsewhere.
    """
    content = _read(path)
    _check_facts(path, content)
    onnx = _load_onnx()
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf raises its own kinds, which differ between its implementations
        raise MribatchError(f"{path} is not an ONNX model: {_first_line(error)}", "give a model.onnx") from error
    _check_nodes(path, model)
    _fold_external(path, model, len(content))
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        problem = f"{path} is not a valid ONNX model: {_first_line(error)}"
        raise MribatchError(problem, "export it again with a current version of its exporter") from error
    _check_sizes(path, model)
    return model


def read_onnx_facts(path: Path, model: Any) -> FileFacts:
    """Return name, sha256 of the file, what wrote it, and its opset."""
    with path.open("rb") as file:
        digest = sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    writer = one_line(f"{model.producer_name} {model.producer_version}".strip())[:40] or "unknown"
    return FileFacts(file=path.name, sha256=digest.hexdigest(), saved_by=writer, opset=str(opset_of(model)))


def opset_of(model: Any) -> int:
    """Return the version of ONNX's own operators that the model uses."""
    return next((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), 0)


def _load_onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MribatchError(f"reading an ONNX model needs onnx ({error})", install_command("train")) from error
    return onnx


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise MribatchError(f"{path} is a folder, not an ONNX model", "give the .onnx file inside")
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise MribatchError(f"{path} has {size:,} bytes, more than the {_MAX_BYTES:,} allowed", _FIX)
        return path.read_bytes()
    except OSError as error:
        problem = f"cannot read {path}: {error.strerror or error}"
        raise MribatchError(problem, "give the path of an .onnx file") from error


def _check_facts(path: Path, content: bytes) -> None:
    try:
        facts = read_graph_facts(content)
    except (ValueError, RecursionError) as error:
        raise MribatchError(f"{path} is not an ONNX model: {_first_line(error)}", "give a model.onnx") from error
    if foreign := sorted(one_line(name)[:60] for name in facts.domains - STANDARD_DOMAINS):
        problem = f"{path} uses operators outside ONNX, of {', '.join(foreign[:5])}"
        raise MribatchError(problem, _FIX)
    if facts.functions:
        fix = "write its functions out with onnx.inliner.inline_local_functions, and export the result"
        raise MribatchError(f"{path} defines {facts.functions} functions", fix)
    if facts.nodes > _MAX_NODES:
        raise MribatchError(f"{path} has {facts.nodes:,} nodes, more than the {_MAX_NODES:,} allowed", _FIX)


def _check_nodes(path: Path, model: Any) -> None:
    for node in model.graph.node:
        name = one_line(node.op_type)[:60]
        if node.op_type in _REFUSED or any(item.HasField("g") or item.graphs for item in node.attribute):
            raise MribatchError(f"{path} has a node '{name}', which an image classifier has no use for", _FIX)
    if model.graph.sparse_initializer:
        raise MribatchError(f"{path} has sparse weights", _FIX)
    if opset_of(model) not in OPSETS:
        problem = f"{path} is of opset {opset_of(model)}; {OPSETS[0]} to {OPSETS[-1]} are read"
        raise MribatchError(problem, "export it again with opset_version=17")


def _check_sizes(path: Path, model: Any) -> None:
    """Refuse a tensor that no classifier of one image needs: a few bytes can ask for terabytes."""
    onnx = _load_onnx()
    try:
        values = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info
    except Exception:  # ONNX Runtime judges the graph, too, and says what is wrong with it
        return
    for value in values:
        sides = [side.dim_value or 1 for side in value.type.tensor_type.shape.dim]
        if math.prod(sides) > _MAX_VALUES:
            problem = f"{path} makes a tensor of {' x '.join(map(str, sides))} numbers"
            raise MribatchError(problem, _FIX)


def _fold_external(path: Path, model: Any, size: int) -> None:
    """Read the weights that are in other files into the model."""
    onnx = _load_onnx()
    attributes = (item for node in model.graph.node for item in node.attribute)
    constants = (tensor for item in attributes for tensor in ([item.t] if item.HasField("t") else item.tensors))
    for tensor in (*model.graph.initializer, *constants):
        if tensor.data_location != onnx.TensorProto.EXTERNAL and not tensor.external_data:
            continue
        content = _read_external(path, tensor, _MAX_BYTES - size)
        size += len(content)
        for unused in ("external_data", "data_location", *_TYPED_FIELDS):
            tensor.ClearField(unused)
        tensor.raw_data = content


def _read_external(path: Path, tensor: Any, left: int) -> bytes:
    onnx = _load_onnx()
    name = one_line(tensor.name)[:60]
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = _find_external(path, name, entries.get("location", ""))
    try:
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        count = 1
        for side in tensor.dims:
            if side < 0:
                raise ValueError(f"a side of {side}")
            count *= side
        wanted = count * kind.itemsize
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", wanted))
        if length != wanted or offset < 0 or wanted > left:
            raise ValueError(f"{wanted:,} bytes are needed at {offset:,}, {length:,} are named, {left:,} are allowed")
        with file.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size < offset + wanted:
                raise ValueError(f"{file.name} ends before byte {offset + wanted:,}")
            stream.seek(offset)
            return stream.read(wanted)
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        problem = f"{path}: the weights '{name}' cannot be read: {_first_line(error)}"
        raise MribatchError(problem, "keep the model and its data file together, as the exporter wrote them") from error


def _find_external(path: Path, name: str, location: str) -> Path:
    """Return the file of external weights; links are followed, and must not lead out of the model's folder."""
    home = path.resolve().parent
    shown = one_line(location)[:80]
    parts = PurePosixPath(location).parts
    fix = "put the data file beside the model, and export again"
    if not parts or location.startswith("/") or ".." in parts or "\\" in location or "\0" in location:
        raise MribatchError(f"{path}: the weights '{name}' are in '{shown}', outside the model's folder", fix)
    try:
        file = (home / location).resolve()
        inside = file.is_relative_to(home)
        regular = inside and stat.S_ISREG(file.stat().st_mode)
    except (OSError, ValueError, RuntimeError) as error:
        problem = f"{path}: the weights '{name}' are in '{shown}', which cannot be read"
        raise MribatchError(problem, "keep the model and its data file together, as the exporter wrote them") from error
    if not regular:
        raise MribatchError(f"{path}: the weights '{name}' are in '{shown}', outside the model's folder", fix)
    return file


def _first_line(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return one_line(text)[:200]
