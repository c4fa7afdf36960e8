"""Which engine is wanted, and what is said where it cannot be had. Needs neither TensorRT nor a GPU."""

import sys
from pathlib import Path

import pytest

from mribatch.core.bundle import load_bundle
from mribatch.core.errors import MribatchError
from mribatch.trt.backend import open_backend
from mribatch.trt.engine import rtx
from mribatch.trt.engine.build import build_engine
from mribatch.trt.engine.provider import choose_targets
from mribatch.trt.gpu import Gpu, NoGpu, find_gpu
from mribatch.trt.library import Flavor, Messages, find_installed_version, load_library
from mribatch.trt.request import BatchProfile
from mribatch.trt.support import RTX_TARGETS, choose_flavor

no_gpu_here = pytest.mark.skipif(not isinstance(find_gpu(), NoGpu), reason="there is a GPU")


def test_what_is_built_where_nothing_is_asked_for() -> None:
    ada, none = Gpu("ada", "8.9", 1, "13.0", "13.0"), NoGpu("no driver", "install it")
    both = [Flavor.TENSORRT, Flavor.RTX]
    assert choose_targets(None, both, ada) == (Flavor.TENSORRT, ("sm89",))
    assert choose_targets(Flavor.RTX, both, ada) == (Flavor.RTX, ("sm89",))
    assert choose_targets(None, both, none) == (Flavor.RTX, rtx.TARGETS)
    hopper = Gpu("hopper", "9.0", 1, "13.0", "13.0")
    assert choose_targets(None, both, hopper) == (Flavor.TENSORRT, ("sm90",))
    with pytest.raises(MribatchError, match="TensorRT for RTX has no kernels for the hopper.*choose another --flavor"):
        choose_targets(Flavor.RTX, both, hopper)
    with pytest.raises(MribatchError, match="has no kernels for the hopper .*, and TensorRT is not installed"):
        choose_targets(None, [Flavor.RTX], hopper)
    for flavor, installed in ((Flavor.TENSORRT, both), (None, [Flavor.TENSORRT])):
        with pytest.raises(MribatchError, match="there is none: no driver"):
            choose_targets(flavor, installed, none)
    with pytest.raises(MribatchError, match="neither TensorRT nor"):
        choose_targets(None, [], none)


@pytest.mark.parametrize(
    "largest, sizes", [(1, (1,)), (2, (1, 2)), (4, (1, 3, 4)), (64, (1, 33, 64)), (65, (1, 33, 65))]
)
def test_the_gate_asks_about_one_an_odd_number_and_the_largest(largest: int, sizes: tuple[int, ...]) -> None:
    assert BatchProfile(largest, largest).gate_sizes == sizes


def test_a_batch_profile_that_does_not_rise_is_refused() -> None:
    for sizes in ((0, 4), (5, 4), (1, 5000)):
        with pytest.raises(MribatchError, match="do not rise"):
            BatchProfile(*sizes)


@pytest.mark.skipif(find_installed_version(Flavor.TENSORRT) is not None, reason="TensorRT is installed")
def test_a_missing_library_names_the_extra() -> None:
    with pytest.raises(MribatchError, match=r"tensorrt is not installed.*\[gpu-cu13\]"):
        load_library(Flavor.TENSORRT)


def test_another_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MribatchError, match=r"pip install .*\[rtx\]"):
        load_library(Flavor.RTX)


def test_the_gpus_of_tensorrt_for_rtx_are_those_that_it_lists() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install '.[rtx]'")
    assert {name.lower() for name in trt.ComputeCapability.__members__ if name.startswith("SM")} == set(RTX_TARGETS)
    assert set(rtx.TARGETS) < set(RTX_TARGETS)


def test_tensorrt_comes_before_tensorrt_for_rtx() -> None:
    ada = Gpu("ada", "8.9", 1, "13.0", "13.0")
    assert choose_flavor(ada, [Flavor.TENSORRT, Flavor.RTX]) is Flavor.TENSORRT
    assert choose_flavor(ada, [Flavor.RTX]) is Flavor.RTX
    with pytest.raises(MribatchError, match="--backend tensorrt cannot run: neither .*or use --backend onnxruntime"):
        choose_flavor(ada, [])


@no_gpu_here
def test_a_run_without_a_gpu_is_told_why_and_what_to_do() -> None:
    with pytest.raises(MribatchError) as caught, open_backend(load_bundle("cnn"), 8):
        pytest.fail("it was opened")
    text = str(caught.value)
    assert text.startswith("--backend tensorrt needs an NVIDIA GPU, and there is none: ")
    assert text.endswith("or use --backend onnxruntime (the same results on the CPU)")


@no_gpu_here
def test_tensorrt_itself_builds_nothing_without_its_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt.py").write_text("class ILogger:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(MribatchError, match="there is none: .*--flavor tensorrt-rtx, which needs none"):
        build_engine(b"", Flavor.TENSORRT, "sm89", BatchProfile(1, 1))
    monkeypatch.delitem(sys.modules, "tensorrt")


@no_gpu_here
def test_a_driver_whose_library_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")  # the sign of a driver
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = find_gpu()
    assert isinstance(found, NoGpu) and found.reason == "the driver's libcuda.so.1 cannot be loaded"
    assert found.fix.startswith("start a container with --gpus all")


@no_gpu_here
def test_without_a_driver_nothing_is_said_of_packages() -> None:
    assert find_gpu() == NoGpu(
        "no NVIDIA driver is loaded", "install or update NVIDIA's driver; nvidia-smi must list the GPU"
    )


def test_a_library_that_does_not_load_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.11: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(MribatchError, match="does not load: libnvinfer.so.11: cannot open"):
        load_library(Flavor.TENSORRT)


def test_errors_are_shown_once_and_without_the_librarys_source_lines() -> None:
    messages = Messages()
    text = "Error Code 4: Internal Error (no profile (In compileGraph at /_src/optimizer/x.cpp:2012))"
    messages.rows += [(1, text), (2, "a warning"), (1, text), (1, "two\nlines. In f at a.cpp:1")]
    assert messages.errors() == "Error Code 4: Internal Error (no profile); two lines"


def test_a_gpus_target_is_named_by_its_compute_capability() -> None:
    assert Gpu("x", "12.0", 1, "13.0", "13.0").target == "sm120"


@no_gpu_here
def test_cuda_core_has_what_the_device_uses() -> None:
    core = pytest.importorskip("cuda.core", reason="cuda-core is not installed: pip install '.[gpu-cu13]'")
    used = {
        "Device": ("set_current", "create_stream", "allocate"),
        "Buffer": ("copy_to", "close", "handle", "size"),
        "Stream": ("record", "sync", "close", "handle"),
        "Event": ("sync",),
        "LegacyPinnedMemoryResource": ("allocate",),
        "StreamOptions": ("nonblocking",),
        "EventOptions": ("blocking_sync",),
    }
    for name, members in used.items():
        fields = set(dir(getattr(core, name))) | set(getattr(getattr(core, name), "__annotations__", ()))
        assert fields >= set(members), name
    from mribatch.trt.runtime.cuda import CudaDevice

    with pytest.raises(MribatchError, match="there is no GPU to run on"):
        CudaDevice().open()
