"""How close a whole run comes to what the cores can do: python -m benchmarks.cpu_ceiling [--data FOLDER]

The ceiling is cores / (core-seconds of decoding + core-seconds of inference per image), CPU time both. It is measured
twice: with every core at work, which is what a run can reach, since cores share caches, memory and clock; and on one
core while the others idle, which no full machine reaches. End to end is the wall time of the whole `classify` call:
listing, loading, proving the model, rows, the final check.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.conditions import RESULTS, conditions, spread
from mribatch.core.bundle import DEFAULT_MODEL, Bundle, load_bundle
from mribatch.core.cores import usable_cores
from mribatch.core.files import write_json
from mribatch.core.synthetic import draw_slice
from mribatch.pipeline.decode.opencv import OpenCvDecoder
from mribatch.pipeline.decode.probe import DEFAULT_MAX_PIXELS
from mribatch.pipeline.inference.onnxruntime import OnnxRuntimeClassifier
from mribatch.pipeline.options import BATCH_SIZE_PER_CORE, ClassifyOptions
from mribatch.pipeline.records import DecodedBatch, ImageFile
from mribatch.pipeline.run import classify

SIDE = 512  # pixels; most slices of the public brain tumour sets have it
SAMPLE = 320  # images for the core-seconds
BATCH_SIZE = BATCH_SIZE_PER_CORE * usable_cores()  # as a run chooses it


def draw_folder(folder: Path, count: int) -> None:
    """`count` synthetic JPEG slices of 512 x 512 pixels; 64 drawings, stored again and again."""
    images = drawn_jpegs()
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:06d}.jpg").write_bytes(images[number % len(images)])


def drawn_jpegs() -> list[bytes]:
    """64 different synthetic slices of 512 x 512 pixels, as JPEG files."""
    import cv2

    return [cv2.imencode(".jpg", draw_slice(seed, SIDE, SIDE))[1].tobytes() for seed in range(64)]


def image_paths(data: Path) -> list[Path]:
    """The JPEG and PNG files of a folder and its sub-folders, in order."""
    return [path for path in sorted(data.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]


def sample_files(paths: Sequence[Path]) -> list[ImageFile]:
    """About SAMPLE of the files, at even distances."""
    sample = paths[:: max(1, len(paths) // SAMPLE)]
    return [ImageFile(index, 0, path.name, bytes(path)) for index, path in enumerate(sample)]


def measure(data: Path, model: str, repeats: int) -> dict[str, Any]:
    """Core-seconds per image and whole runs, taken in turns."""
    bundle, cores = load_bundle(model), usable_cores()
    paths = image_paths(data)
    files = sample_files(paths)
    figures: dict[str, list[float]] = {}
    for repeat in range(repeats + 1):  # the first warms up
        once = _once(files, data, model, bundle, cores)
        if repeat:
            for key, value in once.items():
                figures.setdefault(key, []).append(value)
    facts = {
        "model": bundle.spec.name,
        "model_sha256": bundle.spec.model_sha256,
        "images": len(paths),
        "batch_size": BATCH_SIZE,
    }
    return facts | {key: spread(values) for key, values in figures.items()}


def _once(files: Sequence[ImageFile], data: Path, model: str, bundle: Bundle, cores: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, threads in (("all_cores_busy", cores), ("one_core_alone", 1)):
        decode, infer = core_seconds(files, bundle, threads, BATCH_SIZE)
        figures[f"decode_core_seconds_{name}"] = decode
        figures[f"inference_core_seconds_{name}"] = infer
        figures[f"ceiling_{name}"] = cores / (decode + infer)
    with tempfile.TemporaryDirectory(prefix="mribatch-bench-") as out:
        options = ClassifyOptions(model=model, backend="onnxruntime", decoder="opencv")  # also where a GPU is
        whole, rows = end_to_end(data, Path(out) / "run", options)
    figures["whole_call_images_per_second"], figures["rows_images_per_second"] = whole, rows
    for name in ("all_cores_busy", "one_core_alone"):
        for what in ("whole_call", "rows"):
            figures[f"{what}_to_ceiling_{name}"] = figures[f"{what}_images_per_second"] / figures[f"ceiling_{name}"]
    return figures


def core_seconds(files: Sequence[ImageFile], bundle: Bundle, threads: int, batch_size: int) -> tuple[float, float]:
    """CPU seconds per image of decoding with OpenCV and of inference with ONNX Runtime, each stage by itself."""
    decode, batches = _decoding(files, bundle, threads, batch_size)
    return decode, _inference(batches, bundle, threads)


def _decoding(
    files: Sequence[ImageFile], bundle: Bundle, threads: int, batch_size: int
) -> tuple[float, list[DecodedBatch]]:
    decoder = OpenCvDecoder(
        height=bundle.spec.height,
        width=bundle.spec.width,
        batch_size=batch_size,
        threads=threads,
        max_pixels=DEFAULT_MAX_PIXELS,
        timeout_s=60,
    )
    remaining = iter(files)
    groups = iter(lambda: list(islice(remaining, batch_size)), [])
    with decoder:
        batches = list(decoder.batches(groups))
    return sum(file.seconds for batch in batches for file in batch.files) / len(files), batches


def _inference(batches: Sequence[DecodedBatch], bundle: Bundle, threads: int) -> float:
    images = sum(len(batch.pixels) for batch in batches)
    with OnnxRuntimeClassifier(bundle, threads) as classifier, ThreadPoolExecutor(2 if threads > 1 else 1) as pool:
        classifier(batches[0].pixels)
        begin = time.process_time()
        list(pool.map(classifier, [batch.pixels for batch in batches]))
        return (time.process_time() - begin) / images


def end_to_end(data: Path, out: Path, options: ClassifyOptions) -> tuple[float, float]:
    """Images per second of the whole `classify` call into a new folder `out`, and of its rows alone."""
    begin = time.perf_counter()
    summary = classify([data], out, options)
    whole = summary.files / (time.perf_counter() - begin)
    assert summary.images_per_second is not None, "the run was there already"
    return whole, summary.images_per_second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of real images; synthetic ones are drawn without it")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--count", type=int, default=6000, help="synthetic images to draw")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mribatch-bench-") as scratch:
        facts = conditions()
        data = options.data or Path(scratch) / "data"
        if options.data is None:
            draw_folder(data, options.count)
        result = measure(data, options.model, options.repeats)
    kind = "real" if options.data else f"synthetic{SIDE}px"
    name = f"cpu_ceiling-{result['model']}-{kind}-{facts['cores']}cores-batch{BATCH_SIZE}.json"
    options.results.mkdir(parents=True, exist_ok=True)
    write_json(options.results / name, {"conditions": facts, "data": kind} | result)
    shown = [key for key in result if key.startswith(("ceiling_", "whole_call_", "rows_"))]
    for key in shown:
        print(f"{key:<40}{result[key]['median']:10.3f}  ({result[key]['low']:.3f} to {result[key]['high']:.3f})")
    print(f"written: {options.results / name}")


if __name__ == "__main__":
    main()
