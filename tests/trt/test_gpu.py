"""On a real GPU: build, parity, ten thousand images, images on the GPU already, a tampered engine, a wrong version, too little memory.

Run with `make test-gpu`. Each flavor that is installed is tried; the one that is not is skipped with its reason.
"""

import dataclasses
import json
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy import uint8

from mribatch.core.bundle import Bundle, load_bundle
from mribatch.core.errors import MribatchError
from mribatch.core.gate import ON_GPU, SPREAD_ON_GPU, gate
from mribatch.core.synthetic import golden_slices
from mribatch.trt.backend import open_backend
from mribatch.trt.engine.cache import EngineCache, EngineFile, read_engine
from mribatch.trt.engine.inspect import read_layers
from mribatch.trt.engine.provider import EngineProvider
from mribatch.trt.engine.sidecar import EngineIdentity, sidecar_path
from mribatch.trt.gpu import Gpu, NoGpu, find_gpu
from mribatch.trt.image_agreement import compare_on_images
from mribatch.trt.library import Flavor, find_installed_version
from mribatch.trt.request import FP32, BatchProfile, EngineRequest
from mribatch.trt.runtime.classifier import TensorRTClassifier, deserialize
from mribatch.trt.support import supports
from tests.trt.engine.watched import Watched

pytestmark = pytest.mark.gpu

BATCH = BatchProfile(64, 64)


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    found = find_gpu()
    if isinstance(found, NoGpu):
        pytest.skip(f"no GPU: {found.reason}")
    return found


