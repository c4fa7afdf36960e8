"""The steps of the first hour, each in a process of its own: python -m benchmarks.first_hour.steps STEP SETTINGS

SETTINGS is the JSON of `Settings`. The last line of what a step prints is its figures, as JSON. A step that finds out
that something is wrong raises, and its process ends with another exit code than 0.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from benchmarks.cpu_ceiling import drawn_jpegs
from benchmarks.host_rate.drawn_files import draw_files
from benchmarks.host_rate.watching import watch_run
from benchmarks.stage_rates import DALI_ON_GPU, Work, decode_bare_rate, infer_rate
from mribatch.core.bundle import load_bundle
from mribatch.core.cores import usable_cores
from mribatch.core.errors import MribatchError
from mribatch.pipeline.choices import Machine
from mribatch.pipeline.decode.dali_graph import (
    CPU,
    FIRST_GPU,
    HW_DECODER_LOADS,
    DaliDevice,
    GpuDecoding,
    GraphOptions,
    prefetching,
)
from mribatch.pipeline.decode.grey import decode_grey
from mribatch.pipeline.decode.probe import probe
from mribatch.pipeline.output.layout import PART_ROWS
from mribatch.trt.gpu import NoGpu
from mribatch.trt.request import TUNED_BATCH
from mribatch.trt.support import select_usable

ROOT = Path(__file__).parents[2]
_SPLIT = 0.65  # DALI's own hw_decoder_load, which sends some of each batch to the JPEG engine and the others to CUDA
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is done. seconds is of each trial of the tuning, batches of each rate, parts of each whole run."""

    model: str
    batches: int = 200
    seconds: float = 5.0
    parts: int = 24
    kilobytes: int = 83

    def work(self, batch_size: int, folder: Path) -> Work:
        """Drawn JPEG files, as `benchmarks.stage_rates` takes them."""
        paths = []
        for number, content in enumerate(drawn_jpegs()):
            paths.append(folder / f"{number}.jpg")
            paths[-1].write_bytes(content)
        return Work(
            bundle=load_bundle(self.model),
            paths=tuple(paths),
            batch_size=batch_size,
            batches=self.batches,
            threads=usable_cores(),
        )


def find_obstacle(step: str, machine: Machine) -> str | None:
    """Why a step cannot be done here; None where it can."""
    if step == "doctor":
        return None
    if isinstance(machine.gpu, NoGpu):
        return f"no GPU: {machine.gpu.reason}"
    if step in _NEEDS_DALI and not machine.dali:
        return "NVIDIA DALI is not installed"
    if step in _NEEDS_TENSORRT and not select_usable(machine.gpu, machine.flavors):
        return "no TensorRT that runs on this GPU is installed"
    return None


