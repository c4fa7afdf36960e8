"""What stands before an engine is opened to show its layers, and an inspector that has nothing to say. No TensorRT."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mribatch.core.errors import MribatchError
from mribatch.trt.engine import inspect as layers
from mribatch.trt.engine.cache import EngineFile, EngineRefused
from mribatch.trt.gpu import Gpu
from mribatch.trt.library import Messages
from mribatch.trt.runtime.classifier import OpenEngine

SIDECAR = {"trt_flavor": "tensorrt", "trt_version": "11.4.0.106", "target": "sm89"}
TRT = SimpleNamespace(LayerInformationFormat=SimpleNamespace(JSON=1))


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineFile:
    """Its GPU and its library are here; whether it may be opened is the question."""
    monkeypatch.setattr(layers, "find_gpu", lambda: Gpu("ada", "8.9", 1, "13.0", "13.0"))
    monkeypatch.setattr(layers, "installed_version", lambda flavor: "11.4.0.106")
    monkeypatch.setattr(layers, "layers_of", lambda engine: layers.EngineLayers(({"Name": "conv"},), 2_000_000))
    return EngineFile(tmp_path / "x.engine", b"", SIDECAR)


def text_of(engine: EngineFile, trusted: bool = False) -> str:
    return layers.text_of(engine, trusted=trusted, folder=engine.path.parent)


def test_an_engine_of_the_cache_is_opened(engine: EngineFile) -> None:
    assert text_of(engine) == '1 layers, 2.0 MB of GPU memory\n{"Name": "conv"}'


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"trt_version": "11.3.0.1"}, "by tensorrt 11.3.0.1 only; installed is 11.4.0.106"),
        ({"target": "sm86"}, "on its GPU only; this one is ada"),
    ],
)
@pytest.mark.parametrize("trusted", [False, True])
def test_another_version_or_gpu_is_never_opened(
    engine: EngineFile, changes: dict[str, str], words: str, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "layers_of", pytest.fail)
    assert words in text_of(EngineFile(engine.path, b"", SIDECAR | changes), trusted)


def test_an_engine_from_elsewhere_needs_somebody_who_answers_for_it(engine: EngineFile, tmp_path: Path) -> None:
    with pytest.raises(EngineRefused, match="--trust-engine"):
        layers.text_of(engine, trusted=False, folder=tmp_path / "cache")
    assert layers.text_of(engine, trusted=True, folder=tmp_path / "cache").startswith("1 layers")


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
    found = layers._described(TRT, OpenEngine(Engine('{"Layers": ["a", {"Name": "b"}], "Bindings": []}'), Messages()))
    assert found == layers.EngineLayers(("a", {"Name": "b"}), 7)


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"Layers": 1}', "{}"])
def test_an_inspector_without_a_list_is_one_line(text: str | None) -> None:
    messages = Messages()
    messages.rows.append((1, "the verbosity is NONE"))
    with pytest.raises(MribatchError, match="cannot describe the engine: the verbosity is NONE"):
        layers._described(TRT, OpenEngine(Engine(text), messages))
