"""What only a GPU can show of DALI: `mixed` decoding against the CPU backend, broken files, the whole run on `auto`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy import uint8
from numpy.typing import NDArray

from mribatch.core.bundle import DEFAULT_MODEL, load_bundle
from mribatch.core.errors import ExitCode
from mribatch.pipeline.decode.dali import DaliDecoder, OnGpu
from mribatch.pipeline.decode.dali_graph import CPU, FIRST_GPU, DaliDevice, GraphOptions
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.records import ImageFile
from mribatch.pipeline.run import classify
from mribatch.trt.gpu import NoGpu, find_gpu
from mribatch.trt.runtime.device_array import check_device_images
from tests.broken_files import broken_files, good_files
from tests.folders import draw_images, rows

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(isinstance(find_gpu(), NoGpu), reason="there is no GPU")]
pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed: pip install '.[dali]'")

BATCH = 64


def decoded(device: DaliDevice, paths: Sequence[Path]) -> tuple[list[str], NDArray[uint8]]:
    files = [ImageFile(index, 0, path.name, bytes(path)) for index, path in enumerate(paths)]
    graph = GraphOptions(device=device, height=160, width=160, threads=4)
    with DaliDecoder(graph, batch_size=BATCH, max_pixels=10**8, timeout_s=60) as decoder:
        batches = list(decoder.batches([files[start : start + BATCH] for start in range(0, len(files), BATCH)]))
    statuses = [file.verdict.status.value for batch in batches for file in batch.files]
    return statuses, np.concatenate([batch.pixels for batch in batches])[: len(files)]


def test_mixed_decoding_is_the_cpus_within_a_few_levels(tmp_path: Path) -> None:
    paths = draw_images(tmp_path, 5 * BATCH + 7, size=200)
    statuses, on_gpu = decoded(FIRST_GPU, paths)
    _, on_cpu = decoded(CPU, paths)
    difference = np.abs(on_gpu.astype(int) - on_cpu)
    print(f"mixed against cpu: largest difference {difference.max()}, mean {difference.mean():.3f} of 255")
    assert set(statuses) == {"ok"} and difference.mean() < 0.5 and difference.max() <= 8
    assert np.array_equal(decoded(FIRST_GPU, paths)[1], on_gpu), "twice the same"


def test_the_batch_stays_where_it_is() -> None:
    """DALI's own memory, as the engine will read it: dense, aligned, complete."""
    from nvidia.dali import Pipeline, fn, types

    pipeline = Pipeline(batch_size=4, num_threads=1, device_id=0)
    with pipeline:
        grey = fn.external_source(
            source=lambda: [np.full((160, 160, 1), n, uint8) for n in range(4)], dtype=types.UINT8
        )
        pipeline.set_outputs(grey.gpu())
    pipeline.build()
    (images,) = pipeline.run()
    found = check_device_images(OnGpu(images), (4, 160, 160, 1))
    assert found.stream is None and found.address % 256 == 0


def test_verdicts_on_broken_files_are_the_cpus(tmp_path: Path) -> None:
    for number, (name, (content, _)) in enumerate(broken_files().items()):
        (tmp_path / f"{number:03d}_{name}").write_bytes(content)
    for name, content in good_files().items():
        (tmp_path / f"good_{name}").write_bytes(content)
    paths = sorted(tmp_path.iterdir())
    assert decoded(FIRST_GPU, paths)[0] == decoded(CPU, paths)[0]


def test_auto_takes_the_gpu_and_gives_the_cpus_classes(tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 10 * BATCH, size=300)
    for number, (name, (content, _)) in enumerate(broken_files().items()):
        (tmp_path / "data" / f"{number:03d}_{name}").write_bytes(content)
    summary = classify([tmp_path / "data"], tmp_path / "gpu", ClassifyOptions(keep_going=True))
    classify(
        [tmp_path / "data"], tmp_path / "cpu", ClassifyOptions(keep_going=True, backend="onnxruntime", decoder="opencv")
    )
    assert summary.decoder == "dali" and summary.exit_code is ExitCode.ROWS_NOT_OK
    for cpu, gpu in zip(rows(tmp_path / "cpu"), rows(tmp_path / "gpu"), strict=True):
        assert cpu["status"] == gpu["status"]
        changed = cpu["predicted"] != gpu["predicted"]
        assert not changed or cpu["margin"] < 0.05, cpu["path"]
    assert load_bundle(DEFAULT_MODEL).spec.classes
