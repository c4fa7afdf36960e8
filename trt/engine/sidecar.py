"""What an engine is: the fields that decide whether a cached one may be used, and the JSON file beside it."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from mribatch.core.about import RESEARCH_NOTICE, __version__
from mribatch.core.bundle import Bundle
from mribatch.core.errors import MribatchError
from mribatch.trt.engine.build import OPTIMIZATION_LEVEL, WORKSPACE_BYTES, BatchProfile, Plan
from mribatch.trt.gpu import Gpu
from mribatch.trt.library import Flavour, required_version
from mribatch.trt.revision import git_revision

SCHEMA = 1
FP16, FP32 = "fp16", "fp32"
DEFAULT_BATCH = BatchProfile(64, 64)
MAX_SIDECAR_BYTES = 1 << 22
_BUILD_AGAIN = "build the engine again: mribatch engine build"
# What the code reads out of a sidecar without looking twice. "engine_bytes" also bounds what is read of the engine.
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "engine_sha256": str,
    "engine_bytes": int,
    "onnx_sha256": str,
    "source_sha256": str,
    "model_name": str,
    "precision.mode": str,
    "trt_flavor": str,
    "trt_version": str,
    "target": str,
    "ratio_to_fp32": (int, float),
    "seconds": (int, float),
    "verified": str,
}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class EngineIdentity:
    """Two engines with equal fields are interchangeable; the hash of the fields is the key of the cache."""

    onnx_sha256: str  # of the graph that was parsed
    precision: str  # FP16 or FP32
    batch: BatchProfile
    flavour: Flavour
    version: str  # of the library: an engine runs on exactly the version that built it
    target: str  # "sm89": it runs on GPUs of exactly this compute capability

    @property
    def fields(self) -> dict[str, Any]:
        """As they stand in a sidecar, in the order in which they are compared."""
        return {
            "trt_flavor": str(self.flavour),
            "trt_version": self.version,
            "target": self.target,
            "precision.mode": self.precision,
            "profile": {"min": 1, "opt": self.batch.optimal, "max": self.batch.maximum},
            "onnx_sha256": self.onnx_sha256,
        }

    @property
    def key(self) -> str:
        return sha256(json.dumps(self.fields, sort_keys=True).encode()).hexdigest()

    def difference(self, sidecar: Mapping[str, Any]) -> str | None:
        """The first field in which an engine differs from this one, with both values; None where all are equal."""
        for name, wanted in self.fields.items():
            found = value_at(sidecar, name)
            if found != wanted:
                return f"{name} is {_short(found)}, wanted is {_short(wanted)}"
        return None


@dataclass(frozen=True, kw_only=True)
class EngineRequest:
    """Which engine of a bundle is wanted."""

    flavour: Flavour
    target: str
    precision: str = FP16
    batch: BatchProfile = DEFAULT_BATCH

    def identity(self, onnx_sha256: str) -> EngineIdentity:
        """With the version that is installed.

        Raises:
            MribatchError: The flavour is not installed.
        """
        return EngineIdentity(
            onnx_sha256=onnx_sha256,
            precision=self.precision,
            batch=self.batch,
            flavour=self.flavour,
            version=required_version(self.flavour),
            target=self.target,
        )

    def __str__(self) -> str:
        return f"{self.precision} engine for {self.target} ({self.flavour})"


def value_at(sidecar: Mapping[str, Any], name: str) -> Any:
    """The value of "precision.mode" and the like; None where it is missing."""
    value: Any = sidecar
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def sidecar_path(engine: Path) -> Path:
    """x.engine -> x.engine.json"""
    return engine.with_name(engine.name + ".json")


def parse_sidecar(content: bytes, name: Path) -> dict[str, Any]:
    """The content of a sidecar. Every field that is read later is there and of its type; no number is NaN or infinite.

    Raises:
        MribatchError: It is not a sidecar of this version.
    """
    try:
        if len(content) > MAX_SIDECAR_BYTES:
            raise ValueError(f"more than {MAX_SIDECAR_BYTES} bytes")
        sidecar = json.loads(content, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise MribatchError(f"{name} is not JSON: {error}", _BUILD_AGAIN) from error
    if not isinstance(sidecar, dict) or sidecar.get("schema") != SCHEMA:
        raise MribatchError(f"{name} is no sidecar of this version", _BUILD_AGAIN)
    wrong = [field for field, kind in _KINDS.items() if not isinstance(value_at(sidecar, field), kind)]
    if not wrong and sidecar["trt_flavor"] not in list(Flavour):
        wrong = ["trt_flavor"]
    if wrong:
        raise MribatchError(f"{name} has no field {wrong[0]} that can be used", _BUILD_AGAIN)
    return sidecar


def new_sidecar(
    bundle: Bundle,
    identity: EngineIdentity,
    plan: Plan,
    *,
    source_sha256: str,
    fp32_nodes: tuple[str, ...] | None,
    fp32_bytes: int,
    gpu: Gpu | None,
    verified: str,
    parity: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that is known of an engine that has just been built.

    Args:
        source_sha256: Of what the parsed graph was made from (`mribatch.trt.engine.maker.source_of`).
        fp32_nodes: Nodes that were kept in FP32; None in an FP32 engine.
        fp32_bytes: Size of the same model's FP32 engine.
        gpu: The GPU that the engine was verified on, if it was.
        verified, parity: How the engine was compared with Keras, and the result.
    """
    return {
        "schema": SCHEMA,
        "key": identity.key,
        "engine_sha256": sha256(plan.content).hexdigest(),
        "engine_bytes": len(plan.content),
        "onnx_sha256": identity.onnx_sha256,
        "source_sha256": source_sha256,
        **bundle_facts(bundle),
        "precision": {"mode": identity.precision, "fp32_nodes": None if fp32_nodes is None else list(fp32_nodes)},
        "profile": identity.fields["profile"],
        "trt_flavor": str(identity.flavour),
        "trt_version": identity.version,
        "target": identity.target,
        "compute_capability": _dotted(identity.target),
        **gpu_facts(gpu),
        "builder": {"opt_level": OPTIMIZATION_LEVEL, "workspace": WORKSPACE_BYTES, "tf32": False},
        "layers": {"half": plan.half_layers, "float32": plan.float_layers},
        "fp32_bytes": fp32_bytes,
        "ratio_to_fp32": round(len(plan.content) / fp32_bytes, 4),
        "seconds": round(plan.seconds, 2),
        "verified": verified,
        "parity": dict(parity),
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "tool_version": __version__,
        "git_rev": git_revision(),
        "research_notice": RESEARCH_NOTICE,
    }


