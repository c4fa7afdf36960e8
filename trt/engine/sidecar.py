"""What an engine is: the fields that decide whether a cached one may be used, and the JSON file beside it.

The file is `EngineSidecar` as JSON, field by field; sidecar.schema.json describes it for other programs.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from mribatch.core.about import RESEARCH_NOTICE, __version__
from mribatch.core.bundle import Bundle
from mribatch.core.errors import MribatchError
from mribatch.core.gate import CPU_EMULATED, ON_GPU, GateReport
from mribatch.core.typed_json import read_record, write_record
from mribatch.trt.engine.build import OPTIMIZATION_LEVEL, WORKSPACE_BYTES, SerializedEngine
from mribatch.trt.gpu import Gpu
from mribatch.trt.library import Flavor, require_version
from mribatch.trt.request import FP16, FP32, MAX_BATCH, BatchProfile, EngineRequest

SCHEMA = 1
SCHEMA_FILE = "sidecar.schema.json"  # beside this module
MAX_SIDECAR_BYTES = 1 << 22
_MAX_BYTES = 1 << 50  # of an engine; no file is larger
NOT_VERIFIED = "not verified: no GPU"
_VERIFIED = (ON_GPU, CPU_EMULATED, NOT_VERIFIED)
_BUILD_AGAIN = "build the engine again: mribatch engine build"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TARGET = re.compile(r"sm[0-9]{2,4}")


@dataclass(frozen=True, kw_only=True)
class EngineIdentity:
    """Two engines with equal fields are interchangeable; the hash of the fields is the key of the cache."""

    onnx_sha256: str  # of the graph that was parsed
    precision: str  # FP16 or FP32
    batch: BatchProfile
    flavor: Flavor
    version: str  # of the library: an engine runs on exactly the version that built it
    target: str  # "sm89": it runs on GPUs of exactly this compute capability

    @classmethod
    def of(cls, request: EngineRequest, onnx_sha256: str) -> Self:
        """The identity of a requested engine, built with the library version that is installed.

        Raises:
            MribatchError: The flavor is not installed.
        """
        return cls(
            onnx_sha256=onnx_sha256,
            precision=request.precision,
            batch=request.batch,
            flavor=request.flavor,
            version=require_version(request.flavor),
            target=request.target,
        )

    @property
    def fields(self) -> dict[str, Any]:
        """By their names in a sidecar, in the order in which they are compared."""
        return {
            "trt_flavor": str(self.flavor),
            "trt_version": self.version,
            "target": self.target,
            "precision.mode": self.precision,
            "profile": {"min": 1, "opt": self.batch.optimal, "max": self.batch.maximum},
            "onnx_sha256": self.onnx_sha256,
        }

    @property
    def key(self) -> str:
        return sha256(json.dumps(self.fields, sort_keys=True).encode()).hexdigest()

    def find_difference(self, found: "EngineIdentity") -> tuple[str, str] | None:
        """The name of the first field in which an engine differs from this one, and a phrase with both values.

        None where all fields are equal.
        """
        for name, wanted in self.fields.items():
            value = found.fields[name]
            if value != wanted:
                return name, f"{name} is {_abbreviate(value)}, wanted is {_abbreviate(wanted)}"
        return None


@dataclass(frozen=True, kw_only=True)
class EngineInput:
    """The graph's input, as in bundle.json."""

    name: str
    dtype: str
    layout: str
    height: int
    width: int
    colour: str
    resize: str
    antialias: bool
    value_range: tuple[int, ...]  # smallest and largest value of a pixel


@dataclass(frozen=True, kw_only=True)
class EngineOutput:
    """The graph's output, as in bundle.json."""

    name: str
    dtype: str
    activation: str


@dataclass(frozen=True, kw_only=True)
class EnginePrecision:
    """mode: FP16 or FP32. fp32_nodes: nodes that stayed in FP32; None in an FP32 engine."""

    mode: str
    fp32_nodes: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class EngineProfile:
    """Batch sizes: smallest, fastest, largest."""

    min: int
    opt: int
    max: int


@dataclass(frozen=True, kw_only=True)
class BuilderSettings:
    """Settings of the build. workspace: bytes of scratch memory."""

    opt_level: int
    workspace: int
    tf32: bool