def ask_doctor(_: Settings) -> dict[str, Any]:
    """What the machine has, and what a run would pick."""
    done = _mribatch("doctor", "--json", check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return {name: found[name] for name in ("gpus", "driver", "backend", "decoder", "libraries", "problems")}


def try_driver(_: Settings) -> dict[str, Any]:
    """The real cuda-core on the real driver does what it does on the tests' stand-in."""
    from mribatch.trt.runtime.cuda import CudaDevice
    from mribatch.trt.runtime.device import OutOfGpuMemory
    from tests.trt.fake_gpu.round_trips import make_round_trips

    device = CudaDevice()
    gpu = device.open()
    times = make_round_trips(device)
    try:
        device.allocate(1 << 50, device.stream())
    except OutOfGpuMemory as error:
        return {"gpu": str(gpu), "round_trips": times, "too_much_memory": error.problem}
    raise AssertionError("a petabyte could be allocated")


def run_tests(_: Settings) -> dict[str, Any]:
    """The tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"pytest ended with {done.returncode}: {done.stdout[-3000:]}")
    return {"summary": done.stdout.strip().splitlines()[-1]}


def ask_codec(_: Settings) -> dict[str, Any]:
    """What nobody documents: do pixels depend on the decoder or on the place, and what do damaged files do?"""
    contents = drawn_jpegs()[:_BATCH]
    on_engine, on_cuda, split = (
        _decode(contents, FIRST_GPU, GpuDecoding(hw_load=load)) for load in (*HW_DECODER_LOADS, _SPLIT)
    )
    on_cpu = _decode(contents, CPU)
    one = {
        f"{load:g}": _spread(_decode([contents[0]] * _BATCH, FIRST_GPU, GpuDecoding(hw_load=load)))
        for load in (*HW_DECODER_LOADS, _SPLIT)
    }
    return {
        "jpeg_engine_against_cuda": _difference(on_engine, on_cuda),
        "split_against_jpeg_engine": _difference(split, on_engine),
        "jpeg_engine_against_cpu": _difference(on_engine, on_cpu),
        "one_image_at_all_places_by_load": one,
        "twice_the_same": bool(np.array_equal(on_engine, _decode(contents, FIRST_GPU))),
        "colours_that_are_left_to_opencv": _ask_about_colours(),
        "a_text_file_in_a_batch": _in_child("text"),
        "after_an_error": _in_child("error"),
    }


def decode_text(_: Settings) -> dict[str, Any]:
    """A batch with a file that is no image, twenty times: the process may die of it, which is an answer, too."""
    contents = [b"this is no image\n" * 100, *drawn_jpegs()[: _BATCH - 1]]
    errors = []
    for _attempt in range(20):
        try:
            _decode(contents, FIRST_GPU)
        except RuntimeError as error:
            errors.append(" ".join(str(error).split())[:200])
    return {"refused": len(errors), "of": 20, "words": errors[:1]}


def decode_after_error(_: Settings) -> dict[str, Any]:
    """Whether batches after one that was refused are as they were before."""
    contents = drawn_jpegs()[:_BATCH]
    before = _decode(contents, FIRST_GPU)
    cut = contents[0][: len(contents[0]) // 20]
    try:
        _decode([cut, *contents[1:]], FIRST_GPU)
        refused = False
    except RuntimeError:
        refused = True
    return {"refused": refused, "same_bits_afterwards": bool(np.array_equal(before, _decode(contents, FIRST_GPU)))}


def sweep_decoding(settings: Settings) -> dict[str, Any]:
    """`decode_bare` with each share of the JPEG engine, and some numbers of threads and batch sizes."""
    found = []
    for batch_size in (_BATCH, 256):
        with _folder() as folder:
            work = settings.work(batch_size, folder)
            for load in HW_DECODER_LOADS:
                for threads in sorted({1, max(1, usable_cores() // 2), usable_cores()}):
                    rate = decode_bare_rate(work, GpuDecoding(hw_load=load), threads)
                    found.append({"batch": batch_size, "load": load, "threads": threads, "images_per_second": rate})
    return {"best": max(one["images_per_second"] for one in found), "rates": found}


def sweep_inference(settings: Settings) -> dict[str, Any]:
    """One engine with each batch size, alone and beside a decoder that works flat out."""
    from mribatch.trt.backend import open_backend

    found = []
    for batch_size in (_BATCH, 128, 256, TUNED_BATCH.maximum):
        with _folder() as folder:
            work = settings.work(batch_size, folder)
            with open_backend(work.bundle, batch_size, profile=TUNED_BATCH) as engine:
                pass  # each measurement enters the classifier again
            alone = infer_rate(work, engine.classifier, DALI_ON_GPU)
            beside = infer_rate(work, engine.classifier, DALI_ON_GPU, DALI_ON_GPU)
            found.append({"batch": batch_size, "images_per_second": alone, "beside_decoding": beside})
    return {
        "best": max(one["images_per_second"] for one in found),
        "best_beside_decoding": max(one["beside_decoding"] for one in found),
        "rates": found,
    }


def run_whole(settings: Settings) -> dict[str, Any]:
    """Whole runs with 1, 2 and 4 workers on the one GPU."""
    with _folder() as folder:
        draw_files(folder / "data", settings.parts * PART_ROWS, settings.kilobytes * 1000)
        found = {
            str(workers): _run_once(settings, folder / "data", folder / f"run-{workers}", workers)
            for workers in (1, 2, 4)
        }
    return {"best": max(one["images_per_second"] for one in found.values()), "by_workers": found}


def compare_runs(settings: Settings) -> dict[str, Any]:
    """Three runs of the same files, with two workers, bit by bit."""
    import pyarrow.parquet as pq

    answers = []
    with _folder() as folder:
        draw_files(folder / "data", settings.parts * PART_ROWS, settings.kilobytes * 1000)
        for number in range(3):
            out = folder / f"run-{number}"
            _run_once(settings, folder / "data", out, workers=2)
            table = pq.read_table(out / "predictions").sort_by("index")
            names = [name for name in table.column_names if name.startswith("p_")]
            answers.append(np.stack([table.column(name).to_numpy() for name in names], axis=1))
    others = [np.abs(answers[0] - other).max(axis=1) for other in answers[1:]]
    return {
        "rows": len(answers[0]),
        "rows_that_differ": [int((other > 0).sum()) for other in others],
        "largest_difference": float(max(other.max() for other in others)),
        "classes_that_differ": [
            int((answers[0].argmax(axis=1) != other.argmax(axis=1)).sum()) for other in answers[1:]
        ],
    }


def tune(settings: Settings) -> dict[str, Any]:
    """The settings that later runs will take."""
    done = _mribatch("engine", "tune", settings.model, "--seconds", str(settings.seconds), "--json")
    found: dict[str, Any] = json.loads(done.stdout)["tunings"][0]
    return found


STEPS: dict[str, Callable[[Settings], dict[str, Any]]] = {
    "doctor": ask_doctor,
    "driver": try_driver,
    "tests": run_tests,
    "codec": ask_codec,
    "decoding": sweep_decoding,
    "inference": sweep_inference,
    "whole_runs": run_whole,
    "same_bits": compare_runs,
    "tuning": tune,
}
"""In the order in which they are done; what they are for is their first line of documentation."""

_CHILDREN: dict[str, Callable[[Settings], dict[str, Any]]] = {"text": decode_text, "error": decode_after_error}
_NEEDS_DALI = ("codec", "decoding", "inference", "whole_runs", "same_bits", "tuning")
_NEEDS_TENSORRT = ("inference", "whole_runs", "same_bits", "tuning")


def _run_once(settings: Settings, data: Path, out: Path, workers: int) -> dict[str, float]:
    command = [sys.executable, "-m", "mribatch", "classify", str(data), "--out", str(out), "--model", settings.model]
    command += ["--workers", str(workers), "--gpus", "0", "--backend", "tensorrt", "--decoder", "dali", "--quiet"]
    return watch_run(command, out, os.environ, ROOT)


def _mribatch(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mribatch", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise MribatchError(f"mribatch {' '.join(words)} ended with {done.returncode}", done.stderr[-2000:])
    return done


def _decode(contents: Sequence[bytes], device: DaliDevice, decoding: GpuDecoding | None = None) -> NDArray[uint8]:
    """One batch through DALI's graph, whatever the files are: nothing looks at them before."""
    from mribatch.pipeline.decode.dali import to_host

    waiting = iter([[np.frombuffer(content, uint8) for content in contents]])

    def next_samples() -> Sequence[NDArray[uint8]]:
        return next(waiting)

    options = GraphOptions(
        device=device, height=160, width=160, threads=usable_cores(), on_gpu=decoding or GpuDecoding()
    )
    (images,) = prefetching(options, len(contents), next_samples).run()
    return to_host(images)


def _difference(one: NDArray[uint8], other: NDArray[uint8]) -> dict[str, float]:
    levels = np.abs(one.astype(int) - other)
    return {"largest": int(levels.max()), "mean": float(levels.mean()), "pixels": int((levels > 0).sum())}


def _spread(images: NDArray[uint8]) -> int:
    """Largest difference, in levels, of any image of a batch from the first one."""
    return int(np.abs(images.astype(int) - images[:1]).max())


def _ask_about_colours() -> dict[str, Any]:
    """How far DALI's grey is from ours for JPEGs that it is not given, and why it is not."""
    from tests.broken_files import good_files

    found: dict[str, Any] = {}
    for name in ("cmyk.jpg", "colour.jpg"):
        content = good_files()[name]
        _, wanted = decode_grey(content, probe(content), 160, 160)
        try:
            got = _decode([content], FIRST_GPU)
        except RuntimeError as error:
            found[name] = " ".join(str(error).split())[:200]
            continue
        assert wanted is not None
        found[name] = _difference(got[0], wanted)
    return found


def _in_child(name: str) -> dict[str, Any]:
    """The figures of a step that may kill its process, or how the process ended."""
    command = [sys.executable, "-m", "benchmarks.first_hour.steps", name, "{}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        return {"ended_with": done.returncode, "words": done.stderr[-300:]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def _folder() -> Iterator[Path]:
    """In memory where there is such a folder: what is measured is not the disk."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="mribatch-", dir=memory if memory.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: Sequence[str]) -> None:
    name, settings = arguments[0], Settings(**({"model": ""} | json.loads(arguments[1])))
    print(json.dumps((STEPS | _CHILDREN)[name](settings)))


if __name__ == "__main__":
    main(sys.argv[1:])