@pytest.fixture(scope="module", params=list(Flavor), ids=str)
def request_for(request: pytest.FixtureRequest, gpu: Gpu) -> EngineRequest:
    if find_installed_version(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    if not supports(request.param, gpu.target):
        pytest.skip(f"{request.param} has no kernels for the {gpu}")
    return EngineRequest(flavor=request.param, target=gpu.target, batch=BATCH)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> EngineCache:
    return EngineCache(tmp_path_factory.mktemp("gpu") / "cache")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle("cnn")


@pytest.fixture(scope="module")
def built(bundle: Bundle, cache: EngineCache, request_for: EngineRequest) -> EngineFile:
    return EngineProvider(bundle, cache).find_or_build(request_for).file


def test_the_engine_is_built_for_this_gpu_and_verified_on_it(built: EngineFile, gpu: Gpu) -> None:
    assert built.sidecar.verified == ON_GPU and built.sidecar.gpu_name == gpu.name
    assert built.sidecar.target == gpu.target


def test_the_layers_compute_in_half(built: EngineFile) -> None:
    text = json.dumps(read_layers(built).layers).lower()
    assert "half" in text or "fp16" in text


def test_parity_in_both_precisions(
    bundle: Bundle, cache: EngineCache, request_for: EngineRequest, built: EngineFile
) -> None:
    single = dataclasses.replace(request_for, precision=FP32)
    for request, content in (
        (request_for, built.content),
        (single, EngineProvider(bundle, cache).find_or_build(single).file.content),
    ):
        with TensorRTClassifier(bundle, content, request) as classify:
            report = gate(classify, bundle, batch_sizes=BATCH.gate_sizes)
        assert report.holds, str(report)


def test_ten_thousand_images_are_answered_alike_every_time(
    bundle: Bundle, built: EngineFile, request_for: EngineRequest
) -> None:
    pytest.importorskip("onnxruntime")
    from mribatch.pipeline.inference.onnxruntime import OnnxRuntimeClassifier

    slices = golden_slices(500, bundle.spec.height, bundle.spec.width)
    with TensorRTClassifier(bundle, built.content, request_for) as classify:
        answers = [classify(np.roll(slices, shift, axis=2)) for shift in range(20)]
        assert sum(map(len, answers)) == 10_000 and all(np.isfinite(one).all() for one in answers)
        for shift in (0, 7, 19):  # other batches ran in between
            again = classify(np.roll(slices, shift, axis=2))
            np.testing.assert_allclose(again, answers[shift], rtol=0, atol=SPREAD_ON_GPU)
        order = np.random.default_rng(0).permutation(500)  # other neighbours, other places
        moved = classify(slices[order])
        np.testing.assert_allclose(moved, answers[0][order], rtol=0, atol=SPREAD_ON_GPU)
        print(f"{request_for}: moved rows differ by up to {np.abs(moved - answers[0][order]).max():.1e}")
    with OnnxRuntimeClassifier(bundle, 4) as first, TensorRTClassifier(bundle, built.content, request_for) as second:
        agreement = compare_on_images(first, second, [slices])
    assert agreement.reaches_goal, str(agreement)


@pytest.mark.parametrize("synchronised", [False, True], ids=["its stream waited for", "synchronised"])
def test_a_batch_on_the_gpu_is_read_where_it_lies(
    bundle: Bundle, built: EngineFile, request_for: EngineRequest, synchronised: bool
) -> None:
    from mribatch.trt.runtime.cuda import CudaDevice

    slices = golden_slices(BATCH.maximum, bundle.spec.height, bundle.spec.width)
    device = CudaDevice()
    device.open()
    producer = device.stream()
    host, target = device.pinned(slices.nbytes), device.allocate(slices.nbytes, producer)
    interface = {"shape": slices.shape, "typestr": "|u1", "data": (target.address, False), "version": 3}
    with TensorRTClassifier(bundle, built.content, request_for) as classify:
        expected = classify(slices)
        for shift in (0, 7, 19):
            host.view(uint8, slices.shape)[:] = np.roll(slices, shift, axis=0)
            device.upload(host, target, producer)  # classify must wait for it: the host does not
            if synchronised:
                producer.wait()
            streams = (None, 1, 2) if synchronised else (producer.handle,)
            for stream in streams:
                answers = classify(SimpleNamespace(__cuda_array_interface__=interface | {"stream": stream}))
                np.testing.assert_allclose(answers, np.roll(expected, shift, axis=0), rtol=0, atol=SPREAD_ON_GPU)
        np.testing.assert_allclose(classify(slices), expected, rtol=0, atol=SPREAD_ON_GPU)
    for buffer in (host, target):
        buffer.close()
    producer.close()


def test_a_tampered_engine_never_reaches_the_library(
    bundle: Bundle, built: EngineFile, request_for: EngineRequest
) -> None:
    content = bytearray(built.content)
    content[len(content) // 2] ^= 1
    built.path.write_bytes(content)
    with pytest.raises(MribatchError, match="engine_sha256"):
        read_engine(built.path)
    progress = Watched()
    again = EngineProvider(bundle, EngineCache(built.path.parent), progress).find_or_build(request_for)
    assert not again.from_cache and "engine_sha256" in progress.notes[0]


@pytest.mark.parametrize("content", [b"", b"no engine", bytes(4096)], ids=["empty", "text", "zeros"])
def test_what_is_no_engine_is_refused_in_one_line(content: bytes, request_for: EngineRequest) -> None:
    with pytest.raises(MribatchError, match="cannot load the engine"):
        deserialize(request_for.flavor, content)


def test_half_an_engine_is_refused_in_one_line(built: EngineFile, request_for: EngineRequest) -> None:
    with pytest.raises(MribatchError, match="cannot load the engine"):
        deserialize(request_for.flavor, built.content[: len(built.content) // 2])


def test_an_engine_of_another_version_is_built_anew_beside_it(
    bundle: Bundle, request_for: EngineRequest, built: EngineFile, tmp_path: Path
) -> None:
    cache = EngineCache(tmp_path / "cache")
    identity = dataclasses.replace(EngineIdentity.of(request_for, built.sidecar.onnx_sha256), version="0.0.0.1")
    digest = sha256(built.content).hexdigest()
    sidecar = dataclasses.replace(built.sidecar, trt_version="0.0.0.1", engine_sha256=digest)
    with cache.locked():
        old = cache.store(identity, bundle.spec.name, built.content, sidecar).path
    progress = Watched()
    new = EngineProvider(bundle, cache, progress).find_or_build(request_for)
    assert not new.from_cache and old.exists() and sidecar_path(old).exists()
    assert "trt_version is 0.0.0.1" in progress.notes[0]


def test_too_little_memory_is_one_line_and_the_gpu_works_on(
    bundle: Bundle, gpu: Gpu, built: EngineFile, request_for: EngineRequest
) -> None:
    from mribatch.trt.runtime.cuda import CudaDevice

    device = CudaDevice()
    device.open()
    stream = device.stream()
    with pytest.raises(MribatchError, match="could not allocate"):
        device.allocate(gpu.memory_bytes * 2, stream)
    stream.close()
    with TensorRTClassifier(bundle, built.content, request_for) as classify:
        assert classify(np.zeros((1, bundle.spec.height, bundle.spec.width, 1), uint8)).shape == (
            1,
            len(bundle.spec.classes),
        )


def test_the_backend_of_a_run_comes_from_the_cache(bundle: Bundle, cache: EngineCache, built: EngineFile) -> None:
    with open_backend(bundle, BATCH.maximum, cache=cache) as backend:
        assert backend.classifier.precision == "fp16" and "holds" in backend.reason and backend.report.holds
        assert len(backend.classifier(bundle.golden.images)) == len(bundle.golden.images)
