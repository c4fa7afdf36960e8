"""What is checked before an engine is opened to show its layers, and an inspector without an answer. No TensorRT."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mribatch.core.bundle import load_bundle
from mribatch.core.errors import MribatchError
from mribatch.trt.engine.build import SerializedEngine
from mribatch.trt.engine.cache import EngineFile, EngineRefused
from mribatch.trt.engine.inspect import EngineLayers, ask_inspector, check_place, find_obstacle, format_layers
from mribatch.trt.engine.sidecar import EngineIdentity, GateRecord, new_sidecar
from mribatch.trt.gpu import Gpu, NoGpu
from mribatch.trt.library import Flavor, Messages
from mribatch.trt.request import DEFAULT_BATCH
from mribatch.trt.runtime.classifier import OpenEngine

VERSION = "11.4.0.106"
ADA = Gpu("ada", "8.9", 1, "13.0", "13.0")
TRT = SimpleNamespace(LayerInformationFormat=SimpleNamespace(JSON=1))


@pytest.fixture
def engine(tmp_path: Path, tiny_model: Path) -> EngineFile:
    identity = EngineIdentity(
        onnx_sha256="a" * 64,
        precision="fp16",
        batch=DEFAULT_BATCH,
        flavor=Flavor.TENSORRT,
        version=VERSION,
        target="sm89",
    )
    sidecar = new_sidecar(
        load_bundle(str(tiny_model)),
        identity,
        SerializedEngine(b"engine", half_layers=1, float_layers=1, seconds=1, timing_cache=None),
        source_sha256="b" * 64,
        fp32_nodes=(),
        fp32_bytes=6,
        gate=GateRecord(),
    )
    return EngineFile(tmp_path / "x.engine", b"engine", sidecar)


def test_an_engine_whose_gpu_and_library_are_here_can_be_shown(engine: EngineFile) -> None:
    assert find_obstacle(engine, ADA, VERSION) is None


@pytest.mark.parametrize(
    "gpu, installed, words",
    [
        (NoGpu("CUDA lists no device", "x"), VERSION, "on its GPU only, and there is none: CUDA lists no device"),
        (dataclasses.replace(ADA, compute_capability="8.6"), VERSION, "on its GPU only; this one is ada"),
        (ADA, "11.3.0.1", "by tensorrt 11.4.0.106 only; installed is 11.3.0.1"),
        (ADA, None, "installed is none"),
    ],
)
def test_another_version_or_gpu_is_never_opened(
    engine: EngineFile, gpu: Gpu | NoGpu, installed: str | None, words: str
) -> None:
    assert words in (find_obstacle(engine, gpu, installed) or "")


def test_an_engine_from_outside_the_cache_needs_the_users_trust(engine: EngineFile, tmp_path: Path) -> None:
    check_place(engine, tmp_path, trusted=False)
    with pytest.raises(EngineRefused, match="--trust-engine") as caught:
        check_place(engine, tmp_path / "cache", trusted=False)
    assert caught.value.field == "place"
    check_place(engine, tmp_path / "cache", trusted=True)


def test_layers_are_one_a_line() -> None:
    assert format_layers(EngineLayers(("a", {"Name": "conv"}), 2_000_000)) == (
        '2 layers, 2.0 MB of GPU memory\na\n{"Name": "conv"}'
    )


class Engine:
    """An ICudaEngine of which only the inspector is asked for."""

    device_memory_size_v2 = 7

    def __init__(self, text: str | None) -> None:
        self.text = text

    def create_engine_inspector(self) -> Any:
        if self.text is None:
            return None
        return SimpleNamespace(get_engine_information=lambda kind: self.text)


def test_the_inspectors_layers() -> None:
    found = ask_inspector(TRT, OpenEngine(Engine('{"Layers": ["a", {"Name": "b"}], "Bindings": []}'), Messages()))
    assert found == EngineLayers(("a", {"Name": "b"}), 7)


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"Layers": 1}', "{}"])
def test_an_inspector_without_a_list_is_one_line(text: str | None) -> None:
    messages = Messages()
    messages.rows.append((1, "the verbosity is NONE"))
    with pytest.raises(MribatchError, match="cannot describe the engine: the verbosity is NONE"):
        ask_inspector(TRT, OpenEngine(Engine(text), messages))
