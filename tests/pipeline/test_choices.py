"""What `auto` picks where, with the reason; the machine is made up, the choice is real."""

import pytest

from mribatch.core.errors import MribatchError
from mribatch.pipeline import choices as stages
from mribatch.pipeline.choices import choose_backend, choose_decoder
from mribatch.trt.engine.build import BuildStep
from mribatch.trt.gpu import Gpu, NoGpu
from mribatch.trt.library import Flavor

L4 = Gpu("NVIDIA L4", "8.9", 1 << 34, "13.0", "13.0")
NONE = NoGpu("CUDA lists no device", "check nvidia-smi")


def machine(monkeypatch: pytest.MonkeyPatch, gpu: Gpu | NoGpu, flavors: list[Flavor], dali: bool) -> None:
    monkeypatch.setattr(stages, "find_gpu", lambda: gpu)
    monkeypatch.setattr(stages, "installed_flavors", lambda: flavors)
    monkeypatch.setattr(stages, "_dali_installed", lambda: dali)


@pytest.mark.parametrize(
    ("gpu", "flavors", "dali", "backend", "decoder", "because"),
    [
        (NONE, [Flavor.TENSORRT], True, "onnxruntime", "opencv", "no GPU: CUDA lists no device"),
        (L4, [], False, "onnxruntime", "opencv", "for the NVIDIA L4 (compute capability 8.9), neither TensorRT nor "),
        (L4, [], True, "onnxruntime", "dali", "neither TensorRT nor TensorRT for RTX is installed"),
        (L4, [Flavor.RTX], False, "tensorrt", "opencv", "tensorrt-rtx on the NVIDIA L4 (compute capability 8.9)"),
        (L4, [Flavor.TENSORRT, Flavor.RTX], True, "tensorrt", "dali", "on the NVIDIA L4"),
    ],
)
def test_auto(
    monkeypatch: pytest.MonkeyPatch,
    gpu: Gpu | NoGpu,
    flavors: list[Flavor],
    dali: bool,
    backend: str,
    decoder: str,
    because: str,
) -> None:
    machine(monkeypatch, gpu, flavors, dali)
    assert (choose_backend("auto").name, choose_decoder("auto").name) == (backend, decoder)
    assert because in choose_backend("auto").reason
    assert (choose_backend("onnxruntime").name, choose_decoder("opencv").name) == ("onnxruntime", "opencv")


def test_dali_that_is_not_there_is_one_line_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, NONE, [], dali=False)
    with pytest.raises(MribatchError) as error:
        choose_decoder("dali")
    assert str(error.value) == (
        "--decoder dali needs NVIDIA DALI, and it is not installed. Fix: pip install "
        "'mribatch[dali]', or use --decoder opencv (the same within a level or two)"
    )


def test_where_dali_decodes_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, NONE, [], dali=True)
    assert choose_decoder("dali").reason == "asked for; on the CPU (no GPU: CUDA lists no device)"
    machine(monkeypatch, L4, [], dali=True)
    assert choose_decoder("dali").reason == "asked for; on the NVIDIA L4 (compute capability 8.9)"


def test_a_long_build_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = [100.0], list[str]()
    monkeypatch.setattr(stages.time, "monotonic", lambda: now[0])
    on_step = stages._told_now_and_then(told.append)
    for second in range(25):
        now[0] = 100.0 + second
        assert on_step(BuildStep(second, 50, "kernels"))
    assert told == [
        "building a TensorRT engine, once for this model and GPU: 20%",
        "building a TensorRT engine, once for this model and GPU: 40%",
    ]
