"""The real cuda-core on a driver in memory: what the loop does with a GPU, asynchronously, and how the GPU is found."""

import json

import pytest

from tests.trt.fake_gpu.machine import H100, L4, T4, TENSORRT, FakeMachine, build_libcuda, make_machine

pytest.importorskip("cuda.core", reason="cuda-core is not installed: pip install '.[rtx]'")

FIND = """
import json, sys
from dataclasses import asdict
from mribatch.trt.gpu import find_gpu
found = find_gpu()
print(json.dumps([type(found).__name__, asdict(found), any(name.startswith("cuda") for name in sys.modules)]))
"""

DEVICE = """
import ctypes
from mribatch.trt.runtime.cuda import CudaDevice
from mribatch.trt.runtime.device import OutOfGpuMemory
from tests.trt.fake_gpu.round_trips import make_round_trips

device = CudaDevice()
print(device.open())
stream, library = device.stream(), ctypes.CDLL("libcuda.so.1")
library.fake_waits.restype = ctypes.c_long
make_round_trips(device)
print("used", library.fake_used(), "spun", library.fake_waits(0), "slept", library.fake_waits(1))
try:
    device.allocate(1 << 50, stream)
except OutOfGpuMemory as error:
    print(error)
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> FakeMachine:
    folder = tmp_path_factory.mktemp("machine")
    return make_machine(folder, build_libcuda(folder), [L4], [TENSORRT])


def test_the_gpu_is_found_without_any_package(machine: FakeMachine) -> None:
    kind, facts, loaded = json.loads(machine.run("-c", FIND).stdout)
    assert kind == "Gpu" and not loaded, "importing cuda-bindings takes a third of a second"
    assert facts["name"] == "NVIDIA L4" and facts["compute_capability"] == "8.9" and facts["visible"] == 1
    assert facts["memory_bytes"] == 24 << 30 and facts["driver"] == "13.5" and facts["runtime"]


@pytest.mark.parametrize(
    ("visible", "name", "count"),
    [(None, "NVIDIA H100 80GB HBM3", 2), ("1", "Tesla T4", 1), ("1,0", "Tesla T4", 2), ("", None, 0), ("-1", None, 0)],
)
def test_the_first_visible_gpu_is_the_one(
    machine: FakeMachine, visible: str | None, name: str | None, count: int
) -> None:
    chosen = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    kind, facts, _ = json.loads(machine.with_gpus(H100, T4).run("-c", FIND, more=chosen).stdout)
    if name is None:
        assert kind == "NoGpu" and facts["reason"] == "CUDA lists no device"
        assert facts["fix"] == "check nvidia-smi and CUDA_VISIBLE_DEVICES"
    else:
        assert (facts["name"], facts["visible"]) == (name, count)


def test_copies_in_four_threads_events_that_sleep_and_too_little_memory(machine: FakeMachine) -> None:
    lines = machine.run("-c", DEVICE).stdout.splitlines()
    assert lines[0] == "NVIDIA L4 (compute capability 8.9)"
    assert lines[1] == "used 0 spun 0 slept 80", "nothing leaks, and no thread spins while it waits"
    assert lines[2].startswith("the GPU could not allocate 1,125,899,906,842,624 bytes on the GPU: CUDA_ERROR_OUT_OF_")
    assert lines[2].endswith("Fix: use a smaller --batch-size, or end what else uses the GPU")


def test_memory_that_is_gone_fails_as_on_a_gpu(machine: FakeMachine) -> None:
    """The stand-in is strict: without this, a loop that frees too early would pass its tests."""
    script = """
from mribatch.core.errors import MribatchError
from mribatch.trt.runtime.cuda import CudaDevice
device = CudaDevice()
device.open()
stream = device.stream()
host, target = device.pinned(64), device.allocate(64, stream)
device.upload(host, target, stream)
host.close()
try:
    stream.record().wait()
except MribatchError as error:
    print(error)
"""
    assert "finish its work: CUDA_ERROR_ILLEGAL_ADDRESS" in machine.run("-c", script).stdout
