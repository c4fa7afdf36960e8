"""What happens to an engine in its cache, in one process and without TensorRT: stored, found, listed, gated again."""

import sys
from pathlib import Path

from mribatch.core.bundle import load_bundle
from mribatch.core.errors import MribatchError
from mribatch.core.system_errors import naming_system_errors
from mribatch.trt.engine.build import SerializedEngine
from mribatch.trt.engine.cache import EngineCache, EngineRefused
from mribatch.trt.engine.sidecar import EngineIdentity, GateRecord, Parity, new_sidecar
from mribatch.trt.library import Flavor
from mribatch.trt.request import BatchProfile

CONTENT = bytes(range(256)) * 400
IDENTITY = EngineIdentity(
    onnx_sha256="a" * 64,
    precision="fp16",
    batch=BatchProfile(32, 64),
    flavor=Flavor.RTX,
    version="1.7.1.116",
    target="sm89",
)


def main(cache: Path, model: Path) -> None:
    """Find the engine, or store it as its builder does; errors end the process as those of a command do."""
    try:
        with naming_system_errors():
            _take_steps(EngineCache(cache), model)
    except MribatchError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(0)


def _take_steps(cache: EngineCache, model: Path) -> None:
    with cache.locked():
        try:
            found = cache.find(IDENTITY, "tiny")
        except EngineRefused:  # as the builder: it is built again, and the old file kept
            found = None
        if found is None:
            engine = SerializedEngine(CONTENT, half_layers=9, float_layers=3, seconds=1.5, timing_cache=b"timings")
            sidecar = new_sidecar(
                load_bundle(str(model)),
                IDENTITY,
                engine,
                source_sha256="c" * 64,
                fp32_nodes=("head",),
                fp32_bytes=20480,
                gate=GateRecord(
                    verified="cpu-emulated", parity=Parity(n=8, max_abs=0.001, argmax_agree=1.0, report="holds")
                ),
            )
            cache.read_timing_cache(IDENTITY)
            cache.store(IDENTITY, "tiny", CONTENT, sidecar)
            cache.store_timing_cache(IDENTITY, b"timings")
            found = cache.find(IDENTITY, "tiny")
    if found is None or found.content != CONTENT:
        raise AssertionError("another engine was found than was stored")
    cache.store_sidecar(found, found.sidecar)
    print(len(cache.read_sidecars()))