def bundle_facts(bundle: Bundle) -> dict[str, Any]:
    """What a sidecar says of the bundle that its engine belongs to."""
    spec, content = bundle.spec, bundle.spec.to_json()
    return {
        "model_sha256": spec.model_sha256,
        "bundle_sha256": bundle.sha256,
        "keras_sha256": _keras_sha256(spec.training),
        "model_name": spec.name,
        "class_names": list(spec.classes),
        "input": content["input"],
        "output": content["output"],
    }


def gpu_facts(gpu: Gpu | None) -> dict[str, str | None]:
    """What a sidecar says of the GPU that its engine was verified on."""
    return {
        "gpu_name": gpu.name if gpu else None,
        "driver": gpu.driver if gpu else None,
        "cuda_runtime": gpu.runtime if gpu else None,
    }


def _keras_sha256(training: Mapping[str, Any]) -> str | None:
    """Of the .keras file that the bundle was exported from, where bundle.json names one and its hash."""
    file, digest = training.get("file"), training.get("sha256")
    named = isinstance(file, str) and file.endswith(".keras")
    return digest if named and isinstance(digest, str) and _SHA256.fullmatch(digest) else None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


def _dotted(target: str) -> str:
    """sm89 -> 8.9, sm120 -> 12.0"""
    digits = target.removeprefix("sm")
    return f"{digits[:-1]}.{digits[-1]}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:16]}…" if len(text) == 64 else text[:80]
