"""What `auto` picks where, with the reason; the machine is made up, the choice is real."""

from dataclasses import replace

import pytest

from mribatch.core.errors import MribatchError
from mribatch.core.install import install_command
from mribatch.pipeline.choices import Machine, choose_backend, choose_decoder
from mribatch.trt.gpu import Gpu, NoGpu
from mribatch.trt.library import Flavor

L4 = Gpu("NVIDIA L4", "8.9", 1 << 34, "13.0", "13.0")
H100 = Gpu("NVIDIA H100", "9.0", 1 << 36, "13.0", "13.0")
PASCAL = Gpu("NVIDIA P100", "6.0", 1 << 34, "12.0", None)
NONE = NoGpu("CUDA lists no device", "check nvidia-smi")


@pytest.mark.parametrize(
    ("gpu", "flavors", "dali", "backend", "decoder", "because"),
    [
        (NONE, [Flavor.TENSORRT], True, "onnxruntime", "opencv", "no GPU: CUDA lists no device"),
        (L4, [], False, "onnxruntime", "opencv", "for the NVIDIA L4 (compute capability 8.9), neither TensorRT nor "),
        (L4, [], True, "onnxruntime", "dali", "neither TensorRT nor TensorRT for RTX is installed"),
        (L4, [Flavor.RTX], False, "tensorrt", "opencv", "tensorrt-rtx on the NVIDIA L4 (compute capability 8.9)"),
        (L4, [Flavor.TENSORRT, Flavor.RTX], True, "tensorrt", "dali", "on the NVIDIA L4"),
        (H100, [Flavor.TENSORRT, Flavor.RTX], True, "tensorrt", "dali", "tensorrt on the NVIDIA H100"),
        (H100, [Flavor.RTX], True, "onnxruntime", "dali", "TensorRT for RTX has no kernels for the NVIDIA H100"),
        (PASCAL, [Flavor.TENSORRT], True, "onnxruntime", "dali", "neither TensorRT nor TensorRT for RTX has kernels"),
    ],
)
def test_auto(
    gpu: Gpu | NoGpu,
    flavors: list[Flavor],
    dali: bool,
    backend: str,
    decoder: str,
    because: str,
) -> None:
    machine = Machine(gpu, tuple(flavors), dali)
    assert (choose_backend("auto", machine).name, choose_decoder("auto", machine).name) == (backend, decoder)
    assert because in choose_backend("auto", machine).reason
    named = choose_backend("onnxruntime", machine).name, choose_decoder("opencv", machine).name
    assert named == ("onnxruntime", "opencv")


@pytest.mark.parametrize(
    "gpu, flavors, dali", [(H100, (Flavor.RTX,), True), (L4, (), True), (L4, (Flavor.RTX,), False)]
)
def test_a_gpu_that_is_not_used_is_a_warning_with_its_fix(gpu: Gpu, flavors: tuple[Flavor, ...], dali: bool) -> None:
    machine = Machine(gpu, flavors, dali)
    warnings = [choice.warning for choice in (choose_backend("auto", machine), choose_decoder("auto", machine))]
    (warning,) = filter(None, warnings)
    assert f"on the CPU, not on the {gpu}: " in warning and " Fix: pip install " in warning
    named = choose_backend("onnxruntime", machine), choose_decoder("opencv", machine)
    assert not any(choice.warning for choice in named), "it was asked for"


def test_onnx_runtimes_cuda_provider_comes_between_tensorrt_and_the_cpu() -> None:
    machine = Machine(H100, (Flavor.RTX,), True, cuda_provider=True)
    choice = choose_backend("auto", machine)
    assert choice.name == "onnxruntime-cuda" and choice.warning is None
    assert choice.reason.startswith("on the NVIDIA H100 (compute capability 9.0); TensorRT for RTX has no kernels")
    assert choose_backend("auto", replace(machine, flavors=(Flavor.TENSORRT,))).name == "tensorrt"
    assert choose_backend("onnxruntime-cuda", machine).reason == f"requested; on the {H100}"
    with pytest.raises(MribatchError, match="needs an NVIDIA GPU.*or use --backend onnxruntime"):
        choose_backend("onnxruntime-cuda", replace(machine, gpu=NONE))
    with pytest.raises(MribatchError, match="onnxruntime-gpu, and it is not installed. Fix: pip uninstall onnxruntime"):
        choose_backend("onnxruntime-cuda", replace(machine, cuda_provider=False))


def test_what_is_to_be_installed_is_what_is_for_this_gpu() -> None:
    for gpu, rtx in ((H100, False), (L4, True)):
        warning = choose_backend("auto", Machine(gpu, (), True)).warning
        assert warning and "[gpu-cu13]" in warning and ("[rtx]" in warning) == rtx
    with pytest.raises(MribatchError, match="and TensorRT is not installed.*gpu-cu13"):
        choose_backend("tensorrt", Machine(H100, (Flavor.RTX,), True))


def test_this_machine_is_looked_at_where_none_is_given() -> None:
    here = Machine.inspect()
    assert choose_backend("auto") == choose_backend("auto", here)
    assert choose_decoder("auto") == choose_decoder("auto", here)


def test_tensorrt_that_is_asked_for_needs_a_gpu_and_a_library() -> None:
    assert choose_backend("tensorrt", Machine(L4, (Flavor.RTX,), False)).reason == "requested; tensorrt-rtx"
    with pytest.raises(MribatchError, match="--backend tensorrt needs an NVIDIA GPU, and there is none"):
        choose_backend("tensorrt", Machine(NONE, (Flavor.RTX,), False))
    with pytest.raises(MribatchError, match="--backend tensorrt cannot run: neither TensorRT nor"):
        choose_backend("tensorrt", Machine(L4, (), False))


def test_dali_that_is_not_there_is_one_line_with_its_fix() -> None:
    with pytest.raises(MribatchError) as error:
        choose_decoder("dali", Machine(NONE, (), dali=False))
    assert str(error.value) == (
        f"--decoder dali needs NVIDIA DALI, and it is not installed. Fix: {install_command('dali')}, or use --decoder "
        "opencv (the same within a level or two)"
    )


def test_where_dali_decodes_is_said() -> None:
    reasons = [choose_decoder("dali", Machine(gpu, (), dali=True)).reason for gpu in (NONE, L4)]
    assert reasons == [
        "requested; on the CPU (no GPU: CUDA lists no device)",
        "requested; on the NVIDIA L4 (compute capability 8.9)",
    ]
