"""What is inside an engine, layer by layer; needs the GPU that it is for."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mribatch.core.errors import MribatchError
from mribatch.trt.engine.cache import EngineFile, EngineRefused
from mribatch.trt.gpu import Gpu, NoGpu, find_gpu
from mribatch.trt.library import find_installed_version, freeing_native_objects, load_library
from mribatch.trt.runtime.classifier import OpenEngine, deserialize


@dataclass(frozen=True)
class EngineLayers:
    """layers: as TensorRT's inspector describes them, in its own words. memory_bytes: that one context needs."""

    layers: tuple[Any, ...]
    memory_bytes: int


def describe_layers(engine: EngineFile, folder: Path, *, trusted: bool) -> str:
    """The layers of an engine, one a line, or why they cannot be shown here.

    Args:
        engine: Checked.
        folder: Of the cache.
        trusted: Whether the user trusts an engine from outside the cache.

    Raises:
        EngineRefused: The engine is outside the cache, its GPU is here, and the user does not trust it.
        MribatchError: TensorRT refuses it.
    """
    obstacle = find_obstacle(engine, find_gpu(), find_installed_version(engine.sidecar.trt_flavor))
    if obstacle:
        return obstacle
    check_place(engine, folder, trusted=trusted)
    return format_layers(read_layers(engine))


def read_layers(engine: EngineFile) -> EngineLayers:
    """Deserialize an engine that has been checked and ask TensorRT's inspector.

    Raises:
        MribatchError: The library is missing or refuses the engine.
    """
    flavor = engine.sidecar.trt_flavor
    with freeing_native_objects():
        return ask_inspector(load_library(flavor), deserialize(flavor, engine.content))


def ask_inspector(trt: Any, opened: OpenEngine) -> EngineLayers:
    """What TensorRT's inspector says of an engine.

    Raises:
        MribatchError: It gives no list of layers.
    """
    inspector = opened.engine.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON) if inspector is not None else ""
    try:
        layers = tuple(json.loads(text)["Layers"])
    except (ValueError, TypeError, KeyError) as error:
        reason = opened.messages.errors() or "its inspector gave no list of layers"
        raise MribatchError(
            f"the library cannot describe the engine: {reason}", "build it again: mribatch engine build"
        ) from error
    return EngineLayers(layers, int(opened.engine.device_memory_size_v2))


def find_obstacle(engine: EngineFile, gpu: Gpu | NoGpu, installed: str | None) -> str | None:
    """Why the layers of an engine cannot be shown on this machine, in one sentence; None where they can.

    Args:
        engine: Checked.
        gpu: The GPU of this machine.
        installed: Version of the engine's library on this machine; None: not installed.
    """
    sidecar = engine.sidecar
    if isinstance(gpu, NoGpu):
        return f"Its layers can be shown on its GPU only, and there is none: {gpu.reason}."
    if gpu.target != sidecar.target:
        return f"Its layers can be shown on its GPU only; this one is {gpu}."
    if installed != sidecar.trt_version:
        return (
            f"Its layers can be shown by {sidecar.trt_flavor} {sidecar.trt_version} only; "
            f"installed is {installed or 'none'}."
        )
    return None


def check_place(engine: EngineFile, folder: Path, *, trusted: bool) -> None:
    """Refuse to load an engine from outside the cache `folder` unless the user trusts it.

    Raises:
        EngineRefused: It is elsewhere, and `trusted` is False.
    """
    if not trusted and engine.path.parent.resolve() != folder.resolve():
        raise EngineRefused(
            "place",
            f"{engine.path} is outside the cache {folder}; an engine is native code",
            "add --trust-engine if you trust whoever built it",
        )


def format_layers(found: EngineLayers) -> str:
    """One line with the totals, then one line per layer."""
    lines = [json.dumps(layer, ensure_ascii=False) if isinstance(layer, dict) else str(layer) for layer in found.layers]
    return "\n".join([f"{len(lines)} layers, {found.memory_bytes / 1e6:.1f} MB of GPU memory", *lines])
