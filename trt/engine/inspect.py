"""What is inside an engine, layer by layer; needs the GPU that it is for."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mribatch.core.errors import MribatchError
from mribatch.trt.engine.cache import EngineFile, EngineRefused
from mribatch.trt.gpu import NoGpu, find_gpu
from mribatch.trt.library import Flavour, installed_version, load, native_objects_freed
from mribatch.trt.runtime.classifier import OpenEngine, open_plan


@dataclass(frozen=True)
class EngineLayers:
    """layers: as TensorRT's inspector describes them, in its own words. memory_bytes: that one context needs."""

    layers: tuple[Any, ...]
    memory_bytes: int


def layers_of(engine: EngineFile) -> EngineLayers:
    """Deserialise an engine that has been checked and ask TensorRT's inspector.

    Raises:
        MribatchError: The library is missing or refuses the engine.
    """
    flavour = Flavour(engine.sidecar["trt_flavor"])
    with native_objects_freed():
        return _described(load(flavour), open_plan(flavour, engine.content))


def _described(trt: Any, opened: OpenEngine) -> EngineLayers:
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


def text_of(engine: EngineFile, *, trusted: bool, folder: Path) -> str:
    """The layers, one a line, or why they cannot be shown.

    Args:
        engine: Checked.
        trusted: The user answers for an engine from outside the cache.
        folder: Of the cache.

    Raises:
        EngineRefused: The engine lies outside the cache and its GPU is here, but nobody answers for it.
        MribatchError: TensorRT refuses it.
    """
    gpu = find_gpu()
    if isinstance(gpu, NoGpu):
        return f"Its layers can be shown on its GPU only, and there is none: {gpu.reason}."
    if gpu.target != engine.sidecar["target"]:
        return f"Its layers can be shown on its GPU only; this one is {gpu}."
    wanted, installed = engine.sidecar["trt_version"], installed_version(Flavour(engine.sidecar["trt_flavor"]))
    if installed != wanted:
        return f"Its layers can be shown by {engine.sidecar['trt_flavor']} {wanted} only; installed is {installed}."
    if not trusted and engine.path.parent.resolve() != folder.resolve():
        raise EngineRefused(
            "place",
            f"{engine.path} lies outside the cache {folder}; an engine is native code",
            "give --trust-engine if you trust whoever built it",
        )
    found = layers_of(engine)
    shown = [json.dumps(layer, ensure_ascii=False) if isinstance(layer, dict) else str(layer) for layer in found.layers]
    return "\n".join([f"{len(shown)} layers, {found.memory_bytes / 1e6:.1f} MB of GPU memory", *shown])
