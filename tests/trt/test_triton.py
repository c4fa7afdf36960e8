"""A bundle as a model of Triton: the configuration is one by Triton's own schema, and says what the graph takes."""

import importlib.util
import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mribatch.core.bundle import Bundle, load_bundle
from mribatch.core.errors import MribatchError, WriteError
from mribatch.trt.engine.cache import EngineFile
from mribatch.trt.library import Flavor
from mribatch.trt.triton import export_triton


@pytest.fixture(scope="module")
def bundle(tiny_model: Path) -> Bundle:
    return load_bundle(str(tiny_model))


def triton_schema() -> Any:
    """Triton's ModelConfig; loaded from its file, since its package wants grpc."""
    try:
        (file,) = [
            one
            for one in distribution("tritonclient").files or ()
            if one.match("*triton*client/grpc/model_config_pb2.py")
        ]
    except (PackageNotFoundError, ValueError):
        pytest.skip("tritonclient, which has Triton's schema, is not installed")
    specification = importlib.util.spec_from_file_location("triton_model_config", str(file.locate()))
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.ModelConfig


def test_the_configuration_is_one_by_tritons_schema(bundle: Bundle, tmp_path: Path) -> None:
    kind = triton_schema()
    from google.protobuf import text_format  # type: ignore[import-untyped]

    folder = export_triton(bundle, tmp_path / "repository", 32)
    config = text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), kind())
    spec = bundle.spec
    assert (config.name, config.backend, config.max_batch_size) == (spec.name, "onnxruntime", 32)
    (image,), (answer,) = config.input, config.output
    assert (image.name, list(image.dims)) == ("images", [spec.height, spec.width, 1])
    assert (answer.name, list(answer.dims), answer.label_filename) == (
        "probabilities",
        [len(spec.classes)],
        "labels.txt",
    )
    assert kind.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number[image.data_type].name == "TYPE_UINT8"
    assert config.HasField("dynamic_batching")
    said = {key: value.string_value for key, value in config.parameters.items()}
    assert said["research_notice"] == "Research use only, not a medical device."
    assert json.loads(said["preprocessing"])["layout"] == "NHWC" and said["bundle_sha256"] == bundle.sha256


def test_the_repository_has_the_graph_and_the_classes_in_order(bundle: Bundle, tmp_path: Path) -> None:
    folder = export_triton(bundle, tmp_path, 64)
    assert (folder / "1" / "model.onnx").read_bytes() == bundle.model
    assert (folder / "labels.txt").read_text().splitlines() == list(bundle.spec.classes)
    assert "max_batch_size: 64\n" in (folder / "config.pbtxt").read_text()
    with pytest.raises(MribatchError, match="exists already. Fix: name another repository"):
        export_triton(bundle, tmp_path, 64)
    assert sorted(path.name for path in tmp_path.iterdir()) == [bundle.spec.name]


def test_a_repository_that_cannot_be_written_is_one_line_and_leaves_nothing(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write .*Fix: name a folder that you may write to"):
        export_triton(bundle, tmp_path / "file", 64)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("flavor", "model_sha256", "shown"),
    [
        (Flavor.RTX, "", "Triton does not load engines of tensorrt-rtx"),
        (Flavor.TENSORRT, "0" * 64, "is an engine of 'other', not of this 'tiny'"),
    ],
)
def test_an_engine_that_cannot_be_served_is_refused(
    bundle: Bundle, tmp_path: Path, flavor: Flavor, model_sha256: str, shown: str
) -> None:
    sidecar: Any = SimpleNamespace(trt_flavor=flavor, model_sha256=model_sha256, model_name="other")
    with pytest.raises(MribatchError, match=shown):
        export_triton(bundle, tmp_path / "repository", 64, EngineFile(tmp_path / "x.engine", b"", sidecar))
    assert not (tmp_path / "repository").exists()


def test_an_engine_of_the_bundle_is_served_with_its_own_batch_size(bundle: Bundle, tmp_path: Path) -> None:
    sidecar: Any = SimpleNamespace(
        trt_flavor=Flavor.TENSORRT,
        model_sha256=bundle.spec.model_sha256,
        trt_version="11.4.0.106",
        compute_capability="9.0",
        profile=SimpleNamespace(max=128),
    )
    folder = export_triton(bundle, tmp_path, 64, EngineFile(tmp_path / "x.engine", b"an engine", sidecar))
    assert (folder / "1" / "model.plan").read_bytes() == b"an engine"
    config = (folder / "config.pbtxt").read_text(encoding="utf-8")
    assert 'backend: "tensorrt"\nmax_batch_size: 128\n' in config
    assert "TensorRT 11.4.0.106 and a GPU of compute capability 9.0" in config
