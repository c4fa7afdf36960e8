"""A bundle as a model of NVIDIA Triton Inference Server: its graph or an engine, with a configuration and the classes.

    OUT/NAME/config.pbtxt, labels.txt, 1/model.onnx or 1/model.plan

The model takes what the bundle's graph takes: grey pixels of its size, uint8, not files. Source of the format:
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from mribatch.core.about import RESEARCH_NOTICE
from mribatch.core.bundle import Bundle
from mribatch.core.errors import MribatchError, WriteError
from mribatch.core.files import remove_folder
from mribatch.core.model_spec import INPUT_NAME, OUTPUT_NAME
from mribatch.trt.engine.cache import EngineFile
from mribatch.trt.library import Flavor

CONFIG, LABELS = "config.pbtxt", "labels.txt"
_QUEUE_DELAY_US = 2000  # how long a request may wait for others to share its batch


@dataclass(frozen=True)
class _Served:
    """What Triton loads. note: what must hold on the server."""

    backend: str
    file: str
    content: bytes
    batch_size: int
    note: str


def export_triton(bundle: Bundle, out: Path, batch_size: int, engine: EngineFile | None = None) -> Path:
    """Write a bundle into a model repository.

    Args:
        bundle: Checked.
        out: The repository; made where it is missing. Other models in it are left alone.
        batch_size: Largest batch that the server may form of the graph; an engine has its own.
        engine: Checked; serve it instead of the graph. It runs on its own kind of GPU and TensorRT version only.

    Returns:
        The folder of the model.

    Raises:
        MribatchError: The engine is not the bundle's, or of TensorRT for RTX, or the model is there already.
        WriteError: The file system refuses; nothing is left behind.
    """
    served = _Served("onnxruntime", "model.onnx", bundle.model, batch_size, "any ONNX Runtime of the server")
    if engine is not None:
        served = _check_engine(bundle, engine)
    target = out / bundle.spec.name
    if target.exists():
        raise MribatchError(f"{target} exists already", "name another repository, or delete that folder")
    fresh = target.with_name(f".{target.name}.tmp")
    try:
        remove_folder(fresh)
        (fresh / "1").mkdir(parents=True)
        (fresh / "1" / served.file).write_bytes(served.content)
        (fresh / LABELS).write_text("".join(f"{name}\n" for name in bundle.spec.classes), encoding="utf-8")
        (fresh / CONFIG).write_text(format_config(bundle, served), encoding="utf-8")
        os.replace(fresh, target)
    except OSError as error:
        remove_folder(fresh)
        raise WriteError(
            f"cannot write {target}: {error.strerror or error}", "name a folder that you may write to"
        ) from error
    return target


def _check_engine(bundle: Bundle, engine: EngineFile) -> _Served:
    sidecar = engine.sidecar
    if sidecar.trt_flavor is not Flavor.TENSORRT:
        raise MribatchError(f"Triton does not load engines of {sidecar.trt_flavor}", "serve the ONNX graph instead")
    if sidecar.model_sha256 != bundle.spec.model_sha256:
        problem = f"{engine.path} is an engine of '{sidecar.model_name}', not of this '{bundle.spec.name}'"
        raise MribatchError(problem, "name an engine of this bundle: mribatch engine list")
    needs = f"TensorRT {sidecar.trt_version} and a GPU of compute capability {sidecar.compute_capability}"
    return _Served("tensorrt", "model.plan", engine.content, sidecar.profile.max, needs)


def format_config(bundle: Bundle, served: _Served) -> str:
    """Return config.pbtxt: inputs, outputs, dynamic batching, and as parameters what a client must know."""
    spec = bundle.spec
    facts = {
        "needs": served.note,
        "research_notice": RESEARCH_NOTICE,
        "preprocessing": json.dumps(spec.to_json()["input"]),
        "bundle_sha256": bundle.sha256,
        **({"notice": spec.notice} if spec.notice else {}),
    }
    parameters = "".join(
        f"parameters {{ key: {_quote(key)} value {{ string_value: {_quote(value)} }} }}\n"
        for key, value in facts.items()
    )
    return f"""name: {_quote(spec.name)}
backend: {_quote(served.backend)}
max_batch_size: {served.batch_size}
input [
  {{ name: {_quote(INPUT_NAME)} data_type: TYPE_UINT8 dims: [ {spec.height}, {spec.width}, 1 ] }}
]
output [
  {{
    name: {_quote(OUTPUT_NAME)}
    data_type: TYPE_FP32
    dims: [ {len(spec.classes)} ]
    label_filename: {_quote(LABELS)}
  }}
]
dynamic_batching {{ max_queue_delay_microseconds: {_QUEUE_DELAY_US} }}
{parameters}"""


def _quote(text: str) -> str:
    """A string of protobuf's text format, which takes the escapes that JSON has for quotes and control characters."""
    return json.dumps(text, ensure_ascii=False)
