"""Settings for a GPU: the search for the fastest, where they are kept, and what a run takes of them."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.host_rate.__main__ import STAND_INS
from mribatch.core.bundle import Bundle, load_bundle
from mribatch.core.errors import MribatchError
from mribatch.pipeline.choices import Machine
from mribatch.pipeline.decode.dali_graph import GpuDecoding
from mribatch.pipeline.inference.order import WorkOrder
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.run_file import read_run_file
from mribatch.pipeline.records import Choice
from mribatch.pipeline.tune import LEAST_GAIN, RunTrials, Setting, Trial, _require_gpu, find_usual_size, search
from mribatch.pipeline.tuning import apply_tuning, take_workers
from mribatch.pipeline.workers import Workers
from mribatch.trt.engine.cache import EngineCache
from mribatch.trt.gpu import Gpu, NoGpu
from mribatch.trt.library import Flavor
from mribatch.trt.tuning import Tuning, TuningKey
from tests.folders import draw_images
from tests.trt.fake_gpu.machine import DALI, H100, ROOT, TENSORRT, build_libcuda, make_machine

TUNING = Tuning(
    batch_size=256,
    workers=4,
    threads=4,
    hw_decoder_load=0.0,
    huffman_threshold=100_000,
    width=512,
    height=400,
    images_per_second=12_345.6,
    measured="2026-11-27",
)
KEY = TuningKey(
    gpu="NVIDIA L4", memory_bytes=24 << 30, cores=16, bundle_sha256="ab" * 32, versions={"tensorrt": "11.4.0.106"}
)


def machine(setting: Setting) -> float | None:
    """A host that feeds 8,000 images/s a process up to 24,000, and a GPU that gains by batches until it is full."""
    if setting.batch_size > 256:
        return None
    fed = min(8000.0 * setting.workers, 24_000) * (1 if setting.threads * setting.workers >= 16 else 0.8)
    decoded = 20_000 if setting.hw_decoder_load else 14_000
    return min(fed, decoded, 10_000 + 50 * setting.batch_size)


def found_by(measure: Callable[[Setting], float | None], cores: int = 16) -> tuple[Setting, list[Trial]]:
    told: list[Trial] = []
    trials = search(cores, 512, measure, told.append)
    assert sorted(told, key=str) == sorted(trials, key=str), "every trial is told"
    assert len({trial.setting for trial in trials}) == len(trials), "nothing is tried twice"
    return trials[0].setting, trials


def test_the_fastest_setting_is_found_and_what_does_not_fit_is_not_taken() -> None:
    best, trials = found_by(machine)
    assert (best.batch_size, best.hw_decoder_load) == (256, 1.0) and best.workers >= 3
    rate = machine(best)
    assert rate is not None and rate >= max(trial.images_per_second or 0 for trial in trials) / LEAST_GAIN
    too_large = [trial for trial in trials if trial.setting.batch_size == 512]
    assert too_large and all(str(trial).endswith("too little GPU memory") for trial in too_large)


def test_what_is_within_noise_changes_nothing() -> None:
    first = Setting(batch_size=64, workers=1, threads=2)

    def noisy(setting: Setting) -> float:
        return 1000 * (1.02 if setting != first else 1)

    assert found_by(noisy, cores=2)[0] == first


def test_no_more_workers_than_cores_are_tried() -> None:
    _, trials = found_by(machine, cores=2)
    assert {trial.setting.workers for trial in trials} == {1, 2}


def test_where_nothing_fits_the_reason_is_told() -> None:
    with pytest.raises(MribatchError, match="batches of 64 do not fit into the GPU"):
        search(2, 512, lambda _: None, lambda _: None)


def test_a_tuning_is_found_again_for_the_same_only(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "cache")
    assert cache.read_tuning(KEY) is None
    path = cache.store_tuning(KEY, TUNING)
    assert path.parent == cache.folder and path.stat().st_mode & 0o077 == 0
    assert cache.read_tuning(KEY) == TUNING
    others: list[dict[str, Any]] = [
        {"gpu": "NVIDIA L40"},
        {"memory_bytes": 12 << 30},
        {"cores": 8},
        {"bundle_sha256": "cd" * 32},
        {"versions": {"tensorrt": "11.4.0.107"}},
    ]
    for change in others:
        assert cache.read_tuning(replace(KEY, **change)) is None, change
    cache.store_tuning(KEY, replace(TUNING, batch_size=64))
    found = cache.read_tuning(KEY)
    assert found is not None and found.batch_size == 64


@pytest.mark.parametrize("damage", ["cut", "other key", "nonsense", "half a load", "not ours"])
def test_a_damaged_tuning_is_none(tmp_path: Path, damage: str) -> None:
    cache = EngineCache(tmp_path / "cache")
    path = cache.store_tuning(KEY, TUNING)
    content = json.loads(path.read_bytes())
    if damage == "other key":
        content["key"]["cores"] = 8
    elif damage == "nonsense":
        content["tuning"]["workers"] = 0
    elif damage == "half a load":
        content["tuning"]["hw_decoder_load"] = 0.65
    text = json.dumps(content)
    path.write_text(text[: len(text) // 2] if damage == "cut" else text)
    if damage == "not ours":
        path.chmod(0o622)
    assert cache.read_tuning(KEY) is None


def test_cleaning_the_cache_takes_tunings_along_and_stale_engines_do_not(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "cache")
    path = cache.store_tuning(KEY, TUNING)
    with cache.locked():
        cache.clean()
    assert not path.exists()


@pytest.fixture(scope="module")
def order(tiny_model: Path) -> WorkOrder:
    bundle: Bundle = load_bundle(str(tiny_model))
    return WorkOrder(
        model=str(bundle.folder),
        bundle_sha256=bundle.sha256,
        backend=Choice("onnxruntime", "a test"),
        decoder=Choice("opencv", "a test"),
        precision=Choice("fp32", "a test"),
        batch_size=64,
        threads=2,
        max_pixels=10**8,
        timeout_s=60.0,
    )


def test_a_run_takes_what_was_measured_and_leaves_what_the_user_said(order: WorkOrder) -> None:
    tuned = apply_tuning(order, TUNING, ClassifyOptions())
    assert (tuned.batch_size, tuned.threads, tuned.any_batch) == (256, 16, True)
    wanted = GpuDecoding(hw_load=0.0, huffman_threshold=100_000, width=512, height=400)
    assert tuned.gpu_decoding == wanted and WorkOrder.from_json(tuned.to_json()) == tuned
    assert not replace(tuned, shares_cores=True).gpu_decoding.pinned
    own = apply_tuning(order, TUNING, ClassifyOptions(batch_size=32, threads=3))
    assert (own.batch_size, own.threads, own.any_batch) == (32, 3, False), "an engine for these batches"


def test_workers_are_those_measured_unless_the_user_shares_the_work_otherwise() -> None:
    one, two = Workers(1), Workers(2, ("0", "1"))
    assert take_workers(ClassifyOptions(), one, TUNING) == Workers(4)
    assert take_workers(ClassifyOptions(gpus="0,1"), two, TUNING) == Workers(8, ("0", "1")), "as many for each GPU"
    auto = take_workers(ClassifyOptions(workers="auto"), two, TUNING)
    assert auto.count == 8 and auto.reason == "as mribatch engine tune has measured"
    for options in (ClassifyOptions(workers=1), ClassifyOptions(workers=3, gpus="0,1"), ClassifyOptions(on="ray")):
        assert take_workers(options, one, TUNING) is one


def test_dali_is_told_of_everything_that_was_measured() -> None:
    assert GpuDecoding().arguments == {"device": "mixed", "hw_decoder_load": 1.0, "affine": True}
    assert GpuDecoding(hw_load=0.0, huffman_threshold=5, width=2, height=3, pinned=False).arguments == {
        "device": "mixed",
        "hw_decoder_load": 0.0,
        "affine": False,
        "hybrid_huffman_threshold": 5,
        "preallocate_width_hint": 2,
        "preallocate_height_hint": 3,
    }


def test_the_usual_size_is_that_of_nearly_all_files(tmp_path: Path) -> None:
    paths = draw_images(tmp_path, 30, size=40)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    assert find_usual_size([*paths, tmp_path / "broken.jpg"]) == (40, 40)
    assert find_usual_size([tmp_path / "broken.jpg"]) == (None, None)


def test_a_trial_is_real_workers_on_real_files(order: WorkOrder, tmp_path: Path) -> None:
    paths = draw_images(tmp_path, 8, size=40)
    notes: list[str] = []
    measure = RunTrials(order, paths, seconds=0.3, log=tmp_path / "log", note=notes.append)
    rate = measure(Setting(batch_size=4, workers=2, threads=1))
    assert rate is not None and rate > 0
    assert (tmp_path / "log").read_text().count(" started") == 2


def test_what_ends_a_worker_ends_the_trial(order: WorkOrder, tmp_path: Path) -> None:
    paths = draw_images(tmp_path, 2, size=40)
    broken = replace(order, bundle_sha256="0" * 64)
    with pytest.raises(MribatchError, match="has changed since the run began"):
        RunTrials(broken, paths, seconds=0.1, log=None, note=lambda _: None)(
            Setting(batch_size=4, workers=2, threads=1)
        )


def test_a_setting_survives_in_a_tuning() -> None:
    setting = Setting(batch_size=128, workers=2, threads=3, hw_decoder_load=0.0, huffman_threshold=100_000)
    tuning = Tuning(**asdict(setting), images_per_second=1.0, measured="2026-01-01")
    assert {name: getattr(tuning, name) for name in asdict(setting)} == asdict(setting)
    assert "batches of 128" in str(tuning) and "without its JPEG engine" in str(tuning)


L4_GPU = Gpu("NVIDIA L4", "8.9", 24 << 30, "13.0", "13.0")


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (
            Machine(NoGpu("CUDA lists no device", "check nvidia-smi"), (), True),
            "there is no GPU to tune for: CUDA lists",
        ),
        (Machine(L4_GPU, (), True), "neither TensorRT nor TensorRT for RTX is installed"),
        (Machine(L4_GPU, (Flavor.TENSORRT,), False), "tuning needs NVIDIA DALI, and it is not installed"),
    ],
    ids=["no GPU", "no TensorRT", "no DALI"],
)
def test_what_is_missing_is_told_with_a_fix_of_this_command(machine: Machine, words: str) -> None:
    with pytest.raises(MribatchError, match=words) as caught:
        _require_gpu(machine)
    assert "--backend" not in str(caught.value) and "--decoder" not in str(caught.value)
    assert _require_gpu(Machine(L4_GPU, (Flavor.TENSORRT,), True)) == L4_GPU


_STORE = """
import os, sys
from mribatch.core.bundle import load_bundle
from mribatch.pipeline.tuning import make_tuning_key
from mribatch.trt.engine.cache import EngineCache
from mribatch.trt.gpu import Gpu, NoGpu
from mribatch.trt.library import Flavor
from mribatch.trt.gpu import find_gpu
from mribatch.trt.tuning import Tuning
load, size = float(sys.argv[1]), int(sys.argv[2])
tuning = Tuning(
    batch_size=size, workers=2, threads=1, hw_decoder_load=load, images_per_second=5.0, measured="2026-11-27"
)
EngineCache().store_tuning(make_tuning_key(load_bundle(os.environ["STAND_IN_MODEL"]), find_gpu()), tuning)
"""


@pytest.mark.slow
def test_a_tuned_run_says_so_and_keeps_to_its_tuning(tmp_path: Path, tiny_model: Path) -> None:
    """On a GPU in memory whose decoding and inference are stand-ins."""
    pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed: pip install '.[dali]'")
    machine = make_machine(tmp_path / "machine", build_libcuda(tmp_path), [H100], [TENSORRT, DALI])
    free = {"PYTHONPATH": f"{STAND_INS}:{ROOT}", "STAND_IN_MODEL": str(tiny_model)}
    draw_images(tmp_path / "slices", 1100)  # two parts, for two workers
    command: list[str | Path] = ["classify", tmp_path / "slices", "--out", tmp_path / "run"]
    command += ["--model", tiny_model, "--threads", "2"]
    machine.run("-c", _STORE, "0", "128", more=free)
    done = machine.mribatch(*command, more=free, limit_s=1200)
    assert "tuned for this GPU: batches of 128, 2 workers of 1 threads, decoded without its JPEG engine" in done.stderr
    run = read_run_file(tmp_path / "run")
    assert (run.backend, run.decoder, run.batch_size) == ("tensorrt", "dali", 128), run.reasons
    assert run.tuning is not None and run.tuning.workers == 2 and run.fingerprint["hw_decoder_load"] == 0.0
    assert len(list(machine.cache.glob("*.engine"))) == 1, "one for every batch size"
    first = sorted((tmp_path / "run" / "predictions").glob("part-*.parquet"))
    assert len(first) == 2
    first[1].unlink()
    machine.run("-c", _STORE, "1", "256", more=free)  # tuned again meanwhile, with another result
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(record | {"state": "running", "counts": {}}))
    machine.mribatch(*command, more=free, limit_s=1200)
    resumed = read_run_file(tmp_path / "run")
    assert resumed.tuning == run.tuning and resumed.counts is not None and resumed.counts.rows == 1100