@dataclass(frozen=True, kw_only=True)
class LayerCounts:
    """Layers of the parsed network that give FP16 and FP32."""

    half: int
    float32: int


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What the gate measured.

    n: rows, repeated ones included. max_abs: largest |Δp| from Keras' answers. argmax_agree: share of rows with Keras'
    class. report: the gate's own sentence.
    """

    n: int
    max_abs: float
    argmax_agree: float
    report: str


@dataclass(frozen=True, kw_only=True)
class EngineSidecar:
    """Everything that is known of an engine. Field names and order are those of the JSON file.

    Raises:
        ValueError: A value is outside its range; names the field.
    """

    schema: int = SCHEMA
    key: str  # of the cache; see EngineIdentity
    engine_sha256: str
    engine_bytes: int  # also bounds what is read of the engine
    onnx_sha256: str  # of the graph that was parsed
    source_sha256: str  # of what that graph and its golden answers come from (`mribatch.trt.engine.provider`)
    model_sha256: str  # of model.onnx
    bundle_sha256: str  # of bundle.json
    keras_sha256: str | None  # of the .keras file that bundle.json names, if it names one
    model_name: str
    class_names: tuple[str, ...]
    input: EngineInput
    output: EngineOutput
    precision: EnginePrecision
    profile: EngineProfile
    trt_flavor: Flavor
    trt_version: str
    target: str  # "sm89"
    compute_capability: str  # "8.9"
    gpu_name: str | None  # the GPU that the engine was compared on, its driver and runtime; None without one
    driver: str | None
    cuda_runtime: str | None
    builder: BuilderSettings
    layers: LayerCounts
    fp32_bytes: int | None  # size of the same model's FP32 engine, where that was built for comparison
    ratio_to_fp32: float | None
    seconds: float  # for parsing and building
    verified: str  # where the gate computed: "gpu", "cpu-emulated", or NOT_VERIFIED
    parity: Parity | None  # None where it is not verified
    created_utc: str  # ISO 8601
    tool_version: str
    research_notice: str

    def __post_init__(self) -> None:
        hashes = ("key", "engine_sha256", "onnx_sha256", "source_sha256", "model_sha256", "bundle_sha256")
        holds = {name: bool(_SHA256.fullmatch(getattr(self, name))) for name in hashes}
        holds |= {
            "keras_sha256": self.keras_sha256 is None or bool(_SHA256.fullmatch(self.keras_sha256)),
            "engine_bytes": 0 <= self.engine_bytes <= _MAX_BYTES,
            "fp32_bytes": self.fp32_bytes is None or 0 < self.fp32_bytes <= _MAX_BYTES,
            "precision.mode": self.precision.mode in (FP16, FP32),
            "profile": 1 == self.profile.min <= self.profile.opt <= self.profile.max <= MAX_BATCH,
            "target": bool(_TARGET.fullmatch(self.target)),
            "verified": self.verified in _VERIFIED,
        }
        for name, fits in holds.items():
            if not fits:
                raise ValueError(f"'{name}' has a value that does not fit")

    @property
    def identity(self) -> EngineIdentity:
        return EngineIdentity(
            onnx_sha256=self.onnx_sha256,
            precision=self.precision.mode,
            batch=BatchProfile(self.profile.opt, self.profile.max),
            flavor=self.trt_flavor,
            version=self.trt_version,
            target=self.target,
        )

    def to_json(self) -> dict[str, Any]:
        """The content of the file; `parse_sidecar` gives an equal sidecar back."""
        content = write_record(self)
        return content | {"parity": content["parity"] or {}}


@dataclass(frozen=True, kw_only=True)
class GateRecord:
    """What a sidecar says of the gate. gpu: that the engine was compared on, if it was."""

    verified: str = NOT_VERIFIED
    parity: Parity | None = None
    gpu: Gpu | None = None

    @classmethod
    def of(cls, report: GateReport, gpu: Gpu | None) -> Self:
        rows = sum(check.agreement.rows for check in report.checks if check.agreement)
        same = sum(check.same_class for check in report.checks)
        parity = Parity(n=rows, max_abs=report.max_difference, argmax_agree=same / rows, report=str(report))
        return cls(verified=report.verified, parity=parity, gpu=gpu)

    @property
    def facts(self) -> dict[str, Any]:
        """Fields of an EngineSidecar."""
        return {
            "verified": self.verified,
            "parity": self.parity,
            "gpu_name": self.gpu.name if self.gpu else None,
            "driver": self.gpu.driver if self.gpu else None,
            "cuda_runtime": self.gpu.runtime if self.gpu else None,
        }


def sidecar_path(engine: Path) -> Path:
    """x.engine -> x.engine.json"""
    return engine.with_name(engine.name + ".json")


def parse_sidecar(content: bytes, name: Path) -> EngineSidecar:
    """Read a sidecar. Every field has its type and range; no number is NaN or infinite. Unknown fields are left out.

    Raises:
        MribatchError: It is not a sidecar of this version; names the first field that cannot be used.
    """
    try:
        if len(content) > MAX_SIDECAR_BYTES:
            raise ValueError(f"more than {MAX_SIDECAR_BYTES} bytes")
        found = json.loads(content, parse_float=_parse_finite, parse_constant=_parse_finite)
    except (ValueError, RecursionError) as error:
        raise MribatchError(f"{name} is not JSON: {error}", _BUILD_AGAIN) from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise MribatchError(f"{name} is not a sidecar of this version", _BUILD_AGAIN)
    if found.get("parity") == {}:
        found["parity"] = None
    try:
        return read_record(EngineSidecar, found)
    except ValueError as error:
        raise MribatchError(f"{name} cannot be used: {error}", _BUILD_AGAIN) from error


def new_sidecar(
    bundle: Bundle,
    identity: EngineIdentity,
    engine: SerializedEngine,
    *,
    source_sha256: str,
    fp32_nodes: tuple[str, ...] | None,
    fp32_bytes: int | None,
    gate: GateRecord,
) -> EngineSidecar:
    """Describe an engine that has just been built.

    Args: As the fields of these names in EngineSidecar; `engine` is as the library gave it.
    """
    return EngineSidecar(
        key=identity.key,
        engine_sha256=sha256(engine.content).hexdigest(),
        engine_bytes=len(engine.content),
        onnx_sha256=identity.onnx_sha256,
        source_sha256=source_sha256,
        **describe_model(bundle),
        precision=EnginePrecision(mode=identity.precision, fp32_nodes=fp32_nodes),
        profile=EngineProfile(min=1, opt=identity.batch.optimal, max=identity.batch.maximum),
        trt_flavor=identity.flavor,
        trt_version=identity.version,
        target=identity.target,
        compute_capability=_to_compute_capability(identity.target),
        **gate.facts,
        builder=BuilderSettings(opt_level=OPTIMIZATION_LEVEL, workspace=WORKSPACE_BYTES, tf32=False),
        layers=LayerCounts(half=engine.half_layers, float32=engine.float_layers),
        fp32_bytes=fp32_bytes,
        ratio_to_fp32=None if fp32_bytes is None else round(len(engine.content) / fp32_bytes, 4),
        seconds=round(engine.seconds, 2),
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        tool_version=__version__,
        research_notice=RESEARCH_NOTICE,
    )


def describe_model(bundle: Bundle) -> dict[str, Any]:
    """The fields of an EngineSidecar that say which bundle the engine belongs to."""
    spec, content = bundle.spec, bundle.spec.to_json()
    return {
        "model_sha256": spec.model_sha256,
        "bundle_sha256": bundle.sha256,
        "keras_sha256": _find_keras_sha256(spec.training),
        "model_name": spec.name,
        "class_names": spec.classes,
        "input": read_record(EngineInput, content["input"]),
        "output": read_record(EngineOutput, content["output"]),
    }


def _find_keras_sha256(training: Mapping[str, Any]) -> str | None:
    """Of the .keras file that the bundle was exported from, where bundle.json names one and its hash."""
    file, digest = training.get("file"), training.get("sha256")
    named = isinstance(file, str) and file.endswith(".keras")
    return digest if named and isinstance(digest, str) and _SHA256.fullmatch(digest) else None


def _parse_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _to_compute_capability(target: str) -> str:
    """sm89 -> 8.9, sm120 -> 12.0"""
    digits = target.removeprefix("sm")
    return f"{digits[:-1]}.{digits[-1]}"


def _abbreviate(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:16]}…" if len(text) == 64 else text[:80]
